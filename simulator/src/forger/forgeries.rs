//! Histories that a coordinator makes up, by the dice of a seed: it lies in some steps or all,
//! opens secrets late or never, drops what it does not like, voids, writes the ledger anew from
//! some entry on, has the auditor commit anew, shows it a history that it drops again, and alters
//! entries at the end. Each is refuted, or what it hides counts as unsettled.

use std::collections::BTreeMap;

use concord_proto::auditor::{self, escape};
use concord_proto::ledger::{LedgerEntry, LedgerEvent};
use concord_proto::{Digest, WorkerId};
use concord_verify::training::bundle::{self, Bundle};

use super::super::job::job;
use super::super::lies::Kind;
use super::super::oracle;
use super::super::reading::read;
use super::super::rng::Rng;
use super::draft::{Draft, Tried, Written};
use super::watchman::Watchman;

const STEPS: u32 = 6;
/// Attempts of one job, at most: as many as its auditor has secrets for.
const ATTEMPTS_MAX: u32 = 40;

/// What became of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shown {
    /// The ledger has what the auditor found.
    Found,
    /// The proof does not hold.
    Refuted,
    /// It holds, and says that attempts are not settled.
    Unsettled,
    /// It holds, and all is settled: no wrong leaf was drawn.
    Settled,
}

impl Shown {
    /// Its name for people and scripts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Found => "found by the auditor",
            Self::Refuted => "refuted",
            Self::Unsettled => "unsettled",
            Self::Settled => "settled, nothing drawn",
        }
    }
}

/// What a coordinator did, and what became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForgedCounts {
    pub jobs: u64,
    pub shown: BTreeMap<Shown, u64>,
    /// How often it did what.
    pub deeds: BTreeMap<&'static str, u64>,
    /// Why proofs do not hold.
    pub refusals: BTreeMap<String, u64>,
    /// Wrong leaves that were drawn in steps of proofs that hold.
    pub hidden: u64,
    /// Jobs of which every step is false from the beginning on.
    pub all_false: u64,
    /// Of these, those that hold, by how many attempts they say are not settled.
    pub accepted: BTreeMap<u32, u64>,
}

impl ForgedCounts {
    pub fn add(&mut self, other: &Self) {
        self.jobs += other.jobs;
        self.hidden += other.hidden;
        self.all_false += other.all_false;
        for (shown, count) in &other.shown {
            *self.shown.entry(*shown).or_default() += count;
        }
        for (deed, count) in &other.deeds {
            *self.deeds.entry(deed).or_default() += count;
        }
        for (why, count) in &other.refusals {
            *self.refusals.entry(why.clone()).or_default() += count;
        }
        for (unsettled, count) in &other.accepted {
            *self.accepted.entry(*unsettled).or_default() += count;
        }
    }

    /// Of the jobs that are false in every step: for each number of unsettled attempts, how many
    /// hold with as many or fewer, and what is printed for it.
    pub fn rows(&self, rate: u64) -> Vec<(u32, u64, f64)> {
        let row = |unsettled: u32| {
            let accepted = self.accepted.range(..=unsettled).map(|(_, count)| count);
            let printed = escape(rate, STEPS.into(), unsettled.into());
            (unsettled, accepted.sum(), printed)
        };
        (0..STEPS).map(row).collect()
    }
}

/// Makes up a history by the dice of a seed.
///
/// # Panics
/// Where the proof of it holds and counts fewer attempts as unsettled than hide something.
pub fn forge(seed: u64, rate: u64) -> ForgedCounts {
    let mut dice = Rng::new(seed);
    let mut new = job(STEPS, (1, 1), false);
    new.submission.spec.microbatches = 1;
    let stages = 1 + u32::from(dice.chance(4));
    let draft = Draft::begin(dice.number(), (new, stages), rate);
    let mut forger = Forger {
        lies_always: dice.chance(2),
        dice,
        draft,
        places: Vec::new(),
        unopened: Vec::new(),
        counts: ForgedCounts::default(),
        is_found: false,
        lost: 0,
    };
    forger.run();
    forger.shown(rate)
}

/// The coordinator, with what it knows.
struct Forger {
    dice: Rng,
    draft: Draft,
    /// Whether it has decided beforehand to lie in every step.
    lies_always: bool,
    /// Places to which it can go back: what was written, and what was unopened then.
    places: Vec<(Written, Vec<Tried>, Knowledge)>,
    /// Attempts whose secrets are not opened yet.
    unopened: Vec<Tried>,
    counts: ForgedCounts,
    /// Whether the ledger says that a leaf is wrong.
    is_found: bool,
    /// Attempts that were voided once it was known that a wrong leaf of them is drawn.
    lost: u32,
}

/// What the ledger has at a place.
type Knowledge = (bool, u32);

