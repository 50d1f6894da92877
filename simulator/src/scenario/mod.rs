//! What happens in a run, drawn from a seed: the job, who is there, what fails, who lies.

mod faults;
mod outcome;

use std::fmt;
use std::ops::Range;

use concord_coordinator::core::NewJob;
use concord_proto::WorkerId;

use super::auditor::Manner;
use super::clock::SECOND;
use super::job::{ALWAYS, evaluated, job};
use super::lies::{Kind, Lie};
use super::mutation::{Mutant, TARGETS, Target};
use super::rng::Rng;
use super::world::{Checker, World, key};

pub use faults::{Fault, FaultKind};
pub use outcome::{ExpectedRecords, ScenarioCounts, run};

/// A run, before it begins.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub seed: u64,
    pub steps: u32,
    pub microbatches: u32,
    /// Stages and replicas.
    pub plan: (u32, u32),
    pub is_tied: bool,
    pub evaluates: bool,
    /// The rates of the auditors that the job names.
    pub rates: Vec<u64>,
    /// Checkers of the pool.
    pub checkers: u8,
    /// Their rate, and which share of what they say is re-run.
    pub pool_rates: (u64, u64),
    pub faults: Vec<Fault>,
    pub liar: Option<Liar>,
}

/// A process that does not follow the protocol.
#[derive(Clone, Copy, Debug)]
pub struct Liar {
    /// The number of its key.
    pub number: u8,
    pub manner: LiarManner,
}

/// How it lies.
#[derive(Clone, Copy, Debug)]
pub enum LiarManner {
    /// It alters such messages, by dice that begin with this number.
    Alters(Target, u64),
    /// A worker that does its work otherwise.
    Works(Lie),
    /// A checker of the pool that looks at nothing.
    Checks(Checker),
}

const PLANS: [(u32, u32); 6] = [(1, 1), (2, 1), (1, 2), (2, 2), (3, 1), (4, 1)];
const RATES: [u64; 5] = [ALWAYS, ALWAYS, ALWAYS / 2, ALWAYS / 4, ALWAYS / 50];
/// How much of what checkers of the pool say is re-run.
const RECHECK_RATES: [u64; 4] = [0, 1, ALWAYS / 20, ALWAYS];
/// False work that no rule shows, or that a rule shows at once.
const FALSE_WORK: [Kind; 8] = [
    Kind::WrongForward,
    Kind::WrongBackward,
    Kind::SkipUpdate,
    Kind::WrongNorm,
    Kind::OtherActivation,
    Kind::OtherSum,
    Kind::OtherFlush,
    Kind::SilentUpdate,
];
/// Workers that wait for a place.
const SPARES: [u8; 2] = [101, 102];
/// The number of the first auditor's key.
const FIRST_AUDITOR: u8 = 201;
/// The number of the first key of a checker of the pool.
const FIRST_CHECKER: u8 = 221;

/// The microseconds in which a step is done, about.
const STEP_US: u64 = SECOND / 4;

fn one_of<T: Copy>(dice: &mut Rng, all: &[T]) -> T {
    all[dice.below(all.len() as u64) as usize]
}

impl Scenario {
    /// Draws a run in which nobody lies, or one process, as it wants.
    pub fn draw(seed: u64, has_liar: bool) -> Self {
        let mut dice = Rng::new(seed);
        let plan = one_of(&mut dice, &PLANS);
        let auditors = dice.below(4) as usize;
        let mut scenario = Self {
            seed,
            steps: 3 + dice.below(6) as u32,
            microbatches: plan.1 + 1 + dice.below(8) as u32,
            plan,
            is_tied: dice.chance(4),
            evaluates: dice.chance(4),
            rates: (0..auditors).map(|_| one_of(&mut dice, &RATES)).collect(),
            checkers: u8::from(auditors == 0) + dice.below(3) as u8,
            pool_rates: (one_of(&mut dice, &RATES), one_of(&mut dice, &RECHECK_RATES)),
            faults: Vec::new(),
            liar: None,
        };
        if has_liar {
            scenario.liar = Some(scenario.draw_liar(&mut dice));
        }
        let span = u64::from(scenario.steps) * STEP_US;
        for _ in 0..dice.below(4) {
            let (seats, pool) = (scenario.seats(), scenario.checkers.into());
            let fault = Fault::draw(&mut dice, span, (seats, &scenario.auditors(), pool));
            scenario.add(fault);
        }
        scenario
    }

    fn draw_liar(&self, dice: &mut Rng) -> Liar {
        let worker = 1 + dice.below(u64::from(self.seats())) as u8;
        if dice.chance(3) {
            let kind = one_of(dice, &FALSE_WORK);
            let from_step = dice.below(u64::from(self.steps)) as u32;
            return Liar {
                number: worker,
                manner: LiarManner::Works(Lie { kind, from_step }),
            };
        }
        if self.checkers > 0 && dice.chance(4) {
            let number = FIRST_CHECKER + dice.below(self.checkers.into()) as u8;
            let how = one_of(dice, &[Checker::Lazy, Checker::Accuser]);
            return Liar {
                number,
                manner: LiarManner::Checks(how),
            };
        }
        let target = one_of(dice, &TARGETS);
        let is_auditor = target == Target::Verdict || (target == Target::Rest && dice.chance(2));
        let number = match is_auditor {
            true => one_of(dice, &self.auditors()),
            false => worker,
        };
        let manner = LiarManner::Alters(target, dice.number());
        Liar { number, manner }
    }

