//! Why the answer ended, and its text: both follow from spec and tokens.

use std::sync::Arc;

use concord_proto::serving::{Finish, GenerationSpec, TokenReading};
use concord_proto::{Digest, Domain, Hasher};
use concord_text::{AnswerText, TextTokenizer, TokenReader, TokenText};
use concord_verify::serving::{AnswerEnd, CheckedReceipt, EndRules};

use super::draws::DrawOrders;
use super::{AnswerCase, Stop};

/// An answer, read again.
struct ReadAnswer {
    end: Option<AnswerEnd>,
    /// Under [`Domain::Text`].
    text: Digest,
}

/// Checks what the receipt says of the end of the answer, and of its text. A receipt that says that
/// the client was gone says nothing of either.
pub(super) fn check(
    case: &AnswerCase<'_>,
    checked: &CheckedReceipt,
    orders: &DrawOrders,
) -> Result<(), Stop> {
    let receipt = &checked.receipt;
    if receipt.finish == Finish::Cancelled {
        return Ok(());
    }
    let rules = EndRules {
        spec: &receipt.spec,
        answer: &receipt.answer,
        positions: receipt.deployment.positions,
    };
    let has_text = receipt.text != Digest::default();
    let needs_text = has_text || !receipt.spec.stop_texts.is_empty();
    let read = match (&case.tokenizer, needs_text) {
        (Some(tokenizer), true) => read(tokenizer, &rules, orders),
        (None, true) => {
            let why = "the text of the answer is to be read, and its tokenizer is not at hand";
            return Err(Stop::inconclusive(why));
        }
        (_, false) => ReadAnswer {
            end: rules.end(by_grammar(&rules, orders)),
            text: receipt.text,
        },
    };
    let Some(end) = read.end else {
        return Err(Stop::altered("nothing ends the answer where it ends"));
    };
    if end.finish != receipt.finish {
        let (tokens, due, said) = (end.tokens, words(end.finish), words(receipt.finish));
        return Err(Stop::altered(format!(
            "{due} ended the answer after {tokens} tokens, and the receipt says: {said}"
        )));
    }
    match has_text && read.text != receipt.text {
        true => Err(Stop::altered("its tokens give another text")),
        false => Ok(()),
    }
}

fn by_grammar(rules: &EndRules<'_>, orders: &DrawOrders) -> Option<AnswerEnd> {
    orders.ends_by_grammar.then_some(AnswerEnd {
        tokens: rules.answer.len() as u32,
        finish: Finish::Grammar,
    })
}

/// Reads the tokens as they were read when the answer was given.
fn read(tokenizer: &Arc<TextTokenizer>, rules: &EndRules<'_>, orders: &DrawOrders) -> ReadAnswer {
    let EndRules { spec, answer, .. } = *rules;
    let mut text = AnswerText::new(
        reader(tokenizer, spec),
        &spec.prompt,
        spec.stop_texts.clone(),
    );
    let mut digest = Hasher::new(Domain::Text);
    let mut by_text = None;
    let stopped = |tokens: usize| AnswerEnd {
        tokens: tokens as u32,
        finish: Finish::StopText,
    };
    // A stop token has no text, and is the last.
    let has_text = |token: &&u32| !spec.stop_tokens.contains(token);
    for (index, token) in answer.iter().take_while(has_text).enumerate() {
        let piece = text.push(*token);
        digest.update(piece.certain.as_bytes());
        if piece.is_stopped {
            by_text = Some(stopped(index + 1));
            break;
        }
    }
    by_text = by_text.or_else(|| by_grammar(rules, orders));
    let rest = text.finish();
    digest.update(rest.certain.as_bytes());
    // The start of a character that never ended is a text, too.
    let ends_late = by_text.is_none() && rest.is_stopped && rules.is_full();
    if ends_late && !rules.ends_with_stop_token() {
        by_text = Some(stopped(answer.len()));
    }
    ReadAnswer {
        end: rules.end(by_text),
        text: digest.finish(),
    }
}

fn reader(tokenizer: &Arc<TextTokenizer>, spec: &GenerationSpec) -> TokenReader {
    let others = spec.readings.iter().map(|reading| {
        let TokenReading {
            token,
            bytes,
            is_hidden,
        } = reading.clone();
        TokenText {
            token,
            bytes,
            is_hidden,
        }
    });
    TokenReader::new(tokenizer.clone(), others)
}

fn words(finish: Finish) -> &'static str {
    match finish {
        Finish::StopToken => "a stop token",
        Finish::StopText => "a stop text",
        Finish::Grammar => "its grammar",
        Finish::Length => "its length",
        Finish::Cancelled => "the client was gone",
    }
}
