#!/usr/bin/env python3
"""Small random models with experts, and what transformers and torch make of them.

    make_expert_references.py [FAMILY ...]

Each family gets a folder beside this file, of the same form as those of make_references.py: the
model as save_pretrained writes it, the references, and an adapter on every matrix of attention and
experts, as PEFT had it when experts were modules of their own.

A router whose choice hangs on less than the rounding of either arithmetic proves nothing, so seeds
are tried until no choice does. Written with torch 2.15 and transformers 5.24.
"""

import json
import pathlib
import sys

import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent
SEQUENCES, LENGTH, PROMPT, NEW, SAMPLED = 2, 96, 16, 32, 32
VOCAB, HIDDEN = 80, 32
RANK, ALPHA = 2, 3.0
# The least distance of the last chosen expert's score from the next one's, as a share of it.
GAP = 2e-3

COMMON = dict(
    vocab_size=VOCAB, hidden_size=HIDDEN, num_attention_heads=4, num_key_value_heads=2,
    max_position_embeddings=256, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2,
)

FAMILIES = {
    "mixtral": (transformers.MixtralConfig, dict(
        num_hidden_layers=2, intermediate_size=40, num_local_experts=5, num_experts_per_tok=2,
        sliding_window=29,
    )),
    "qwen2_moe": (transformers.Qwen2MoeConfig, dict(
        num_hidden_layers=3, intermediate_size=56, moe_intermediate_size=24, num_experts=6,
        num_experts_per_tok=3, norm_topk_prob=False, shared_expert_intermediate_size=40,
        mlp_only_layers=[1],
    )),
    "qwen3_moe": (transformers.Qwen3MoeConfig, dict(
        num_hidden_layers=4, intermediate_size=56, moe_intermediate_size=24, num_experts=6,
        num_experts_per_tok=3, norm_topk_prob=True, decoder_sparse_step=2, head_dim=16,
    )),
    "gpt_oss": (transformers.GptOssConfig, dict(
        num_hidden_layers=2, intermediate_size=24, num_local_experts=5, num_experts_per_tok=2,
        head_dim=16, sliding_window=21, swiglu_limit=1.5,
        rope_parameters=dict(
            rope_type="yarn", rope_theta=150000.0, factor=4.0, beta_fast=32.0, beta_slow=1.0,
            truncate=False, original_max_position_embeddings=64,
        ),
    )),
    "olmoe": (transformers.OlmoeConfig, dict(
        num_hidden_layers=2, intermediate_size=24, num_experts=6, num_experts_per_tok=3,
        norm_topk_prob=False, num_key_value_heads=4,
    )),
}


def make(name, seed):
    """A model whose logits are not flat, with weights that f16 holds."""
    kind, own = FAMILIES[name]
    config = kind(**(COMMON | own), attn_implementation="eager")
    model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    torch.manual_seed(seed)
    with torch.no_grad():
        for key, value in model.named_parameters():
            if "norm" in key:
                value.copy_(1 + 0.2 * torch.randn_like(value))
            elif value.dim() == 1 or "bias" in key:
                value.copy_(0.3 * torch.randn_like(value))
            elif "embed" in key:
                value.copy_(torch.randn_like(value))
            else:
                transposed = name == "gpt_oss" and value.dim() == 3
                width = value.shape[-2 if transposed else -1]
                strength = 2.5 if is_router(key) or "lm_head" in key else 1.3
                value.copy_(strength * torch.randn_like(value) / width**0.5)
            value.copy_(value.half().float())
    return model


def is_router(key):
    return key.endswith((".gate.weight", ".router.weight"))


class RouterGap:
    """Watches how near the choices of a pass are to another one."""

    def __init__(self, model):
        self.least = float("inf")
        for key, module in model.named_modules():
            if key.endswith((".gate", ".router")):
                module.register_forward_hook(self.look)

    def look(self, module, _, outputs):
        logits = outputs[0]
        scores = torch.softmax(logits.float(), -1).sort(-1, descending=True).values
        kept, next_one = scores[:, module.top_k - 1], scores[:, module.top_k]
        self.least = min(self.least, ((kept - next_one) / kept).min().item())


def losses(logits, ids):
    flat = logits[:, :-1].reshape(-1, VOCAB)
    return F.cross_entropy(flat, ids[:, 1:].reshape(-1), reduction="sum")


