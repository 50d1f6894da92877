"""Writes a folder for each family beside this file: a small random model as transformers saves it, what
transformers computes with it, and gradients of torch, in full and of a LoRA adapter of peft.

Needs torch, transformers 5, peft and safetensors. Run in this folder: python make_references.py [NAME ...]"""

import copy
import json
import os
import shutil
import sys
import warnings

warnings.filterwarnings("ignore")
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

torch.set_num_threads(1)

SEQUENCES, LENGTH, PROMPT, NEW, SAMPLED = 2, 96, 16, 32, 32
FULL, SLIDING = "full_attention", "sliding_attention"
SMALL = {
    "vocab_size": 80, "hidden_size": 32, "intermediate_size": 44, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}

# Of families that differ little from others.
SMALLER = {"vocab_size": 48, "hidden_size": 24, "intermediate_size": 28, "num_attention_heads": 2,
           "num_key_value_heads": 1}

# Adapters that are not of one rank on everything, by the folders that have them.
ADAPTERS = {
    "llama-ranks": {
        "target_modules": ["q_proj", "o_proj", "layers.1.mlp.up_proj", "down_proj"],
        "layers_to_transform": [0, 2], "layers_pattern": "layers", "exclude_modules": ["layers.0.self_attn.o_proj"],
        "rank_pattern": {r"layers\.2\..*": 3, "q_proj": 1}, "alpha_pattern": {"down_proj": 1.5}, "use_rslora": True,
    },
    "llama-regex": {
        "target_modules": r"model\.layers\.[01]\.(self_attn|mlp)\.(?!gate)(v|up|down)_proj", "lora_alpha": 3,
        "rank_pattern": {"layers.1.self_attn.v_proj": 4},
    },
    "llama-dora": {"use_dora": True},
    "phi-dora": {"use_dora": True, "use_rslora": True, "target_modules": ["q_proj", "v_proj", "fc1", "dense"]},
    "llama-saved": {
        "target_modules": ["q_proj", "v_proj", "down_proj"],
        "modules_to_save": ["embed_tokens", "lm_head", "norm", "layers.1.input_layernorm", "layers.1.mlp.up_proj"],
    },
}

