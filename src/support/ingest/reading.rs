//! Reads the data sets of a job, in the order in which it learns them.

use anyhow::{Context, bail};
use concord_data::{DataLoader, DatasetSource, Grouping, Loaded, MixEnd};
use concord_models::weights::ModelFolder;
use concord_text::{ChatTemplate, TextTokenizer};
use indicatif::{ProgressBar, ProgressStyle};

use super::chunks::Chunks;
use super::mixing;
use super::told::Told;
use crate::support::job_file::{HeldRows, JobFile};
use crate::support::output::Output;

/// A note, because the tuned model is served with the date of the day.
const CLOCK_STANDS: &str = "the model's chat template writes the date: it is 26 July 2024 in all \
                            that is learnt, so that a job is the same tomorrow";

/// A note, because the loss on such an example is that of one that was learnt.
const HELD_AND_LEARNT: &str = "with `mix_strategy: interleave_over` an example that comes again \
                               may be held out and be learnt, too: `test_datasets` holds out what \
                               is never learnt";

/// Less data than this are read in a second or two, and need no progress bar.
const BAR_BYTES_MIN: u64 = 4 << 20;

/// Writes all sequences, in the order of the data sets. Notes on these.
pub(super) fn sequences(
    job: &JobFile,
    folder: &ModelFolder,
    tokenizer: Option<&TextTokenizer>,
    chunks: &mut Chunks,
    output: &Output,
) -> anyhow::Result<Vec<Told>> {
    let has_turns = |source: &DatasetSource| source.kind.has_turns();
    let template = match job.all_datasets().any(has_turns) {
        true => folder.chat_template()?,
        false => None,
    };
    let template = template.map(|template| template.with_clock(concord_data::CLOCK));
    let config = folder.config();
    let bar = reading_bar(job, output);
    let mut loader = DataLoader {
        tokenizer,
        chat_template: template.as_ref(),
        vocab: config.vocab,
        max_positions: config.max_positions,
        eos: &config.eos,
        sequence_len: job.sequence_len,
        progress: &mut |bytes| bar.inc(bytes),
    };
    let mut all = Vec::new();
    let mut mixed = None;
    match &job.mix {
        None => all.extend(load(&mut loader, &job.datasets, chunks)?),
        Some(mix) => {
            // Each for itself, also where texts would be joined.
            for set in job.datasets.chunks(1) {
                all.extend(load(&mut loader, set, chunks)?);
                chunks.end_set();
            }
            let order = chunks.mix(mix, job.seed).context("mix_strategy")?;
            mixed = Some(mixing::told(&job.datasets, &order));
        }
    }
    if !job.test_datasets().is_empty() {
        chunks.hold_out_the_rest();
        all.extend(load(&mut loader, job.test_datasets(), chunks)?);
    }
    bar.finish_and_clear();
    let mut told = Vec::new();
    for (sets, loaded) in all {
        let sources = &sets[loaded.sources.clone()];
        if let (Some(grouping), Some(source)) = (&loaded.grouping, sources.first()) {
            check_grouping(job, source, grouping)?;
        }
        told.push(Told::of(sources, job.sequence_len, &loaded.counts));
    }
    told.extend(mixed);
    let is_drawn = matches!(&job.evaluation, Some(of) if !matches!(of.rows, HeldRows::Sets(_)));
    let repeats = matches!(&job.mix, Some(mix) if mix.end == MixEnd::AllExhausted);
    if is_drawn && repeats {
        told.push(Told::note(HELD_AND_LEARNT));
    }
    let reads_clock = |template: &ChatTemplate| template.reads_variable("strftime_now", true);
    if template.as_ref().is_some_and(reads_clock) {
        told.push(Told::note(CLOCK_STANDS));
    }
    Ok(told)
}

/// Reads data sets into chunks.
fn load<'a>(
    loader: &mut DataLoader,
    sets: &'a [DatasetSource],
    chunks: &mut Chunks,
) -> anyhow::Result<Vec<(&'a [DatasetSource], Loaded)>> {
    let loaded = loader.each(sets, &mut |sequence| chunks.add(sequence))?;
    Ok(loaded.into_iter().map(|loaded| (sets, loaded)).collect())
}

/// A progress bar over the bytes of the data sets, if reading them takes a while.
fn reading_bar(job: &JobFile, output: &Output) -> ProgressBar {
    let files = job.all_datasets();
    let paths = files.filter_map(|source| source.files().ok()).flatten();
    let bytes: u64 = paths
        .filter_map(|path| Some(path.metadata().ok()?.len()))
        .sum();
    if output.is_json() || bytes < BAR_BYTES_MIN {
        return ProgressBar::hidden();
    }
    let style = "{bar:20} {bytes}/{total_bytes} of data tokenized  eta {eta}";
    let style = ProgressStyle::with_template(style).expect("the template is right");
    ProgressBar::new(bytes).with_style(style)
}

/// Refuses a job whose steps and microbatches differ from those of its `tokens` file.
fn check_grouping(
    job: &JobFile,
    source: &DatasetSource,
    grouping: &Grouping,
) -> anyhow::Result<()> {
    // A job on tokens has no epochs.
    let asked = (
        job.timing.fixed_steps().unwrap_or_default(),
        job.gradient_accumulation_steps,
        job.micro_batch_size,
    );
    let found = (
        u64::from(grouping.steps),
        grouping.microbatches,
        grouping.batch,
    );
    if asked.0 <= found.0 && (asked.1, asked.2) == (found.1, found.2) {
        return Ok(());
    }
    bail!(
        "{}: its tokens are for {} steps of {} microbatches of {} sequences; the job asks for \
         max_steps {}, gradient_accumulation_steps {}, micro_batch_size {}",
        source.path.display(),
        found.0,
        found.1,
        found.2,
        asked.0,
        asked.1,
        asked.2
    )
}
