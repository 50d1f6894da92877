//! `concord merge`: a base model with an adapter merged into it, as a Hugging Face folder.

use std::path::PathBuf;

use concord_models::export::{ExportDtype, FolderForm, save_source, usual_dtype};
use serde_json::json;

use crate::support::output::Output;
use crate::support::tuned_model::{self, TunedModel, TunedModelArgs};
use crate::support::{bytes, model_card, new_output};

/// Options of `concord merge`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  concord merge out/mine -o out/merged                    # in the dtype of the base model
  concord merge out/mine -o out/merged --base models/llama --dtype bf16
  concord merge out/full -o out/half --dtype bf16         # a full fine-tune in fewer bytes
  concord generate --model out/merged --prompt \"Seven\"")]
pub struct MergeArgs {
    #[command(flatten)]
    model: TunedModelArgs,
    /// The folder to write. What is there already is not replaced.
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// The dtype of all tensors. By default that of each in the base model; of a packed one what
    /// its config.json names, or else bf16.
    #[arg(long, value_name = "DTYPE")]
    dtype: Option<Dtype>,
    /// Most bytes of a file, such as 512M: larger models are written in parts, with their index.
    #[arg(long, value_name = "SIZE", default_value = "5G", value_parser = bytes::parse)]
    max_shard_size: u64,
}

/// The values of `--dtype`.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Dtype {
    /// 32-bit floats.
    F32,
    /// bfloat16.
    Bf16,
    /// IEEE half.
    F16,
}

impl Dtype {
    fn of_export(self) -> ExportDtype {
        match self {
            Self::F32 => ExportDtype::F32,
            Self::Bf16 => ExportDtype::BF16,
            Self::F16 => ExportDtype::F16,
        }
    }
}

/// Writes the merged model.
///
/// # Errors
/// Naming the file and what is wrong with it, or why the folder cannot be written.
pub fn run(args: &MergeArgs, output: &Output) -> anyhow::Result<()> {
    let model = args.model.open()?;
    let is_merged = model.adapter.is_some();
    if !is_merged && !output.is_json() {
        eprintln!(
            "note: {} is a model, and no adapter: its tensors are written as they are",
            model.dir().display()
        );
    }
    let own = usual_dtype(&model.base);
    let form = FolderForm {
        dtype: args.dtype.map(Dtype::of_export).or(own),
        shard_bytes: args.max_shard_size,
    };
    let bar = tuned_model::bar(output);
    let shown = bar.clone();
    let written = new_output::make(&args.output, move |folder| {
        let mut bytes = 0;
        model.with_source(|source| {
            save_source(folder, source, form, &mut |done, total| {
                shown.set_length(total);
                shown.set_position(done);
                bytes = total;
            })
        })?;
        write_card(&model, folder)?;
        Ok(bytes)
    });
    bar.finish_and_clear();
    let written = written?;
    let dtype = form.dtype.map(ExportDtype::torch_name);
    let text = format!(
        "{} written in {}: {}",
        bytes::size(written),
        dtype.unwrap_or("the dtypes of its base model"),
        args.output.display()
    );
    let object = json!({
        "event": "merged", "output": args.output, "bytes": written, "dtype": dtype,
        "merged": is_merged,
    });
    output.result(&text, &object);
    Ok(())
}

fn write_card(model: &TunedModel, folder: &std::path::Path) -> anyhow::Result<()> {
    let card = model_card::merged(model)?;
    Ok(std::fs::write(folder.join(model_card::FILE), card)?)
}
