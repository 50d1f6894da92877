"""Models for the comparison of `concord serve` with llama.cpp.

    pip install numpy safetensors gguf
    python3 models.py random OUT           # a Llama of 110M random weights, as a Hugging Face folder
    python3 models.py gguf FOLDER OUT F16  # a Llama folder as GGUF (F32 or F16), with a made-up
                                           # vocabulary: prompts are sent as token ids
"""

import json
import sys
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

RANDOM = dict(hidden=768, layers=12, heads=12, intermediate=2048, vocab=32_000, positions=2_048)


def random_model(out):
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    d, wide, vocab = RANDOM["hidden"], RANDOM["intermediate"], RANDOM["vocab"]

    def weight(rows, cols):
        values = rng.standard_normal((rows, cols), dtype=np.float32) / np.sqrt(cols)
        return values.astype(np.float16)

    tensors = {"model.embed_tokens.weight": weight(vocab, d), "model.norm.weight": np.ones(d, np.float16)}
    for layer in range(RANDOM["layers"]):
        at = f"model.layers.{layer}."
        for name in "qkvo":
            tensors[f"{at}self_attn.{name}_proj.weight"] = weight(d, d)
        tensors[f"{at}mlp.gate_proj.weight"] = weight(wide, d)
        tensors[f"{at}mlp.up_proj.weight"] = weight(wide, d)
        tensors[f"{at}mlp.down_proj.weight"] = weight(d, wide)
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{at}{name}.weight"] = np.ones(d, np.float16)
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": d,
        "intermediate_size": wide, "num_hidden_layers": RANDOM["layers"],
        "num_attention_heads": RANDOM["heads"], "num_key_value_heads": RANDOM["heads"],
        "vocab_size": vocab, "max_position_embeddings": RANDOM["positions"], "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": True,
        "bos_token_id": 1, "eos_token_id": 2,
    }
    (out / "config.json").write_text(json.dumps(config, indent=1))
    words = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    words += [f"w{index}" for index in range(vocab - len(words))]
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None,
        "added_tokens": [
            {"id": id, "content": word, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": True} for id, word in enumerate(words[:3])
        ],
        "pre_tokenizer": None, "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "byte_fallback": True,
                  "fuse_unk": True, "ignore_merges": False, "merges": [], "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "vocab": {word: id for id, word in enumerate(words)}},
    }
    (out / "tokenizer.json").write_text(json.dumps(tokenizer))
    (out / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))


def permuted(weight, heads):
    """llama.cpp rotates neighbouring features, Hugging Face halves of a head."""
    rows, cols = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, cols).swapaxes(1, 2).reshape(rows, cols)


def to_gguf(folder, out, kind):
    import gguf

    folder, config = Path(folder), json.loads((Path(folder) / "config.json").read_text())
    dtype = {"F32": np.float32, "F16": np.float16}[kind]
    writer = gguf.GGUFWriter(out, "llama")
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_rope_dimension_count(config.get("head_dim", config["hidden_size"] // heads))
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16 if kind == "F16" else gguf.LlamaFileType.ALL_F32)
    words = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    words += [f"w{index}" for index in range(config["vocab_size"] - len(words))]
    kinds = [2, 3, 3] + [6] * 256 + [1] * (len(words) - 259)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(words)
    writer.add_token_scores([0.0] * len(words))
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    names = {
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    with safe_open(folder / "model.safetensors", "np") as file:
        for name in file.keys():
            value = file.get_tensor(name).astype(np.float32)
            if name == "model.embed_tokens.weight":
                new = "token_embd.weight"
            elif name == "model.norm.weight":
                new = "output_norm.weight"
            elif name == "lm_head.weight":
                new = "output.weight"
            else:
                _, _, layer, rest = name.split(".", 3)
                new = f"blk.{layer}.{names[rest.removesuffix('.weight')]}.weight"
                if "q_proj" in name:
                    value = permuted(value, heads)
                if "k_proj" in name:
                    value = permuted(value, kv_heads)
            writer.add_tensor(new, value if value.ndim == 1 else value.astype(dtype))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    {"random": random_model, "gguf": to_gguf}[sys.argv[1]](*sys.argv[2:])