impl Forger {
    fn did(&mut self, deed: &'static str) {
        *self.counts.deeds.entry(deed).or_default() += 1;
    }

    fn run(&mut self) {
        let steps = self.draft.steps();
        while self.draft.step() < steps {
            let may_turn = self.draft.written.attempts < ATTEMPTS_MAX;
            if may_turn && self.dice.chance(8) {
                self.turn();
                continue;
            }
            let knowledge = (self.is_found, self.lost);
            let place = (self.draft.written.clone(), self.unopened.clone(), knowledge);
            self.places.push(place);
            let kind = self.kind();
            let tried = self.draft.attempt(kind);
            self.unopened.push(tried);
            if !self.dice.chance(4) {
                self.open(may_turn);
            }
        }
        if self.dice.chance(2) {
            self.open(false);
        }
    }

    fn kind(&mut self) -> Option<Kind> {
        let lies = self.lies_always || self.dice.chance(2);
        let kind = [Kind::SkipUpdate, Kind::WrongNorm][self.dice.below(2) as usize];
        lies.then_some(kind)
    }

    /// Has the auditor open its secrets up to the last attempt, and writes of it what it likes.
    fn open(&mut self, may_void: bool) {
        let Some(last) = self.unopened.last().cloned() else {
            return;
        };
        let Some(reveal) = self.draft.open(&last) else {
            self.did("is refused a secret");
            return;
        };
        let secret = Watchman::secret(&reveal);
        let hits = self.hits(secret);
        if self.dice.chance(if hits.is_empty() { 24 } else { 6 }) {
            self.did("drops a reveal");
            self.unopened.clear();
            return;
        }
        self.draft.write(LedgerEvent::Revealed { reveal });
        if may_void && !hits.is_empty() && self.dice.chance(2) {
            return self.void(&hits);
        }
        self.judge_all(secret);
        self.unopened.clear();
    }

    /// The unopened attempts of which the secrets draw a wrong leaf, by step.
    fn hits(&self, last: Digest) -> Vec<u32> {
        let is_hit = |(tried, secret): &(&Tried, Digest)| {
            let drawn = self.draft.drawn(tried, secret);
            drawn.iter().any(|leaf| tried.is_wrong(leaf))
        };
        let opened = self.with_secrets(last).into_iter();
        opened.filter(is_hit).map(|(tried, _)| tried.step).collect()
    }

    /// The unopened attempts, each with its secret.
    fn with_secrets(&self, last: Digest) -> Vec<(&Tried, Digest)> {
        let (mut secret, mut of) = (last, None);
        // Those of before it has committed anew are lost.
        let from = self.draft.watchman.from;
        let opened = self.unopened.iter().rev();
        let opened = opened
            .take_while(|tried| tried.attempt >= from)
            .map(|tried| {
                let later = of.replace(tried.attempt).unwrap_or(tried.attempt);
                (tried.attempt..later).for_each(|_| secret = auditor::before(&secret));
                (tried, secret)
            });
        opened.collect()
    }

    /// Voids what was drawn, and all after it.
    fn void(&mut self, hits: &[u32]) {
        self.did("voids what was drawn");
        let from = hits.iter().copied().min().unwrap_or_default();
        // Behind a gap in what the auditor has said everything is unsettled in any case.
        if !self.draft.has_gap() {
            self.lost += hits.len() as u32;
        }
        self.draft.void(from);
        self.unopened.clear();
    }

    fn judge_all(&mut self, last: Digest) {
        let opened = self.with_secrets(last).into_iter();
        let opened: Vec<(Tried, Vec<(WorkerId, u32)>)> = opened
            .map(|(tried, secret)| (tried.clone(), self.draft.drawn(tried, &secret)))
            .collect();
        for (tried, drawn) in opened {
            for leaf in drawn {
                self.judge(&tried, leaf);
            }
        }
    }

    fn judge(&mut self, tried: &Tried, leaf: (WorkerId, u32)) {
        let is_wrong = tried.is_wrong(&leaf);
        let hides = match is_wrong {
            true => !self.dice.chance(8),
            false => self.dice.chance(40),
        };
        let withholds = hides && self.dice.chance(2);
        match (hides, withholds) {
            (true, true) => self.did("withholds inputs"),
            (true, false) => return self.did("drops a verdict"),
            (false, _) => {}
        }
        let verdict = self.draft.judged(tried, leaf, !withholds);
        self.draft.write(LedgerEvent::Judged { verdict });
        self.is_found |= is_wrong && !withholds;
    }

