//! The names of tensors in GGUF, and the corresponding names in transformers.

use super::architectures::Architecture;

/// What a tensor of a GGUF file is in transformers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TensorName {
    /// The name; of the experts of a layer in one tensor, what stands before an expert's number.
    pub(super) name: String,
    /// What stands after the number of an expert, where the tensor holds all of them.
    pub(super) of_expert: Option<String>,
    pub(super) order: RowOrder,
    /// Whether 1 has been added to the numbers.
    pub(super) has_one_added: bool,
}

/// How the rows of a tensor are ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowOrder {
    /// As in transformers.
    Same,
    /// The two halves of each query head are interleaved: in the architecture `llama`, llama.cpp
    /// rotates adjacent elements, and transformers elements of the two halves of a head.
    QueryHeads,
    /// As `QueryHeads`, for each key head.
    KeyHeads,
}

/// More layers than any decoder has that is read: a name is made for each expert of each layer.
const LAYERS_MAX: u32 = 1 << 10;

/// Parts of a block, and what they are called in a layer.
const PARTS: &[(&str, &str)] = &[
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// The matrices of an expert, in the order of [`Architecture::experts`].
const OF_EXPERTS: [&str; 3] = ["ffn_gate", "ffn_up", "ffn_down"];

/// The tensor `name` of a model of `architecture`, if it is one of the model.
pub(super) fn of(architecture: &Architecture, name: &str) -> Option<TensorName> {
    let (stem, kind) = name.rsplit_once('.')?;
    if !["weight", "bias"].contains(&kind) {
        return None;
    }
    let has_one_added = architecture.adds_one && stem.ends_with("norm") && kind == "weight";
    let same = |module: &str| {
        Some(TensorName {
            name: format!("{module}.{kind}"),
            of_expert: None,
            order: RowOrder::Same,
            has_one_added,
        })
    };
    match stem {
        "token_embd" => return same("model.embed_tokens"),
        "output_norm" => return same("model.norm"),
        "output" => return same("lm_head"),
        _ => {}
    }
    let (number, part) = stem.strip_prefix("blk.")?.split_once('.')?;
    let layer: u32 = number.parse().ok()?;
    if layer >= LAYERS_MAX || layer.to_string() != number {
        return None;
    }
    if let Some((experts, matrices)) = architecture.experts {
        let module = format!("model.layers.{layer}.{experts}");
        let matrix = |part: &str| OF_EXPERTS.iter().position(|known| *known == part);
        if let Some(matrix) = part.strip_suffix("_exps").and_then(matrix) {
            return Some(TensorName {
                name: module,
                of_expert: Some(format!("{}.{kind}", matrices[matrix])),
                order: RowOrder::Same,
                has_one_added: false,
            });
        }
        // Old files have a tensor for each expert.
        if let Some((part, expert)) = part.split_once('.') {
            let expert: u32 = expert.parse().ok()?;
            return same(&format!("{module}.{expert}.{}", matrices[matrix(part)?]));
        }
    }
    let parts = || architecture.parts.iter().chain(PARTS);
    let (_, module) = parts().find(|(known, _)| *known == part)?;
    Some(TensorName {
        order: match part {
            "attn_q" if architecture.interleaves => RowOrder::QueryHeads,
            "attn_k" if architecture.interleaves => RowOrder::KeyHeads,
            _ => RowOrder::Same,
        },
        ..same(&format!("model.layers.{layer}.{module}"))?
    })
}

/// Where a tensor of transformers goes in GGUF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredName {
    /// Its name there; experts of a layer share one.
    pub(crate) name: String,
    /// Which expert it is of.
    pub(crate) expert: Option<usize>,
    pub(crate) order: RowOrder,
    /// Whether 1 is added to the numbers.
    pub(crate) adds_one: bool,
}

/// What the tensor `name` of transformers is in GGUF: the inverse of [`of`], if it has one.
pub(crate) fn stored(architecture: &Architecture, name: &str) -> Option<StoredName> {
    let (module, kind) = name.rsplit_once('.')?;
    let whole = |part: String, expert| StoredName {
        name: format!("{part}.{kind}"),
        expert,
        order: RowOrder::Same,
        adds_one: false,
    };
    let ends = [
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
    ];
    let end = ends.iter().find(|(known, _)| *known == module);
    let found = match end {
        Some((_, part)) => whole((*part).to_string(), None),
        None => {
            let rest = module.strip_prefix("model.layers.")?;
            let (layer, part) = rest.split_once('.')?;
            let (part, expert) = stored_part(architecture, part)?;
            whole(format!("blk.{layer}.{part}"), expert)
        }
    };
    // The inverse says how it is read: an expert's tensor by the name of all of them.
    let read = of(architecture, &found.name)?;
    let is_same = match (&read.of_expert, found.expert) {
        (Some(end), Some(expert)) => format!("{}.{expert}.{end}", read.name) == name,
        _ => read.name == name,
    };
    is_same.then_some(StoredName {
        order: read.order,
        adds_one: read.has_one_added,
        ..found
    })
}

