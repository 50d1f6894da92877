//! A pipeline without a model. The value of a position depends on its token, its adapter and all
//! values before it, as they are in the pages; a token depends on the value and on the draw order.
//! So a page that is wrong, stale or another sequence's changes the tokens that follow.

use std::collections::BTreeMap;

use concord_proto::Digest;
use concord_proto::serving::{
    Draw, DrawOrder, Drawn, Finish, Generation, GenerationSpec, PAGE_TOKENS, Pass, PassResult,
    SampleOrder, SamplingSpec, TokenLogprob,
};

pub const VOCAB: u32 = 400;
/// A run with this token is broken.
pub const BREAKING: u32 = VOCAB - 1;

pub fn mix(a: u64, b: u64) -> u64 {
    let mut x = (a ^ b.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ b;
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^ (x >> 29)
}

fn adapter_number(adapter: Option<Digest>) -> u64 {
    adapter.map_or(0, |digest| 1 + u64::from(digest.0[0]))
}

/// The value of a position, from those before it.
fn value(before: impl Iterator<Item = u64>, token: u32, adapter: Option<Digest>) -> u64 {
    let all = before.fold(adapter_number(adapter), mix);
    mix(all, u64::from(token) + 1)
}

fn sample(value: u64, order: &SampleOrder) -> u32 {
    let mut state = mix(value, order.seed);
    for (token, bias) in &order.bias {
        state = mix(state, mix(u64::from(*token), u64::from(bias.0)));
    }
    let is_allowed = |token: u32| {
        let bits = order.allowed.as_deref();
        bits.is_none_or(|bits| bits[token as usize / 8] >> (token % 8) & 1 == 1)
    };
    let from = (state % u64::from(VOCAB)) as u32;
    let tokens = (0..VOCAB).map(|step| (from + step) % VOCAB);
    tokens
        .into_iter()
        .find(|&t| is_allowed(t))
        .expect("one is allowed")
}

fn scored(value: u64, token: u32, alternatives: Option<u8>) -> TokenLogprob {
    let Some(alternatives) = alternatives else {
        return TokenLogprob {
            token,
            logprob: 0.0.into(),
            top: Vec::new(),
        };
    };
    let logprob = |token: u32| -((mix(value, u64::from(token)) % 1_000) as f32 / 100.0);
    let top = (0..u32::from(alternatives)).map(|rank| (rank, logprob(rank).into()));
    TokenLogprob {
        token,
        logprob: logprob(token).into(),
        top: top.collect(),
    }
}

/// Keys and values: for each page its positions.
pub struct StageModel {
    pub pages: Vec<Vec<Option<u64>>>,
}

impl StageModel {
    pub fn new(pages: u32) -> Self {
        Self {
            pages: vec![vec![None; PAGE_TOKENS as usize]; pages as usize],
        }
    }

    /// Does a pass: runs that are broken, and what is drawn from the others.
    pub fn pass(&mut self, pass: &Pass, order: &DrawOrder) -> (Vec<u32>, PassResult) {
        let (mut broken, mut drawn) = (Vec::new(), Vec::new());
        let mut tokens = pass.tokens.iter();
        let draws: BTreeMap<u32, &Draw> = order.draws.iter().map(|d| (d.run, d)).collect();
        for (index, run) in (0..).zip(&pass.runs) {
            let tokens: Vec<u32> = tokens.by_ref().take(run.count as usize).copied().collect();
            assert_eq!(tokens.len() as u32, run.count);
            let mut values = Vec::new();
            for (position, token) in (run.first as usize..).zip(&tokens) {
                let slot = |at: usize| (run.pages[at / 128] as usize, at % 128);
                let before = (0..position).map(|at| {
                    let (page, offset) = slot(at);
                    self.pages[page][offset].expect("a position that nobody computed is read")
                });
                let value = value(before, *token, run.adapter);
                let (page, offset) = slot(position);
                self.pages[page][offset] = Some(value);
                values.push(value);
            }
            if tokens.contains(&BREAKING) {
                broken.push(index);
                continue;
            }
            let Some(draw) = draws.get(&index) else {
                continue;
            };
            let last = *values.last().expect("a run has rows");
            let token = draw.sample.as_ref().map(|order| {
                let token = sample(last, order);
                scored(last, token, draw.logprobs)
            });
            let targets = draw.targets.iter().zip(&values);
            let targets =
                targets.map(|(token, value)| scored(*value, *token, Some(draw.target_logprobs)));
            drawn.push(Drawn {
                run: index,
                token,
                scored: targets.collect(),
            });
        }
        let result = PassResult {
            pass: pass.number,
            drawn,
        };
        (broken, result)
    }
}

/// The result of a generation alone, without pages.
pub struct Alone {
    pub answer: Vec<u32>,
    /// None where it breaks.
    pub finish: Option<Finish>,
    pub tokens: Vec<TokenLogprob>,
    pub prompt: Vec<TokenLogprob>,
    /// The values of all positions.
    pub values: Vec<u64>,
}

/// The allowed tokens after `answer` tokens, for a generation with a grammar.
pub fn allowed(seed: u64, answer: u32) -> Vec<u8> {
    let byte = |at: u32| mix(mix(seed, u64::from(answer)), u64::from(at)) as u8 & 0x7f;
    (0..VOCAB.div_ceil(8)).map(byte).collect()
}

pub fn alone(generation: &Generation, positions: u32) -> Alone {
    let spec = &generation.spec;
    let mut tokens = spec.prompt.clone();
    let mut result = Alone {
        answer: Vec::new(),
        finish: None,
        tokens: Vec::new(),
        prompt: Vec::new(),
        values: Vec::new(),
    };
    loop {
        let given = result.answer.len() as u32;
        let ends = result
            .answer
            .last()
            .is_some_and(|t| spec.stop_tokens.contains(t));
        if ends {
            result.finish = Some(Finish::StopToken);
        } else if given >= spec.max_tokens || tokens.len() as u32 >= positions {
            result.finish = Some(Finish::Length);
        }
        let needed = tokens.len() - usize::from(result.finish.is_some());
        let mut is_sound = true;
        let from = result.values.len();
        for token in &tokens[from..needed] {
            is_sound &= *token != BREAKING;
            if is_sound {
                let next = value(result.values.iter().copied(), *token, spec.adapter);
                result.values.push(next);
            }
        }
        // The last token of a prompt is scored by the row before it.
        let is_scored = given == 0 && result.values.len() + 1 >= tokens.len();
        if let Some(asked) = spec.prompt_logprobs.filter(|_| is_scored) {
            let pairs = tokens[1..].iter().zip(&result.values);
            let scores = pairs.map(|(token, value)| scored(*value, *token, Some(asked)));
            result.prompt = scores.collect();
        }
        if !is_sound {
            result.finish = None;
            return result;
        }
        if result.finish.is_some() {
            return result;
        }
        let bits = spec.sampling.grammar.as_ref();
        let bits = bits.map(|_| allowed(spec.sampling.seed, given));
        let order = SampleOrder::new(&spec.sampling, &result.answer, bits);
        let last = *result.values.last().expect("a prompt");
        let token = sample(last, &order);
        result.tokens.push(scored(last, token, spec.logprobs));
        result.answer.push(token);
        tokens.push(token);
    }
}

/// A plain generation.
pub fn generation(owner: u8, prompt: Vec<u32>, max_tokens: u32) -> Generation {
    Generation {
        id: "test".to_string(),
        owner: Digest([owner; 32]),
        spec: GenerationSpec {
            deployment: concord_proto::serving::DeploymentId(Digest::default()),
            adapter: None,
            prompt,
            sampling: SamplingSpec {
                temperature: 1.0.into(),
                top_k: 0,
                top_p: 1.0.into(),
                seed: 1,
                frequency_penalty: 0.0.into(),
                presence_penalty: 0.0.into(),
                logit_bias: Vec::new(),
                grammar: None,
            },
            max_tokens,
            stop_tokens: Vec::new(),
            stop_texts: Vec::new(),
            readings: Vec::new(),
            logprobs: None,
            prompt_logprobs: None,
        },
        model: "test".to_string(),
        body: Digest::default(),
    }
}
