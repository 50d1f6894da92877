//! `concord make-model`: a model of a published shape with random weights, to measure with.

mod shapes;
mod weights;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};
use clap::ValueEnum;
use concord_models::config::DecoderConfig;
use concord_models::export::ExportDtype;
use serde_json::{Value, json};

use crate::support::byte_tokenizer;
use crate::support::bytes::size;
use crate::support::output::Output;
use shapes::PublishedShape;

/// Options of `concord make-model`.
#[derive(clap::Args)]
#[command(after_help = "Example:
  concord make-model --shape tinyllama-1.1b --dtype bf16 models/tinyllama

The same shape, format and seed give the same files on every machine.")]
pub struct MakeModelArgs {
    /// The model whose shape it has.
    #[arg(long, value_name = "SHAPE", value_parser = PublishedShape::parse)]
    shape: PublishedShape,
    /// The format of its weights.
    #[arg(long, value_enum, default_value_t = StoredFormat::Bf16, value_name = "FORMAT")]
    dtype: StoredFormat,
    /// What its weights are drawn by.
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// The folder to write, which must be empty or not there.
    #[arg(value_name = "DIR")]
    out: PathBuf,
}

/// A format of weights.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum StoredFormat {
    Bf16,
    F16,
    F32,
}

impl StoredFormat {
    fn export(self) -> ExportDtype {
        match self {
            Self::Bf16 => ExportDtype::BF16,
            Self::F16 => ExportDtype::F16,
            Self::F32 => ExportDtype::F32,
        }
    }

    /// Its name in PyTorch.
    fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "bfloat16",
            Self::F16 => "float16",
            Self::F32 => "float32",
        }
    }
}

/// Writes the model.
///
/// # Errors
/// Where the folder is in use or cannot be written.
pub fn run(args: &MakeModelArgs, output: &Output) -> anyhow::Result<()> {
    let (dir, start) = (&args.out, Instant::now());
    let cannot = || format!("cannot make the folder {}", dir.display());
    std::fs::create_dir_all(dir).with_context(cannot)?;
    if std::fs::read_dir(dir)
        .with_context(cannot)?
        .next()
        .is_some()
    {
        bail!("{} is not empty: name a new folder", dir.display());
    }
    let config = args.shape.config(args.dtype.name());
    let tokenizer = byte_tokenizer::tokenizer(args.shape.vocab());
    let tokenizer = tokenizer.context("no tokenizer has so many tokens")?;
    write_json(&dir.join("config.json"), &config)?;
    write_json(&dir.join("tokenizer.json"), &tokenizer)?;
    let ends = json!({ "bos_token": "<s>", "eos_token": "</s>" });
    write_json(&dir.join("tokenizer_config.json"), &ends)?;
    let config = DecoderConfig::from_folder(dir)?;
    let bytes = weights::write(dir, &config, args.dtype.export(), args.seed)?;
    let seconds = start.elapsed().as_secs_f64();
    let text = format!("{}: {} of weights", dir.display(), size(bytes));
    let object = json!({
        "event": "made", "folder": dir, "shape": args.shape.name, "weights_bytes": bytes,
        "seconds": seconds,
    });
    output.result(&text, &object);
    Ok(())
}

fn write_json(path: &Path, value: &Value) -> anyhow::Result<()> {
    let written = std::fs::write(path, value.to_string());
    written.with_context(|| format!("cannot write {}", path.display()))
}
