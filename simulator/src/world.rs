//! A pool in one thread: a core, make-believe workers and checkers, and a network between them,
//! all from one seed.

mod audits;
mod cast;
mod connections;
mod effects;
mod run;
mod watched;

use std::collections::{BTreeMap, BTreeSet};

use concord_coordinator::core::{
    Change, Config, Core, CoreEffect, CoreEvent, NewJob, Question, SessionId, Time,
};
use concord_proto::client::{ClientResponse, JobEvent, NamedAuditor};
use concord_proto::ledger::{Finding, Verdict};
use concord_proto::manifest::StateManifest;
use concord_proto::session::{AuditOrder, DeviceInfo, Hello, Role, ToCoordinator, ToWorker};
use concord_proto::{
    ARITHMETIC_VERSION, Claim, Digest, JobSpec, Keypair, Leaf, PROTOCOL_VERSION, Port, Signed,
    WorkerId, canonical,
};

use super::arithmetic as fake;
use super::auditor::{Auditor, Manner};
use super::claims::{self, rerun, trace};
pub use super::clock::{MS, SECOND};
use super::job::asked;
use super::lies::Lie;
use super::links::{Lag, Links};
use super::memory::Memory;
use super::mutation::{Mutant, Sent};
use super::rng::Rng;
use super::room;
use super::stage::Openings;
use super::swept::{Swept, blobs_of};
use super::watch::Watch;
use super::worker::{Act, Frame, Library, Worker};

/// How a checker works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checker {
    Honest,
    /// Says that all is right without looking.
    Lazy,
    /// Says that all is wrong.
    Accuser,
}

enum Body {
    Worker(Box<Worker>),
    Checker(Checker, Box<Auditor>),
    Auditor(Box<Auditor>),
}

struct Process {
    body: Body,
    session: Option<SessionId>,
    speed: u64,
}

enum Item {
    Tick,
    Connect(WorkerId),
    Join(u8, u64),
    ToCore(SessionId, CoreEvent),
    ToProcess(WorkerId, SessionId, ToWorker),
    /// The coordinator's end of the session is gone.
    Hangup(WorkerId, SessionId),
    Frame(Frame),
    Act(WorkerId, Act),
    Checked(u64, Vec<Digest>),
    Refereed(Box<AuditOrder>, WorkerId),
    Kill(WorkerId),
    Drain(WorkerId),
    Break(WorkerId),
    Restart(WorkerId),
    Say(WorkerId, Box<ToCoordinator>),
    /// As a mutant sends it.
    Sent(WorkerId, Sent),
    Garbage(WorkerId),
    Crash,
    Boot,
}

impl Item {
    /// Whether it ends with the coordinator's process.
    fn is_of_coordinator(&self) -> bool {
        matches!(
            self,
            Self::ToCore(..) | Self::Checked(..) | Self::Refereed(..)
        )
    }
}

pub struct World {
    pub rng: Rng,
    pub new: NewJob,
    pub config: Config,
    pub memory: Memory,
    pub blobs: BTreeSet<Digest>,
    pub swept: Swept,
    pub answers: Vec<ClientResponse>,
    pub library: Library,
    now: u64,
    /// When the present core was started.
    booted: u64,
    core: Option<Core>,
    processes: BTreeMap<WorkerId, Process>,
    queue: BTreeMap<(u64, u64), Item>,
    next: u64,
    /// Last delivery of each direction of each session: messages do not overtake.
    arrivals: BTreeMap<(SessionId, bool), u64>,
    /// The coordinator dies after so many more effects.
    pub crash_after: Option<u64>,
    pub effects: u64,
    pub crashes: u64,
    /// Until then the store has no room for states.
    pub full_until: u64,
    /// The coordinator's referee gets no inputs.
    pub withholds_from_referee: bool,
    /// It has the memory for no leaf.
    pub is_referee_small: bool,
    /// How long the referee computes.
    pub referee_takes: u64,
    /// The coordinator dies once while its referee computes.
    pub dies_at_first_rerun: bool,
    /// Who dies with the coordinator.
    pub kill_at_crash: Option<WorkerId>,
    /// What the referee was asked, in order.
    pub refereed: Vec<AuditOrder>,
    /// How many layers workers have memory for, whatever they announce.
    pub rooms: BTreeMap<WorkerId, u32>,
    pub links: Links,
    /// Processes that alter what they say.
    pub mutants: BTreeMap<WorkerId, Mutant>,
    /// Processes whose messages take so much longer, either way, up to a time.
    pub lags: BTreeMap<WorkerId, Lag>,
    /// What looks on and checks.
    pub watch: Option<Box<Watch>>,
    /// All that was persisted, if a test wants it.
    pub transactions: Option<Vec<Vec<Change>>>,
}

pub fn key(number: u8) -> Keypair {
    Keypair::from_secret([number; 32])
}

