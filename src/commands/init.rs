//! `concord init`: a job file for a model and a data set.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use concord_models::config::DecoderConfig;
use serde_json::json;

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
    /// A data set: .txt, .jsonl or .json. What its rows are is seen from the first.
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
    let kind = sample::kind(&args.data).with_context(|| args.data.display().to_string())?;
    let name = args
        .output
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy();
    let text = sample::text(&Sample {
        model: &args.model,
        data: &args.data.to_string_lossy(),
        kind,
        sequence_len: sequence_len(&args.model),
        output_dir: &format!("out/{name}"),
    });
    write_new(&args.output, &text)?;
    let path = args.output.display().to_string();
    let words = format!("{path} is written: change it as you like, then `concord train {path}`");
    output.result(
        &words,
        &json!({ "event": "job_file", "file": path, "type": kind }),
    );
    Ok(())
}

/// Tokens of a sequence: not more than a model that is here has positions.
fn sequence_len(model: &str) -> usize {
    let config = DecoderConfig::from_folder(Path::new(model));
    config.map_or(SEQUENCE_LEN, |config| {
        config.max_positions.min(SEQUENCE_LEN)
    })
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
