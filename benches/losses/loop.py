"""The rival: a plain loop of torch, with peft's adapters, over given examples."""

import math

import bitsandbytes
import gguf
import lion_pytorch
import numpy
import peft
import torch
import transformers
from torch.nn import functional

import random_numbers

DROPOUT_UNIT = 65_536


class Dropped(torch.nn.Module):
    """Takes the place of peft's dropout: it drops what the job drops."""

    def __init__(self, name, share, now):
        super().__init__()
        self.name, self.threshold, self.now = name, round(share * DROPOUT_UNIT), now

    def forward(self, x):
        key = random_numbers.tensor_key(self.now["seed"], self.now["step"], self.name)
        kept = [random_numbers.kept(key, ids, x.shape[-1], self.threshold)
                for ids in self.now["ids"]]
        mask = torch.tensor(numpy.stack(kept), dtype=x.dtype)
        return x * mask * (DROPOUT_UNIT / (DROPOUT_UNIT - self.threshold))


def base_model(keys, folder):
    load = transformers.AutoModelForCausalLM.from_pretrained
    if keys.get("load_in_4bit"):
        packed = transformers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
        return load(folder, dtype=torch.float32, quantization_config=packed)
    model = load(folder, dtype=torch.float32)
    if keys.get("load_in_8bit"):
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Linear) and name != "lm_head":
                module.weight.data = through_q8_0(module.weight.data)
    return model


def through_q8_0(weight):
    kind = gguf.GGMLQuantizationType.Q8_0
    packed = gguf.quants.quantize(weight.numpy(), kind)
    return torch.tensor(gguf.quants.dequantize(packed, kind))


def adapted(model, keys, start, now):
    """The adapter that these keys mean to peft, with the numbers of the folder `start`."""
    names = {
        "lora_r": "r", "lora_alpha": "lora_alpha", "lora_target_modules": "target_modules",
        "peft_use_rslora": "use_rslora", "peft_use_dora": "use_dora",
        "lora_rank_pattern": "rank_pattern", "lora_alpha_pattern": "alpha_pattern",
        "peft_layers_to_transform": "layers_to_transform",
        "lora_exclude_modules": "exclude_modules", "lora_modules_to_save": "modules_to_save",
    }
    given = {names[key]: value for key, value in keys.items() if key in names}
    given.setdefault("target_modules", "all-linear")
    if given.get("modules_to_save") == ["norm"]:
        # A name of a module to save is the end of its own name in a job file, as in peft.
        given["modules_to_save"] = [name for name, _ in model.named_modules()
                                    if name.endswith("norm")]
    model = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **given))
    numbers = peft.load_peft_weights(start, device="cpu")
    for tensor in numbers.values():
        # The step at a rate of nothing has moved what was 0; Lion takes a sign for a step.
        tensor[tensor.abs() < 1e-20] = 0
    found = peft.set_peft_model_state_dict(model, numbers)
    assert not found.unexpected_keys, found.unexpected_keys
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert len(trained) == len(numbers), (trained, list(numbers))
    if keys.get("lora_dropout"):
        for name, module in model.named_modules():
            if hasattr(module, "lora_dropout"):
                dropped = Dropped(f"{name}.lora_A.weight", keys["lora_dropout"], now)
                module.lora_dropout["default"] = dropped
    return model


def with_noise(model, alpha, now):
    """Noise on embeddings by a hook, as transformers has it, with the numbers of the job."""
    def hook(_, __, x):
        key = random_numbers.tensor_key(now["seed"], now["step"], "embedding noise")
        drawn = [random_numbers.noise(key, ids, x.shape[-1]) for ids in now["ids"]]
        reach = alpha / (x.shape[1] * x.shape[2]) ** 0.5
        return x + reach * torch.tensor(numpy.stack(drawn), dtype=x.dtype)
    return model.get_input_embeddings().register_forward_hook(hook)


def groups(model, keys):
    decay = keys.get("weight_decay", 0)
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if keys.get("weight_decay_exempt") != "norms_and_biases":
        return [{"params": [p for _, p in named], "weight_decay": decay}]
    # What transformers' trainer takes.
    decayed = set(transformers.Trainer.get_decay_parameter_names(None, model))
    assert 0 < len(decayed) < len(named)
    return [{"params": [p for name, p in named if name in decayed], "weight_decay": decay},
            {"params": [p for name, p in named if name not in decayed], "weight_decay": 0}]


