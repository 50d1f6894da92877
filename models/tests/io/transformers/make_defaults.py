"""Writes defaults.json: what the configuration classes of transformers make of files that give sizes alone.

Needs transformers 5. Run in this folder: python make_defaults.py"""

import json
import os

os.environ["TRANSFORMERS_VERBOSITY"] = "error"

import transformers
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CLASSES

TYPES = [
    "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi", "phi3", "olmo2", "olmo3", "smollm3",
    "granite", "glm", "glm4", "starcoder2", "gpt_neox", "cohere", "cohere2", "seed_oss", "arcee", "helium",
    "ernie4_5", "exaone4", "stablelm", "mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "gpt_oss",
]
# Every default number of key and value heads divides 160; the vocabulary has every special token.
SIZES = {
    "hidden_size": 2560, "intermediate_size": 96, "num_hidden_layers": 8, "num_attention_heads": 160,
    "vocab_size": 300000,
}
EPS = ("rms_norm_eps", "layer_norm_eps", "norm_epsilon")
FLAGS = ("attention_bias", "mlp_bias", "use_bias", "use_qkv_bias", "attention_out_bias", "qkv_bias")


def experts(config):
    """All, those of a token, their width, whether weights are normalised."""
    if not hasattr(config, "num_experts_per_tok"):
        return None
    count = getattr(config, "num_local_experts", None) or config.num_experts
    width = getattr(config, "moe_intermediate_size", config.intermediate_size)
    normalised = getattr(config, "norm_topk_prob", config.model_type == "mixtral")
    return [count, config.num_experts_per_tok, width, normalised]


def facts(model_type):
    config = AutoConfig.for_model(model_type, **SIZES)
    ids = lambda value: value if isinstance(value, list) else [] if value is None else [value]
    windows = [None] * config.num_hidden_layers
    window = getattr(config, "sliding_window", None)
    types = getattr(config, "layer_types", None)
    if types:
        windows = [window if kind == "sliding_attention" else None for kind in types]
    elif window:
        windows = [window] * config.num_hidden_layers
    rope = config.rope_parameters
    rope = {"all": rope} if "rope_theta" in rope else rope
    whole = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    share = {kind: parameters.get("partial_rotary_factor", 1.0) for kind, parameters in rope.items()}
    return {
        "architecture": CLASSES[model_type], "positions": config.max_position_embeddings,
        "kv_heads": getattr(config, "num_key_value_heads", None) or config.num_attention_heads,
        "head_dim": whole, "eps": next(getattr(config, key) for key in EPS if hasattr(config, key)),
        "tied": config.tie_word_embeddings, "bos": ids(config.bos_token_id), "eos": ids(config.eos_token_id),
        "windows": windows, "activation": getattr(config, "hidden_activation", None) or config.hidden_act,
        "thetas": {kind: parameters["rope_theta"] for kind, parameters in rope.items()},
        "rotated": {kind: int(whole * part) for kind, part in share.items()},
        "experts": experts(config),
        "flags": {key: getattr(config, key) for key in FLAGS if hasattr(config, key)},
    }


written = {"transformers": transformers.__version__, "sizes": SIZES, "families": {name: facts(name) for name in TYPES}}
with open("defaults.json", "w") as out:
    json.dump(written, out, indent=1)
    out.write("\n")
