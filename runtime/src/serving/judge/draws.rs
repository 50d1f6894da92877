//! Every token of the answer, drawn again, and every logprob that was given, taken again.

use concord_kernels::Tensor;
use concord_kernels::ops::sample::{Candidates, RowSample};
use concord_proto::serving::{AnswerVerdict, GrammarSpec, SampleOrder, TokenLogprob};
use concord_text::{Grammar, GuideFactory, Next};
use concord_verify::serving::CheckedReceipt;

use super::compute::ComputedAnswer;
use super::{AnswerCase, JudgeProgress, Stop};
use crate::serving::stage::{drawable, logits, sampling, with_logprobs};

/// Bytes of the logits that are held at a time.
const LOGITS_BYTES: usize = 64 << 20;
/// Tokens drawn at a time, where the vocabulary is small.
const CHUNK_MAX: usize = 512;

/// How the tokens of an answer were to be drawn.
pub(super) struct DrawOrders {
    /// Under a grammar, the last one is of the first token that it does not allow: that one is
    /// wrong.
    orders: Vec<SampleOrder>,
    /// Whether nothing may follow the answer by its grammar.
    pub(super) ends_by_grammar: bool,
}

/// Checks the tokens of the answer, first to last, each with its logprobs; then those of the
/// prompt.
pub(super) fn check(
    case: &AnswerCase<'_>,
    checked: &CheckedReceipt,
    computed: &ComputedAnswer,
    orders: &DrawOrders,
    progress: &mut dyn FnMut(JudgeProgress),
) -> Result<(), Stop> {
    let orders = &orders.orders;
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
        check_draws(checked, computed, start, orders)?;
        progress(JudgeProgress {
            layers,
            layers_total: layers,
            drawn: (start + orders.len()) as u32,
            drawn_total: answer.len() as u32,
        });
    }
    let scored = &checked.receipt.logprobs.prompt;
    for (chunk, scored) in scored.chunks(size).enumerate() {
        check_scores(checked, computed, chunk * size, scored)?;
    }
    Ok(())
}

/// How each token was to be drawn.
pub(super) fn orders(case: &AnswerCase<'_>, checked: &CheckedReceipt) -> Result<DrawOrders, Stop> {
    let (spec, answer) = (&checked.receipt.spec, &checked.receipt.answer);
    let order = |index: usize, allowed| {
        let before = &answer[..index];
        SampleOrder::new(&spec.sampling, before, allowed)
    };
    let Some(grammar) = &spec.sampling.grammar else {
        return Ok(DrawOrders {
            orders: (0..answer.len()).map(|index| order(index, None)).collect(),
            ends_by_grammar: false,
        });
    };
    let tokenizer = case.tokenizer.as_ref().ok_or_else(|| {
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
            let ends_by_grammar = false;
            return Ok(DrawOrders {
                orders,
                ends_by_grammar,
            });
        }
    }
    // At its full length an answer ends in any case.
    let may_go_on = (answer.len() as u64) < u64::from(spec.max_tokens);
    let is_stopped = answer
        .last()
        .is_some_and(|last| spec.stop_tokens.contains(last));
    let ends_by_grammar =
        may_go_on && !is_stopped && matches!(guide.allowed().map_err(unclear)?, Next::End);
    Ok(DrawOrders {
        orders,
        ends_by_grammar,
    })
}

/// The grammar that a spec asks for.
fn of_spec(grammar: &GrammarSpec) -> Grammar {
    match grammar.clone() {
        GrammarSpec::JsonObject => Grammar::JsonObject,
        GrammarSpec::JsonSchema(schema) => Grammar::JsonSchema(schema),
        GrammarSpec::Lark(lark) => Grammar::Lark(lark),
    }
}