def optimizer(keys, params):
    rate, kind = keys["learning_rate"], keys.get("optimizer", "adamw_torch")
    betas = (keys.get("adam_beta1", 0.9), keys.get("adam_beta2", 0.999))
    if kind == "sgd":
        return torch.optim.SGD(params, lr=rate, momentum=keys.get("momentum", 0),
                               nesterov=keys.get("nesterov", False))
    if kind == "lion_32bit":
        return lion_pytorch.Lion(params, lr=rate, betas=betas)
    if kind == "lion_8bit":
        return bitsandbytes.optim.Lion8bit(params, lr=rate, betas=betas, min_8bit_size=1)
    if kind == "adamw_8bit":
        return bitsandbytes.optim.AdamW8bit(params, lr=rate, betas=betas, min_8bit_size=1)
    assert kind == "adamw_torch"
    return torch.optim.AdamW(params, lr=rate, betas=betas, eps=keys.get("adam_epsilon", 1e-8))


def schedule(keys, of, steps):
    name = keys["lr_scheduler"]
    warmup = keys.get("warmup_steps", -(-int(1000 * keys.get("warmup_ratio", 0)) * steps // 1000))
    theirs = {"cosine_from_zero": "cosine", "linear_from_zero": "linear"}.get(name, name)
    if name in ("cosine", "linear", "constant"):
        # No other tool has a warm-up that begins above 0: as NUMERICS.md defines it.
        curve = {"cosine": lambda share: (1 + math.cos(math.pi * share)) / 2,
                 "linear": lambda share: 1 - share, "constant": lambda share: 1}[name]
        return torch.optim.lr_scheduler.LambdaLR(of, lambda s: (
            (s + 1) / warmup if s < warmup else curve((s - warmup) / (steps - warmup))))
    more = None
    if "min_lr_ratio" in keys:
        theirs, more = "cosine_with_min_lr", {"min_lr_rate": keys["min_lr_ratio"]}
    return transformers.get_scheduler(theirs, of, warmup, steps, scheduler_specific_kwargs=more)


def loss_of(model, rows, keys, now):
    """The sum of the losses of rows of one length, and of how many tokens."""
    ids = torch.tensor([row for row, _ in rows])
    labels = torch.tensor([labels for _, labels in rows])[:, 1:].reshape(-1)
    now["ids"] = [row for row, _ in rows]
    logits = model(ids).logits[:, :-1].flatten(0, 1)
    loss = functional.cross_entropy(logits, labels, ignore_index=-100, reduction="sum",
                                    label_smoothing=keys.get("label_smoothing_factor", 0))
    if keys.get("z_loss"):
        loss = loss + keys["z_loss"] * (logits.logsumexp(-1)[labels != -100] ** 2).sum()
    return loss, int((labels != -100).sum())


def of_one_length(rows):
    lengths = {}
    for row in rows:
        lengths.setdefault(len(row[0]), []).append(row)
    return lengths.values()


def evaluate(model, rows, now):
    """The loss of what is held out is the cross-entropy alone, without noise or dropout."""
    with torch.no_grad():
        parts = [loss_of(model, part, {}, now) for part in of_one_length(rows)]
    return float(sum(loss for loss, _ in parts)) / sum(count for _, count in parts)


def train(keys, folder, start, batches, held_out):
    """Loss, norm and rate of every step, and the losses of evaluations by step."""
    transformers.set_seed(0)
    now = {"seed": keys.get("seed", 42), "step": 0}
    model = base_model(keys, folder)
    if keys["adapter"] == "lora":
        model = adapted(model, keys, start, now)
    model.train()
    if keys.get("neftune_noise_alpha"):
        with_noise(model, keys["neftune_noise_alpha"], now)
    of = optimizer(keys, groups(model, keys))
    rates = schedule(keys, of, len(batches))
    params = [p for p in model.parameters() if p.requires_grad]
    limit = keys.get("max_grad_norm", 1.0) or float("inf")
    steps, losses = [], {}
    if keys.get("eval_on_start"):
        losses[0] = evaluate(model, held_out, now)
    for step, rows in enumerate(batches):
        now["step"] = step
        count = sum(sum(label != -100 for label in labels[1:]) for _, labels in rows)
        total = 0.0
        for part in of_one_length(rows):
            loss, _ = loss_of(model, part, keys, now)
            (loss / count).backward()
            total += float(loss.detach())
        norm = torch.nn.utils.clip_grad_norm_(params, limit)
        steps.append((total / count, float(norm), of.param_groups[0]["lr"]))
        of.step()
        of.zero_grad()
        rates.step()
        is_last = step + 1 == len(batches)
        if keys.get("eval_steps") and (is_last or (step + 1) % keys["eval_steps"] == 0):
            losses[step + 1] = evaluate(model, held_out, now)
    return steps, losses
