//! A pool of make-believe stages over real sockets. A token is a function of all tokens before it,
//! read back from the pages that passes wrote: a scheduler that mixes pages up gives other tokens.

#![allow(dead_code, reason = "each test file uses a part of it")]

pub mod stage;
pub mod worker;

use std::time::{Duration, Instant};

use concord_coordinator::core::Config;
use concord_coordinator::server::access::PoolAccess;
use concord_coordinator::server::{RunningServer, ServerOptions, start};
use concord_coordinator::serving::{AnswerHandle, ModelService};
use concord_proto::ExpertCuts;
use concord_proto::serving::{
    Deployment, Finish, Generation, GenerationSpec, SamplingSpec, ServedModel, ServedPrecision,
    ServingProfile, Update, Usage,
};
use concord_proto::{ARITHMETIC_VERSION, Digest, Domain, F32Bits};

pub const LAYERS: u32 = 6;
pub const VOCAB: u32 = 500;

/// A model of six layers, in so many stages.
pub fn served(stages: u32, min_workers: u32, audit_rate: u64) -> ServedModel {
    let deployment = Deployment {
        arithmetic: ARITHMETIC_VERSION,
        model: Digest([1; 32]),
        tokenizer: Digest([2; 32]),
        layers: LAYERS,
        vocab: VOCAB,
        positions: 2_048,
        precision: ServedPrecision::of(16),
    };
    let profile = ServingProfile {
        layer_macs: 1_000,
        head_macs: 1_000,
        layer_bytes: 1 << 20,
        embed_bytes: 1 << 20,
        head_bytes: 1 << 20,
        shared_bytes: 0,
        page_layer_bytes: 1 << 10,
        row_bytes: 64,
        cuts: ExpertCuts::default(),
    };
    ServedModel {
        deployment,
        profile,
        stages,
        pipelines: 1,
        min_workers,
        pages: 200,
        audit_rate,
    }
}

pub async fn serve(folder: &std::path::Path, served: ServedModel) -> (RunningServer, ModelService) {
    let config = Config {
        serving_stall_us: 3_000_000,
        ..Config::default()
    };
    let options = ServerOptions {
        listen: "127.0.0.1:0".parse().unwrap(),
        data_dir: folder.to_path_buf(),
        config,
        serve: Some(served),
        access: PoolAccess::open([]).fixed(),
        referee: None,
    };
    let server = start(options).await.unwrap();
    let serving = server.serving().expect("it serves");
    (server, serving)
}

/// Waits until `is_so` of the pool.
pub async fn until(serving: &ModelService, what: &str, is_so: impl Fn(&ModelService) -> bool) {
    let start = Instant::now();
    while !is_so(serving) {
        let view = serving.view();
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "not {what}: {view:#?}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub async fn ready(serving: &ModelService) {
    until(serving, "ready", |serving| serving.view().ready).await;
}

/// Generation `number`: prompts of many lengths, some of which begin alike.
pub fn generation(serving: &ModelService, number: u32, max_tokens: u32) -> Generation {
    let shared = (number % 4) * 70;
    let length = 3 + (number * 37) % 300;
    let token = |at: u32| match at < shared {
        true => (at * 13 + number % 4) % VOCAB,
        false => (at * 31 + number * 17) % VOCAB,
    };
    let spec = GenerationSpec {
        deployment: serving.served().deployment.id(),
        adapter: None,
        prompt: (0..length).map(token).collect(),
        sampling: SamplingSpec {
            temperature: F32Bits::from(1.0),
            top_k: 0,
            top_p: F32Bits::from(1.0),
            seed: u64::from(number),
            frequency_penalty: F32Bits::from(0.0),
            presence_penalty: F32Bits::from(0.0),
            logit_bias: Vec::new(),
            grammar: None,
        },
        max_tokens,
        stop_tokens: vec![7],
        stop_texts: Vec::new(),
        readings: Vec::new(),
        logprobs: None,
        prompt_logprobs: None,
    };
    Generation {
        id: format!("answer-{number}"),
        model: "made-up".to_string(),
        owner: Digest([(number % 3) as u8; 32]),
        spec,
        body: Digest::of(Domain::Text, b"body"),
    }
}

/// The answer of a pool to which nothing happens.
pub fn expected(spec: &GenerationSpec) -> Vec<u32> {
    let mut tokens = spec.prompt.clone();
    let mut answer = Vec::new();
    while answer.len() < spec.max_tokens as usize {
        let token = stage::draw(&tokens, spec.sampling.seed);
        tokens.push(token);
        answer.push(token);
        if spec.stop_tokens.contains(&token) {
            break;
        }
    }
    answer
}

/// What became of an answer.
#[derive(Debug, Default)]
pub struct Outcome {
    pub tokens: Vec<u32>,
    pub finish: Option<(Finish, Usage)>,
    pub failed: Option<String>,
    pub pauses: u32,
}

/// Reads an answer to its end.
pub async fn read(answering: &mut AnswerHandle) -> Outcome {
    let mut outcome = Outcome::default();
    loop {
        let next = tokio::time::timeout(Duration::from_secs(60), answering.updates.recv());
        match next.await.expect("an update within a minute") {
            Some(Update::Token(token)) => outcome.tokens.push(token.token),
            Some(Update::Paused) => outcome.pauses += 1,
            Some(Update::Finished { finish, usage }) => {
                outcome.finish = Some((finish, usage));
                return outcome;
            }
            Some(Update::Failed { reason, .. }) => {
                outcome.failed = Some(reason);
                return outcome;
            }
            Some(_) => {}
            None => {
                outcome.failed = Some("the channel ended".to_string());
                return outcome;
            }
        }
    }
}