def sampled(out, key, gradient):
    """The norm of a gradient, then some of its entries, evenly spread."""
    flat = gradient.detach().float().flatten()
    norm = gradient.detach().double().norm().float()[None]
    out[f"d {key}"] = torch.cat([norm, flat[:: max(1, len(flat) // SAMPLED)][:SAMPLED]])


def hub_parts(name, key, value):
    """The tensors of the hub that a parameter of transformers is, by name."""
    if name == "gpt_oss" or ".mlp.experts." not in key:
        if name == "mixtral":
            key = key.replace(".mlp.gate.", ".block_sparse_moe.gate.")
        return {key: value}
    layer = key.split(".mlp.")[0]
    mixtral = name == "mixtral"
    base = f"{layer}.block_sparse_moe.experts" if mixtral else f"{layer}.mlp.experts"
    gate, up, down = ("w1", "w3", "w2") if mixtral else ("gate_proj", "up_proj", "down_proj")
    parts = {}
    for expert, matrix in enumerate(value):
        if key.endswith("gate_up_proj"):
            half = matrix.shape[0] // 2
            parts[f"{base}.{expert}.{gate}.weight"] = matrix[:half]
            parts[f"{base}.{expert}.{up}.weight"] = matrix[half:]
        else:
            parts[f"{base}.{expert}.{down}.weight"] = matrix
    return parts


def is_adapted(name, key):
    """Whether LoRA is on the tensor: on all linears, but for routers and gates."""
    ends = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
            "w1", "w2", "w3")
    return key.removesuffix(".weight").endswith(ends) and key.endswith(".weight")


def lora_gradients(name, model, ids, folder, out):
    generator = torch.Generator().manual_seed(7)
    factors, parameters = {}, dict(model.named_parameters())

    def factor(rows, cols):
        values = torch.randn(rows, cols, generator=generator) * 0.5 / cols**0.5
        return values.half().float().requires_grad_()

    changed = {}
    for key, value in parameters.items():
        parts = {}
        for part, matrix in hub_parts(name, key, value.detach()).items():
            if is_adapted(name, part):
                prefix = f"base_model.model.{part.removesuffix('.weight')}"
                a, b = factor(RANK, matrix.shape[1]), factor(matrix.shape[0], RANK)
                factors |= {f"{prefix}.lora_A.weight": a, f"{prefix}.lora_B.weight": b}
                matrix = matrix + (ALPHA / RANK) * (b @ a)
            parts[part] = matrix
        values = list(parts.values())
        if len(values) == 1:
            changed[key] = values[0]
        elif key.endswith("gate_up_proj"):
            pairs = zip(values[::2], values[1::2])
            changed[key] = torch.stack([torch.cat(pair) for pair in pairs])
        else:
            changed[key] = torch.stack(values)
    logits = torch.func.functional_call(model, changed, (), dict(input_ids=ids)).logits
    loss = losses(logits, ids)
    for (key, _), gradient in zip(
        factors.items(), torch.autograd.grad(loss, list(factors.values())), strict=True
    ):
        sampled(out, key, gradient)
    out["lora.loss"] = loss.detach()[None]
    adapter = folder / "adapter"
    adapter.mkdir(exist_ok=True)
    half = {key: value.detach().half() for key, value in factors.items()}
    save_file(half, adapter / "adapter_model.safetensors", {"format": "pt"})
    targets = sorted({key.split(".")[-3] for key in factors})
    config = dict(peft_type="LORA", task_type="CAUSAL_LM", r=RANK, lora_alpha=ALPHA,
                  target_modules=targets, bias="none", lora_dropout=0.0)
    (adapter / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")


def write(name):
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    for seed in range(1000):
        model = make(name, seed)
        gap = RouterGap(model)
        generator = torch.Generator().manual_seed(3)
        ids = torch.randint(3, VOCAB, (SEQUENCES, LENGTH), generator=generator)
        out = {"input_ids": ids}
        logits = model(input_ids=ids).logits
        prompt = ids[:1, :PROMPT]
        greedy = prompt
        for _ in range(NEW):
            best = model(input_ids=greedy).logits[:, -1].argmax(-1, keepdim=True)
            greedy = torch.cat([greedy, best], -1)
        top = model(input_ids=greedy).logits[0, PROMPT - 1:-1].topk(2).values
        nearest = (top[:, 0] - top[:, 1]).min().item()
        if gap.least < GAP or nearest < 0.02:
            continue
        lora_gradients(name, model, ids, folder, out)
        if gap.least > GAP / 2:
            break
    else:
        raise SystemExit(f"{name}: no seed without a near choice")
    loss = losses(logits, ids)
    loss.backward()
    for key, value in model.named_parameters():
        for part, gradient in hub_parts(name, key, value.grad).items():
            sampled(out, part, gradient)
    out |= {
        "logits": logits.detach().half(),
        "arg_max": logits.argmax(-1),
        "greedy": greedy[0, PROMPT:].clone(),
        "loss": loss.detach()[None],
    }
    save_file(out, folder / "reference.safetensors")
    model.half().save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    print(f"{name}: seed {seed}, nearest choice {gap.least:.1e}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for family in sys.argv[1:] or FAMILIES:
        write(family)