FAMILIES = {
    **{name: {**SMALLER, "model_type": "llama", "num_hidden_layers": 3}
       for name in ADAPTERS if name.startswith("llama")},
    "phi-dora": {**SMALLER, "hidden_size": 32, "model_type": "phi"},
    "llama-yarn": {
        "model_type": "llama", "head_dim": 10, "attention_bias": True, "mlp_bias": True,
        "rope_parameters": {"rope_type": "yarn", "rope_theta": 1000.0, "factor": 4.0,
                            "original_max_position_embeddings": 64, "beta_fast": 8.0},
    },
    "llama-dynamic": {
        "model_type": "llama", "head_dim": 14, "tie_word_embeddings": True,
        "max_position_embeddings": 64, "hidden_act": "relu2",
        "rope_parameters": {"rope_type": "dynamic", "rope_theta": 500.0, "factor": 3.0},
    },
    "gemma2": {
        "head_dim": 12, "query_pre_attn_scalar": 7, "sliding_window": 20,
        "attn_logit_softcapping": 2.0, "final_logit_softcapping": 4.0,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0},
    },
    "gemma3": {
        "model_type": "gemma3_text", "num_hidden_layers": 3, "head_dim": 20, "query_pre_attn_scalar": 9, "sliding_window": 20,
        "layer_types": [SLIDING, FULL, SLIDING], "final_logit_softcapping": 5.0,
        "rope_parameters": {FULL: {"rope_type": "linear", "factor": 2.0, "rope_theta": 5000.0},
                            SLIDING: {"rope_type": "default", "rope_theta": 50.0}},
    },
    "phi3": {
        "hidden_size": 48, "intermediate_size": 36, "original_max_position_embeddings": 64, "sliding_window": 40,
        "rope_parameters": {"rope_type": "longrope", "rope_theta": 1000.0, "partial_rotary_factor": 0.5,
                            "short_factor": [1.0, 1.1, 1.3], "long_factor": [1.5, 2.0, 4.0]},
    },
    "olmo2": {"rope_parameters": {"rope_type": "default", "rope_theta": 1000.0}},
    "smollm3": {
        "num_hidden_layers": 3, "no_rope_layers": [1, 0, 1], "use_sliding_window": True,
        "sliding_window": 24,
        "rope_parameters": {"rope_type": "default", "rope_theta": 2000.0},
    },
    "granite": {
        "embedding_multiplier": 3.0, "residual_multiplier": 0.6, "attention_multiplier": 0.4,
        "logits_scaling": 0.7, "attention_bias": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0},
    },
    "glm": {
        "head_dim": 12, "attention_bias": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0, "partial_rotary_factor": 0.5},
    },
    "glm4": {
        "head_dim": 12, "attention_bias": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0, "partial_rotary_factor": 0.5},
    },
    "starcoder2": {
        "sliding_window": 24, "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0},
    },
    "gpt_neox": {
        "hidden_size": 48, "num_attention_heads": 3, "num_key_value_heads": None,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0, "partial_rotary_factor": 0.5},
    },
    "gpt_neox-sequential": {
        "model_type": "gpt_neox", "use_parallel_residual": False, "num_key_value_heads": None,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0, "partial_rotary_factor": 0.75},
    },
    "gemma": {**SMALLER, "head_dim": 14},
    "olmo3": {
        **SMALLER, "layer_types": [SLIDING, FULL], "sliding_window": 24,
        "rope_parameters": {FULL: {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1000.0,
                                   "original_max_position_embeddings": 64, "attention_factor": 1.2},
                            SLIDING: {"rope_type": "default", "rope_theta": 1000.0}},
    },
    "cohere": {**SMALLER, "logit_scale": 0.7},
    "cohere2": {**SMALLER, "layer_types": [SLIDING, FULL], "sliding_window": 24, "logit_scale": 1.3},
    "seed_oss": {**SMALLER, "head_dim": 16, "attention_dropout": 0.0, "residual_dropout": 0.0},
    "arcee": {**SMALLER, "mlp_bias": True},
    "helium": {**SMALLER, "head_dim": 12},
    "ernie4_5": {**SMALLER, "head_dim": 10, "use_bias": True},
    "exaone4": {**SMALLER, "layer_types": [SLIDING, FULL], "sliding_window": 24},
    "phi": {**SMALLER, "hidden_size": 32},
    "stablelm": {**SMALLER, "head_dim": None, "hidden_size": 32, "use_qkv_bias": True},
}


def fill(model, seed):
    """Weights that bfloat16 holds exactly, and that make logits far from flat."""
    generator = torch.Generator().manual_seed(seed)
    noise = lambda shape: torch.randn(shape, generator=generator)
    done = set()
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if tensor.data_ptr() in done:
                continue
            done.add(tensor.data_ptr())
            if tensor.dim() == 2:
                is_ends = any(end in name for end in ("embed", "lm_head"))
                ends = 0.3 if model.config.tie_word_embeddings else 0.4
                value = noise(tensor.shape) * (ends if is_ends else 1.2 / tensor.shape[1] ** 0.5)
            elif name.endswith("bias"):
                value = noise(tensor.shape) * 0.2
            else:
                middle = tensor.mean().item()
                value = middle + noise(tensor.shape) * 0.25
                # A head that is the embedding would have every token follow itself.
                if model.config.tie_word_embeddings and ".layers." not in name:
                    value = middle - 1.0 + noise(tensor.shape)
            tensor.copy_(value.to(torch.bfloat16))


def logits_of(model, ids):
    return model(ids, use_cache=False).logits


def greedy(model, prompt):
    """Tokens, and the smallest distance of the best logit to the next, in deviations."""
    ids, margin = prompt.clone(), 1e9
    for _ in range(NEW):
        last = logits_of(model, ids[None])[0, -1]
        best = last.topk(2).values
        margin = min(margin, ((best[0] - best[1]) / last.std()).item())
        ids = torch.cat([ids, last.argmax()[None]])
    return ids[len(prompt):], margin