/// Draws the tokens from `start` on, and takes their logprobs.
fn check_draws(
    checked: &CheckedReceipt,
    computed: &ComputedAnswer,
    start: usize,
    orders: &[SampleOrder],
) -> Result<(), Stop> {
    let device = &computed.last.options().device;
    let receipt = &checked.receipt;
    let prompt = receipt.spec.prompt.len();
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
    // The token at a position is drawn from the row before it.
    let (tokens, scored) = device.on_its_threads(|| -> Result<_, Stop> {
        let logits = logits_of(computed, prompt + start - 1, orders.len())?;
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
        let tokens = device.sample_rows(&logits, &samples)?;
        let scored = match receipt.spec.logprobs {
            None => Vec::new(),
            Some(asked) => logprobs(computed, &logits, &tokens, asked)?,
        };
        Ok((tokens, scored))
    })?;
    for (index, expected) in (start..).zip(tokens) {
        if receipt.answer[index] != expected {
            return Err(wrong_token(checked, index, expected));
        }
        let Some(expected) = scored.get(index - start) else {
            continue;
        };
        let found = &receipt.logprobs.answer[index];
        if found != expected {
            return Err(wrong_logprob(checked, prompt + index, found, expected));
        }
    }
    Ok(())
}

/// Takes the logprobs of prompt tokens again, of which the first of `scored` is number `start`.
fn check_scores(
    checked: &CheckedReceipt,
    computed: &ComputedAnswer,
    start: usize,
    scored: &[TokenLogprob],
) -> Result<(), Stop> {
    let device = &computed.last.options().device;
    let asked = checked.receipt.spec.prompt_logprobs.unwrap_or(0);
    let tokens: Vec<u32> = scored.iter().map(|one| one.token).collect();
    // The row of a position scores the token after it.
    let expected = device.on_its_threads(|| {
        let logits = logits_of(computed, start, tokens.len())?;
        logprobs(computed, &logits, &tokens, asked)
    })?;
    let mut all = (start + 1..).zip(scored.iter().zip(&expected));
    match all.find(|(_, (found, expected))| found != expected) {
        None => Ok(()),
        Some((position, (found, expected))) => {
            Err(wrong_logprob(checked, position, found, expected))
        }
    }
}

/// The logits of rows, of which there are `count` from `first` on.
fn logits_of(computed: &ComputedAnswer, first: usize, count: usize) -> Result<Tensor, Stop> {
    let hidden = computed.last.options().config.hidden;
    let rows = computed.rows[first * hidden..(first + count) * hidden].to_vec();
    let logits = logits(&computed.last, rows, count)?;
    logits.ok_or_else(|| Stop::inconclusive("the model's logits overflow for this input"))
}

fn logprobs(
    computed: &ComputedAnswer,
    logits: &Tensor,
    tokens: &[u32],
    asked: u8,
) -> Result<Vec<TokenLogprob>, Stop> {
    let device = &computed.last.options().device;
    let rows = tokens.iter().enumerate();
    let rows: Vec<(usize, u32, u8)> = rows.map(|(row, token)| (row, *token, asked)).collect();
    let scored = device.logprobs(logits, &rows)?.into_iter();
    let all = tokens.iter().zip(scored);
    Ok(all.map(|(token, one)| with_logprobs(*token, one)).collect())
}

/// The verdict on a token that is not the one that its row gives.
fn wrong_token(checked: &CheckedReceipt, index: usize, expected: u32) -> Stop {
    let last = checked.claims.last();
    let drawn = last.and_then(|last| Some((last.worker, last.claim.drawn?.earlier)));
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

/// The verdict on logprobs of the token at `position` that are not those that the row before it
/// gives.
fn wrong_logprob(
    checked: &CheckedReceipt,
    position: usize,
    found: &TokenLogprob,
    expected: &TokenLogprob,
) -> Stop {
    let last = checked.claims.last();
    let drawn = last.and_then(|last| Some((last.worker, last.claim.drawn?)));
    let prompt = checked.receipt.spec.prompt.len();
    let claims = drawn.filter(|(_, drawn)| match position.checked_sub(prompt) {
        None => drawn.scored.is_some(),
        Some(index) => index >= drawn.earlier as usize,
    });
    match claims {
        Some((worker, _)) => Stop::Verdict(AnswerVerdict::WrongLogprob {
            worker,
            position: position as u32,
            expected: expected.digest(),
            found: found.digest(),
        }),
        None => Stop::inconclusive(format!(
            "the logprobs of token {position} of prompt and answer are wrong, and the worker that \
             gave them has not claimed them"
        )),
    }
}
