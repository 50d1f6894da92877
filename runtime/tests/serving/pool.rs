//! Workers of one pipeline, driven pass by pass.

use std::collections::BTreeMap;
use std::time::Duration;

use concord_kernels::Device;
use concord_proto::address::Address;
use concord_proto::serving::{
    ClaimOrder, Draw, DrawOrder, Drawn, FromStage, GivenLogprobs, Pass, Passed, SampleOrder,
    SamplingSpec, SequenceRun, StageAssignment, ToStage, TokenLogprob,
};
use concord_proto::session::ToWorker;
use concord_proto::{Digest, Layers, Signed};
use concord_runtime::faults::Faults;
use concord_runtime::worker::{self, WorkerOptions};
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::coordinator::{FakeCoordinator, Member, OpenStream};
use crate::model::ServedModel;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits, but not for ever.
#[track_caller]
pub fn soon<T>(what: impl Future<Output = T>) -> impl Future<Output = T> {
    let asked = std::panic::Location::caller();
    async move {
        let done = tokio::time::timeout(PATIENCE, what).await;
        done.unwrap_or_else(|_| panic!("what {asked} waits for takes too long"))
    }
}

/// Workers, and who they are.
pub struct Pool {
    pub coordinator: FakeCoordinator,
    pub members: Vec<Member>,
    pub dirs: Vec<TempDir>,
    pub leave: Vec<mpsc::Sender<()>>,
}

/// Whether and how a worker lies.
pub type Lies<'a> = &'a [Option<&'a str>];

impl Pool {
    /// Workers that have joined, in the order of `lies`.
    pub async fn start(model: &ServedModel, lies: Lies<'_>) -> Self {
        let coordinator = FakeCoordinator::start(model.blobs.clone()).await;
        let mut pool = Self {
            coordinator,
            members: Vec::new(),
            dirs: Vec::new(),
            leave: Vec::new(),
        };
        for lie in lies {
            pool.join(*lie).await;
        }
        pool
    }

    pub async fn join(&mut self, lie: Option<&str>) {
        let dir = tempfile::tempdir().unwrap();
        let (leave, leaving) = mpsc::channel(1);
        assert!(lie.is_none() || cfg!(feature = "liars"));
        let options = WorkerOptions {
            coordinator: Address::at(self.coordinator.address).to_string(),
            listen: "127.0.0.1:0".parse().unwrap(),
            advertise: None,
            dir: dir.path().to_path_buf(),
            blobs: Default::default(),
            device: Device::cpu(1),
            memory_bytes: 1 << 30,
            #[cfg(feature = "liars")]
            faults: lie.map_or_else(Faults::default, |lie| lie.parse().unwrap()),
            #[cfg(not(feature = "liars"))]
            faults: Faults::default(),
        };
        tokio::spawn(worker::run(options, leaving, |_, _| ()));
        let member = soon(self.coordinator.members.recv()).await.unwrap();
        self.members.push(member);
        self.dirs.push(dir);
        self.leave.push(leave);
    }

    /// An assignment of stages to the first workers.
    pub fn assignment(&self, model: &ServedModel, cuts: &[u32], epoch: u32) -> StageAssignment {
        let edges = [&[0], cuts, &[model.deployment.layers]].concat();
        let stages = edges.windows(2).map(|edge| Layers::new(edge[0], edge[1]));
        let stages: Vec<Layers> = stages.collect();
        let assigned = &self.members[..stages.len()];
        StageAssignment {
            deployment: model.deployment.clone(),
            pipeline: 0,
            epoch,
            ticket: [epoch as u8; 32],
            workers: assigned.iter().map(|member| member.id).collect(),
            endpoints: assigned.iter().map(|m| m.hello.endpoint.clone()).collect(),
            stages,
            stage: None,
            pages: 64,
            adapters: Vec::new(),
            standby: Vec::new(),
        }
    }

    /// Assigns the stages, and waits for their streams.
    pub async fn serve(&mut self, assignment: &StageAssignment) -> Pipeline {
        for stage in 0..assignment.stages.len() {
            let mut own = assignment.clone();
            own.stage = Some(stage as u32);
            let _ = self.members[stage]
                .to
                .try_send(ToWorker::Serve(Box::new(own)));
        }
        let mut streams = BTreeMap::new();
        while streams.len() < assignment.stages.len() {
            let stream = soon(self.coordinator.streams.recv()).await.unwrap();
            assert_eq!(stream.hello.ticket, assignment.ticket);
            assert_eq!(
                stream.worker,
                assignment.workers[stream.hello.stage as usize]
            );
            streams.insert(stream.hello.stage, stream);
        }
        Pipeline {
            streams: streams.into_values().collect(),
            next: 0,
            passed: Vec::new(),
            given: GivenLogprobs::default(),
        }
    }
}

/// Stage streams of a pipeline, first stage first.
pub struct Pipeline {
    pub streams: Vec<OpenStream>,
    pub next: u64,
    pub passed: Vec<Passed>,
    /// Logprobs of the answers so far.
    pub given: GivenLogprobs,
}

/// The logprobs that are asked for.
#[derive(Clone, Copy, Default)]
pub struct Wanted<'a> {
    pub logprobs: Option<u8>,
    /// Tokens to score.
    pub targets: &'a [u32],
    pub target_logprobs: u8,
}

