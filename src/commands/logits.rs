//! `concord logits`: the logits of a model for given token ids, for comparisons.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};
use concord_kernels::Tensor;
use concord_models::decoder::{Batch, Stage, StageInput};
use concord_models::export::{ExportDtype, write_tensors};
use concord_models::weights::TensorFile;
use serde_json::json;

use crate::support::loaded_model::ModelArgs;
use crate::support::output::Output;

/// Options of `concord logits`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  concord logits --model models/llama --input ids.safetensors --output logits.safetensors
  concord logits --model models/llama --adapter out/shakespeare --input ids.safetensors \\
      --output logits.safetensors")]
pub struct LogitsArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// A safetensors file with I64 `input_ids` [B, T]: sequences, each from position 0.
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// The safetensors file to write: F32 `logits` [B, T, V]. It is written whole or not at all.
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
}

/// Sequences of token ids.
struct Ids {
    sequences: usize,
    sequence_len: usize,
    tokens: Vec<u32>,
}

/// Writes the logits of every position.
///
/// # Errors
/// Naming the file and what is wrong with it.
pub fn run(args: &LogitsArgs, output: &Output) -> anyhow::Result<()> {
    let model = args.model.open()?;
    args.check_output(model.dir())?;
    let config = model.config();
    let ids = read_ids(&args.input, config.vocab, config.max_positions)?;
    let stage = model.load(ids.sequence_len)?;
    let start = Instant::now();
    let logits = compute(&stage, &ids)?;
    let seconds = start.elapsed().as_secs_f64();
    let shape = logits.shape().to_vec();
    let tensors = BTreeMap::from([("logits".to_string(), logits)]);
    write_tensors(&args.output, &tensors, |_| ExportDtype::F32)?;
    let text = format!(
        "logits {shape:?} in {seconds:.2} s: {}",
        args.output.display()
    );
    let object = json!({
        "event": "logits", "output": args.output, "shape": shape, "seconds": seconds,
    });
    output.result(&text, &object);
    Ok(())
}

impl LogitsArgs {
    /// Refuses, before anything is computed, an output file that would replace an input or cannot
    /// be written.
    fn check_output(&self, model: &Path) -> anyhow::Result<()> {
        let place = self.output.display();
        let parent = match self.output.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        tempfile::Builder::new()
            .tempfile_in(parent)
            .with_context(|| format!("--output: cannot write {place}"))?;
        let Ok(output) = self.output.canonicalize() else {
            return Ok(());
        };
        if output.is_dir() {
            bail!("--output: {place} is a folder, and must be a file");
        }
        let is = |path: &Path| path.canonicalize().is_ok_and(|path| path == output);
        if is(&self.input) {
            bail!("--output: {place} is the input, which would be lost");
        }
        let holds = |folder: &Path| {
            output
                .parent()
                .is_some_and(|parent| folder.canonicalize().is_ok_and(|folder| folder == parent))
        };
        let of_model = holds(model) || self.model.adapter.as_deref().is_some_and(holds);
        let is_logits =
            || TensorFile::open(&output).is_ok_and(|file| file.shape("logits").is_some());
        if of_model && !is_logits() {
            bail!("--output: {place} is a file of the model, which would be lost");
        }
        Ok(())
    }
}

fn read_ids(path: &Path, vocab: usize, positions: usize) -> anyhow::Result<Ids> {
    let file = TensorFile::open(path)?;
    let ids = file.load_i64("input_ids")?;
    let place = path.display();
    let &[sequences, sequence_len] = file.shape("input_ids").unwrap_or(&[]) else {
        let shape = file.shape("input_ids");
        bail!(
            "{place}: `input_ids` has shape {:?}, but must be [B, T]",
            shape.unwrap_or(&[])
        );
    };
    if ids.is_empty() {
        bail!("{place}: `input_ids` [{sequences}, {sequence_len}] is empty");
    }
    if sequence_len > positions {
        bail!(
            "{place}: sequences of {sequence_len} tokens, but the model has {positions} positions"
        );
    }
    let inside = |id: &i64| (0..vocab as i64).contains(id);
    if let Some(index) = ids.iter().position(|id| !inside(id)) {
        bail!(
            "{place}: `input_ids`[{}, {}] is {}, but the model has token ids from 0 to {}",
            index / sequence_len,
            index % sequence_len,
            ids[index],
            vocab - 1
        );
    }
    // All ids are below `vocab`, which a model folder bounds far below 2^32.
    let tokens = ids.iter().map(|&id| id as u32).collect();
    Ok(Ids {
        sequences,
        sequence_len,
        tokens,
    })
}

/// Logits `[B, T, V]`, computed one sequence at a time, so that only one sequence's activations are
/// in memory.
fn compute(stage: &Stage, ids: &Ids) -> anyhow::Result<Tensor> {
    let vocab = stage.options().config.vocab;
    let mut logits = Vec::with_capacity(ids.tokens.len() * vocab);
    for (index, tokens) in ids.tokens.chunks_exact(ids.sequence_len).enumerate() {
        let batch = Batch::whole(ids.sequence_len, tokens.to_vec());
        let hidden = stage.forward(&batch, StageInput::Tokens);
        let (hidden, _) = hidden.with_context(|| format!("sequence {index}"))?;
        let rows = stage.logits(&hidden);
        logits.extend_from_slice(&rows.and_then(Tensor::into_values)?);
    }
    Ok(Tensor::new(
        &[ids.sequences, ids.sequence_len, vocab],
        logits,
    )?)
}
