//! What a receipt has shown and what not, in sentences.

use concord_proto::merkle::MerklePath;
use concord_proto::serving::{AnswerVerdict, Finish, Receipt, StageClaim};
use concord_proto::{Digest, PublicKey};

use crate::support::output::counted;

/// What is shown by a receipt on which the verdict is that it agrees, a sentence for each. `path`
/// leads to what was signed.
pub fn shown(receipt: &Receipt, path: &MerklePath) -> Vec<String> {
    let (spec, given) = (&receipt.spec, &receipt.logprobs);
    let mut shown = Vec::new();
    if !receipt.answer.is_empty() {
        shown.push(format!(
            "the model gives {} after {} of the prompt: each was computed and drawn again on this \
             machine, on nobody's word",
            match receipt.answer.len() {
                1 => "this 1 token".to_string(),
                many => format!("these {many} tokens"),
            },
            spec.prompt.len()
        ));
    }
    let ended = match receipt.finish {
        Finish::StopToken => Some("with a stop token"),
        Finish::StopText => Some("with one of the stop texts that the receipt names"),
        Finish::Grammar => Some("because nothing may follow by its grammar"),
        Finish::Length => Some("because it has its full length"),
        Finish::Cancelled => None,
    };
    shown.extend(ended.map(|why| format!("the answer ended {why}")));
    let scored = given.answer.len() + given.prompt.len();
    if scored > 0 {
        shown.push(format!(
            "the logprobs of {} of the prompt and {} of the answer are those of the model, bit for \
             bit",
            counted(given.prompt.len() as u64, "token"),
            counted(given.answer.len() as u64, "token")
        ));
    }
    if receipt.text != Digest::default() {
        shown.push("the tokens give the text whose digest the receipt has".to_string());
    }
    shown.push(format!(
        "each of {} signed what it computed, and that is right",
        counted(receipt.claims.len() as u64, "stage")
    ));
    if path.count > 1 {
        shown.push(format!(
            "it is receipt {} of the {} that the coordinator signed at once",
            path.index + 1,
            path.count
        ));
    }
    shown
}

/// What is not shown by it.
pub fn not_shown(receipt: &Receipt, is_coordinator_named: bool) -> Vec<String> {
    let mut not_shown = Vec::new();
    if receipt.finish == Finish::Cancelled {
        let words = "why the answer ended: only the coordinator says that the client was gone, or \
                     had not read to the end";
        not_shown.push(words.to_string());
    }
    if receipt.text == Digest::default() {
        not_shown.push("which text was sent: the receipt has none".to_string());
    }
    let last = receipt.claims.last();
    let last: Option<StageClaim> = last.and_then(|last| last.open().ok());
    let drawn = last.and_then(|last| last.drawn);
    let earlier = drawn.map_or(0, |drawn| u64::from(drawn.earlier));
    if earlier > 0 {
        let first = counted(earlier, "token");
        not_shown.push(format!(
            "who drew the first {first}: the worker has left, and has not signed for that"
        ));
    }
    if !receipt.spec.readings.is_empty() {
        let count = counted(receipt.spec.readings.len() as u64, "token");
        not_shown.push(format!(
            "that {count} are to be read as the receipt lists: tokenizer.json alone has them \
             otherwise"
        ));
    }
    if !is_coordinator_named {
        not_shown.push("whose receipt it is (--coordinator KEY compares)".to_string());
    }
    not_shown.push(
        "when it was computed, what came from a cache, and that the coordinator has not served \
         others otherwise: that is its word"
            .to_string(),
    );
    not_shown
}

/// The party at fault, if it is one, and what does not hold; `None` where all holds.
pub fn refutation(
    verdict: &AnswerVerdict,
    coordinator: PublicKey,
) -> Option<(Option<PublicKey>, String)> {
    Some(match verdict {
        AnswerVerdict::Agrees => return None,
        AnswerVerdict::WrongStage {
            worker,
            layers,
            expected,
            claimed,
        } => {
            let (claimed, expected) = (claimed.short(), expected.short());
            let reason = format!(
                "{worker} claims {claimed} as the output of layers {layers}, and it is {expected}"
            );
            (Some(*worker), reason)
        }
        AnswerVerdict::Gap { sender, receiver } => {
            let reason = format!(
                "{sender} and {receiver} claim different things about what passed between them"
            );
            (None, reason)
        }
        AnswerVerdict::WrongDraw {
            worker,
            index,
            expected,
            found,
        } => {
            let reason = format!(
                "{worker} gave out {found} as token {index} of the answer, and it is {expected}"
            );
            (Some(*worker), reason)
        }
        AnswerVerdict::WrongLogprob {
            worker, position, ..
        } => {
            let reason = format!(
                "{worker} gave out other logprobs of token {position} of prompt and answer than \
                 the model gives"
            );
            (Some(*worker), reason)
        }
        AnswerVerdict::Altered { what } => {
            let reason = format!("the coordinator {coordinator} signed what does not hold: {what}");
            (Some(coordinator), reason)
        }
        AnswerVerdict::Inconclusive { why } => (None, format!("it cannot be judged: {why}")),
    })
}
