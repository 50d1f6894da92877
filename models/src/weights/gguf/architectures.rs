//! The architectures of llama.cpp that are read, and how their files differ.

use crate::config::Family;

/// An architecture, as `general.architecture` names it.
#[derive(Debug)]
pub(crate) struct Architecture {
    pub(crate) name: &'static str,
    /// The family of its files, but for those that say more.
    pub(crate) family: Family,
    /// Other families that its files may be of.
    pub(crate) others: &'static [Family],
    /// Whether the rows of each head of q and k are interleaved: llama.cpp rotates neighbours
    /// there, and transformers the two halves of a head.
    pub(crate) interleaves: bool,
    /// Whether 1 has been added to the weights of norms.
    pub(crate) adds_one: bool,
    /// Parts of a block that have another name in transformers than a Llama's.
    pub(crate) parts: &'static [(&'static str, &'static str)],
    /// What stands before the number of an expert in transformers, and the names of its gate, up
    /// and down projection.
    pub(crate) experts: Option<(&'static str, [&'static str; 3])>,
    /// Keys that are read beside those of all.
    pub(crate) keys: &'static [&'static str],
    /// The number in norms: its key here and there.
    pub(crate) epsilon: [&'static str; 2],
    /// The activation: key and value.
    pub(crate) activation: [&'static str; 2],
}

const LLAMA: Architecture = Architecture {
    name: "llama",
    family: Family::Llama,
    others: &[Family::Mistral, Family::Mixtral],
    interleaves: true,
    adds_one: false,
    parts: &[("ffn_gate_inp", "block_sparse_moe.gate")],
    experts: Some(("block_sparse_moe.experts", ["w1", "w3", "w2"])),
    keys: &[
        "attention.sliding_window",
        "expert_count",
        "expert_used_count",
    ],
    epsilon: ["attention.layer_norm_rms_epsilon", "rms_norm_eps"],
    activation: ["hidden_act", "silu"],
};

/// What all but a `llama` have in common.
const OTHER: Architecture = Architecture {
    others: &[],
    interleaves: false,
    parts: &[],
    experts: None,
    keys: &[],
    ..LLAMA
};

const QWEN_MOE: Architecture = Architecture {
    parts: &[
        ("ffn_gate_inp", "mlp.gate"),
        ("ffn_gate_inp_shexp", "mlp.shared_expert_gate"),
        ("ffn_gate_shexp", "mlp.shared_expert.gate_proj"),
        ("ffn_up_shexp", "mlp.shared_expert.up_proj"),
        ("ffn_down_shexp", "mlp.shared_expert.down_proj"),
    ],
    experts: Some(("mlp.experts", ["gate_proj", "up_proj", "down_proj"])),
    keys: &[
        "expert_count",
        "expert_used_count",
        "expert_feed_forward_length",
        "expert_shared_feed_forward_length",
    ],
    ..OTHER
};

/// Norms before and after both parts of a layer.
const SANDWICH: &[(&str, &str)] = &[
    ("post_attention_norm", "post_attention_layernorm"),
    ("ffn_norm", "pre_feedforward_layernorm"),
    ("post_ffw_norm", "post_feedforward_layernorm"),
];

const GEMMA: Architecture = Architecture {
    name: "gemma",
    family: Family::Gemma,
    adds_one: true,
    activation: ["hidden_act", "gelu_pytorch_tanh"],
    ..OTHER
};

static ARCHITECTURES: [Architecture; 11] = [
    LLAMA,
    Architecture {
        name: "qwen2",
        family: Family::Qwen2,
        ..OTHER
    },
    Architecture {
        name: "qwen3",
        family: Family::Qwen3,
        ..OTHER
    },
    Architecture {
        name: "qwen2moe",
        family: Family::Qwen2Moe,
        ..QWEN_MOE
    },
    Architecture {
        name: "qwen3moe",
        family: Family::Qwen3Moe,
        ..QWEN_MOE
    },
    GEMMA,
    Architecture {
        name: "gemma2",
        family: Family::Gemma2,
        parts: SANDWICH,
        keys: &[
            "attention.sliding_window",
            "attn_logit_softcapping",
            "final_logit_softcapping",
        ],
        activation: ["hidden_activation", "gelu_pytorch_tanh"],
        ..GEMMA
    },
    Architecture {
        name: "gemma3",
        family: Family::Gemma3,
        parts: SANDWICH,
        keys: &[
            "attention.sliding_window",
            "attention.sliding_window_pattern",
            "final_logit_softcapping",
            "rope.freq_base_swa",
        ],
        activation: ["hidden_activation", "gelu_pytorch_tanh"],
        ..GEMMA
    },
    Architecture {
        name: "phi3",
        family: Family::Phi3,
        parts: &[
            ("attn_qkv", "self_attn.qkv_proj"),
            ("ffn_up", "mlp.gate_up_proj"),
        ],
        keys: &["attention.sliding_window"],
        ..OTHER
    },
    Architecture {
        name: "olmo2",
        family: Family::Olmo2,
        parts: SANDWICH,
        ..OTHER
    },
    Architecture {
        name: "starcoder2",
        family: Family::Starcoder2,
        parts: &[("ffn_up", "mlp.c_fc"), ("ffn_down", "mlp.c_proj")],
        epsilon: ["attention.layer_norm_epsilon", "norm_epsilon"],
        activation: ["hidden_act", "gelu_pytorch_tanh"],
        ..OTHER
    },
];

/// All names, for messages.
pub(crate) fn names() -> String {
    let names: Vec<&str> = ARCHITECTURES.iter().map(|known| known.name).collect();
    names.join(", ")
}

/// The architecture of a name, if it is read.
pub(crate) fn find(name: &str) -> Option<&'static Architecture> {
    ARCHITECTURES.iter().find(|known| known.name == name)
}

/// The architecture of the files of a family, if llama.cpp's are read.
pub(crate) fn of_family(family: Family) -> Option<&'static Architecture> {
    let is_of = |known: &&Architecture| known.family == family || known.others.contains(&family);
    ARCHITECTURES.iter().find(is_of)
}
