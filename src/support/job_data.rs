//! What a job file leaves to its data: sets of the hub are found, and the longest example may
//! decide the length of sequences.

use anyhow::Context;
use concord_data::{DataLoader, DatasetKind, DatasetSource};

use super::job_file::{JobFile, LEN_MAX};
use super::{hub_data, load_in, loaded_model};

/// Finds the files of all data sets, downloading what is missing, and the length of sequences.
///
/// # Errors
/// Naming the data set, and for a length also what is wrong with model or data.
pub fn prepare(job: &mut JobFile) -> anyhow::Result<()> {
    for source in job.all_datasets_mut() {
        hub_data::find(source)?;
    }
    if job.is_longest {
        job.sequence_len = longest(job)?;
        job.is_longest = false;
    }
    Ok(())
}

/// Tokens of the longest example, at most as many as the model knows positions. Texts that are
/// joined fill what the model knows.
fn longest(job: &JobFile) -> anyhow::Result<u32> {
    let path = loaded_model::resolve(&job.base_model).context("base_model")?;
    let folder = load_in::open(&path, None)?;
    let config = folder.config();
    let most = config.max_positions.min(LEN_MAX as usize) as u32;
    let is_joined = |source: &DatasetSource| source.kind == DatasetKind::Text;
    if job.sample_packing || job.all_datasets().any(is_joined) {
        return Ok(most);
    }
    let tokenizer = folder.tokenizer().ok();
    let template = folder.chat_template()?;
    let template = template.map(|template| template.with_clock(concord_data::CLOCK));
    let mut loader = DataLoader {
        tokenizer: tokenizer.as_ref(),
        chat_template: template.as_ref(),
        vocab: config.vocab,
        max_positions: config.max_positions,
        eos: &config.eos,
        sequence_len: most,
        progress: &mut |_| {},
    };
    let mut found = 2;
    for sets in [&job.datasets[..], job.test_datasets()] {
        loader.each(sets, &mut |sequence| {
            found = found.max(sequence.tokens.len() as u32);
        })?;
    }
    Ok(found)
}
