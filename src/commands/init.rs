//! `concord init`: a job file for a model and a data set.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use concord_data::{DatasetKind, DatasetSource};
use concord_models::config::DecoderConfig;
use concord_models::hub;
use concord_models::weights::ModelFolder;
use serde_json::json;

use crate::support::guess;
use crate::support::hub_data;
use crate::support::job_file::sample::{self, Sample};
use crate::support::output::Output;

/// Tokens of a sequence, if the model has so many positions.
const SEQUENCE_LEN: usize = 1_024;

/// Options of `concord init`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  concord init models/llama rows.jsonl               # writes job.yaml
  concord init owner/name notes.txt --output notes.yaml
  concord train job.yaml --dry-run                   # what it would do, and what it takes")]
pub struct InitArgs {
    /// A model folder, or owner/name of the Hugging Face hub.
    #[arg(value_name = "DIR_OR_HUB_ID")]
    model: String,
    /// A data set: a file, a folder, or owner/name of the hub. What its rows are is seen from the
    /// first.
    #[arg(value_name = "FILE")]
    data: PathBuf,
    /// Where the job file is written; a file that is there is not replaced.
    #[arg(long, default_value = "job.yaml", value_name = "FILE")]
    output: PathBuf,
}

/// Writes a job file.
///
/// # Errors
/// Where the data set cannot be read, has rows that are not known, or the file is there already.
pub fn run(args: &InitArgs, output: &Output) -> anyhow::Result<()> {
    let known = Known::of(&args.model);
    let mut source = DatasetSource::new(&args.data, DatasetKind::Text);
    hub_data::find(&mut source)?;
    let first = source.given_files.as_ref().and_then(|files| files.first());
    let path = first.unwrap_or(&args.data);
    let guess = guess::of(path, known.has_template, known.folder.as_ref())?;
    let seen = guess.source;
    let kind = seen.kind.name();
    let name = args
        .output
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy();
    let text = sample::text(&Sample {
        model: &args.model,
        data: &args.data.to_string_lossy(),
        seen: &seen,
        sequence_len: known.positions.min(SEQUENCE_LEN),
        output_dir: &format!("out/{name}"),
    });
    write_new(&args.output, &text)?;
    let path = args.output.display().to_string();
    let mut words =
        format!("{path} is written: change it as you like, then `concord train {path}`");
    if let Some(note) = &guess.note {
        words = format!("note: the data is of `type: {kind}`: {note}\n{words}");
    }
    output.result(
        &words,
        &json!({ "event": "job_file", "file": path, "type": kind, "note": guess.note }),
    );
    Ok(())
}

/// What is known of a model without downloading it.
struct Known {
    positions: usize,
    has_template: bool,
    /// The files, where they are here.
    folder: Option<ModelFolder>,
}

impl Known {
    /// Of a folder or a GGUF file that is here; others may have many positions and a template.
    fn of(model: &str) -> Self {
        let folder = hub::is_here(model).then(|| ModelFolder::open(Path::new(model)).ok());
        let folder = folder.flatten();
        let template = folder.as_ref().map(ModelFolder::chat_template);
        Self {
            positions: match (DecoderConfig::from_folder(Path::new(model)), &folder) {
                (Ok(config), _) => config.max_positions,
                (Err(_), Some(folder)) => folder.config().max_positions,
                (Err(_), None) => SEQUENCE_LEN,
            },
            has_template: template.is_none_or(|found| !matches!(found, Ok(None))),
            folder,
        }
    }
}

fn write_new(path: &Path, text: &str) -> anyhow::Result<()> {
    let opened = OpenOptions::new().write(true).create_new(true).open(path);
    let mut file = match opened {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => bail!(
            "{} is there already: remove it, or give another --output",
            path.display()
        ),
        opened => opened.with_context(|| format!("cannot write {}", path.display()))?,
    };
    let written = file.write_all(text.as_bytes());
    written.with_context(|| format!("cannot write {}", path.display()))
}