/// The part of a block that a module of a layer is, and the number of its expert.
fn stored_part(architecture: &Architecture, module: &str) -> Option<(String, Option<usize>)> {
    if let Some((experts, matrices)) = architecture.experts
        && let Some(rest) = module.strip_prefix(experts)
        && let Some((number, matrix)) = rest.strip_prefix('.').and_then(|r| r.split_once('.'))
    {
        let at = matrices.iter().position(|known| *known == matrix)?;
        return Some((format!("{}_exps", OF_EXPERTS[at]), number.parse().ok()));
    }
    let mut parts = architecture.parts.iter().chain(PARTS);
    let (part, _) = parts.find(|(_, known)| *known == module)?;
    Some(((*part).to_string(), None))
}

#[cfg(test)]
mod tests {
    use super::super::architectures::find;
    use super::*;

    #[test]
    fn names_and_orders() {
        let named = |architecture, name| {
            let named = of(find(architecture).unwrap(), name)?;
            Some((named.name, named.order, named.has_one_added))
        };
        for (architecture, name, expected, order, has_one_added) in [
            (
                "llama",
                "blk.3.attn_k.weight",
                "model.layers.3.self_attn.k_proj.weight",
                RowOrder::KeyHeads,
                false,
            ),
            (
                "qwen2",
                "blk.12.attn_q.bias",
                "model.layers.12.self_attn.q_proj.bias",
                RowOrder::Same,
                false,
            ),
            (
                "gemma2",
                "blk.0.ffn_norm.weight",
                "model.layers.0.pre_feedforward_layernorm.weight",
                RowOrder::Same,
                true,
            ),
            (
                "llama",
                "blk.1.ffn_down.7.weight",
                "model.layers.1.block_sparse_moe.experts.7.w2.weight",
                RowOrder::Same,
                false,
            ),
        ] {
            let expected = (expected.to_string(), order, has_one_added);
            assert_eq!(named(architecture, name), Some(expected));
        }
        for none in [
            "rope_freqs.weight",
            "blk.x.attn_q.weight",
            "blk.01.attn_q.weight",
            "blk.1024.attn_q.weight",
            "blk.1.attn_q",
            "blk.1.a.weight",
            "blk.1.ffn_norm.7.weight",
        ] {
            assert_eq!(named("llama", none), None, "{none}");
        }
    }

    #[test]
    fn back_again() {
        for (architecture, stored_name, expert) in [
            ("llama", "blk.3.attn_k.weight", None),
            ("gemma2", "blk.0.post_attention_norm.weight", None),
            ("gemma3", "output_norm.weight", None),
            ("phi3", "blk.2.attn_qkv.weight", None),
            ("qwen2moe", "blk.4.ffn_gate_shexp.weight", None),
            ("llama", "blk.1.ffn_down_exps.weight", Some(7)),
        ] {
            let architecture = find(architecture).unwrap();
            let read = of(architecture, stored_name).unwrap();
            let name = match (&read.of_expert, expert) {
                (Some(end), Some(expert)) => format!("{}.{expert}.{end}", read.name),
                _ => read.name.clone(),
            };
            let found = stored(architecture, &name).unwrap();
            assert_eq!((found.name.as_str(), found.expert), (stored_name, expert));
            assert_eq!(
                (found.order, found.adds_one),
                (read.order, read.has_one_added)
            );
        }
        let qwen = find("qwen3").unwrap();
        assert_eq!(
            stored(qwen, "model.layers.0.mlp.experts.1.up_proj.weight"),
            None
        );
        assert_eq!(stored(qwen, "model.layers.0.self_attn.sinks"), None);
    }

    #[test]
    fn experts_in_one_tensor() {
        let named = of(find("qwen3moe").unwrap(), "blk.2.ffn_up_exps.weight").unwrap();
        assert_eq!(named.name, "model.layers.2.mlp.experts");
        assert_eq!(named.of_expert.as_deref(), Some("up_proj.weight"));
        assert_eq!(of(find("qwen3").unwrap(), "blk.2.ffn_up_exps.weight"), None);
    }
}
