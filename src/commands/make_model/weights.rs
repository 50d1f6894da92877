//! Random weights, written tensor by tensor.

use std::collections::BTreeMap;
use std::path::Path;

use concord_kernels::rng::Philox;
use concord_models::config::{DecoderConfig, TensorSpec};
use concord_models::export::{ExportDtype, write_generated};
use serde_json::json;

use super::write_json;

/// Most bytes of a file of weights.
const SHARD_BYTES: u64 = 5_000_000_000;

/// Values from one block of random words; each value takes half a word.
const PER_BLOCK: u64 = 8;

/// How the values of a tensor are drawn.
struct Drawn {
    words: Philox,
    /// Values are uniform on [-side, side); without it, all are 1.
    side: Option<f32>,
}

/// Writes the weights of a model into its folder, in shards where they are large. Returns their
/// size in bytes.
///
/// # Errors
/// Where a file cannot be written.
pub fn write(
    dir: &Path,
    config: &DecoderConfig,
    dtype: ExportDtype,
    seed: u64,
) -> anyhow::Result<u64> {
    let tensors = config.tensors();
    let drawn = tensors.iter().zip(0..).map(|(tensor, stream)| {
        let words = Philox::new(seed, stream);
        let side = side(tensor);
        (tensor.name.clone(), Drawn { words, side })
    });
    let drawn: BTreeMap<String, Drawn> = drawn.collect();
    let fill = |name: &str, start: u64, values: &mut [f32]| drawn[name].fill(start, values);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let width = match dtype {
        ExportDtype::F32 => 4,
        ExportDtype::BF16 | ExportDtype::F16 => 2,
    };
    let shards = shards(tensors, width);
    let count = shards.len();
    let (mut total, mut homes) = (0, BTreeMap::new());
    for (index, shard) in shards.into_iter().enumerate() {
        let name = match count {
            1 => "model.safetensors".to_string(),
            _ => format!("model-{:05}-of-{count:05}.safetensors", index + 1),
        };
        write_generated(&dir.join(&name), &shard, dtype, threads, &fill)?;
        for tensor in shard {
            total += width * elements(&tensor);
            homes.insert(tensor.name, name.clone());
        }
    }
    if count > 1 {
        let index = json!({ "metadata": { "total_size": total }, "weight_map": homes });
        write_json(&dir.join("model.safetensors.index.json"), &index)?;
    }
    Ok(total)
}

/// Tensors of each file, in the order of the computation.
fn shards(tensors: Vec<TensorSpec>, width: u64) -> Vec<Vec<TensorSpec>> {
    let mut shards: Vec<Vec<TensorSpec>> = vec![Vec::new()];
    let mut held = 0;
    for tensor in tensors {
        let bytes = width * elements(&tensor);
        if held > 0 && held + bytes > SHARD_BYTES {
            shards.push(Vec::new());
            held = 0;
        }
        held += bytes;
        if let Some(shard) = shards.last_mut() {
            shard.push(tensor);
        }
    }
    shards
}

fn elements(tensor: &TensorSpec) -> u64 {
    tensor.shape.iter().map(|&dim| dim as u64).product()
}

/// A uniform distribution on [-a, a) has the variance a^2 / 3. Weights preserve the variance of
/// activations, except that what is added to the residual stream is small, and logits are about
/// equal.
fn side(tensor: &TensorSpec) -> Option<f32> {
    let &[_, width] = tensor.shape.as_slice() else {
        return None;
    };
    let name = &tensor.name;
    let gain = if name.contains("o_proj") || name.contains("down_proj") {
        0.5
    } else if name.contains("embed") {
        4.0
    } else if name.contains("lm_head") {
        0.25
    } else {
        1.0
    };
    Some((3.0 / width as f32).sqrt() * gain)
}

impl Drawn {
    /// The values from element `start` on.
    fn fill(&self, start: u64, values: &mut [f32]) {
        let Some(side) = self.side else {
            values.fill(1.0);
            return;
        };
        let (mut block, mut words) = (u64::MAX, [0; 4]);
        for (index, value) in (start..).zip(values) {
            if index / PER_BLOCK != block {
                block = index / PER_BLOCK;
                words = self.words.words(block);
            }
            let place = (index % PER_BLOCK) as usize;
            let half = words[place / 2] >> (16 * (place % 2)) & 0xffff;
            *value = side * (half as f32 / 32_768.0 - 1.0);
        }
    }
}
