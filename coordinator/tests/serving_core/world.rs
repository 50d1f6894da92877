//! A core, and what it has told everybody.

use std::collections::{BTreeMap, BTreeSet};

use crate::sim::job::asked;
use concord_coordinator::core::{
    Change, Config, Core, CoreEffect, CoreEvent, Persisted, Question, ServingEffect, ServingEvent,
    SessionId, StageHolder, Time,
};
use concord_proto::ExpertCuts;
use concord_proto::client::{ClientResponse, MemberStatus, PoolStatus};
use concord_proto::serving::{
    Deployment, ServedModel, ServedPrecision, ServingProfile, StageAssignment,
};
use concord_proto::session::{DeviceInfo, Hello, Role, ToCoordinator, ToWorker};
use concord_proto::{ARITHMETIC_VERSION, Digest, Keypair, PROTOCOL_VERSION, WorkerId};

pub const SECOND: u64 = 1_000_000;

pub fn model(stages: u32, pipelines: u32, min_workers: u32) -> ServedModel {
    ServedModel {
        deployment: Deployment {
            arithmetic: ARITHMETIC_VERSION,
            model: Digest([1; 32]),
            tokenizer: Digest([2; 32]),
            layers: 12,
            vocab: 100,
            positions: 1_024,
            precision: ServedPrecision::of(16),
        },
        profile: ServingProfile {
            layer_macs: 1_000,
            head_macs: 1_000,
            layer_bytes: 100_000,
            embed_bytes: 50_000,
            head_bytes: 50_000,
            shared_bytes: 0,
            page_layer_bytes: 1_000,
            row_bytes: 1,
            cuts: ExpertCuts::default(),
        },
        stages,
        pipelines,
        min_workers,
        pages: 32,
        audit_rate: 0,
    }
}

/// A pipeline, as the tasks that serve see it.
#[derive(Default)]
pub struct Seen {
    pub epoch: u32,
    pub holders: Vec<StageHolder>,
    pub is_running: bool,
}

pub struct World {
    pub core: Core,
    pub now: u64,
    pub next: u64,
    pub sessions: BTreeMap<SessionId, WorkerId>,
    pub roles: BTreeMap<WorkerId, Role>,
    pub pipelines: BTreeMap<u32, Seen>,
    pub assigned: BTreeMap<WorkerId, StageAssignment>,
    pub orders: Vec<(WorkerId, u64)>,
    pub convicted: BTreeSet<WorkerId>,
    pub left: BTreeSet<WorkerId>,
    pub tickets: BTreeSet<[u8; 32]>,
    pub state: String,
    pub audits: (u64, u64),
    pub status: Option<PoolStatus>,
    pub last_epoch: u32,
}

pub fn id(number: u8) -> WorkerId {
    Keypair::from_secret([number; 32]).public()
}

impl World {
    pub fn new(model: ServedModel) -> Self {
        let key = Keypair::from_secret([255; 32]);
        let core = Core::restore(Config::default(), key, [7; 32], Persisted::default());
        Self {
            core: core.serving(model),
            now: 0,
            next: 0,
            sessions: BTreeMap::new(),
            roles: BTreeMap::new(),
            pipelines: BTreeMap::new(),
            assigned: BTreeMap::new(),
            orders: Vec::new(),
            convicted: BTreeSet::new(),
            left: BTreeSet::new(),
            tickets: BTreeSet::new(),
            state: String::new(),
            audits: (0, 0),
            status: None,
            last_epoch: 0,
        }
    }

