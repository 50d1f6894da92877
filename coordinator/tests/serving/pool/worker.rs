//! A make-believe worker: a session, and a stream for its stage.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use concord_proto::address::Address;
use concord_proto::serving::{
    AnswerVerdict, DrawOrder, Drawn, FromStage, Pass, PassResult, Passed, StageAssignment,
    StageStreamHello, ToStage, TokenLogprob, runs_digest,
};
use concord_proto::session::{DeviceInfo, Hello, Role, ToCoordinator, ToWorker};
use concord_proto::wire::coordinator_client::CoordinatorClient;
use concord_proto::wire::{Body, Envelope};
use concord_proto::{
    ARITHMETIC_VERSION, Digest, Keypair, PROTOCOL_VERSION, Signed, WorkerId, canonical, link,
};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::stage::{Frame, Lie, Stage, draw, scored};

type Ends = (mpsc::Sender<Frame>, Option<mpsc::Receiver<Frame>>);

/// The links between stages, by epoch and the stage that receives.
#[derive(Clone, Default)]
pub struct Wires(Arc<Mutex<BTreeMap<(u32, usize), Ends>>>);

impl Wires {
    fn with<R>(&self, at: (u32, usize), then: impl FnOnce(&mut Ends) -> R) -> R {
        let mut all = self.0.lock().unwrap();
        then(all.entry(at).or_insert_with(|| {
            let (to, from) = mpsc::channel(64);
            (to, Some(from))
        }))
    }
}

/// An adapter that every stage loads, and on which every stage fails.
pub const POISON: Digest = Digest([77; 32]);

/// How a worker is.
#[derive(Clone)]
pub struct Nature {
    pub role: Role,
    pub lie: Lie,
    pub memory: u64,
    /// What it says to audits.
    pub verdict: AnswerVerdict,
    pub pass: Duration,
}

impl Default for Nature {
    fn default() -> Self {
        Self {
            role: Role::Worker,
            lie: Lie::None,
            memory: 1 << 30,
            verdict: AnswerVerdict::Agrees,
            pass: Duration::from_micros(500),
        }
    }
}

/// A worker that runs. Dropped, it goes on; killed, it is gone at once.
pub struct Worker {
    pub id: WorkerId,
    task: AbortHandle,
    stream: Arc<Mutex<Option<AbortHandle>>>,
    say: mpsc::Sender<ToCoordinator>,
    /// What it was told.
    pub heard: Arc<Mutex<Vec<ToWorker>>>,
}

impl Worker {
    pub fn start(url: &str, number: u8, wires: &Wires, nature: Nature) -> Self {
        let key = Keypair::from_secret([number; 32]);
        let id = key.public();
        let (say, saying) = mpsc::channel(64);
        let stream = Arc::new(Mutex::new(None));
        let heard = Arc::new(Mutex::new(Vec::new()));
        let process = Process {
            url: url.to_string(),
            key,
            wires: wires.clone(),
            nature,
            stream: stream.clone(),
            heard: heard.clone(),
        };
        let task = tokio::spawn(process.run(saying)).abort_handle();
        Self {
            id,
            task,
            stream,
            say,
            heard,
        }
    }

    /// The process is gone.
    pub fn kill(&self) {
        self.task.abort();
    }

    /// Only its stream is gone.
    pub fn break_stream(&self) {
        if let Some(stream) = self.stream.lock().unwrap().take() {
            stream.abort();
        }
    }

    pub fn has_left(&self) -> bool {
        self.heard.lock().unwrap().contains(&ToWorker::Leave)
    }

    pub async fn say(&self, message: ToCoordinator) {
        self.say.send(message).await.unwrap();
    }
}

struct Process {
    url: String,
    key: Keypair,
    wires: Wires,
    nature: Nature,
    stream: Arc<Mutex<Option<AbortHandle>>>,
    heard: Arc<Mutex<Vec<ToWorker>>>,
}

