//! Who holds which part of a model that is served: members come, go, fail and lie, one event after
//! another, and what holds after each is checked.

mod sim;

use std::collections::{BTreeMap, BTreeSet};

use concord_coordinator::core::{
    CallId, Change, Config, Core, Effect, Event, Kept, Question, Seat, ServingEffect, ServingEvent,
    SessionId, Time,
};
use concord_proto::client::{ClientResponse, PoolStatus};
use concord_proto::ledger::Offence;
use concord_proto::serving::{
    AnswerVerdict, Deployment, ServedModel, ServingProfile, StageAssignment,
};
use concord_proto::session::{DeviceInfo, Hello, Role, ToCoordinator, ToWorker};
use concord_proto::{
    ARITHMETIC_VERSION, Digest, Keypair, Layers, PROTOCOL_VERSION, PrecisionSpec, WorkerId,
};
use sim::rng::Rng;

const SECOND: u64 = 1_000_000;

fn model(stages: u32, pipelines: u32, min_workers: u32) -> ServedModel {
    ServedModel {
        deployment: Deployment {
            arithmetic: ARITHMETIC_VERSION,
            model: Digest([1; 32]),
            tokenizer: Digest([2; 32]),
            layers: 12,
            vocab: 100,
            positions: 1_024,
            precision: PrecisionSpec {
                weights: 16,
                activations: 16,
            },
        },
        profile: ServingProfile {
            layer_macs: 1_000,
            head_macs: 1_000,
            layer_bytes: 100,
            embed_bytes: 50,
            head_bytes: 50,
            page_layer_bytes: 1,
            row_bytes: 64,
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
struct Seen {
    epoch: u32,
    seats: Vec<Seat>,
    is_running: bool,
}

struct World {
    core: Core,
    now: u64,
    next: u64,
    sessions: BTreeMap<SessionId, WorkerId>,
    roles: BTreeMap<WorkerId, Role>,
    pipelines: BTreeMap<u32, Seen>,
    assigned: BTreeMap<WorkerId, StageAssignment>,
    orders: Vec<(WorkerId, u64)>,
    convicted: BTreeSet<WorkerId>,
    left: BTreeSet<WorkerId>,
    tickets: BTreeSet<[u8; 32]>,
    state: String,
    audits: (u64, u64),
    status: Option<PoolStatus>,
    last_epoch: u32,
}

fn id(number: u8) -> WorkerId {
    Keypair::from_secret([number; 32]).public()
}

impl World {
    fn new(model: ServedModel) -> Self {
        let key = Keypair::from_secret([255; 32]);
        let core = Core::restore(Config::default(), key, [7; 32], Kept::default());
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

    fn apply(&mut self, event: Event) {
        let effects = self.core.apply(Time(self.now), event);
        let mut awaited: BTreeMap<(u32, u32), Vec<Seat>> = BTreeMap::new();
        for effect in effects {
            match effect {
                Effect::Serving(effect) => self.on_serving(effect, &mut awaited),
                Effect::Send { session, message } => self.on_sent(session, message, &mut awaited),
                Effect::Close { session } => {
                    self.forget(session);
                }
                Effect::Persist(changes) => {
                    for change in changes {
                        if let Change::Convicted { culprit, .. } = change {
                            self.convicted.insert(culprit);
                        }
                    }
                }
                Effect::Reply { response, .. } => match response {
                    ClientResponse::Status(status) => self.status = Some(status),
                    other => panic!("{other:?}"),
                },
                other => panic!("{other:?}"),
            }
        }
        for (plan, seats) in awaited {
            // A holder may have gone within the same event.
            let here = |seat: &&Seat| self.session(&seat.worker).is_some();
            let untold: Vec<&Seat> = seats.iter().filter(here).collect();
            assert!(untold.is_empty(), "plan {plan:?}: {untold:?} were not told");
        }
        self.check();
    }

    fn on_serving(
        &mut self,
        effect: ServingEffect,
        awaited: &mut BTreeMap<(u32, u32), Vec<Seat>>,
    ) {
        match effect {
            ServingEffect::Planned {
                pipeline,
                epoch,
                seats,
                pages,
                ..
            } => {
                assert!(epoch > self.last_epoch, "epochs rise");
                self.last_epoch = epoch;
                assert!(pages >= 16 && !seats.is_empty());
                assert_eq!(seats.last().unwrap().layers.end, 12);
                for seat in &seats {
                    assert!(self.tickets.insert(seat.ticket), "a ticket is used twice");
                }
                awaited.retain(|(index, _), _| *index != pipeline);
                awaited.insert((pipeline, epoch), seats.clone());
                let seen = Seen {
                    epoch,
                    seats,
                    is_running: false,
                };
                self.pipelines.insert(pipeline, seen);
            }
            ServingEffect::Down { pipeline, .. } => {
                let seen = self.pipelines.get_mut(&pipeline).expect("it was planned");
                seen.seats.clear();
                seen.is_running = false;
            }
            ServingEffect::Pool { state, audits, .. } => {
                (self.state, self.audits) = (state, audits);
            }
        }
    }

    fn on_sent(
        &mut self,
        session: SessionId,
        message: ToWorker,
        awaited: &mut BTreeMap<(u32, u32), Vec<Seat>>,
    ) {
        let Some(worker) = self.sessions.get(&session).copied() else {
            return;
        };
        match message {
            ToWorker::Serve(assignment) => {
                assignment.validate().unwrap();
                let before = self.assigned.get(&worker).map_or(0, |before| before.epoch);
                assert!(assignment.epoch > before, "a worker is told of an older plan");
                if let Some(seat) = assignment.seat {
                    let plan = (assignment.pipeline, assignment.epoch);
                    let seats = awaited.get_mut(&plan).expect("a seat in no plan");
                    let layers = assignment.stages[seat as usize];
                    let found = seats.iter().position(|seat| seat.worker == worker);
                    let found = seats.remove(found.expect("a seat of the plan"));
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
            _ => {}
        }
    }

    fn check(&self) {
        let mut seated = BTreeSet::new();
        for seen in self.pipelines.values() {
            for seat in &seen.seats {
                let worker = seat.worker;
                assert!(seated.insert(worker), "two seats for one worker");
                assert!(!self.convicted.contains(&worker), "a seat for a convicted worker");
                assert!(!self.left.contains(&worker), "a seat for a worker that left");
                assert!(self.session(&worker).is_some(), "a seat for a worker that is gone");
                assert_eq!(self.roles[&worker], Role::Worker);
            }
        }
        assert!(self.assigned.values().all(|assignment| assignment.standby.len() <= 8));
    }

    fn session(&self, worker: &WorkerId) -> Option<SessionId> {
        let mut all = self.sessions.iter();
        all.find_map(|(session, id)| (id == worker).then_some(*session))
    }

    fn forget(&mut self, session: SessionId) {
        if let Some(worker) = self.sessions.remove(&session) {
            self.assigned.remove(&worker);
        }
    }

    fn pass(&mut self, micros: u64) {
        let until = self.now + micros;
        while self.now < until {
            self.now = (self.now + SECOND / 10).min(until);
            let heartbeats: Vec<SessionId> = self.sessions.keys().copied().collect();
            for session in heartbeats {
                let message = ToCoordinator::Heartbeat;
                self.apply(Event::Message { session, message });
            }
            self.apply(Event::Tick);
        }
    }

    fn join(&mut self, number: u8, role: Role, memory_bytes: u64) -> WorkerId {
        let worker = id(number);
        self.next += 1;
        let session = SessionId(self.next);
        if let Some(earlier) = self.session(&worker) {
            self.forget(earlier);
        }
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
            endpoint: format!("http://{number}"),
            held: None,
            challenge: [0; 32],
        };
        self.apply(Event::Opened {
            session,
            worker,
            hello,
        });
        worker
    }

    fn leave(&mut self, worker: WorkerId) {
        if let Some(session) = self.session(&worker) {
            self.forget(session);
            let reason = "it is gone".to_string();
            // The tasks that serve learn of it from the effects.
            self.apply(Event::Closed { session, reason });
        }
    }

    fn say(&mut self, worker: WorkerId, message: ToCoordinator) {
        if let Some(session) = self.session(&worker) {
            self.apply(Event::Message { session, message });
        }
    }

    /// All that was asked to stand by has loaded, and all lanes are there.
    fn load(&mut self) {
        let all: Vec<(WorkerId, StageAssignment)> =
            self.assigned.iter().map(|(id, a)| (*id, a.clone())).collect();
        for (worker, assignment) in all {
            if assignment.seat.is_none() {
                let stands_by = ToCoordinator::StandsBy {
                    deployment: assignment.deployment.id(),
                    epoch: assignment.epoch,
                    layers: assignment.standby,
                };
                self.say(worker, stands_by);
            }
        }
        let plans: Vec<(u32, u32)> =
            self.pipelines.iter().map(|(index, seen)| (*index, seen.epoch)).collect();
        for (pipeline, epoch) in plans {
            let seen = self.pipelines.get_mut(&pipeline).unwrap();
            if !seen.seats.is_empty() && seen.epoch == epoch {
                seen.is_running = true;
                self.apply(Event::Serving(ServingEvent::Running { pipeline, epoch }));
            }
        }
    }

    fn seat(&self, pipeline: u32, seat: usize) -> WorkerId {
        self.pipelines[&pipeline].seats[seat].worker
    }

    fn lost(&mut self, pipeline: u32, seat: usize, is_here: bool) {
        let seen = &self.pipelines[&pipeline];
        let (epoch, worker) = (seen.epoch, seen.seats[seat].worker);
        self.apply(Event::Serving(ServingEvent::Lost {
            pipeline,
            epoch,
            worker,
            reason: "its lane broke".to_string(),
            is_here,
        }));
    }

    fn failed(&mut self, worker: WorkerId, permanent: bool) {
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

    fn doing(&mut self, worker: WorkerId) -> String {
        let (call, question) = (CallId(0), Question::Status);
        self.apply(Event::Asked { call, question });
        let status = self.status.take().unwrap();
        let member = status.members.into_iter().find(|member| member.id == worker);
        member.expect("a member").doing
    }
}

/// Two stages, with as many workers more as said.
fn pool(spares: u8) -> World {
    let mut world = World::new(model(2, 1, 2));
    for number in 1..=2 + spares {
        world.join(number, Role::Worker, 10_000);
    }
    world.load();
    world
}

#[test]
fn it_waits_for_its_workers_and_then_plans() {
    let mut world = World::new(model(2, 1, 2));
    world.pass(SECOND);
    assert!(world.state.contains("0 of 2"), "{}", world.state);
    world.join(1, Role::Worker, 10_000);
    world.join(200, Role::Checker, 10_000);
    assert!(world.state.contains("1 of 2"), "{}", world.state);
    assert!(world.pipelines.is_empty());
    world.join(2, Role::Worker, 10_000);
    assert_eq!(world.pipelines[&0].seats.len(), 2);
    assert!(world.state.contains("made ready"), "{}", world.state);
    world.load();
    assert!(world.state.contains("serves on 2 workers"), "{}", world.state);
    let first = world.seat(0, 0);
    assert!(world.doing(first).starts_with("serves layers 0.."));
    let spare = world.join(3, Role::Worker, 10_000);
    assert!(world.doing(spare).contains("to stand by"));
    world.load();
    assert!(world.doing(spare).starts_with("stands by for layers"));
    assert_eq!(world.pipelines[&0].epoch, 1, "no new plan while it runs well");
}

#[test]
fn whoever_stands_by_takes_over_and_the_others_keep_their_layers() {
    for stage in 0..2 {
        let mut world = pool(1);
        let lost = world.seat(0, stage);
        let kept = world.seat(0, 1 - stage);
        let layers: Vec<Layers> =
            world.pipelines[&0].seats.iter().map(|seat| seat.layers).collect();
        world.leave(lost);
        let seen = &world.pipelines[&0];
        assert_eq!(seen.seats[1 - stage].worker, kept);
        let now: Vec<Layers> = seen.seats.iter().map(|seat| seat.layers).collect();
        assert_eq!(now, layers);
        assert_eq!(world.assigned[&kept].epoch, seen.epoch);
    }
}

#[test]
fn those_that_have_the_layers_come_before_those_that_do_not() {
    let mut world = pool(2);
    let idle: Vec<WorkerId> = world
        .assigned
        .iter()
        .filter(|(_, assignment)| assignment.seat.is_none())
        .map(|(worker, _)| *worker)
        .collect();
    assert_eq!(idle.len(), 2);
    // One of the two is there anew, and has nothing.
    let (fresh, ready) = (idle[1], idle[0]);
    let number = (1..=4).find(|number| id(*number) == fresh).unwrap();
    world.join(number, Role::Worker, 1 << 40);
    world.leave(world.seat(0, 0));
    assert_eq!(world.seat(0, 0), ready);
}

#[test]
fn without_a_spare_the_rest_is_cut_anew_and_without_anyone_it_is_down() {
    let mut world = pool(0);
    world.leave(world.seat(0, 1));
    let seen = &world.pipelines[&0];
    assert_eq!(seen.seats.len(), 1, "one stage on who is left");
    assert_eq!(seen.seats[0].layers, Layers { start: 0, end: 12 });
    world.load();
    world.leave(world.seat(0, 0));
    assert!(world.pipelines[&0].seats.is_empty());
    assert!(world.state.contains("is down"), "{}", world.state);
    world.join(9, Role::Worker, 10_000);
    assert_eq!(world.pipelines[&0].seats.len(), 1);
}

#[test]
fn a_lane_that_breaks_alone_is_a_loss_too() {
    let mut world = pool(1);
    let lost = world.seat(0, 0);
    world.lost(0, 0, false);
    assert_ne!(world.seat(0, 0), lost);
    // It said so itself, for the first time: it may only have noticed another's end.
    world.load();
    let same = world.seat(0, 1);
    let epoch = world.pipelines[&0].epoch;
    world.lost(0, 1, true);
    assert_eq!(world.seat(0, 1), same);
    assert!(world.pipelines[&0].epoch > epoch);
    world.pass(5 * SECOND);
    world.load();
    assert!(world.doing(lost).starts_with("stands by"));
}

#[test]
fn what_an_older_plan_had_is_of_no_account() {
    let mut world = pool(1);
    let worker = world.seat(0, 1);
    world.lost(0, 0, false);
    let epoch = world.pipelines[&0].epoch;
    let late = ServingEvent::Lost {
        pipeline: 0,
        epoch: epoch - 1,
        worker,
        reason: "late".to_string(),
        is_here: false,
    };
    world.apply(Event::Serving(late));
    assert_eq!(world.pipelines[&0].epoch, epoch);
}

#[test]
fn failures_move_layers_on_and_two_permanent_ones_end_it() {
    let mut world = pool(2);
    let first = world.seat(0, 0);
    // The first failure is free, and the second is not.
    world.failed(first, false);
    world.failed(first, false);
    assert_ne!(world.seat(0, 0), first);
    let second = world.seat(0, 0);
    world.failed(second, true);
    assert_ne!(world.seat(0, 0), second);
    assert!(world.doing(second).contains("cannot hold the model"));
    let third = world.seat(0, 0);
    world.failed(third, true);
    assert!(world.pipelines[&0].seats.is_empty());
    assert!(world.state.contains("cannot be served"), "{}", world.state);
    assert!(world.state.contains("it does not fit"), "{}", world.state);
}

#[test]
fn a_worker_that_leaves_is_replaced_by_one_that_is_ready() {
    let mut world = World::new(model(2, 1, 2));
    world.join(1, Role::Worker, 10_000);
    world.join(2, Role::Worker, 10_000);
    world.load();
    let leaver = world.seat(0, 0);
    let heir = world.join(3, Role::Worker, 10_000);
    world.say(leaver, ToCoordinator::Drain);
    world.pass(5 * SECOND);
    assert_eq!(world.seat(0, 0), leaver, "its heir is not ready");
    assert!(!world.left.contains(&leaver));
    world.load();
    assert_eq!(world.seat(0, 0), heir);
    assert!(world.left.contains(&leaver));
}

#[test]
fn a_worker_that_leaves_does_not_wait_for_ever() {
    let mut world = pool(0);
    let leaver = world.seat(0, 0);
    world.join(3, Role::Worker, 10_000);
    world.say(leaver, ToCoordinator::Drain);
    world.pass(70 * SECOND);
    assert!(world.left.contains(&leaver));
    assert_eq!(world.pipelines[&0].seats.len(), 2);
}

#[test]
fn whoever_is_not_trusted_is_out_and_the_convicted_do_not_come_back() {
    let mut world = pool(2);
    let liar = world.seat(0, 0);
    world.apply(Event::Serving(ServingEvent::Distrusted {
        worker: liar,
        reason: "it lies".to_string(),
    }));
    assert!(world.doing(liar).contains("it lies"));
    assert_ne!(world.seat(0, 0), liar);
    let guilty = world.seat(0, 1);
    world.apply(Event::Serving(ServingEvent::Guilty {
        worker: guilty,
        offence: Offence::Equivocation,
        evidence: "two signatures".to_string(),
    }));
    assert!(world.convicted.contains(&guilty));
    assert_eq!(world.pipelines[&0].seats.len(), 2);
    world.pass(10 * SECOND);
    assert!(world.pipelines[&0].seats.iter().all(|seat| seat.worker != liar));
}

#[test]
fn pipelines_are_independent() {
    let mut world = World::new(model(2, 2, 4));
    for number in 1..=4 {
        world.join(number, Role::Worker, 10_000);
    }
    world.load();
    assert_eq!(world.pipelines.len(), 2);
    let other = world.pipelines[&1].epoch;
    world.leave(world.seat(0, 0));
    assert_eq!(world.pipelines[&1].epoch, other);
    assert_eq!(world.pipelines[&0].seats.len(), 1);
}

fn audit(world: &mut World, signers: Vec<WorkerId>) {
    world.apply(Event::Serving(ServingEvent::Audit {
        receipt: Digest([3; 32]),
        name: "answer".to_string(),
        signers,
    }));
}

fn answer(world: &mut World, verdict: &AnswerVerdict) -> WorkerId {
    let (judge, order) = world.orders.pop().expect("an order");
    let verdict = verdict.clone();
    world.say(judge, ToCoordinator::AnswerVerdict { order, verdict });
    judge
}

#[test]
fn a_judge_that_is_alone_with_its_word_is_convicted_itself() {
    let mut world = pool(0);
    let signers: Vec<WorkerId> = (0..2).map(|seat| world.seat(0, seat)).collect();
    for number in 200..203 {
        world.join(number, Role::Checker, 10_000);
    }
    audit(&mut world, signers.clone());
    let accuser = answer(
        &mut world,
        &AnswerVerdict::WrongStage {
            worker: signers[0],
            layers: Layers { start: 0, end: 6 },
            expected: Digest([1; 32]),
            claimed: Digest([2; 32]),
        },
    );
    let second = answer(&mut world, &AnswerVerdict::Agrees);
    let third = answer(&mut world, &AnswerVerdict::Agrees);
    assert!(accuser != second && second != third);
    assert_eq!(world.convicted, BTreeSet::from([accuser]));
    assert_eq!(world.audits, (1, 0));
    // A second answer to the same order counts for nothing.
    world.orders.push((second, 1));
    answer(&mut world, &AnswerVerdict::Agrees);
    assert_eq!(world.audits, (1, 0));
}

#[test]
fn no_party_judges_itself_and_nobody_accuses_strangers() {
    let mut world = pool(1);
    let signers: Vec<WorkerId> = (0..2).map(|seat| world.seat(0, seat)).collect();
    audit(&mut world, signers.clone());
    let stranger = AnswerVerdict::WrongDraw {
        worker: id(77),
        index: 0,
        expected: 1,
        found: 2,
    };
    let judge = answer(&mut world, &stranger);
    assert!(!signers.contains(&judge));
    assert!(world.orders.is_empty(), "nobody else may judge");
    world.pass(60 * SECOND);
    assert_eq!(world.audits, (0, 0));
    assert!(world.convicted.is_empty());
    assert_eq!(world.pipelines[&0].seats.len(), 2);
}

#[test]
fn a_checker_that_does_not_answer_is_passed_over() {
    let mut world = pool(0);
    let signers: Vec<WorkerId> = (0..2).map(|seat| world.seat(0, seat)).collect();
    world.join(200, Role::Checker, 10_000);
    world.join(201, Role::Checker, 10_000);
    audit(&mut world, signers);
    let (silent, _) = world.orders.pop().unwrap();
    world.pass(61 * SECOND);
    let judge = answer(&mut world, &AnswerVerdict::Agrees);
    assert_ne!(judge, silent);
    assert_eq!(world.audits, (1, 0));
}

#[test]
fn jobs_are_refused() {
    let mut world = pool(0);
    let new = sim::job::job(2, (1, 1), false);
    let (call, question) = (CallId(1), Question::Submit(Box::new(new)));
    let effects = world.core.apply(Time(world.now), Event::Asked { call, question });
    let refused = effects.iter().any(|effect| {
        matches!(effect, Effect::Reply { response: ClientResponse::Refused(why), .. }
            if why.contains("serves a model"))
    });
    assert!(refused, "{effects:?}");
}

/// Whatever happens: no seat is held twice or by whoever is gone, and once it is quiet again there
/// is a plan wherever there can be one.
#[test]
fn whatever_happens_there_is_a_plan_in_the_end() {
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let pipelines = 1 + rng.below(2) as u32;
        let stages = rng.below(4) as u32;
        let mut world = World::new(model(stages, pipelines, 1 + rng.below(4) as u32));
        for _ in 0..120 {
            let number = 1 + rng.below(7) as u8;
            let worker = id(number);
            match rng.below(12) {
                0..=2 if !world.sessions.values().any(|known| *known == worker) => {
                    world.join(number, Role::Worker, 1_000 + 500 * rng.below(8));
                }
                3 => world.leave(worker),
                4 => world.failed(worker, rng.below(10) == 0),
                5 => world.say(worker, ToCoordinator::Drain),
                6 | 7 => world.load(),
                8 => {
                    let planned = world.pipelines.iter().filter(|(_, seen)| !seen.seats.is_empty());
                    let found = planned.map(|(index, seen)| (*index, seen.seats.len())).last();
                    if let Some((index, count)) = found {
                        let seat = rng.below(count as u64) as usize;
                        world.lost(index, seat, rng.below(2) == 0);
                    }
                }
                9 if rng.below(8) == 0 => {
                    let reason = "it lies".to_string();
                    let event = ServingEvent::Distrusted { worker, reason };
                    world.apply(Event::Serving(event));
                }
                _ => world.pass(rng.below(3 * SECOND)),
            }
        }
        world.pass(100 * SECOND);
        for number in 20..26 {
            world.join(number, Role::Worker, 100_000);
        }
        world.pass(100 * SECOND);
        world.load();
        let is_hopeless = world.state.contains("cannot be served");
        let planned = world.pipelines.values().filter(|seen| seen.is_running).count();
        assert!(is_hopeless || planned > 0, "seed {seed}: {}", world.state);
    }
}
