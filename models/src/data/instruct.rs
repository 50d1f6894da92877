//! `instruct`: one example a sequence, of which only the output is predicted.

use super::{DatasetSource, Sequences, lines};
use crate::config::DecoderConfig;
use crate::error::ModelError;
use concord_text::TextTokenizer;

/// What fills a short sequence. It is never predicted, and no predicted token attends to it.
const PAD: u32 = 0;

pub(super) fn load(
    source: &DatasetSource,
    tokenizer: &TextTokenizer,
    config: &DecoderConfig,
    len: u32,
) -> Result<Sequences, ModelError> {
    let end = tokenizer
        .eos_ids()
        .first()
        .or(config.eos.first())
        .copied()
        .ok_or_else(|| {
            source.fail(
                "type `instruct` needs an end-of-text token: neither tokenizer_config.json \
             (eos_token) nor config.json (eos_token_id) names one",
            )
        })?;
    let mut out = Sequences {
        len,
        tokens: Vec::new(),
        loss_mask: Vec::new(),
        grouping: None,
        truncated: 0,
        skipped: 0,
    };
    lines::for_each(&source.path, |line| {
        let instruction = line.text(&source.field_instruction)?;
        let mut ids = tokenizer.encode(&format!("{instruction}\n"), true)?;
        // Some tokenizers end every text; here the text goes on.
        if ids.last() == Some(&end) {
            ids.pop();
        }
        let prompt = ids.len();
        ids.extend(tokenizer.encode(line.text(&source.field_output)?, false)?);
        ids.push(end);
        out.add(&ids, prompt);
        Ok(())
    })?;
    match (out.count(), out.skipped) {
        (0, 0) => Err(source.fail("it is empty")),
        (0, skipped) => Err(source.fail(format!(
            "all {skipped} instructions fill sequence_len = {len} alone; raise sequence_len"
        ))),
        _ => Ok(out),
    }
}

impl Sequences {
    /// Adds one example whose first `prompt` ids are given and whose others are predicted.
    fn add(&mut self, ids: &[u32], prompt: usize) {
        let len = self.len as usize;
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