/// What one sequence does in a pass.
#[derive(Clone)]
pub struct Step<'a> {
    pub sequence: u64,
    pub first: u32,
    pub tokens: &'a [u32],
    pub pages: &'a [u32],
    pub adapter: Option<Digest>,
    pub sample: Option<SampleOrder>,
    pub wanted: Wanted<'a>,
}

/// Candidates after an answer so far.
pub type Allowed<'a> = &'a (dyn Fn(&[u32]) -> Option<Vec<u8>> + Sync);

/// What is asked of a pipeline.
#[derive(Clone)]
pub struct Asked<'a> {
    pub sequence: u64,
    pub pages: &'a [u32],
    pub prompt: &'a [u32],
    pub spec: SamplingSpec,
    pub adapter: Option<Digest>,
    pub tokens: usize,
    pub chunk: usize,
    pub allowed: Option<Allowed<'a>>,
    /// Positions that are in the pages already.
    pub cached: usize,
    pub logprobs: Option<u8>,
    pub prompt_logprobs: Option<u8>,
    pub stop_texts: Vec<String>,
}

impl<'a> Asked<'a> {
    pub fn new(sequence: u64, prompt: &'a [u32], spec: &SamplingSpec) -> Self {
        Self {
            sequence,
            pages: &[9, 4],
            prompt,
            spec: spec.clone(),
            adapter: None,
            tokens: 20,
            chunk: 64,
            allowed: None,
            cached: 0,
            logprobs: None,
            prompt_logprobs: None,
            stop_texts: Vec::new(),
        }
    }
}

impl Asked<'_> {
    /// The tokens of the prompt that rows score.
    fn targets(&self, first: usize, end: usize) -> &[u32] {
        let to = (end + 1).min(self.prompt.len());
        match self.prompt_logprobs {
            Some(_) => &self.prompt[(first + 1).min(to)..to],
            None => &[],
        }
    }
}

/// Greedy, or drawn with this seed.
pub fn sampling(seed: Option<u64>) -> SamplingSpec {
    SamplingSpec {
        temperature: if seed.is_some() { 0.9 } else { 0.0 }.into(),
        top_k: 0,
        top_p: 1.0.into(),
        seed: seed.unwrap_or_default(),
        frequency_penalty: 0.0.into(),
        presence_penalty: 0.0.into(),
        logit_bias: Vec::new(),
        grammar: None,
    }
}