impl Process {
    async fn run(self, mut saying: mpsc::Receiver<ToCoordinator>) -> Option<()> {
        let address = Address::parse(&self.url).unwrap();
        let channel = link::connect(&address, &self.key).await.ok()?;
        let mut client = CoordinatorClient::new(channel);
        let (up, waiting) = mpsc::channel::<Envelope>(64);
        let session = client.session(ReceiverStream::new(waiting)).await.ok()?;
        let mut down = session.into_inner();
        let mut streams = JoinSet::new();
        let mut beats = tokio::time::interval(Duration::from_millis(200));
        loop {
            let message = tokio::select! {
                _ = beats.tick() => ToCoordinator::Heartbeat,
                said = saying.recv() => said?,
                envelope = down.message() => {
                    let envelope = envelope.ok()??;
                    let message = Signed::try_from(envelope).unwrap().open().unwrap();
                    match self.hear(message, &client, &mut streams) {
                        Some(answer) => answer,
                        None => continue,
                    }
                }
            };
            // The first message has to be the Hello: no heartbeat before the challenge.
            let is_hello = matches!(message, ToCoordinator::Hello(_));
            let is_known = !self.heard.lock().unwrap().is_empty();
            if is_hello || is_known {
                up.send(Signed::new(&self.key, &message).into())
                    .await
                    .ok()?;
            }
        }
    }

    fn hear(
        &self,
        message: ToWorker,
        client: &CoordinatorClient<Channel>,
        streams: &mut JoinSet<Option<()>>,
    ) -> Option<ToCoordinator> {
        self.heard.lock().unwrap().push(message.clone());
        match message {
            ToWorker::Challenge { nonce } => Some(ToCoordinator::Hello(Hello {
                role: self.nature.role,
                protocol: PROTOCOL_VERSION,
                arithmetic: ARITHMETIC_VERSION,
                device: DeviceInfo {
                    name: "made-up".to_string(),
                    macs_per_second: 1_000_000,
                    memory_bytes: self.nature.memory,
                },
                endpoint: format!("concord://{}.invalid", self.key.public().short()),
                held: None,
                challenge: nonce,
            })),
            ToWorker::Serve(assignment) => {
                assignment.validate().unwrap();
                streams.abort_all();
                if assignment.stage.is_some() {
                    let stream = StageStream::new(self, client.clone(), (*assignment).clone());
                    *self.stream.lock().unwrap() = Some(streams.spawn(stream.run()));
                }
                let layers = assignment.standby.clone();
                (!layers.is_empty()).then(|| ToCoordinator::StandsBy {
                    deployment: assignment.deployment.id(),
                    epoch: assignment.epoch,
                    layers,
                })
            }
            ToWorker::AuditAnswer(order) => Some(ToCoordinator::AnswerVerdict {
                order: order.order,
                verdict: self.nature.verdict.clone(),
            }),
            ToWorker::Welcome { .. }
            | ToWorker::Refused { .. }
            | ToWorker::Unserve { .. }
            | ToWorker::Unreached { .. }
            | ToWorker::Leave => None,
            // It trains nothing.
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
            | ToWorker::Audit(_) => None,
        }
    }
}

struct StageStream {
    client: CoordinatorClient<Channel>,
    stage: Stage,
    wires: Wires,
    pause: Duration,
    draws: BTreeMap<u64, DrawOrder>,
    passes: BTreeMap<u64, Pass>,
    results: u32,
}

impl StageStream {
    fn new(
        process: &Process,
        client: CoordinatorClient<Channel>,
        assignment: StageAssignment,
    ) -> Self {
        Self {
            client,
            stage: Stage::new(process.key.clone(), assignment, process.nature.lie),
            wires: process.wires.clone(),
            pause: process.nature.pass,
            draws: BTreeMap::new(),
            passes: BTreeMap::new(),
            results: 0,
        }
    }

    async fn run(mut self) -> Option<()> {
        let (up, waiting) = mpsc::channel::<Body>(1_024);
        let assignment = &self.stage.assignment;
        let mut ticket = assignment.ticket;
        if self.stage.lie == Lie::OtherTicket {
            ticket = [0; 32];
        }
        let hello = StageStreamHello {
            deployment: self.stage.deployment,
            pipeline: assignment.pipeline,
            epoch: assignment.epoch,
            stage: assignment.stage?,
            ticket,
        };
        let at = (assignment.epoch, self.stage.index());
        let bytes = canonical::encode(&Signed::new(&self.stage.key, &hello));
        up.send(Body { bytes }).await.ok()?;
        let mut frames = self.wires.with(at, |ends| ends.1.take())?;
        let stream = self.client.lane(ReceiverStream::new(waiting)).await.ok()?;
        let mut down = stream.into_inner();
        loop {
            let said = tokio::select! {
                body = down.message() => {
                    let message = canonical::decode(&body.ok()??.bytes).unwrap();
                    self.hear(message).await
                }
                frame = frames.recv() => {
                    let frame = frame?;
                    self.stage.receive(frame.header);
                    self.compute(frame.pass).await
                }
            };
            for message in said {
                let mut bytes = canonical::encode(&message);
                if self.stage.lie == Lie::Garbage && self.results > 20 {
                    bytes = vec![255; 40];
                }
                up.send(Body { bytes }).await.ok()?;
            }
        }
    }

