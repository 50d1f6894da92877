//! Which type each tensor of a GGUF file has: the mixes of llama.cpp.

use concord_kernels::packed::BlockFormat;

use crate::config::DecoderConfig;

/// How the numbers of a GGUF file are written, by the names of llama.cpp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GgufKind {
    /// All in f32.
    F32,
    /// Matrices in bf16.
    Bf16,
    /// Matrices in f16.
    F16,
    /// Matrices in Q8_0: 8.5 bits a number.
    Q8_0,
    /// Matrices in Q4_K, the more sensitive ones in Q6_K: about 4.9 bits a number.
    Q4KM,
}

impl GgufKind {
    /// The name, as it is given and shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::Q8_0 => "q8_0",
            Self::Q4KM => "q4_k_m",
        }
    }

    /// The number of `general.file_type`.
    pub(super) fn file_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q8_0 => 7,
            Self::Q4KM => 15,
            Self::Bf16 => 32,
        }
    }

    /// Whether its blocks have scales.
    pub(super) fn is_quantized(self) -> bool {
        matches!(self, Self::Q8_0 | Self::Q4KM)
    }

    /// The type of the matrix with the name `stored` in the file, with rows of `cols` numbers. What
    /// has one axis, and routers of experts, are in f32.
    pub(super) fn of(self, config: &DecoderConfig, stored: &str, cols: usize) -> BlockFormat {
        if stored.ends_with("ffn_gate_inp.weight") {
            return BlockFormat::F32;
        }
        let wanted = match self {
            Self::F32 => BlockFormat::F32,
            Self::Bf16 => BlockFormat::Bf16,
            Self::F16 => BlockFormat::F16,
            Self::Q8_0 => BlockFormat::Q8_0,
            Self::Q4KM => mixed(config, stored),
        };
        fitting(wanted, cols)
    }
}

/// The type in the mix `q4_k_m`: llama.cpp gives more bits to the head, and to attn_v and ffn_down
/// of some layers.
fn mixed(config: &DecoderConfig, stored: &str) -> BlockFormat {
    let has_eight = (config.experts.as_ref()).is_some_and(|experts| experts.count == 8);
    let part = match stored
        .strip_prefix("blk.")
        .and_then(|rest| rest.split_once('.'))
    {
        None => {
            let is_head = stored == "output.weight" || config.tie_embeddings;
            return match is_head {
                true => BlockFormat::Q6K,
                false => BlockFormat::Q4K,
            };
        }
        Some((layer, part)) => (layer.parse().unwrap_or(0), part.trim_end_matches(".weight")),
    };
    match part {
        (_, "attn_v" | "attn_k") if has_eight => BlockFormat::Q8_0,
        (_, "attn_output") if has_eight => BlockFormat::Q5K,
        (layer, "attn_v" | "attn_qkv" | "ffn_down" | "ffn_down_exps")
            if has_more_bits(layer, config.layers) =>
        {
            BlockFormat::Q6K
        }
        // The 70B Llama, in which 8 query heads share a key head.
        (_, "attn_v") if config.layers == 80 && config.heads != config.kv_heads => BlockFormat::Q5K,
        _ => BlockFormat::Q4K,
    }
}

/// The first and the last eighth of the layers, and each third of the others.
fn has_more_bits(layer: usize, layers: usize) -> bool {
    let eighth = layers / 8;
    layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2
}

/// The type itself where rows are whole blocks, else one of smaller blocks.
fn fitting(wanted: BlockFormat, cols: usize) -> BlockFormat {
    let fits = |format: BlockFormat| format.row_bytes(cols).is_some();
    let smaller = match wanted {
        BlockFormat::Q4K => BlockFormat::Q5_0,
        BlockFormat::Q5K => BlockFormat::Q5_1,
        BlockFormat::Q6K => BlockFormat::Q8_0,
        other => other,
    };
    let found = [wanted, smaller].into_iter().find(|format| fits(*format));
    found.unwrap_or(BlockFormat::F16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::tiny_llama;

    #[test]
    fn the_mix_of_llama_cpp() {
        let config = DecoderConfig {
            layers: 32,
            tie_embeddings: false,
            ..tiny_llama()
        };
        let of = |stored: &str| GgufKind::Q4KM.of(&config, stored, 256);
        assert_eq!(of("output.weight"), BlockFormat::Q6K);
        assert_eq!(of("token_embd.weight"), BlockFormat::Q4K);
        assert_eq!(of("blk.7.attn_q.weight"), BlockFormat::Q4K);
        // What llama-quantize says of a 7B: these layers of 32 have ffn_down in Q6_K.
        let more: Vec<usize> = (0..32)
            .filter(|layer| of(&format!("blk.{layer}.ffn_down.weight")) == BlockFormat::Q6K)
            .collect();
        let known = [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31];
        assert_eq!(more, known);
        let narrow = GgufKind::Q4KM.of(&config, "blk.7.attn_q.weight", 96);
        assert_eq!(narrow, BlockFormat::Q5_0);
        assert_eq!(
            GgufKind::Q8_0.of(&config, "output.weight", 40),
            BlockFormat::F16
        );
    }
}
