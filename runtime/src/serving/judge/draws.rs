//! Every token of the answer, drawn again.

use concord_kernels::ops::sample::{Candidates, RowSample};
use concord_proto::serving::{AnswerVerdict, GrammarSpec, SampleOrder};
use concord_text::{Grammar, GuideFactory, Next};
use concord_verify::serving::CheckedReceipt;

use super::compute::ComputedAnswer;
use super::{AnswerCase, JudgeProgress, Stop};
use crate::serving::stage::{drawable, logits, sampling};

/// Bytes of the logits that are held at a time.
const LOGITS_BYTES: usize = 64 << 20;
/// Tokens drawn at a time, where the vocabulary is small.
const CHUNK_MAX: usize = 512;

/// Checks the tokens of the answer, first to last.
pub(super) fn check(
    case: &AnswerCase<'_>,
    checked: &CheckedReceipt,
    computed: &ComputedAnswer,
    progress: &mut dyn FnMut(JudgeProgress),
) -> Result<(), Stop> {
    let orders = orders(case, checked)?;
    let possible = |order| drawable(order, case.config.vocab);
    orders
        .iter()
        .try_for_each(possible)
        .map_err(|why| Stop::inconclusive(format!("it asks for {why}")))?;
    let answer = &checked.receipt.answer;
    let layers = checked.receipt.deployment.layers;
    let size = (LOGITS_BYTES / (4 * case.config.vocab)).clamp(1, CHUNK_MAX);
    for (chunk, orders) in orders.chunks(size).enumerate() {
        let start = chunk * size;
        let tokens = draw(checked, computed, start, orders)?;
        for (index, expected) in (start..).zip(tokens) {
            if answer[index] != expected {
                return Err(wrong(checked, index, expected));
            }
        }
        progress(JudgeProgress {
            layers,
            layers_total: layers,
            drawn: (start + orders.len()) as u32,
            drawn_total: answer.len() as u32,
        });
    }
    Ok(())
}

/// How each token was to be drawn. Under a grammar, the orders end with the first token that it
/// does not allow: that one is wrong.
fn orders(case: &AnswerCase<'_>, checked: &CheckedReceipt) -> Result<Vec<SampleOrder>, Stop> {
    let (spec, answer) = (&checked.receipt.spec, &checked.receipt.answer);
    let order = |index: usize, allowed| {
        let before = &answer[..index];
        SampleOrder::new(&spec.sampling, before, allowed)
    };
    let Some(grammar) = &spec.sampling.grammar else {
        return Ok((0..answer.len()).map(|index| order(index, None)).collect());
    };
    let tokenizer = case.tokenizer.ok_or_else(|| {
        Stop::inconclusive("the answer is under a grammar, and its tokenizer is not at hand")
    })?;
    let unclear = |error: concord_text::TextError| Stop::inconclusive(error.to_string());
    let factory =
        GuideFactory::new(tokenizer, checked.receipt.deployment.vocab).map_err(unclear)?;
    let guide = factory.start(&of_spec(grammar), &spec.stop_tokens);
    let mut guide = guide.map_err(unclear)?;
    let mut orders = Vec::with_capacity(answer.len());
    for (index, token) in answer.iter().enumerate() {
        let Next::Tokens(allowed) = guide.allowed().map_err(unclear)? else {
            let what = format!("the answer goes on after token {index}, where its grammar ends");
            return Err(Stop::altered(what));
        };
        orders.push(order(index, Some(allowed)));
        if guide.accept(*token).is_err() {
            break;
        }
    }
    Ok(orders)
}

/// The grammar that a spec asks for.
fn of_spec(grammar: &GrammarSpec) -> Grammar {
    match grammar.clone() {
        GrammarSpec::JsonObject => Grammar::JsonObject,
        GrammarSpec::JsonSchema(schema) => Grammar::JsonSchema(schema),
        GrammarSpec::Lark(lark) => Grammar::Lark(lark),
    }
}

/// Draws the tokens from `start` on.
fn draw(
    checked: &CheckedReceipt,
    computed: &ComputedAnswer,
    start: usize,
    orders: &[SampleOrder],
) -> Result<Vec<u32>, Stop> {
    let stage = &computed.last;
    let device = &stage.options().device;
    let hidden = stage.options().config.hidden;
    let prompt = checked.receipt.spec.prompt.len();
    // The token at a position is drawn from the row before it.
    let first = prompt + start - 1;
    let rows = computed.rows[first * hidden..(first + orders.len()) * hidden].to_vec();
    let biases: Vec<Vec<(u32, f32)>> = orders
        .iter()
        .map(|order| {
            order
                .bias
                .iter()
                .map(|(t, bias)| (*t, bias.get()))
                .collect()
        })
        .collect();
    device.on_its_threads(|| {
        let logits = logits(stage, rows, orders.len())?;
        let overflow = || Stop::inconclusive("the model's logits overflow for this input");
        let logits = logits.ok_or_else(overflow)?;
        let all = orders.iter().zip(&biases).enumerate();
        let samples = all.map(|(row, (order, bias))| RowSample {
            row,
            sampling: sampling(order),
            candidates: Candidates {
                bias,
                allowed: order.allowed.as_deref(),
            },
            position: (prompt + start + row) as u64,
        });
        let samples: Vec<RowSample<'_>> = samples.collect();
        Ok(device.sample_rows(&logits, &samples)?)
    })
}

/// The verdict on a token that is not the one that its row gives.
fn wrong(checked: &CheckedReceipt, index: usize, expected: u32) -> Stop {
    let last = checked.claims.last();
    let drawn = last.and_then(|last| Some((last.worker, last.claim.drawn?.0)));
    match drawn {
        Some((worker, earlier)) if index >= earlier as usize => {
            Stop::Verdict(AnswerVerdict::WrongDraw {
                worker,
                index: index as u32,
                expected,
                found: checked.receipt.answer[index],
            })
        }
        _ => Stop::inconclusive(format!(
            "token {index} should be {expected}, and the worker that drew it has not claimed it"
        )),
    }
}
