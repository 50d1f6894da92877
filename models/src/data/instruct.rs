//! `instruct`: each sequence is one example, of which only the output is predicted.

use super::{DataLoader, DatasetSource, Sequences, fields, rows};
use crate::error::ModelError;

/// What fills a short sequence. It is never predicted, and no predicted token attends to it.
const PAD: u32 = 0;

pub(super) fn load(
    source: &DatasetSource,
    loader: &mut DataLoader,
) -> Result<Sequences, ModelError> {
    let tokenizer = loader.tokenizer(source)?;
    let end = loader.end_of_text().ok_or_else(|| {
        source.fail(
            "type `instruct` needs an end-of-text token: neither tokenizer_config.json \
             (eos_token) nor config.json (eos_token_id) names one",
        )
    })?;
    let mut out = Sequences::empty(loader.sequence_len);
    let mut longest = 0;
    rows::for_each(&source.path, |row, bytes| {
        let (prompt, output) = example(source, row)?;
        let mut ids = tokenizer.encode(&prompt, true)?;
        // Some tokenizers append the end-of-text token; here the text goes on.
        if ids.last() == Some(&end) {
            ids.pop();
        }
        let prompt = ids.len();
        ids.extend(tokenizer.encode(output, false)?);
        ids.push(end);
        longest = longest.max(ids.len());
        out.add(&ids, prompt);
        (loader.progress)(bytes as u64);
        Ok(())
    })?;
    match loss(&out, longest) {
        Some(reason) => Err(source.fail(reason)),
        None => Ok(out),
    }
}

/// The prompt and the answer of an example. The prompt is the instruction and a line feed, then,
/// where there is an input, the input and a line feed; the answer is the output.
fn example<'a>(
    source: &DatasetSource,
    row: &'a rows::Row,
) -> Result<(String, &'a str), ModelError> {
    let needed = |key: &str| {
        let text = row.text(key)?;
        text.ok_or_else(|| fields::missing(source, row, key))
    };
    let (asks, answers) = (&source.field_instruction, &source.field_output);
    let (instruction, output) = (needed(asks)?, needed(answers)?);
    let input = row.text(&source.field_input)?.unwrap_or_default();
    fields::check(source, row)?;
    if output.trim().is_empty() {
        return Err(row.fail(format!(
            "the field `{answers}` is empty, so there is nothing to learn; remove the row"
        )));
    }
    let prompt = match (instruction.trim().is_empty(), input.trim().is_empty()) {
        (true, true) => return Err(row.fail(format!("the field `{asks}` is empty"))),
        (_, true) => format!("{instruction}\n"),
        (true, false) => format!("{input}\n"),
        (false, false) => format!("{instruction}\n{input}\n"),
    };
    Ok((prompt, output))
}

/// Why a data set is not worth training on: it is empty, too many of its instructions fill the
/// sequence alone, or no example fits whole, so that the end of an answer would never be learnt.
fn loss(out: &Sequences, longest: usize) -> Option<String> {
    let (len, all) = (out.len, out.examples);
    let (cut, skipped) = (out.truncated, out.skipped);
    let remedy = format!("raise sequence_len (the longest example has {longest} tokens)");
    if all == 0 {
        return Some("it is empty".to_string());
    }
    if skipped == all {
        return Some(format!(
            "all {all} instructions fill sequence_len = {len} alone; {remedy}"
        ));
    }
    if skipped > all / 2 {
        return Some(format!(
            "{skipped} of {all} instructions fill sequence_len = {len} alone, so these examples \
             would be left out; {remedy}, or remove them"
        ));
    }
    (cut + skipped == all).then(|| {
        format!(
            "none of {all} examples fits sequence_len = {len} whole, so no end of an answer would \
             be learnt; {remedy}"
        )
    })
}

impl Sequences {
    /// Adds one example whose first `prompt` ids are not predicted and whose others are.
    fn add(&mut self, ids: &[u32], prompt: usize) {
        let len = self.len as usize;
        self.examples += 1;
        if prompt >= len {
            self.skipped += 1;
            return;
        }
        self.truncated += u32::from(ids.len() > len);
        let kept = ids.len().min(len);
        let start = self.tokens.len();
        self.tokens.extend(&ids[..kept]);
        self.tokens.resize(start + len, PAD);
        // The first token of a sequence has nothing before it to be predicted from.
        let given = prompt.max(1);
        self.loss_mask.resize(start + given, 0);
        self.loss_mask.resize(start + kept, 1);
        self.loss_mask.resize(start + len, 0);
    }
}
