//! `concord data preview`: sequences as they would be trained on.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use concord_data::{DataCounts, DataError, DatasetKind, DatasetSource};
use concord_models::weights::ModelFolder;
use serde_json::json;

use super::reader::{Read, Reader};
use super::shown;
use crate::support::data_event::data_event;
use crate::support::guess;
use crate::support::hub_data;
use crate::support::job_data;
use crate::support::job_file::{JobFile, ReadOptions};
use crate::support::output::{Output, counted};
use crate::support::{load_in, loaded_model};

/// Tokens of a sequence where neither job file nor option says it, or fewer if the model has fewer
/// positions.
const LEN: usize = 2_048;

/// Options of `concord data preview`.
#[derive(clap::Args)]
#[command(
    after_help = "What is learnt is green on a terminal, and between \u{ab} and \u{bb} \
elsewhere. Of a job
with sample_packing the packed sequences are shown, with a line where each document begins. Nothing
is written.

Examples:
  concord data preview job.yaml
  concord data preview chats.jsonl --model models/qwen -n 1
  concord data preview train.parquet --model models/qwen --type alpaca_turns --json"
)]
pub struct PreviewArgs {
    /// A job file (.yaml, .yml), or data: a file, a folder, a pattern, or owner/name of the Hugging
    /// Face hub.
    #[arg(value_name = "FILE|JOB")]
    job: PathBuf,
    #[command(flatten)]
    asked: ReadOptions,
    /// The model whose tokenizer and chat template are used; of a job file, its base_model.
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// What the rows of the data are; by default what their fields look like.
    #[arg(long = "type", value_name = "TYPE", value_parser = DatasetKind::NAMES)]
    kind: Option<String>,
    /// Sequences to show.
    #[arg(short, value_name = "N", default_value_t = 3)]
    n: usize,
    /// Tokens of a sequence; by default those of the job, or 2,048 if the model knows so many.
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(2..))]
    sequence_len: Option<u32>,
}

/// The data sets, the model and the length.
struct Asked {
    /// What is learnt, and what is held out as a whole.
    sets: [Vec<DatasetSource>; 2],
    folder: ModelFolder,
    sequence_len: u32,
    /// The job, where one was given.
    job: Option<JobFile>,
}

/// Shows the first sequences, and what was read.
///
/// # Errors
/// Naming file, row and field of what cannot be used.
pub fn run(args: &PreviewArgs, output: &Output) -> anyhow::Result<()> {
    let asked = Asked::of(args, output)?;
    let folder = &asked.folder;
    let needs_tokenizer = |source: &DatasetSource| source.kind != DatasetKind::Tokens;
    let tokenizer = match asked.sets.iter().flatten().any(needs_tokenizer) {
        true => Some(folder.tokenizer()?),
        false => folder.tokenizer().ok(),
    };
    let template = folder.chat_template()?;
    let template = template.map(|template| template.with_clock(concord_data::CLOCK));
    let reader = Reader {
        folder,
        tokenizer: tokenizer.as_ref(),
        template: template.as_ref(),
        job: asked.job.as_ref(),
        shown: args.n,
    };
    for (sources, is_held) in asked.sets.iter().zip([false, true]) {
        if is_held && sources.is_empty() {
            continue;
        }
        if is_held && !output.is_json() {
            output.result("\nheld out, and evaluated:", &json!(null));
        }
        let read = match reader.read(sources, asked.sequence_len, is_held) {
            Err(error) => reader.read(sources, short(error, sources, output)?, is_held),
            read => read,
        };
        show(read?, sources, is_held, &reader, output)?;
    }
    Ok(())
}

/// Shows the first sequences, what was read, and what the job makes of it.
fn show(
    mut read: Read,
    sources: &[DatasetSource],
    is_held: bool,
    reader: &Reader,
    output: &Output,
) -> anyhow::Result<()> {
    let notes = reader.arrange(&mut read, is_held)?;
    for (index, sequence) in read.sequences.iter().take(reader.shown).enumerate() {
        let (text, object) = shown::print(sequence, index, reader.tokenizer);
        output.coloured(&text, &object);
    }
    for loaded in &read.loaded {
        let sources = &sources[loaded.sources.clone()];
        let (text, object) = statistics(sources, read.sequence_len, &loaded.counts);
        output.result(&text, &object);
    }
    notes.iter().for_each(|note| note_that(note, output));
    Ok(())
}

