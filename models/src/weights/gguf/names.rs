//! The names of tensors in GGUF, and the corresponding names in transformers.

/// The name of a GGUF tensor in transformers, and the order of its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TensorName {
    pub(super) name: String,
    pub(super) order: RowOrder,
}

/// How the rows of a tensor are ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowOrder {
    /// As in transformers.
    Same,
    /// The two halves of each query head are interleaved: in the architecture `llama`, llama.cpp
    /// rotates adjacent elements, and transformers elements of the two halves of a head.
    QueryHeads,
    /// As `QueryHeads`, for each key head.
    KeyHeads,
}

/// Parts of a block in GGUF, and their modules in a layer.
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

/// The tensor `name` of a GGUF file in transformers, if models of `architecture` have it.
pub(super) fn of(architecture: &str, name: &str) -> Option<TensorName> {
    let same = |name: &str| {
        Some(TensorName {
            name: name.to_string(),
            order: RowOrder::Same,
        })
    };
    match name {
        "token_embd.weight" => return same("model.embed_tokens.weight"),
        "output_norm.weight" => return same("model.norm.weight"),
        "output.weight" => return same("lm_head.weight"),
        _ => {}
    }
    let (layer, part) = name.strip_prefix("blk.")?.split_once('.')?;
    let layer: u32 = layer.parse().ok()?;
    let (part, kind) = part.split_once('.')?;
    if !["weight", "bias"].contains(&kind) {
        return None;
    }
    let (_, module) = PARTS.iter().find(|(known, _)| *known == part)?;
    Some(TensorName {
        name: format!("model.layers.{layer}.{module}.{kind}"),
        order: match part {
            "attn_q" if architecture == "llama" => RowOrder::QueryHeads,
            "attn_k" if architecture == "llama" => RowOrder::KeyHeads,
            _ => RowOrder::Same,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_orders() {
        let named = |architecture, name| of(architecture, name).map(|t| (t.name, t.order));
        assert_eq!(
            named("llama", "blk.3.attn_k.weight"),
            Some((
                "model.layers.3.self_attn.k_proj.weight".to_string(),
                RowOrder::KeyHeads
            ))
        );
        assert_eq!(
            named("qwen2", "blk.12.attn_q.bias"),
            Some((
                "model.layers.12.self_attn.q_proj.bias".to_string(),
                RowOrder::Same
            ))
        );
        for none in [
            "rope_freqs.weight",
            "blk.x.attn_q.weight",
            "blk.1.attn_q",
            "blk.1.a.weight",
        ] {
            assert_eq!(named("llama", none), None, "{none}");
        }
    }
}
