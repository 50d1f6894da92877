"""Writes facts.json: what transformers makes of configurations, to compare with what is made of them here.

Needs torch and transformers 5. Run in this folder: python make_facts.py"""

import json
import os
import tempfile
import warnings

warnings.filterwarnings("ignore")
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

ABSENT = "(absent)"
FULL, SLIDING = "full_attention", "sliding_attention"
CLASSES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
BASE = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 64, "max_position_embeddings": 128,
    "rms_norm_eps": 1e-05, "rope_theta": 20000.0, "sliding_window": None,
}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}

CASES = [
    {},
    *({key: ABSENT} for key in BASE if key not in
      ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")),
    {"num_key_value_heads": None}, {"head_dim": None}, {"rms_norm_eps": None},
    {"max_position_embeddings": None},
    {"num_attention_heads": 8, "num_key_value_heads": ABSENT, "head_dim": ABSENT},
    {"num_attention_heads": 32, "num_key_value_heads": ABSENT, "head_dim": 2},
    {"head_dim": 32}, {"head_dim": ABSENT, "hidden_size": 66},
    {"tie_word_embeddings": True}, {"attention_bias": True}, {"mlp_bias": True},
    {"hidden_act": "swish"}, {"hidden_act": "gelu"},
    {"bos_token_id": None, "eos_token_id": None}, {"eos_token_id": [3, 4], "bos_token_id": 5},
    {"sliding_window": 8}, {"sliding_window": 8, "use_sliding_window": True},
    {"sliding_window": 8, "use_sliding_window": False},
    {"sliding_window": ABSENT, "use_sliding_window": True, "max_window_layers": 1},
    {"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 1},
    {"sliding_window": None, "use_sliding_window": True, "max_window_layers": 0},
    {"layer_types": None, "sliding_window": 8},
    *({"layer_types": types, **window}
      for types in ([FULL, SLIDING, FULL], [FULL] * 3, [SLIDING] * 3, ["attention", SLIDING, FULL],
                    [FULL], ["linear_attention", FULL, FULL])
      for window in ({}, {"sliding_window": 8}, {"sliding_window": 8, "use_sliding_window": True},
                     {"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 1})),
    {"rope_theta": ABSENT, "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
    {"rope_theta": ABSENT, "rope_parameters": {"rope_type": "default"}},
    {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
    {"rope_parameters": {"rope_type": "linear", "factor": 2.0}},
    {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
    {"rope_scaling": {"type": "linear", "factor": 2}},
    {"rope_scaling": {"type": "dynamic", "rope_type": "linear", "factor": 2.0}},
    {"rope_scaling": {"factor": 2.0}}, {"rope_scaling": {"rope_type": "linear"}},
    {"rope_scaling": {}}, {"rope_scaling": {"rope_type": "default"}},
    {"rope_scaling": {"rope_type": "linear", "factor": 2.0},
     "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
    {"rope_scaling": {}, "rope_parameters": {"rope_type": "linear", "factor": 4.0}},
    {"rope_scaling": {"rope_type": "llama3", **LLAMA3}},
    {"rope_scaling": {"rope_type": "llama3", "original_max_position_embeddings": 64, **LLAMA3}},
    {"rope_scaling": {"rope_type": "llama3", **LLAMA3}, "original_max_position_embeddings": 32},
    {"rope_scaling": {"rope_type": "llama3", "original_max_position_embeddings": 64, **LLAMA3},
     "original_max_position_embeddings": 32},
    {"original_max_position_embeddings": 32},
    {"rope_parameters": {FULL: {"rope_type": "default", "rope_theta": 5e5}}},
    {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
    {"partial_rotary_factor": 1.0}, {"partial_rotary_factor": 0.5},
    {"attention_dropout": 0.1}, {"pretraining_tp": 2}, {"pad_token_id": 0}, {"pad_token_id": None},
    {"dtype": "bfloat16"}, {"torch_dtype": "float16"}, {"max_length": 5, "temperature": 3.0},
    {"use_cache": False}, {"id2label": {"0": "A"}}, {"chunk_size_feed_forward": 4},
    {"attn_logit_softcapping": None}, {"auto_map": {}}, {"quantization_config": None},
    {"per_layer_config": {"1": {"intermediate_size": 32}}},
    {"num_experts": 0}, {"is_causal": True}, {"unsloth_version": "2026.1"},
    {"model_type": "gpt2"},
]


def frequencies(model):
    """Of the rotary embedding; the angle of a position is the position times them."""
    return [float(value) for value in model.model.rotary_emb.inv_freq]


def facts(config):
    with tempfile.TemporaryDirectory() as folder:
        json.dump(config, open(f"{folder}/config.json", "w"))
        config = AutoConfig.from_pretrained(folder)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        model(torch.arange(20)[None])
    layer = model.model.layers[0]
    attention, mlp = layer.self_attn, layer.mlp
    windows = [getattr(l.self_attn, "sliding_window", None) for l in model.model.layers]
    if config.model_type == "mistral":
        windows = [config.sliding_window] * len(windows)
    has_bias = lambda linear: linear.bias is not None
    ids = lambda value: value if isinstance(value, list) else [] if value is None else [value]
    return {
        "kv_heads": attention.k_proj.out_features // attention.head_dim,
        "head_dim": attention.head_dim,
        "max_positions": config.max_position_embeddings,
        "rms_eps": layer.input_layernorm.variance_epsilon,
        "windows": windows,
        "qkv_bias": has_bias(attention.q_proj), "o_bias": has_bias(attention.o_proj),
        "mlp_bias": has_bias(mlp.up_proj),
        "qk_norm": hasattr(attention, "q_norm"),
        "tied": model.lm_head.weight is model.model.embed_tokens.weight,
        "silu": type(mlp.act_fn).__name__.lower().startswith("silu"),
        "bos": ids(config.bos_token_id), "eos": ids(config.eos_token_id),
        "frequencies": frequencies(model),
        "positions_scaled": model.model.rotary_emb.attention_scaling,
    }


def main():
    cases, base = [], {}
    for family in CLASSES:
        for edit in CASES:
            config = {"model_type": family, "architectures": [CLASSES[family]], **BASE, **edit}
            config = {key: value for key, value in config.items() if value != ABSENT}
            try:
                # Other classes than a decoder's have other parts.
                assert config["model_type"] == family
                made = facts(config)
            except Exception:
                made = None
            base.setdefault(family, made)
            if made is not None and edit:
                made = {key: value for key, value in made.items() if base[family][key] != value}
            cases.append({"family": family, "edit": edit, "facts": made})
        dumped = getattr(transformers, CLASSES[family].replace("ForCausalLM", "Config"))(**BASE)
        edit = {key: value for key, value in dumped.to_dict().items() if key != "rope_theta"}
        edit["architectures"] = [CLASSES[family]]
        made = facts(edit)
        made = {key: value for key, value in made.items() if base[family][key] != value}
        cases.append({"family": family, "edit": edit, "facts": made})
    with open("facts.json", "w") as file:
        file.write('{"transformers": "%s",\n "base": %s,\n "cases": [\n'
                   % (transformers.__version__, json.dumps(BASE)))
        file.write(",\n".join(json.dumps(case) for case in cases))
        file.write("\n]}\n")


main()