impl World {
    pub fn new(seed: u64, new: NewJob) -> Self {
        let library = Library {
            specs: BTreeMap::new(),
            states: BTreeMap::new(),
            data: new.data.clone(),
        };
        let mut world = Self {
            rng: Rng::new(seed),
            config: Config {
                referee: true,
                ..Config::default()
            },
            memory: Memory::default(),
            blobs: BTreeSet::new(),
            swept: Swept::default(),
            answers: Vec::new(),
            library,
            now: 0,
            booted: 0,
            core: None,
            processes: BTreeMap::new(),
            queue: BTreeMap::new(),
            next: 0,
            arrivals: BTreeMap::new(),
            crash_after: None,
            effects: 0,
            crashes: 0,
            full_until: 0,
            withholds_from_referee: false,
            is_referee_small: false,
            referee_takes: 0,
            dies_at_first_rerun: false,
            kill_at_crash: None,
            refereed: Vec::new(),
            rooms: BTreeMap::new(),
            links: Links::default(),
            mutants: BTreeMap::new(),
            lags: BTreeMap::new(),
            watch: None,
            transactions: None,
            new,
        };
        let initial = world.new.initial.clone();
        world.blobs.extend(blobs_of(&initial));
        let address = world.new.submission.spec.initial_state;
        world.library.states.insert(address, initial);
        world.boot();
        world.submit();
        world.at(0, Item::Tick);
        world
    }

    fn submit(&mut self) {
        let question = Question::Submit(Box::new(self.new.clone()));
        self.apply(asked(0, question));
    }

    /// Starts anew, so that what was changed since [`Self::new`] holds from the submission on.
    pub fn replay_submission(&mut self) {
        self.memory = Memory::default();
        self.swept = Swept::default();
        self.boot();
        self.submit();
    }

    fn boot(&mut self) {
        let persisted = self.memory.persisted(&self.new);
        self.booted = self.now;
        self.core = Some(Core::restore(self.config, key(255), [9; 32], persisted));
    }

    fn at(&mut self, time: u64, item: Item) {
        self.next += 1;
        self.queue.insert((time.max(self.now), self.next), item);
    }

    fn soon(&mut self, item: Item) {
        let time = self.now + MS + self.rng.below(20 * MS);
        self.at(time, item);
    }

    /// Delivers on a session, after all that was sent before.
    fn deliver(&mut self, session: SessionId, up: bool, item: Item) {
        let earliest = self.now + 200 + self.rng.below(10 * MS) + self.lag(session);
        let last = self.arrivals.entry((session, up)).or_default();
        *last = earliest.max(*last + 1);
        let time = *last;
        self.at(time, item);
    }

    pub fn kill(&mut self, id: WorkerId, at: u64) {
        self.at(at, Item::Kill(id));
    }

    pub fn drain(&mut self, id: WorkerId, at: u64) {
        self.at(at, Item::Drain(id));
    }

    pub fn break_connection(&mut self, id: WorkerId, at: u64) {
        self.at(at, Item::Break(id));
    }

    pub fn crash(&mut self, at: u64) {
        self.at(at, Item::Crash);
    }

    pub fn say(&mut self, id: WorkerId, at: u64, message: ToCoordinator) {
        self.at(at, Item::Say(id, Box::new(message)));
    }

    pub fn garbage(&mut self, id: WorkerId, at: u64) {
        self.at(at, Item::Garbage(id));
    }

    /// Has a process alter what it says.
    pub fn mutate(&mut self, id: WorkerId, mutant: Mutant) {
        if let Some(worker) = self.worker(&id) {
            worker.is_mutant = true;
        }
        self.mutants.insert(id, mutant);
    }

    pub fn is_connected(&self, id: &WorkerId) -> bool {
        self.processes.get(id).is_some_and(|p| p.session.is_some())
    }

    fn happen(&mut self, item: Item) {
        match item {
            Item::Tick => {
                let next = self.now + 100 * MS;
                self.at(next, Item::Tick);
                self.heartbeats();
                self.apply(CoreEvent::Tick);
            }
            Item::Connect(id) => self.connect(id),
            Item::Join(number, speed) => {
                self.join_fast_worker(number, 0, None, speed);
            }
            Item::ToCore(_, event) => self.apply(event),
            Item::ToProcess(id, session, message) => self.tell(id, session, message),
            Item::Hangup(id, session) => self.hang_up(id, session),
            Item::Frame(frame) => {
                let (from, to, later) = (frame.origin.worker, frame.to, self.now + 4 * SECOND);
                if let Some(word) = self.links.loss(&frame) {
                    return word.into_iter().for_each(|w| self.say(from, later, w));
                }
                if let Some(worker) = self.worker(&to) {
                    let acts = worker.received(frame);
                    self.perform(to, acts);
                }
            }
            Item::Act(id, act) => self.act(id, act),
            Item::Checked(check, missing) => self.apply(CoreEvent::BlobsChecked { check, missing }),
            Item::Refereed(order, traced) => self.referee(&order, &traced),
            Item::Kill(id) => self.die(id),
            Item::Drain(id) => self.up(id, ToCoordinator::Drain),
            Item::Break(id) => {
                if let Some(session) = self.processes.get(&id).and_then(|p| p.session) {
                    let reason = "its connection broke".to_string();
                    self.deliver(
                        session,
                        true,
                        Item::ToCore(session, CoreEvent::Closed { session, reason }),
                    );
                    self.hang_up(id, session);
                }
            }
            Item::Restart(id) => self.restart(id),
            Item::Say(id, message) => self.up(id, *message),
            Item::Sent(id, sent) => self.sent(id, sent),
            Item::Garbage(id) => self.sent(id, Sent::Garbage),
            Item::Crash => self.die_coordinator(),
            Item::Boot => self.boot(),
        }
    }