/// The length of the one sequence that texts fill which are too short for a job: it is shown, and
/// that a job refuses it is said.
fn short(error: DataError, sources: &[DatasetSource], output: &Output) -> Result<u32, DataError> {
    let is_text = |source: &DatasetSource| source.kind == DatasetKind::Text;
    match error {
        DataError::Unfilled { tokens, len, .. } if tokens >= 2 && sources.iter().all(is_text) => {
            note_that(
                &format!(
                    "its {tokens} tokens are shown as one sequence; `concord train` refuses them \
                     with sequence_len {len}, which they do not fill"
                ),
                output,
            );
            Ok(tokens as u32)
        }
        error => Err(error),
    }
}

fn note_that(note: &str, output: &Output) {
    let object = json!({ "event": "note", "note": note });
    output.result(&format!("note: {note}"), &object);
}

impl Asked {
    fn of(args: &PreviewArgs, output: &Output) -> anyhow::Result<Self> {
        let ending = args.job.extension().unwrap_or_default();
        if ["yaml", "yml"].iter().any(|yaml| ending == *yaml) {
            return Self::of_job(args);
        }
        if !args.asked.sets.is_empty() || args.asked.tool.is_some() {
            bail!(
                "--set and --tool belong to a job file, and {} is none",
                args.job.display()
            );
        }
        let Some(model) = &args.model else {
            bail!(
                "--model is needed with a file of data: its tokenizer and its chat template make \
                 tokens of it"
            );
        };
        let folder = load_in::open(&loaded_model::resolve(model).context("--model")?, None)?;
        let mut source = DatasetSource::new(&args.job, DatasetKind::Text);
        hub_data::find(&mut source)?;
        let files = source.given_files.take();
        let mut source = match &args.kind {
            Some(kind) => DatasetSource::new(&args.job, kind.parse()?),
            None => guessed(&args.job, files.as_deref(), &folder, output)?,
        };
        source.given_files = files;
        let positions = folder.config().max_positions;
        Ok(Self {
            sets: [vec![source], Vec::new()],
            sequence_len: args.sequence_len.unwrap_or(positions.min(LEN) as u32),
            folder,
            job: None,
        })
    }

    fn of_job(args: &PreviewArgs) -> anyhow::Result<Self> {
        if args.kind.is_some() {
            bail!("--type has no effect on a job file, which has the types of its data; remove it");
        }
        let mut job = JobFile::read(&args.job, &args.asked)?;
        if args.sequence_len.is_some() {
            job.is_longest = false;
        }
        job_data::prepare(&mut job)?;
        let tested = job.test_datasets().to_vec();
        let model = args.model.as_ref().unwrap_or(&job.base_model);
        let path = loaded_model::resolve(model).context("base_model")?;
        Ok(Self {
            sequence_len: args.sequence_len.unwrap_or(job.sequence_len),
            folder: load_in::open(&path, None)?,
            sets: [job.datasets.clone(), tested],
            job: Some(job),
        })
    }
}

/// The data set that a file looks like, which is said.
fn guessed(
    path: &Path,
    files: Option<&[PathBuf]>,
    folder: &ModelFolder,
    output: &Output,
) -> anyhow::Result<DatasetSource> {
    let first = files.and_then(<[PathBuf]>::first);
    let has_template = folder.chat_template()?.is_some();
    let guess = guess::of(
        first.map_or(path, PathBuf::as_path),
        has_template,
        Some(folder),
    )?;
    let mut source = guess.source;
    source.path = path.to_path_buf();
    let (kind, fields) = (source.kind.name(), source.fields().join(", "));
    let text = format!("read as `type: {kind}` ({fields}); --type says otherwise");
    let object = json!({ "event": "guess", "type": kind, "fields": source.fields() });
    output.result(&text, &object);
    if let Some(note) = &guess.note {
        note_that(note, output);
    }
    Ok(source)
}

/// Rows, tokens, and what is left out.
fn statistics(
    sources: &[DatasetSource],
    len: u32,
    counts: &DataCounts,
) -> (String, serde_json::Value) {
    let paths: Vec<String> = sources
        .iter()
        .map(|source| source.path.display().to_string())
        .collect();
    let share = 100.0 * counts.trained as f64 / counts.tokens.max(1) as f64;
    let mut lines = vec![
        paths.join(", "),
        format!(
            "  {}, {}, {} of at most {len} tokens",
            counted(counts.rows.into(), "row"),
            counted(counts.examples.into(), "example"),
            counted(counts.sequences.into(), "sequence")
        ),
        format!(
            "  {} tokens, {} of them learnt ({share:.0} %)",
            counts.tokens, counts.trained
        ),
    ];
    if counts.longest > 0 {
        lines.push(format!(
            "  the longest example has {} tokens",
            counts.longest
        ));
    }
    lines.extend(shown::losses(counts).map(|(what, lost)| format!("  {what}: {lost}")));
    (lines.join("\n"), data_event(sources, len, counts))
}