    async fn hear(&mut self, message: ToStage) -> Vec<FromStage> {
        match message {
            ToStage::Pass(pass) => self.compute(pass).await,
            ToStage::Draws(draws) => {
                self.draws.insert(draws.pass, draws);
                self.results()
            }
            ToStage::Claim(order) => vec![FromStage::Claimed {
                order: order.order,
                claim: Ok(self.stage.claim(&order)),
            }],
            ToStage::Evidence { order, .. } => vec![FromStage::Evidence {
                order,
                headers: self.stage.evidence(),
            }],
            ToStage::AddAdapter(adapter) => vec![FromStage::Adapter {
                adapter,
                outcome: match adapter.0[0] {
                    66 => Err("it is broken".to_string()),
                    _ => Ok(()),
                },
            }],
            ToStage::Forget { .. } | ToStage::RemoveAdapter(_) => Vec::new(),
        }
    }

    async fn compute(&mut self, pass: Pass) -> Vec<FromStage> {
        self.results += 1;
        if pass.runs.iter().any(|run| run.adapter == Some(POISON)) {
            let reason = "it is poison".to_string();
            return vec![FromStage::Failed { reason }];
        }
        if self.stage.lie == Lie::Silent && self.results > 20 {
            return Vec::new();
        }
        tokio::time::sleep(self.pause).await;
        self.stage.write(&pass);
        let passed = FromStage::Passed(Passed {
            pass: pass.number,
            rows: pass.tokens.len() as u32,
            runs: match self.stage.lie {
                Lie::OtherRuns if self.results > 20 => Digest::default(),
                _ => runs_digest(&pass.runs),
            },
            broken: Vec::new(),
            queue_us: 1,
            compute_us: 500,
            wait_us: 1,
            wire_us: 1,
            bytes: 100,
        });
        let mut said = vec![passed];
        if self.stage.is_last() {
            self.passes.insert(pass.number, pass);
            said.extend(self.results());
        } else {
            let at = (self.stage.assignment.epoch, self.stage.index() + 1);
            let next = self.wires.with(at, |ends| ends.0.clone());
            // The next stage may be gone.
            let _ = next.send(self.stage.frame(pass)).await;
        }
        said
    }

    /// The results of passes whose draws are known.
    fn results(&mut self) -> Vec<FromStage> {
        let both = self
            .passes
            .keys()
            .filter(|pass| self.draws.contains_key(pass));
        let numbers: Vec<u64> = both.copied().collect();
        let mut said = Vec::new();
        for number in numbers {
            let pass = self.passes.remove(&number).unwrap();
            let draws = self.draws.remove(&number).unwrap().draws;
            let mut drawn = Vec::new();
            for draw_order in draws {
                let run = &pass.runs[draw_order.run as usize];
                let tokens = self.stage.tokens(&run.pages, run.first + run.count);
                let token = draw_order.sample.map(|sample| {
                    let mut token = draw(&tokens, sample.seed);
                    if self.stage.lie == Lie::NoToken && self.results > 20 {
                        token = u32::MAX;
                    }
                    let token = scored(token, draw_order.logprobs);
                    self.stage.note_drawn(run, &token);
                    token
                });
                let asked = Some(draw_order.target_logprobs);
                let targets = draw_order.targets.iter();
                let targets: Vec<TokenLogprob> = targets.map(|id| scored(*id, asked)).collect();
                self.stage.note_scored(run, &targets);
                drawn.push(Drawn {
                    run: draw_order.run,
                    token,
                    scored: targets,
                });
            }
            let pass = number;
            said.push(FromStage::Result(PassResult { pass, drawn }));
        }
        said
    }
}