    fn heartbeats(&mut self) {
        let ids: Vec<WorkerId> = self.processes.keys().copied().collect();
        for id in ids {
            self.up(id, ToCoordinator::Heartbeat);
        }
    }

    fn worker(&mut self, id: &WorkerId) -> Option<&mut Worker> {
        match &mut self.processes.get_mut(id)?.body {
            Body::Worker(worker) => Some(worker),
            Body::Checker(..) | Body::Auditor(_) => None,
        }
    }

    /// Sends a message of a process to the core, if it is connected.
    fn up(&mut self, id: WorkerId, message: ToCoordinator) {
        self.watch_said(id, &message);
        let Some(mutant) = self.mutants.get_mut(&id) else {
            return self.sent(id, Sent::Message(Box::new(message)));
        };
        for (later, sent) in mutant.send(message) {
            match later {
                0 => self.sent(id, sent),
                _ => self.at(self.now + later, Item::Sent(id, sent)),
            }
        }
    }

    fn sent(&mut self, id: WorkerId, sent: Sent) {
        let Some(session) = self.processes.get(&id).and_then(|p| p.session) else {
            return;
        };
        let event = match sent {
            Sent::Message(message) => CoreEvent::Message {
                session,
                message: *message,
            },
            Sent::Garbage => CoreEvent::Broken {
                session,
                reason: "bytes that are no message".to_string(),
            },
        };
        self.deliver(session, true, Item::ToCore(session, event));
    }

    fn tell(&mut self, id: WorkerId, session: SessionId, message: ToWorker) {
        let Some(process) = self.processes.get_mut(&id) else {
            return;
        };
        if process.session != Some(session) {
            return;
        }
        if let ToWorker::Refused { .. } = message {
            self.processes.remove(&id);
            return;
        }
        if let ToWorker::Audit(order) = message {
            return self.audit(id, *order);
        }
        if let Some(refusal) = room::refusal(&self.rooms, &id, &message) {
            return self.up(id, refusal);
        }
        let acts = match &mut process.body {
            Body::Worker(worker) => worker.told(&self.library, message),
            Body::Checker(..) if message == ToWorker::Leave => vec![Act::Leave],
            Body::Checker(_, auditor) | Body::Auditor(auditor) => {
                let said = auditor.told(&message).into_iter();
                said.map(Act::Say).collect()
            }
        };
        self.perform(id, acts);
    }

    /// Each act takes a while.
    fn perform(&mut self, id: WorkerId, acts: Vec<Act>) {
        for act in acts {
            match act {
                Act::Say(ToCoordinator::Flushed { job, .. }) if self.now < self.full_until => {
                    let epoch = self.worker(&id).and_then(|worker| worker.epoch());
                    let failed = ToCoordinator::Failed {
                        job,
                        epoch: epoch.unwrap_or(0),
                        reason: "the store is full".to_string(),
                        permanent: false,
                    };
                    self.up(id, failed);
                }
                Act::Say(message) => self.up(id, message),
                // What it says it has stored is stored before it says so.
                Act::Store(blobs) => self.blobs.extend(blobs),
                Act::Leave => drop(self.processes.remove(&id)),
                act => self.soon(Item::Act(id, act)),
            }
        }
    }

    fn act(&mut self, id: WorkerId, act: Act) {
        match act {
            Act::Say(message) => self.up(id, message),
            Act::Push(frame) => {
                let frames = match self.mutants.get_mut(&id) {
                    Some(mutant) => mutant.push(frame),
                    None => vec![(0, frame)],
                };
                if !self.processes.contains_key(&id) {
                    return;
                }
                for (later, frame) in frames {
                    match later {
                        0 => self.soon(Item::Frame(frame)),
                        _ => self.at(self.now + later, Item::Frame(frame)),
                    }
                }
            }
            Act::Store(blobs) => self.blobs.extend(blobs),
            Act::Leave => drop(self.processes.remove(&id)),
        }
    }

    fn apply(&mut self, event: CoreEvent) {
        let now = Time(self.now - self.booted);
        let Some(core) = &mut self.core else {
            return;
        };
        let effects = core.apply(now, event);
        core.assert_invariants();
        for effect in effects {
            if self.crash_after == Some(0) {
                return self.die_coordinator();
            }
            self.crash_after = self.crash_after.map(|left| left - 1);
            self.effects += 1;
            self.carry_out(effect);
        }
    }
}
