//! A core alone: a test makes up its events, and its effects are recorded.

use std::collections::BTreeMap;

use concord_coordinator::core::{
    Config, Core, CoreEffect, CoreEvent, NewJob, Persisted, Question, SessionId, Time,
};
use concord_proto::client::{ClientResponse, JobEvent, PoolStatus};
use concord_proto::session::{DeviceInfo, Hello, Role, ToCoordinator, ToWorker};
use concord_proto::{ARITHMETIC_VERSION, JobId, PROTOCOL_VERSION, WorkerId};

use super::job::asked;
use super::world::{MS, key};

pub struct Bare {
    core: Core,
    now: u64,
    sessions: u64,
    pub sent: Vec<(SessionId, ToWorker)>,
    pub closed: Vec<SessionId>,
    pub probed: Vec<(SessionId, String)>,
    /// The outcome of every try of an address; none where tries are not answered.
    pub tries: Option<Result<(), &'static str>>,
    /// Who is at the addresses that more than one give; others there prove nothing.
    pub holders: BTreeMap<String, WorkerId>,
    pub events: Vec<(JobId, JobEvent)>,
    answers: Vec<ClientResponse>,
}

impl Default for Bare {
    fn default() -> Self {
        Self {
            core: Core::restore(Config::default(), key(255), [9; 32], Persisted::default()),
            now: 0,
            sessions: 0,
            sent: Vec::new(),
            closed: Vec::new(),
            probed: Vec::new(),
            tries: Some(Ok(())),
            holders: BTreeMap::new(),
            events: Vec::new(),
            answers: Vec::new(),
        }
    }
}

impl Bare {
    /// One that nobody has joined yet.
    pub fn new() -> Self {
        Self::default()
    }

    pub fn apply(&mut self, event: CoreEvent) {
        let mut tried = Vec::new();
        for effect in self.core.apply(Time(self.now), event) {
            match effect {
                CoreEffect::Send { session, message } => self.sent.push((session, message)),
                CoreEffect::Close { session } => self.closed.push(session),
                CoreEffect::Probe {
                    session,
                    worker,
                    endpoint,
                } => {
                    let holder = self.holders.get(&endpoint);
                    tried.push((session, holder.is_none_or(|holder| *holder == worker)));
                    self.probed.push((session, endpoint));
                }
                CoreEffect::Publish { job, event, .. } => self.events.push((job, event)),
                CoreEffect::Reply { response, .. } => self.answers.push(response),
                _ => {}
            }
        }
        self.core.assert_invariants();
        if let Some(outcome) = self.tries {
            for (session, is_there) in tried {
                let outcome = outcome.and(is_there.then_some(()).ok_or("somebody else answers"));
                let failure = outcome.err().map(str::to_string);
                self.apply(CoreEvent::Probed { session, failure });
            }
        }
    }

    /// A process says hello with the key of that number.
    pub fn open(&mut self, number: u8, role: Role, endpoint: &str) -> SessionId {
        self.sessions += 1;
        let session = SessionId(self.sessions);
        let hello = Hello {
            role,
            protocol: PROTOCOL_VERSION,
            arithmetic: ARITHMETIC_VERSION,
            device: DeviceInfo {
                name: "made-up".to_string(),
                macs_per_second: 1_000_000_000,
                memory_bytes: 1 << 40,
            },
            endpoint: endpoint.to_string(),
            held: None,
            challenge: [0; 32],
        };
        let worker = key(number).public();
        self.apply(CoreEvent::Opened {
            session,
            worker,
            hello,
        });
        session
    }

    /// A worker with an address of its own.
    pub fn worker(&mut self, number: u8) -> SessionId {
        self.open(
            number,
            Role::Worker,
            &format!("concord://worker-{number}:1"),
        )
    }

    pub fn say(&mut self, session: SessionId, message: ToCoordinator) {
        self.apply(CoreEvent::Message { session, message });
    }

    pub fn close(&mut self, session: SessionId) {
        let reason = "its connection broke".to_string();
        self.apply(CoreEvent::Closed { session, reason });
    }

    /// Time passes, while these sessions send heartbeats.
    pub fn pass(&mut self, micros: u64, alive: &[SessionId]) {
        for _ in 0..micros / (100 * MS) {
            self.now += 100 * MS;
            for session in alive {
                self.say(*session, ToCoordinator::Heartbeat);
            }
            self.apply(CoreEvent::Tick);
        }
    }

    /// Time passes without a tick: the coordinator is held up.
    pub fn hang(&mut self, micros: u64) {
        self.now += micros;
    }

    pub fn submit(&mut self, new: NewJob) -> JobId {
        let job = new.submission.spec.id();
        let question = Question::Submit(Box::new(new));
        self.ask(question);
        job
    }

    pub fn ask(&mut self, question: Question) {
        self.apply(asked(0, question));
    }

    /// The answer to the last question.
    pub fn answer(&mut self) -> Option<ClientResponse> {
        self.answers.pop()
    }

    pub fn status(&mut self) -> PoolStatus {
        self.ask(Question::Status);
        match self.answers.pop() {
            Some(ClientResponse::Status(status)) => status,
            other => panic!("no status: {other:?}"),
        }
    }

    /// Why a session was refused; none where it was not.
    pub fn refusal(&self, session: SessionId) -> Option<&str> {
        self.sent.iter().find_map(|(to, message)| match message {
            ToWorker::Refused { reason } if *to == session => Some(reason.as_str()),
            _ => None,
        })
    }

    pub fn is_welcome(&self, session: SessionId) -> bool {
        let welcome = |(to, message): &(SessionId, ToWorker)| {
            *to == session && matches!(message, ToWorker::Welcome { .. })
        };
        self.sent.iter().any(welcome)
    }

    /// What the watchers of a job were told that it waits for.
    pub fn waits(&self, job: JobId) -> Vec<&str> {
        let of_job = self.events.iter().filter(|(of, _)| *of == job);
        let waits = of_job.filter_map(|(_, event)| match event {
            JobEvent::Waiting(what) => Some(what.as_str()),
            _ => None,
        });
        waits.collect()
    }
}
