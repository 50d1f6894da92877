//! Receipts, and what the judge makes of them.

use concord_kernels::Device;
use concord_proto::serving::{
    AnswerVerdict, BatchedReceipt, ClaimOrder, Finish, GenerationSpec, GivenLogprobs, Receipt,
    Usage,
};
use concord_proto::{Digest, Keypair, Signed};
use concord_runtime::serving::judge::{AnswerCase, JudgedAdapter, judge};
use concord_text::TextTokenizer;

use crate::model::ServedModel;
use crate::pool::{Asked, Pipeline};

/// The key of the coordinator that signs.
pub fn key() -> Keypair {
    Keypair::from_secret([42; 32])
}

/// The spec of an answer.
pub fn spec(model: &ServedModel, asked: &Asked<'_>) -> GenerationSpec {
    GenerationSpec {
        deployment: model.deployment.id(),
        adapter: asked.adapter,
        prompt: asked.prompt.to_vec(),
        sampling: asked.spec.clone(),
        max_tokens: asked.tokens as u32,
        stop_tokens: Vec::new(),
        stop_texts: asked.stop_texts.clone(),
        readings: Vec::new(),
        logprobs: asked.logprobs,
        prompt_logprobs: asked.prompt_logprobs,
    }
}

/// The claims of an answer that a pipeline has just given.
pub async fn claims(
    model: &ServedModel,
    pipeline: &mut Pipeline,
    asked: &Asked<'_>,
    answer: &[u32],
) -> Vec<Signed> {
    let positions = asked.prompt.len() + answer.len() - 1;
    let order = ClaimOrder {
        order: 77,
        sequence: asked.sequence,
        spec: spec(model, asked).digest(),
        prompt: asked.prompt.len() as u32,
        positions: positions as u32,
        pages: asked.pages[..positions.div_ceil(128)].to_vec(),
    };
    let claims = pipeline.claims(&order).await;
    claims
        .into_iter()
        .map(|claim| claim.expect("a claim"))
        .collect()
}

/// A receipt.
pub fn receipt(
    model: &ServedModel,
    asked: &Asked<'_>,
    answer: &[u32],
    claims: Vec<Signed>,
) -> Receipt {
    Receipt {
        id: "cmpl-1".to_string(),
        deployment: model.deployment.clone(),
        model: "tiny".to_string(),
        spec: spec(model, asked),
        answer: answer.to_vec(),
        logprobs: GivenLogprobs::default(),
        finish: Finish::Length,
        usage: Usage {
            prompt: asked.prompt.len() as u32,
            cached: 0,
            answer: answer.len() as u32,
        },
        body: Digest::default(),
        text: Digest::default(),
        claims,
        issued: 0,
    }
}

/// The verdict on a receipt, signed by [`key`].
pub fn verdict(model: &ServedModel, receipt: &Receipt) -> AnswerVerdict {
    verdict_with(model, receipt, None)
}

pub fn verdict_with(
    model: &ServedModel,
    receipt: &Receipt,
    adapter: Option<&JudgedAdapter>,
) -> AnswerVerdict {
    let tokenizer = TextTokenizer::open(model.folder.dir()).unwrap().into();
    let case = AnswerCase {
        receipt: &BatchedReceipt::alone(&key(), receipt),
        coordinator: Some(key().public()),
        config: model.folder.config().clone().into(),
        tensors: &model.folder,
        tokenizer: Some(tokenizer),
        adapter,
        device: &Device::cpu(1),
    };
    let mut seen = 0;
    let verdict = judge(&case, &mut |progress| {
        assert!(progress.layers <= progress.layers_total);
        seen += 1;
    });
    assert!(seen > 0 || !matches!(verdict, Ok(AnswerVerdict::Agrees)));
    verdict.unwrap()
}