    /// Adds a fault, where it leaves the pool what it needs to get through: of those that last,
    /// one is enough.
    fn add(&mut self, fault: Fault) {
        let is_lasting = |fault: &Fault| fault.is_lasting();
        let has_one = self.faults.iter().any(is_lasting);
        if !(has_one && is_lasting(&fault)) {
            self.faults.push(fault);
        }
    }

    /// Workers that the plan has places for.
    pub fn seats(&self) -> u8 {
        (self.plan.0 * self.plan.1) as u8
    }

    /// The numbers of the keys of all auditors: those that the job names, and then those of the
    /// pool.
    fn auditors(&self) -> Vec<u8> {
        let named = FIRST_AUDITOR..FIRST_AUDITOR + self.rates.len() as u8;
        named.chain(self.pool()).collect()
    }

    fn pool(&self) -> Range<u8> {
        FIRST_CHECKER..FIRST_CHECKER + self.checkers
    }

    /// Checkers of the pool that stay and tell no lies. The first step waits for as many as a job
    /// asks for, however long that takes.
    fn steady_checkers(&self) -> u32 {
        let killed = self.faults.iter();
        let killed = killed.filter(|fault| fault.kind == FaultKind::CheckerKilled);
        let killed = killed.map(|fault| fault.number);
        let mut gone: Vec<u8> = killed.chain(self.liar.map(|liar| liar.number)).collect();
        gone.sort_unstable();
        gone.dedup();
        let stays = |number: &u8| !gone.contains(number);
        self.pool().filter(stays).count() as u32
    }

    /// The job, on a plan.
    fn job(&self, plan: (u32, u32)) -> NewJob {
        let mut new = job(self.steps, plan, self.is_tied);
        new.submission.spec.microbatches = self.microbatches;
        let options = &mut new.submission.options;
        options.checkers = self.steady_checkers();
        if self.checkers > 0 {
            (options.audit_rate, options.recheck_rate) = self.pool_rates;
        }
        match self.evaluates {
            true => evaluated(new, None),
            false => new,
        }
    }

    /// The pool, before anything happens in it.
    pub fn world(&self) -> World {
        let mut world = World::new(self.seed, self.job(self.plan));
        world.config.stall_us = 10 * SECOND;
        for number in 1..=self.seats() {
            world.join_worker(number, 0, self.lie_of(number));
        }
        for spare in SPARES {
            world.join_fast_worker(spare, 0, None, 700_000_000);
        }
        for (number, rate) in (FIRST_AUDITOR..).zip(&self.rates) {
            world.join_auditor(number, 0, Manner::Honest, *rate);
        }
        for number in self.pool() {
            world.join_checker(number, 0, self.manner_of(number));
        }
        world.replay_submission();
        for fault in &self.faults {
            fault.inject(&mut world, self.seats());
        }
        if let Some(Liar { number, manner }) = self.liar
            && let LiarManner::Alters(target, dice) = manner
        {
            let mutant = Mutant::new(key(number), dice, target);
            world.mutate(key(number).public(), mutant);
        }
        world
    }

    /// The false work of a worker, if it is the one that does it.
    fn lie_of(&self, worker: u8) -> Option<Lie> {
        match self.liar?.manner {
            LiarManner::Works(lie) => (self.liar?.number == worker).then_some(lie),
            LiarManner::Alters(..) | LiarManner::Checks(_) => None,
        }
    }

    fn manner_of(&self, checker: u8) -> Checker {
        match self.liar {
            Some(Liar {
                number,
                manner: LiarManner::Checks(how),
            }) if number == checker => how,
            _ => Checker::Honest,
        }
    }

    pub fn liar(&self) -> Option<WorkerId> {
        self.liar.map(|liar| key(liar.number).public())
    }

    /// Whether the liar is an auditor that the job names.
    pub fn liar_is_named(&self) -> bool {
        let named = FIRST_AUDITOR..FIRST_CHECKER;
        self.liar.is_some_and(|liar| named.contains(&liar.number))
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            steps,
            microbatches,
            plan: (stages, replicas),
            ..
        } = self;
        write!(
            f,
            "{steps} steps of {microbatches} microbatches on {stages} x {replicas}"
        )?;
        if self.is_tied {
            write!(f, ", a tied embedding")?;
        }
        if self.evaluates {
            write!(f, ", evaluations")?;
        }
        for rate in &self.rates {
            write!(f, ", an auditor of {}%", rate * 100 / ALWAYS)?;
        }
        if self.checkers > 0 {
            let (rate, again) = self.pool_rates;
            let (rate, again) = (rate * 100 / ALWAYS, again as f64 * 100.0 / ALWAYS as f64);
            write!(
                f,
                ", {} checkers of {rate}%, {again:.0}% re-run",
                self.checkers
            )?;
        }
        for fault in &self.faults {
            write!(f, ", {fault}")?;
        }
        if let Some(liar) = self.liar {
            write!(f, ", {} is a liar: {:?}", liar.number, liar.manner)?;
        }
        Ok(())
    }
}