    pub fn apply(&mut self, event: CoreEvent) {
        let effects = self.core.apply(Time(self.now), event);
        let mut awaited: BTreeMap<(u32, u32), Vec<StageHolder>> = BTreeMap::new();
        for effect in effects {
            match effect {
                CoreEffect::Serving(effect) => self.on_serving(effect, &mut awaited),
                CoreEffect::Send { session, message } => {
                    self.on_sent(session, message, &mut awaited)
                }
                CoreEffect::Close { session } => {
                    self.forget(session);
                }
                CoreEffect::Persist(changes) => {
                    for change in changes {
                        if let Change::Convicted { culprit, .. } = change {
                            self.convicted.insert(culprit);
                        }
                    }
                }
                CoreEffect::Reply { response, .. } => match response {
                    ClientResponse::Status(status) => self.status = Some(status),
                    other => panic!("{other:?}"),
                },
                // Workers are simulated: each is reached.
                CoreEffect::Probe { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        for (plan, holders) in awaited {
            // A holder may have gone within the same event.
            let here = |holder: &&StageHolder| self.session(&holder.worker).is_some();
            let untold: Vec<&StageHolder> = holders.iter().filter(here).collect();
            assert!(untold.is_empty(), "plan {plan:?}: {untold:?} were not told");
        }
        self.check();
    }

    pub fn on_serving(
        &mut self,
        effect: ServingEffect,
        awaited: &mut BTreeMap<(u32, u32), Vec<StageHolder>>,
    ) {
        match effect {
            ServingEffect::Planned {
                pipeline,
                epoch,
                holders,
                pages,
                ..
            } => {
                assert!(epoch > self.last_epoch, "epochs rise");
                self.last_epoch = epoch;
                assert!(pages >= 16 && !holders.is_empty());
                assert_eq!(holders.last().unwrap().layers.end, 12);
                for holder in &holders {
                    assert!(self.tickets.insert(holder.ticket), "a ticket is used twice");
                }
                awaited.retain(|(index, _), _| *index != pipeline);
                awaited.insert((pipeline, epoch), holders.clone());
                let seen = Seen {
                    epoch,
                    holders,
                    is_running: false,
                };
                self.pipelines.insert(pipeline, seen);
            }
            ServingEffect::Down { pipeline, .. } => {
                let seen = self.pipelines.get_mut(&pipeline).expect("it was planned");
                seen.holders.clear();
                seen.is_running = false;
            }
            ServingEffect::Pool { state, audits, .. } => {
                (self.state, self.audits) = (state, audits);
            }
        }
    }

    pub fn on_sent(
        &mut self,
        session: SessionId,
        message: ToWorker,
        awaited: &mut BTreeMap<(u32, u32), Vec<StageHolder>>,
    ) {
        let Some(worker) = self.sessions.get(&session).copied() else {
            return;
        };
        match message {
            ToWorker::Serve(assignment) => {
                assignment.validate().unwrap();
                let before = self.assigned.get(&worker).map_or(0, |before| before.epoch);
                assert!(
                    assignment.epoch > before,
                    "a worker is told of an older plan"
                );
                if let Some(stage) = assignment.stage {
                    let plan = (assignment.pipeline, assignment.epoch);
                    let holders = awaited.get_mut(&plan).expect("a stage in no plan");
                    let layers = assignment.stages[stage as usize];
                    let found = holders.iter().position(|holder| holder.worker == worker);
                    let found = holders.remove(found.expect("a holder of the plan"));
                    assert_eq!((found.ticket, found.layers), (assignment.ticket, layers));
                }
                self.assigned.insert(worker, *assignment);
            }
            ToWorker::Unserve { .. } => {
                self.assigned.remove(&worker);
            }
            ToWorker::Leave => {
                self.left.insert(worker);
            }
            ToWorker::AuditAnswer(order) => self.orders.push((worker, order.order)),
            ToWorker::Challenge { .. }
            | ToWorker::Welcome { .. }
            | ToWorker::Refused { .. }
            | ToWorker::Unreached { .. } => {}
            // Where a model is served nobody trains.
            ToWorker::Assign(_)
            | ToWorker::Step { .. }
            | ToWorker::Scalars { .. }
            | ToWorker::Commit { .. }
            | ToWorker::Audited(_)
            | ToWorker::Enrol(_)
            | ToWorker::Reveal { .. }
            | ToWorker::Abort { .. }
            | ToWorker::Flush { .. }
            | ToWorker::Forget { .. }
            | ToWorker::Audit(_) => {}
        }
    }

    pub fn check(&self) {
        let mut placed = BTreeSet::new();
        for seen in self.pipelines.values() {
            for holder in &seen.holders {
                let worker = holder.worker;
                assert!(placed.insert(worker), "two stages for one worker");
                assert!(
                    !self.convicted.contains(&worker),
                    "a stage for a convicted worker"
                );
                assert!(
                    !self.left.contains(&worker),
                    "a stage for a worker that left"
                );
                assert!(
                    self.session(&worker).is_some(),
                    "a stage for a worker that is gone"
                );
                assert_eq!(self.roles[&worker], Role::Worker);
            }
        }
        assert!(
            self.assigned
                .values()
                .all(|assignment| assignment.standby.len() <= 8)
        );
    }

    pub fn session(&self, worker: &WorkerId) -> Option<SessionId> {
        let mut all = self.sessions.iter();
        all.find_map(|(session, id)| (id == worker).then_some(*session))
    }

    pub fn forget(&mut self, session: SessionId) {
        if let Some(worker) = self.sessions.remove(&session) {
            self.assigned.remove(&worker);
        }
    }

    pub fn pass(&mut self, micros: u64) {
        let until = self.now + micros;
        while self.now < until {
            self.now = (self.now + SECOND / 10).min(until);
            let heartbeats: Vec<SessionId> = self.sessions.keys().copied().collect();
            for session in heartbeats {
                let message = ToCoordinator::Heartbeat;
                self.apply(CoreEvent::Message { session, message });
            }
            self.apply(CoreEvent::Tick);
        }
    }

    pub fn join(&mut self, number: u8, role: Role, memory_bytes: u64) -> WorkerId {
        self.join_at(
            number,
            role,
            memory_bytes,
            &format!("concord://worker-{number}"),
        )
    }

    pub fn join_at(
        &mut self,
        number: u8,
        role: Role,
        memory_bytes: u64,
        endpoint: &str,
    ) -> WorkerId {
        let worker = id(number);
        self.next += 1;
        let session = SessionId(self.next);
        self.leave(worker);
        self.sessions.insert(session, worker);
        self.roles.insert(worker, role);
        self.left.remove(&worker);
        let hello = Hello {
            role,
            protocol: PROTOCOL_VERSION,
            arithmetic: ARITHMETIC_VERSION,
            device: DeviceInfo {
                name: "made-up".to_string(),
                macs_per_second: 1_000_000,
                memory_bytes,
            },
            endpoint: endpoint.to_string(),
            held: None,
            challenge: [0; 32],
        };
        self.apply(CoreEvent::Opened {
            session,
            worker,
            hello,
        });
        worker
    }

    pub fn leave(&mut self, worker: WorkerId) {
        if let Some(session) = self.session(&worker) {
            self.forget(session);
            let reason = "it is gone".to_string();
            // The tasks that serve learn of it from the effects.
            self.apply(CoreEvent::Closed { session, reason });
        }
    }

    pub fn say(&mut self, worker: WorkerId, message: ToCoordinator) {
        if let Some(session) = self.session(&worker) {
            self.apply(CoreEvent::Message { session, message });
        }
    }

    /// All that was asked to stand by has loaded, and all streams are there.
    pub fn load(&mut self) {
        let all: Vec<(WorkerId, StageAssignment)> = self
            .assigned
            .iter()
            .map(|(id, a)| (*id, a.clone()))
            .collect();
        for (worker, assignment) in all {
            if assignment.stage.is_none() {
                let stands_by = ToCoordinator::StandsBy {
                    deployment: assignment.deployment.id(),
                    epoch: assignment.epoch,
                    layers: assignment.standby,
                };
                self.say(worker, stands_by);
            }
        }
        let plans: Vec<(u32, u32)> = self
            .pipelines
            .iter()
            .map(|(index, seen)| (*index, seen.epoch))
            .collect();
        for (pipeline, epoch) in plans {
            let seen = self.pipelines.get_mut(&pipeline).unwrap();
            if !seen.holders.is_empty() && seen.epoch == epoch {
                seen.is_running = true;
                self.apply(CoreEvent::Serving(ServingEvent::Running {
                    pipeline,
                    epoch,
                }));
            }
        }
    }

    pub fn holder(&self, pipeline: u32, stage: usize) -> WorkerId {
        self.pipelines[&pipeline].holders[stage].worker
    }

    pub fn lost(&mut self, pipeline: u32, stage: usize, is_here: bool) {
        let seen = &self.pipelines[&pipeline];
        let (epoch, worker) = (seen.epoch, seen.holders[stage].worker);
        self.apply(CoreEvent::Serving(ServingEvent::Lost {
            pipeline,
            epoch,
            worker,
            reason: "its stream broke".to_string(),
            is_here,
        }));
    }

    pub fn failed(&mut self, worker: WorkerId, permanent: bool) {
        let Some(assignment) = self.assigned.get(&worker) else {
            return;
        };
        let message = ToCoordinator::StageFailed {
            deployment: assignment.deployment.id(),
            epoch: assignment.epoch,
            reason: "it does not fit".to_string(),
            permanent,
        };
        self.say(worker, message);
    }

    pub fn doing(&mut self, worker: WorkerId) -> String {
        self.member(worker).doing
    }

    /// What the status shows of a member.
    pub fn member(&mut self, worker: WorkerId) -> MemberStatus {
        self.apply(asked(0, Question::Status));
        let status = self.status.take().unwrap();
        let member = status
            .members
            .into_iter()
            .find(|member| member.id == worker);
        member.expect("a member")
    }
}

/// A pool of two stages and so many spare workers.
pub fn pool(spares: u8) -> World {
    let mut world = World::new(model(2, 1, 2));
    for number in 1..=2 + spares {
        world.join(number, Role::Worker, 10_000_000);
    }
    world.load();
    world
}