    /// Does something else than the next step.
    fn turn(&mut self) {
        match self.dice.below(4) {
            0 => self.go_back(),
            1 => {
                let ahead = self.dice.below(3) as u32;
                if self.draft.enrol(self.draft.written.attempts + ahead) {
                    self.did("has the auditor commit anew");
                }
            }
            2 => self.peek(),
            _ => {
                let step = self.draft.step();
                if step > 0 {
                    self.did("voids for no reason");
                    let from = self.dice.below(u64::from(step)) as u32;
                    self.draft.void(from);
                    self.unopened.retain(|tried| tried.step < from);
                }
            }
        }
    }

    /// Writes the ledger anew from an earlier place on.
    fn go_back(&mut self) {
        if self.places.is_empty() {
            return;
        }
        self.did("writes the ledger anew");
        let at = self.dice.below(self.places.len() as u64) as usize;
        self.return_to(at);
        // Else it may be the same history again.
        if !self.dice.chance(4) {
            self.draft.enter_stranger();
        }
    }

    fn return_to(&mut self, at: usize) {
        self.places.truncate(at + 1);
        let place = self.places.pop().expect("just looked");
        (
            self.draft.written,
            self.unopened,
            (self.is_found, self.lost),
        ) = place;
    }

    /// Shows the auditor attempts that it drops again, so as to know its secrets beforehand.
    fn peek(&mut self) {
        self.did("has secrets opened in a history that it drops");
        let knowledge = (self.is_found, self.lost);
        let place = (self.draft.written.clone(), self.unopened.clone(), knowledge);
        self.places.push(place);
        let at = self.places.len() - 1;
        let left = self.draft.steps() - self.draft.step();
        // Also of the attempts that it will then show.
        if self.dice.chance(2) {
            self.draft.enter_stranger();
        }
        for _ in 0..=self.dice.below(left.into()) {
            let tried = self.draft.attempt(None);
            self.unopened.push(tried);
        }
        if let Some(last) = self.unopened.last().cloned() {
            let _ = self.draft.open(&last);
        }
        self.return_to(at);
    }

    /// What the proof shows, and whether that is not more than is true.
    fn shown(mut self, rate: u64) -> ForgedCounts {
        let mut bundle = self.draft.finish();
        if !bundle.voided.is_empty() && self.dice.chance(3) {
            self.did("leaves out claims of a void attempt");
            let at = self.dice.below(bundle.voided.len() as u64) as usize;
            bundle.voided.remove(at);
        }
        let is_altered = self.dice.chance(5);
        if is_altered {
            self.did("alters entries at the end");
            self.alter(&mut bundle);
        }
        self.counts.jobs = 1;
        self.counts.all_false = u64::from(self.lies_always);
        let shown = match bundle::verify(&bundle) {
            Err(_) if self.is_found => Shown::Found,
            Err(error) => {
                *self.counts.refusals.entry(error.reason).or_default() += 1;
                Shown::Refuted
            }
            Ok(report) => self.holds(&bundle, &report, is_altered, rate),
        };
        self.counts.shown.insert(shown, 1);
        self.counts
    }

    fn holds(
        &mut self,
        bundle: &Bundle,
        report: &bundle::Report,
        is_altered: bool,
        rate: u64,
    ) -> Shown {
        let of = (&Watchman::id(), self.draft.first_chain());
        let hidden = oracle::hidden_hits(bundle, of, &self.draft.seen);
        self.counts.hidden += u64::from(hidden);
        let own = report.auditors.first();
        // Without a line for the auditor the proof shows nothing of it.
        let unsettled = own.map_or(STEPS, |own| own.unsettled);
        // An altered ledger may have lost a void with the reveal before it.
        let lost = if is_altered { 0 } else { self.lost };
        assert!(
            unsettled >= STEPS || unsettled >= hidden + lost,
            "{unsettled} attempts are unsettled, {hidden} hide a wrong leaf that was drawn, and \
             {lost} were voided for one; deeds {:?}",
            self.counts.deeds
        );
        if let Some(own) = own {
            assert_eq!(own.rate, rate, "another rate");
        }
        if self.lies_always {
            self.counts.accepted.insert(unsettled, 1);
        }
        match unsettled {
            0 => Shown::Settled,
            _ => Shown::Unsettled,
        }
    }

    /// Takes an entry out, swaps two, or doubles one, and signs the ledger anew.
    fn alter(&mut self, bundle: &mut Bundle) {
        let mut events: Vec<LedgerEvent> = bundle
            .ledger
            .iter()
            .map(|signed| read::<LedgerEntry>(signed).event)
            .collect();
        let at = 1 + self.dice.below(events.len() as u64 - 2) as usize;
        match self.dice.below(3) {
            0 => drop(events.remove(at)),
            1 => events.swap(at, at + 1),
            _ => events.insert(at, events[at].clone()),
        }
        self.draft.written.entries.clear();
        for event in events {
            self.draft.write(event);
        }
        bundle.ledger.clone_from(&self.draft.written.entries);
    }
}
