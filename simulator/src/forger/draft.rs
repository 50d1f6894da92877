//! A ledger that its coordinator writes as it likes.

use std::collections::BTreeSet;

use concord_coordinator::core::NewJob;
use concord_proto::auditor::{self, Reveal, reveal_digest};
use concord_proto::ledger::{LedgerEntry, LedgerEvent, Offence, claim_digest, entry_digest};
use concord_proto::manifest::StateEntry;
use concord_proto::session::EnrolOrder;
use concord_proto::{AttemptId, Digest, Keypair, Signed, StepRecord, WorkerId};
use concord_verify::training::bundle::{Bundle, StepClaims, VoidClaims};

use super::super::lies::Kind;
use super::super::oracle::SeenSteps;
use super::super::reading::read;
use super::super::watch::SeenClaim;
use super::super::world::key;
use super::bench::{Bench, DoneStep};
use super::watchman::{ShownLeaf, Watchman};

/// Attempts that a chain of secrets is for.
const CHAIN: u32 = 128;

/// What is written so far.
#[derive(Clone)]
pub(super) struct Written {
    pub(super) entries: Vec<Signed>,
    records: Vec<StepRecord>,
    claims: Vec<StepClaims>,
    /// The attempt of each step.
    of_steps: Vec<u32>,
    pub(super) voided: Vec<VoidClaims>,
    /// The state before each step, and after the last one.
    states: Vec<Vec<StateEntry>>,
    pub(super) attempts: u32,
}

/// A job whose history is being made up.
pub(super) struct Draft {
    bench: Bench,
    pub(super) watchman: Watchman,
    pub(super) written: Written,
    key: Keypair,
    seed: u64,
    rate: u64,
    /// Members that are in no plan: each makes the history another one.
    strangers: u32,
    /// What is right and wrong in the steps as they were done last.
    pub(super) seen: SeenSteps,
}

/// A step that was done and committed.
#[derive(Clone)]
pub(super) struct Tried {
    pub(super) attempt: u32,
    pub(super) step: u32,
    epoch: u32,
    pub(super) committed: Signed,
    done: DoneStep,
    /// The leaves that are wrong.
    wrong: BTreeSet<(WorkerId, u32)>,
}

impl Draft {
    /// The beginning of a job in so many stages, whose auditor has committed to secrets of a seed.
    pub(super) fn begin(seed: u64, (new, stages): (NewJob, u32), rate: u64) -> Self {
        let bench = Bench::new(new, stages);
        let initial = bench.new.initial.entries.clone();
        let job = bench.plan.job;
        let mut draft = Self {
            watchman: Watchman::new(seed),
            written: Written {
                entries: Vec::new(),
                records: Vec::new(),
                claims: Vec::new(),
                of_steps: Vec::new(),
                voided: Vec::new(),
                states: vec![initial],
                attempts: 0,
            },
            key: key(255),
            seed,
            rate,
            strangers: 0,
            seen: SeenSteps::new(),
            bench,
        };
        draft.write(LedgerEvent::Opened { job });
        let workers = draft.bench.plan.workers().map(|(_, id)| (id, false));
        let members: Vec<_> = workers.chain([(Watchman::id(), true)]).collect();
        for (worker, checker) in members {
            draft.enter(worker, "made up".to_string(), checker);
        }
        draft.enrol(0);
        let plan = draft.bench.plan.clone();
        draft.write(LedgerEvent::Planned { plan, step: 0 });
        draft
    }

    pub(super) fn write(&mut self, event: LedgerEvent) -> Signed {
        let entries = &self.written.entries;
        let entry = LedgerEntry {
            number: entries.len() as u64,
            previous: entries.last().map_or(self.bench.plan.job.0, entry_digest),
            event,
        };
        let signed = Signed::new(&self.key, &entry);
        self.written.entries.push(signed.clone());
        signed
    }

    fn enter(&mut self, worker: WorkerId, device: String, checker: bool) {
        self.write(LedgerEvent::Enrolled {
            worker,
            device,
            checker,
        });
    }

    /// A member that does nothing: what follows is another history than any before.
    pub(super) fn enter_stranger(&mut self) {
        self.strangers += 1;
        let device = format!("stranger {}", self.strangers);
        self.enter(key(250).public(), device, false);
    }

    /// The step that comes next.
    pub(super) fn step(&self) -> u32 {
        self.written.records.len() as u32
    }

    pub(super) fn steps(&self) -> u32 {
        self.bench.spec().steps
    }

    /// Has the auditor commit to secrets for attempts from `from` on. Says whether it does.
    pub(super) fn enrol(&mut self, from: u32) -> bool {
        let order = EnrolOrder {
            job: self.bench.plan.job,
            from,
            length: CHAIN,
            rate: self.rate,
            known: None,
            last: self.watchman.last,
        };
        match self.watchman.enrol(order) {
            Some(enrolment) => {
                self.write(LedgerEvent::Auditing { enrolment });
                true
            }
            None => false,
        }
    }

