//! All are in one hand but one honest auditor, and there are n false leaves: how often are they not
//! seen, and what does the proof print?

use std::collections::BTreeMap;

use concord_proto::WorkerId;
use concord_proto::auditor::{self, escape};
use concord_proto::ledger::LedgerEvent;
use concord_verify::training::bundle;

use super::super::job::job;
use super::super::lies::Kind;
use super::super::rng::Rng;
use super::draft::{Draft, Tried};
use super::watchman::Watchman;

/// What the one hand does where the auditor draws a false leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ruse {
    /// Nothing: the auditor says what it finds.
    Nothing,
    /// The worker of the leaf gives no inputs.
    WithholdsInputs,
    /// What the auditor found does not get into the ledger.
    DropsVerdict,
    /// The attempt is void, and the step is done again, with a lie again.
    VoidsAttempt,
    /// The same, and the secret that drew the leaf gets into the ledger after that.
    VoidsFirst,
    /// The worker of the leaf is convicted of it, and the step is done again, with a lie again, by
    /// another key of the same hand.
    ConvictsWorker,
    /// The reveal that drew the leaf does not get into the ledger, nor does any after it.
    DropsReveals,
    /// All secrets are opened at the end alone, and what the auditor finds then is dropped.
    OpensLate,
}

impl Ruse {
    pub const ALL: [Self; 8] = [
        Self::Nothing,
        Self::WithholdsInputs,
        Self::DropsVerdict,
        Self::VoidsAttempt,
        Self::VoidsFirst,
        Self::ConvictsWorker,
        Self::DropsReveals,
        Self::OpensLate,
    ];

    /// Its name for people and scripts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "hides nothing",
            Self::WithholdsInputs => "withholds inputs",
            Self::DropsVerdict => "drops the verdict",
            Self::VoidsAttempt => "voids the attempt",
            Self::VoidsFirst => "voids it, then opens the secret",
            Self::ConvictsWorker => "convicts the worker",
            Self::DropsReveals => "drops reveals",
            Self::OpensLate => "has secrets opened late",
        }
    }
}

/// Lies that no rule shows, and that are one leaf each.
const LIES: [Kind; 2] = [Kind::SkipUpdate, Kind::WrongNorm];

/// A step is not done more often than that.
const TRIES_MAX: u32 = 64;

/// What became of jobs with so many false leaves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CollusionCounts {
    pub jobs: u64,
    /// Jobs that `verify` does not refute, by how many attempts it says are not settled.
    pub unseen: BTreeMap<u32, u64>,
}

/// The share of jobs whose lie was not seen, and what the proof prints at most for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CollusionRow {
    /// The most unsettled attempts that a reader accepts.
    pub unsettled: u32,
    pub unseen: u64,
    pub jobs: u64,
    /// The probability of an escape as it is printed.
    pub printed: f64,
}

impl CollusionCounts {
    pub fn add(&mut self, other: &Self) {
        self.jobs += other.jobs;
        for (unsettled, count) in &other.unseen {
            *self.unseen.entry(*unsettled).or_default() += count;
        }
    }

    /// For each number of unsettled attempts that a reader may accept, the share of jobs that it
    /// would accept. The proof prints this or a lower chance for the lie to go unseen, so the share
    /// must not be above it.
    pub fn rows(&self, rate: u64, lies: u32) -> Vec<CollusionRow> {
        let row = |unsettled: u32| CollusionRow {
            unsettled,
            unseen: self
                .unseen
                .range(..=unsettled)
                .map(|(_, count)| count)
                .sum(),
            jobs: self.jobs,
            printed: escape(rate, lies.into(), unsettled.into()),
        };
        (0..lies).map(row).collect()
    }
}

