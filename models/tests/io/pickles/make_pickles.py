"""Small models as torch.save writes them, and the same tensors as safetensors.

    python make_pickles.py        # torch 2 and safetensors

`pytorch_model.bin` is the zip archive of torch 1.6 and later, `legacy.bin` what came before.
Numbers are of three formats; the head is the embedding (one storage), and one tensor is a part of
a larger storage.
"""

import json
from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import save_file

HERE = Path(__file__).parent
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
    "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 20,
    "max_position_embeddings": 32, "tie_word_embeddings": True,
}
SHAPES = {
    "model.embed_tokens.weight": (20, 8),
    "model.layers.0.self_attn.q_proj.weight": (8, 8),
    "model.layers.0.self_attn.k_proj.weight": (4, 8),
    "model.layers.0.self_attn.v_proj.weight": (4, 8),
    "model.layers.0.self_attn.o_proj.weight": (8, 8),
    "model.layers.0.mlp.gate_proj.weight": (12, 8),
    "model.layers.0.mlp.up_proj.weight": (12, 8),
    "model.layers.0.mlp.down_proj.weight": (8, 12),
    "model.layers.0.input_layernorm.weight": (8,),
    "model.layers.0.post_attention_layernorm.weight": (8,),
    "model.norm.weight": (8,),
}
FORMATS = [torch.float32, torch.float16, torch.bfloat16]


def main():
    torch.manual_seed(7)
    state = OrderedDict()
    for index, (name, shape) in enumerate(SHAPES.items()):
        state[name] = torch.randn(shape).to(FORMATS[index % 3])
    # Two tensors of one storage.
    both = torch.randn(24, 8)
    state["model.layers.0.mlp.gate_proj.weight"] = both[:12]
    state["model.layers.0.mlp.up_proj.weight"] = both[12:]
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    # As a module has it: versions that say nothing of tensors, and parameters.
    state._metadata = OrderedDict({"": {"version": 1}})
    name = "model.norm.weight"
    state[name] = torch.nn.Parameter(state[name])
    torch.save(state, HERE / "pytorch_model.bin")
    torch.save(state, HERE / "legacy.bin", _use_new_zipfile_serialization=False)
    plain = {name: tensor.detach().clone() for name, tensor in state.items()}
    save_file(plain, HERE / "expected.safetensors", metadata={"format": "pt"})
    turned = OrderedDict(state)
    name = "model.layers.0.self_attn.q_proj.weight"
    turned[name] = turned[name].t()
    torch.save(turned, HERE / "turned.bin")
    torch.save({"state_dict": state, "epoch": 3}, HERE / "checkpoint.bin")
    (HERE / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")


main()