impl Pipeline {
    /// Sends a pass.
    pub fn send(&mut self, steps: &[Step<'_>]) {
        let number = self.next;
        self.next += 1;
        let run = |step: &Step<'_>| SequenceRun {
            sequence: step.sequence,
            first: step.first,
            count: step.tokens.len() as u32,
            pages: step.pages.to_vec(),
            adapter: step.adapter,
        };
        let draw = |(run, step): (usize, &Step<'_>)| {
            let Wanted {
                logprobs,
                targets,
                target_logprobs,
            } = step.wanted;
            let draws = step.sample.is_some() || !targets.is_empty();
            draws.then(|| Draw {
                run: run as u32,
                sample: step.sample.clone(),
                targets: targets.to_vec(),
                target_logprobs,
                logprobs,
            })
        };
        self.streams[0].send(&ToStage::Pass(Pass {
            number,
            runs: steps.iter().map(run).collect(),
            tokens: steps.iter().flat_map(|step| step.tokens).copied().collect(),
        }));
        let last = self.streams.last().unwrap();
        last.send(&ToStage::Draws(DrawOrder {
            pass: number,
            draws: steps.iter().enumerate().filter_map(draw).collect(),
        }));
    }

    /// What the last stage says of the next pass.
    pub async fn result(&mut self) -> Vec<Drawn> {
        let last = self.streams.last_mut().unwrap();
        loop {
            match soon(last.from.recv()).await.expect("the stream is open") {
                FromStage::Result(result) => return result.drawn,
                FromStage::Passed(passed) => self.passed.push(passed),
                other => panic!("not a result: {other:?}"),
            }
        }
    }

    /// The tokens of one pass, by run.
    pub async fn pass(&mut self, steps: &[Step<'_>]) -> Vec<u32> {
        self.send(steps);
        let drawn = self.result().await;
        let scored = drawn.iter().flat_map(|drawn| &drawn.scored);
        self.given.prompt.extend(scored.cloned());
        let tokens = drawn.iter().filter_map(|drawn| drawn.token.clone());
        let tokens: Vec<TokenLogprob> = tokens.collect();
        self.given.answer.extend(tokens.iter().cloned());
        tokens.iter().map(|token| token.token).collect()
    }

    /// An answer, alone in the pipeline; the prompt goes in chunks.
    pub async fn answer(&mut self, asked: &Asked<'_>) -> Vec<u32> {
        self.go_on(asked, Vec::new()).await
    }

    /// The whole answer, of which some tokens are known: their pages are void, and they are
    /// computed again.
    pub async fn go_on(&mut self, asked: &Asked<'_>, mut answer: Vec<u32>) -> Vec<u32> {
        let mut first = asked.cached;
        while answer.len() < asked.tokens {
            let all = [asked.prompt, &answer].concat();
            let end = all.len().min(first + asked.chunk);
            let order = || {
                let allowed = asked.allowed.and_then(|allowed| allowed(&answer));
                SampleOrder::new(&asked.spec, &answer, allowed)
            };
            let step = Step {
                sequence: asked.sequence,
                first: first as u32,
                tokens: &all[first..end],
                pages: &asked.pages[..end.div_ceil(128)],
                adapter: asked.adapter,
                sample: (end == all.len()).then(order),
                wanted: Wanted {
                    logprobs: asked.logprobs,
                    targets: asked.targets(first, end),
                    target_logprobs: asked.prompt_logprobs.unwrap_or(0),
                },
            };
            let drawn = self.pass(&[step]).await;
            answer.extend(drawn);
            first = end;
        }
        answer
    }

    /// The claims of a sequence, stage by stage.
    pub async fn claims(&mut self, order: &ClaimOrder) -> Vec<Result<Signed, String>> {
        let mut claims = Vec::new();
        for stream in &mut self.streams {
            stream.send(&ToStage::Claim(order.clone()));
            claims.push(loop {
                match soon(stream.from.recv()).await.expect("the stream is open") {
                    FromStage::Claimed { order: of, claim } if of == order.order => break claim,
                    FromStage::Passed(_) => {}
                    other => panic!("not a claim: {other:?}"),
                }
            });
        }
        claims
    }
}