    /// Does the next step, as a new attempt: with a lie, or without.
    pub(super) fn attempt(&mut self, kind: Option<Kind>) -> Tried {
        let (step, epoch) = (self.step(), self.bench.plan.epoch);
        let attempt = self.written.attempts;
        let started = self.write(LedgerEvent::Started {
            attempt,
            step,
            epoch,
        });
        self.written.attempts += 1;
        let id = AttemptId {
            number: attempt,
            entry: entry_digest(&started),
        };
        let written = &self.written;
        let previous = written.records.last().map(StepRecord::digest);
        let previous = previous.unwrap_or(self.bench.plan.job.0);
        let before = written.states.last().expect("a state before each step");
        let done = self
            .bench
            .work((&started, id), (step, previous), before, kind);
        let claims = done.claims.claims.iter();
        let committed = self.write(LedgerEvent::Committed {
            attempt,
            step,
            epoch,
            record: done.record.digest(),
            claims: claims.map(|claim| claim_digest(&claim.claim)).collect(),
        });
        let seen = done.seen();
        let wrong = wrong(&seen);
        self.seen.insert((step, epoch), seen);
        self.written.records.push(done.record.clone());
        self.written.claims.push(done.claims.clone());
        self.written.of_steps.push(attempt);
        self.written.states.push(done.after.clone());
        Tried {
            attempt,
            step,
            epoch,
            committed,
            done,
            wrong,
        }
    }

    /// Steps from `step` on are void.
    pub(super) fn void(&mut self, step: u32) {
        self.write(LedgerEvent::Voided { from_step: step });
        let (kept, written) = (step as usize, &mut self.written);
        written.records.truncate(kept);
        written.states.truncate(kept + 1);
        let attempts = written.of_steps.drain(kept..);
        let claims = written.claims.drain(kept..).map(|claims| claims.claims);
        let void = attempts.zip(claims);
        let void = void.map(|(attempt, claims)| VoidClaims { attempt, claims });
        written.voided.extend(void);
    }

    /// Has the auditor open its secret of an attempt; none where it does not.
    pub(super) fn open(&mut self, tried: &Tried) -> Option<Signed> {
        let job = self.bench.plan.job;
        self.watchman.reveal(job, tried.attempt, &tried.committed)
    }

    /// Whether a reveal is missing in what is written.
    pub(super) fn has_gap(&self) -> bool {
        let mut last = None;
        let entries = self.written.entries.iter();
        entries
            .map(read::<LedgerEntry>)
            .any(|entry| match entry.event {
                LedgerEvent::Revealed { reveal } => {
                    let before = last.replace(reveal_digest(&reveal));
                    read::<Reveal>(&reveal).previous != before
                }
                _ => false,
            })
    }

    /// The leaves that a secret draws from an attempt.
    pub(super) fn drawn(&self, tried: &Tried, secret: &Digest) -> Vec<(WorkerId, u32)> {
        let entry = entry_digest(&tried.committed);
        let claims = tried.done.claims.claims.iter();
        let drawn = claims.flat_map(|claim| {
            let (worker, count) = (claim.claim.signer, claim.leaves.len() as u32);
            let drawn = auditor::drawn(secret, &entry, &worker, self.rate, count, false);
            drawn.into_iter().map(move |index| (worker, index))
        });
        drawn.collect()
    }

    /// What the auditor says of a leaf, whose worker gives its inputs, or not.
    pub(super) fn judged(
        &self,
        tried: &Tried,
        (worker, index): (WorkerId, u32),
        gives_inputs: bool,
    ) -> Signed {
        let mut claims = tried.done.claims.claims.iter();
        let claim = claims.find(|claim| claim.claim.signer == worker);
        let claim = claim.expect("a claim of the worker");
        let openings = tried.done.openings.get(&worker);
        self.watchman.judge(&ShownLeaf {
            job: self.bench.plan.job,
            attempt: tried.attempt,
            at: (tried.step, tried.epoch),
            worker,
            index,
            leaf: &claim.leaves[index as usize],
            openings: openings.filter(|_| gives_inputs),
        })
    }

    /// Convicts the worker of a leaf that is wrong, and gives its place to another key. The attempt
    /// is void.
    pub(super) fn convict(&mut self, tried: &Tried, leaf: (WorkerId, u32)) {
        let conviction = tried.done.conviction(leaf).expect("a leaf of the claims");
        self.write(LedgerEvent::Convicted {
            culprit: leaf.0,
            offence: Offence::WrongResult,
            evidence: "made up".to_string(),
            conviction: Box::new(conviction),
        });
        self.void(tried.step);
        let next = self.bench.replace_first();
        self.enter(next, "made up".to_string(), false);
        let plan = self.bench.plan.clone();
        self.write(LedgerEvent::Planned {
            plan,
            step: tried.step,
        });
    }

    /// The last entry, and the proof of the job as it is written.
    pub(super) fn finish(&mut self) -> Bundle {
        let record = self.written.records.last().map(StepRecord::digest);
        let record = record.expect("a job has steps");
        self.write(LedgerEvent::Completed { record });
        let new = &self.bench.new;
        Bundle {
            spec: new.submission.spec.clone(),
            data: new.data.clone(),
            initial_state: new.initial.clone(),
            records: self.written.records.clone(),
            claims: self.written.claims.clone(),
            voided: self.written.voided.clone(),
            ledger: self.written.entries.clone(),
        }
    }

    /// From which number on the auditor counts its chains.
    pub(super) fn first_chain(&self) -> u64 {
        Watchman::chains_from(self.seed) + 1
    }
}

impl Tried {
    pub(super) fn is_wrong(&self, leaf: &(WorkerId, u32)) -> bool {
        self.wrong.contains(leaf)
    }
}

fn wrong(seen: &[SeenClaim]) -> BTreeSet<(WorkerId, u32)> {
    let of = |claim: &SeenClaim| {
        let (worker, leaves) = (claim.worker, (0..).zip(&claim.leaves));
        let wrong = leaves.filter(|(_, (_, is_right))| *is_right == Some(false));
        wrong.map(|(index, _)| (worker, index)).collect::<Vec<_>>()
    };
    seen.iter().flat_map(of).collect()
}