/// Makes up a job of `steps` steps, of which the last `lies` have a false leaf each, or all.
///
/// # Panics
/// Where the proof is refuted for another reason than that the lie was found.
pub fn collude(seed: u64, ruse: Ruse, (steps, lies): (u32, u32), rate: u64) -> CollusionCounts {
    let mut dice = Rng::new(seed);
    let mut new = job(steps, (1, 1), false);
    new.submission.spec.microbatches = 1 + dice.below(2) as u32;
    let stages = 1 + u32::from(dice.chance(4));
    let mut draft = Draft::begin(dice.number(), (new, stages), rate);
    // Which steps are false: those of a run of them that begins anywhere.
    let first = dice.below(u64::from(steps - lies + 1)) as u32;
    let mut hand = Hand {
        ruse,
        is_found: false,
        is_mute: false,
        late: Vec::new(),
    };
    while draft.step() < steps {
        let is_false = (first..first + lies).contains(&draft.step());
        let kind = is_false.then(|| LIES[dice.below(2) as usize]);
        hand.step(&mut draft, kind);
    }
    hand.open_late(&mut draft);
    let shown = bundle::verify(&draft.finish());
    let mut counts = CollusionCounts {
        jobs: 1,
        ..CollusionCounts::default()
    };
    match shown {
        Ok(report) => {
            assert!(
                !hand.is_found,
                "what the auditor found is in a proof that holds"
            );
            let own = &report.auditors[0];
            assert_eq!((own.rate, own.steps), (rate, steps));
            counts.unseen.insert(own.unsettled, 1);
        }
        Err(error) => assert!(hand.is_found, "the proof fails: {error}"),
    }
    counts
}

/// The one hand.
struct Hand {
    ruse: Ruse,
    /// Whether the ledger says that a leaf is wrong.
    is_found: bool,
    /// Whether the auditor is asked nothing any more.
    is_mute: bool,
    /// Attempts whose secrets are not opened yet.
    late: Vec<Tried>,
}

impl Hand {
    /// Does a step, until it is as it wants it.
    fn step(&mut self, draft: &mut Draft, kind: Option<Kind>) {
        for _ in 0..TRIES_MAX {
            let tried = draft.attempt(kind);
            if self.ruse == Ruse::OpensLate {
                return self.late.push(tried);
            }
            if self.is_mute {
                return;
            }
            let step = tried.step;
            if !self.settle(draft, &tried) {
                return;
            }
            // It may be void by now.
            if draft.step() > step {
                draft.void(step);
            }
        }
        panic!("{TRIES_MAX} attempts in a row were drawn");
    }

    /// Has the auditor draw from an attempt, and writes of it what suits. Says whether the attempt
    /// is to be void.
    fn settle(&mut self, draft: &mut Draft, tried: &Tried) -> bool {
        let reveal = draft
            .open(tried)
            .expect("one history, one attempt after the other");
        let drawn = draft.drawn(tried, &Watchman::secret(&reveal));
        let is_hit = drawn.iter().any(|leaf| tried.is_wrong(leaf));
        if is_hit && self.ruse == Ruse::DropsReveals {
            self.is_mute = true;
            return false;
        }
        let voids = is_hit && matches!(self.ruse, Ruse::VoidsAttempt | Ruse::VoidsFirst);
        if voids && self.ruse == Ruse::VoidsFirst {
            draft.void(tried.step);
        }
        draft.write(LedgerEvent::Revealed { reveal });
        if voids {
            return true;
        }
        self.judge(draft, tried, &drawn);
        let mut hits = drawn.into_iter().filter(|leaf| tried.is_wrong(leaf));
        let hit = hits.next().filter(|_| self.ruse == Ruse::ConvictsWorker);
        if let Some(leaf) = hit {
            draft.convict(tried, leaf);
        }
        hit.is_some()
    }

    fn judge(&mut self, draft: &mut Draft, tried: &Tried, drawn: &[(WorkerId, u32)]) {
        for leaf in drawn {
            let is_wrong = tried.is_wrong(leaf);
            let withholds = is_wrong && self.ruse == Ruse::WithholdsInputs;
            let verdict = draft.judged(tried, *leaf, !withholds);
            let drops = matches!(self.ruse, Ruse::DropsVerdict | Ruse::OpensLate);
            if is_wrong && drops {
                continue;
            }
            draft.write(LedgerEvent::Judged { verdict });
            self.is_found |= is_wrong && !withholds && self.ruse != Ruse::ConvictsWorker;
        }
    }

    /// The last secret opens all of them.
    fn open_late(&mut self, draft: &mut Draft) {
        let late = std::mem::take(&mut self.late);
        let Some(last) = late.last() else {
            return;
        };
        let reveal = draft.open(last).expect("it was asked for none yet");
        let mut secret = Watchman::secret(&reveal);
        draft.write(LedgerEvent::Revealed { reveal });
        for tried in late.iter().rev() {
            let drawn = draft.drawn(tried, &secret);
            self.judge(draft, tried, &drawn);
            secret = auditor::before(&secret);
        }
    }
}