def sampled(name, gradient, out):
    """The norm of a gradient, then some of its entries, evenly spread."""
    flat = gradient.detach().float().flatten()
    stride = max(1, len(flat) // SAMPLED)
    norm = gradient.detach().double().norm().float()[None]
    out[f"d {name}"] = torch.cat([norm, flat[::stride][:SAMPLED]])


def loss_of(model, ids):
    """The sum of the losses of all predicted tokens."""
    logits = logits_of(model, ids)[:, :-1]
    losses = torch.nn.functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]), ids[:, 1:].reshape(-1), reduction="sum")
    return losses


def adapter_of(model, folder, ids, out):
    own = {"r": 2, "lora_alpha": 6, "target_modules": "all-linear", **ADAPTERS.get(folder, {})}
    config = LoraConfig(**own, task_type="CAUSAL_LM")
    model = get_peft_model(model, config).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if "lora_magnitude" in name:
                value = tensor * (1 + 0.2 * torch.randn(tensor.shape, generator=generator))
                tensor.copy_(value.to(torch.bfloat16))
            elif "lora_" in name or "modules_to_save" in name:
                value = torch.randn(tensor.shape, generator=generator) * 0.12
                tensor.copy_((value + (tensor if "modules_to_save" in name else 0)).to(torch.bfloat16))
    loss = loss_of(model, ids)
    loss.backward()
    out["lora.loss"] = loss.detach()[None]
    for name, tensor in model.named_parameters():
        if "lora_" in name or "modules_to_save" in name:
            name = name.replace("modules_to_save.default.", "").replace(".default", "")
            sampled(name.replace("lora_magnitude_vector.weight", "lora_magnitude_vector"), tensor.grad, out)
    model.save_pretrained(f"{folder}/adapter")
    os.remove(f"{folder}/adapter/README.md")
    path = f"{folder}/adapter/adapter_config.json"
    config = json.load(open(path))
    config["base_model_name_or_path"] = None
    json.dump(config, open(path, "w"), indent=1, sort_keys=True)


def make(name, differences):
    options = {**SMALL, "model_type": name, **differences}
    options = {key: value for key, value in options.items() if value is not None}
    config = AutoConfig.for_model(**options)
    config._attn_implementation = "eager"
    for seed in range(100):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager")
        model = model.eval()
        fill(model, seed)
        ids = torch.randint(3, config.vocab_size, (SEQUENCES, LENGTH), generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            tokens, margin = greedy(model, ids[0, :PROMPT])
            logits = logits_of(model, ids)
            best = logits.topk(2).values
            closest = ((best[..., 0] - best[..., 1]) / logits.std()).min().item()
        if closest > 0.002 and margin > 0.01 and len(set(tokens.tolist())) > 5:
            break
    else:
        sys.exit(f"{name}: no seed has a clear answer")
    folder = name
    shutil.rmtree(folder, ignore_errors=True)
    out = {
        "input_ids": ids, "logits": logits.half(), "arg_max": logits.argmax(-1), "greedy": tokens,
    }
    loss = loss_of(model, ids)
    loss.backward()
    out["loss"] = loss.detach()[None]
    for parameter, tensor in model.named_parameters():
        sampled(parameter, tensor.grad, out)
    model.zero_grad()
    # A copy, since the frequencies of the rotary embedding would be rounded, too.
    copy.deepcopy(model).to(torch.bfloat16).save_pretrained(folder)
    adapter_of(model, folder, ids, out)
    save_file(out, f"{folder}/reference.safetensors")
    stored = set(load_file(f"{folder}/model.safetensors"))
    size = sum(os.path.getsize(os.path.join(at, file)) for at, _, files in os.walk(folder) for file in files)
    flat = logits.float().softmax(-1).max(-1).values.mean().item()
    print(f"{name}: seed {seed}, margin {margin:.3f}, loss {loss.item() / (SEQUENCES * (LENGTH - 1)):.2f}, "
          f"best token {flat:.2f}, {len(stored)} tensors, {size // 1024} KiB")


for name, differences in FAMILIES.items():
    if len(sys.argv) == 1 or name in sys.argv[1:]:
        make(name, differences)
