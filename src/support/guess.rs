//! What the rows of a data set are, from its first row, and whether a model can learn it.

use std::path::Path;

use concord_data::{DataLoader, DatasetKind, DatasetSource, ExcessLength};
use concord_models::weights::ModelFolder;

use crate::support::output::in_words;

/// A data set, as its first row looks.
pub struct Guess {
    pub source: DatasetSource,
    /// A sentence on what was not taken, or on what a job would refuse.
    pub note: Option<String>,
}

/// The data set that a file looks like. Its first row is made an example for the model, where its
/// folder is here: instructions are rows of type `instruct` where the chat template cannot say what
/// is learnt of turns.
///
/// # Errors
/// Where the file cannot be read, or its rows are not known.
pub fn of(path: &Path, has_template: bool, folder: Option<&ModelFolder>) -> anyhow::Result<Guess> {
    let source = concord_data::guess(path, has_template)?;
    let refused = folder.and_then(|folder| refusal(&source, folder));
    let (Some(why), Some(folder)) = (refused, folder) else {
        return Ok(Guess { source, note: None });
    };
    if source.kind == DatasetKind::AlpacaTurns {
        let lines = concord_data::guess(path, false)?;
        if refusal(&lines, folder).is_none() {
            let note = format!(
                "not `type: {}`, which is refused: {why}",
                source.kind.name()
            );
            return Ok(Guess {
                source: lines,
                note: Some(note),
            });
        }
    }
    let note = Some(format!("`concord train` would refuse this: {why}"));
    Ok(Guess { source, note })
}

/// Why a job would refuse the first row of a data set whose rows are examples.
fn refusal(source: &DatasetSource, folder: &ModelFolder) -> Option<String> {
    match source.kind {
        DatasetKind::Text | DatasetKind::Tokens => None,
        _ => try_first(source, folder).err().map(|why| in_words(&why)),
    }
}

fn try_first(source: &DatasetSource, folder: &ModelFolder) -> anyhow::Result<()> {
    let (config, tokenizer) = (folder.config(), folder.tokenizer()?);
    let template = folder.chat_template()?;
    let template = template.map(|template| template.with_clock(concord_data::CLOCK));
    let mut first = source.clone();
    first.max_samples = Some(1);
    first.excess_length = ExcessLength::Split;
    let mut progress = |_| {};
    let mut loader = DataLoader {
        tokenizer: Some(&tokenizer),
        chat_template: template.as_ref(),
        vocab: config.vocab,
        max_positions: config.max_positions,
        eos: &config.eos,
        sequence_len: u32::try_from(config.max_positions).unwrap_or(u32::MAX),
        progress: &mut progress,
    };
    loader.each(&[first], &mut |_| {})?;
    Ok(())
}
