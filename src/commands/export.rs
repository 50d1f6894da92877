//! `concord export`: a model, or a base model with an adapter, as a GGUF file.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use concord_models::export::{GgufKind, gguf_note, write_gguf};
use serde_json::json;

use crate::support::output::Output;
use crate::support::tuned_model::{self, TunedModelArgs};
use crate::support::{bytes, model_card, new_output};

/// Options of `concord export`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  concord export out/mine --gguf q8_0 -o mine.gguf        # the adapter is merged on the way
  concord export out/merged --gguf q4_k_m -o mine.gguf
  concord generate --model mine.gguf --prompt \"Seven\"
  llama-cli -m mine.gguf -p \"Seven\"")]
pub struct ExportArgs {
    #[command(flatten)]
    model: TunedModelArgs,
    /// How numbers are written.
    #[arg(long, value_name = "TYPE")]
    gguf: GgufName,
    /// The file to write; its model card is FILE.md. What is there already is not replaced.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

/// The values of `--gguf`.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum GgufName {
    /// Every number in f32.
    F32,
    /// Matrices in bf16.
    Bf16,
    /// Matrices in f16.
    F16,
    /// Matrices in 8.5 bits a number.
    #[value(name = "q8_0")]
    Q8_0,
    /// Matrices in 4.5 bits a number, the more sensitive ones in 6.6.
    #[value(name = "q4_k_m")]
    Q4KM,
}

impl GgufName {
    fn kind(self) -> GgufKind {
        match self {
            Self::F32 => GgufKind::F32,
            Self::Bf16 => GgufKind::Bf16,
            Self::F16 => GgufKind::F16,
            Self::Q8_0 => GgufKind::Q8_0,
            Self::Q4KM => GgufKind::Q4KM,
        }
    }
}

/// Writes the file.
///
/// # Errors
/// Naming the file and what is wrong with it, what GGUF cannot say of the model, or why the file
/// cannot be written.
pub fn run(args: &ExportArgs, output: &Output) -> anyhow::Result<()> {
    let model = args.model.open()?;
    let is_merged = model.adapter.is_some();
    if let Some(note) = gguf_note(model.base.config()) {
        eprintln!("note: {note}");
    }
    let kind = args.gguf.kind();
    let card = card_path(&args.output);
    if card.symlink_metadata().is_ok() {
        bail!(
            "--output: {} is there already, and is not replaced: choose another place",
            card.display()
        );
    }
    let card_text = model_card::exported(&model, kind.name())?;
    let name = model.dir().file_name().unwrap_or_default();
    let name = name.to_string_lossy().trim_end_matches(".gguf").to_string();
    let bar = tuned_model::bar(output);
    let shown = bar.clone();
    let written = new_output::make(&args.output, move |path| {
        let written = model.with_source(|source| {
            write_gguf(path, source, kind, &name, &mut |done, total| {
                shown.set_length(total);
                shown.set_position(done);
            })
        });
        Ok(written?)
    });
    bar.finish_and_clear();
    let written = written?;
    let cannot = || format!("cannot write {}", card.display());
    std::fs::write(&card, card_text).with_context(cannot)?;
    let text = format!(
        "{} written as {}: {}, and its model card {}",
        bytes::size(written),
        kind.name(),
        args.output.display(),
        card.display()
    );
    let object = json!({
        "event": "exported", "output": args.output, "bytes": written, "gguf": kind.name(),
        "merged": is_merged, "card": card,
    });
    output.result(&text, &object);
    Ok(())
}

/// The model card of a GGUF file: its name, with `.md` behind it.
fn card_path(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_os_string();
    name.push(".md");
    name.into()
}
