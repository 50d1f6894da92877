//! What fails although nobody lies.

use std::fmt;

use super::super::clock::{MS, SECOND};
use super::super::links::Lag;
use super::super::rng::Rng;
use super::super::world::{World, key};
use super::{SPARES, one_of};

/// Something that fails, and when.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub kind: FaultKind,
    pub at: u64,
    /// For how long, where it lasts.
    pub lasts: u64,
    /// The number of the process, where it is about one.
    pub number: u8,
}

/// What can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// A connection breaks.
    LostSession,
    /// Messages of a process take longer.
    Delay,
    /// Bytes that are no message arrive.
    Garbage,
    CoordinatorRestart,
    /// It dies between two of its effects.
    CrashBetweenEffects,
    /// A worker's process ends, and another one with its key starts.
    WorkerRestart,
    WorkerKilled,
    WorkerDrained,
    AuditorRestart,
    /// A checker of the pool is gone for good.
    CheckerKilled,
    FullStore,
    /// A worker reaches none of the others, or none of them reaches it.
    LostLinks,
    /// The coordinator does not reach a worker at its address.
    Unreachable,
}

impl FaultKind {
    pub const ALL: [Self; 13] = [
        Self::LostSession,
        Self::Delay,
        Self::Garbage,
        Self::CoordinatorRestart,
        Self::CrashBetweenEffects,
        Self::WorkerRestart,
        Self::WorkerKilled,
        Self::WorkerDrained,
        Self::AuditorRestart,
        Self::CheckerKilled,
        Self::FullStore,
        Self::LostLinks,
        Self::Unreachable,
    ];

    /// Its name for people and scripts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LostSession => "lost session",
            Self::Delay => "delay",
            Self::Garbage => "garbled bytes",
            Self::CoordinatorRestart => "coordinator restart",
            Self::CrashBetweenEffects => "crash between two effects",
            Self::WorkerRestart => "worker restart",
            Self::WorkerKilled => "worker killed",
            Self::WorkerDrained => "worker drained",
            Self::AuditorRestart => "auditor restart",
            Self::CheckerKilled => "checker killed",
            Self::FullStore => "full store",
            Self::LostLinks => "lost links",
            Self::Unreachable => "unreachable worker",
        }
    }
}

impl Fault {
    /// Draws a fault of a run that takes about `span`, with so many workers and these auditors, the
    /// last ones of them checkers of the pool.
    pub fn draw(dice: &mut Rng, span: u64, (workers, auditors, pool): (u8, &[u8], usize)) -> Self {
        let kind = match one_of(dice, &FaultKind::ALL) {
            FaultKind::CheckerKilled if pool == 0 => FaultKind::AuditorRestart,
            kind => kind,
        };
        let worker = 1 + dice.below(workers.into()) as u8;
        let auditor = one_of(dice, auditors);
        let either = [worker, auditor][dice.below(2) as usize];
        let number = match kind {
            FaultKind::CheckerKilled => one_of(dice, &auditors[auditors.len() - pool..]),
            FaultKind::LostSession | FaultKind::Delay | FaultKind::Garbage => either,
            FaultKind::AuditorRestart => auditor,
            _ => worker,
        };
        Self {
            kind,
            at: dice.below(span),
            lasts: MS + dice.below(2 * SECOND),
            number,
        }
    }

    /// Whether the pool is without a worker from then on.
    pub(super) fn is_lasting(&self) -> bool {
        matches!(
            self.kind,
            FaultKind::WorkerKilled | FaultKind::WorkerDrained | FaultKind::LostLinks
        )
    }

    /// Has it happen in a pool of so many workers, beside the spare ones.
    pub(super) fn inject(&self, world: &mut World, workers: u8) {
        let Self { at, lasts, .. } = *self;
        let id = key(self.number).public();
        match self.kind {
            FaultKind::LostSession => world.break_connection(id, at),
            FaultKind::Delay => {
                let lag = Lag {
                    from: at,
                    until: at + lasts,
                    extra: lasts / 8,
                };
                world.lags.insert(id, lag);
            }
            FaultKind::Garbage => world.garbage(id, at),
            FaultKind::CoordinatorRestart => world.crash(at),
            // A few effects for each millisecond, in the middle of a run.
            FaultKind::CrashBetweenEffects => world.crash_after = Some(at / (4 * MS)),
            FaultKind::WorkerRestart => {
                world.kill(id, at);
                world.join_late(self.number, at + lasts, 1_000_000_000);
            }
            FaultKind::WorkerKilled | FaultKind::CheckerKilled => world.kill(id, at),
            FaultKind::WorkerDrained => world.drain(id, at),
            FaultKind::AuditorRestart => world.restart_auditor(id, at),
            FaultKind::FullStore => world.full_until = at + lasts,
            FaultKind::LostLinks => {
                let others = (1..=workers).chain(SPARES);
                let others: Vec<_> = others.map(|number| key(number).public()).collect();
                world.links.cut(id, &others, lasts.is_multiple_of(2));
            }
            FaultKind::Unreachable => {
                world.links.hidden.insert(id);
                world.links.shown_from = Some(at + lasts);
            }
        }
    }

    /// Whether it has happened by then.
    pub fn has_happened(&self, now: u64) -> bool {
        match self.kind {
            FaultKind::FullStore | FaultKind::LostLinks | FaultKind::Unreachable => true,
            _ => self.at <= now,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, at) = (self.kind.as_str(), self.at as f64 / SECOND as f64);
        write!(f, "{what} ({}) at {at:.3} s", self.number)
    }
}
