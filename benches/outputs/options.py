"""The options of adapters that are compared, and what their bases are to transformers."""

import gguf
import peft
import torch
import transformers

# Keys of a job file. {initial}, {q8_0} and {q4_k_m} stand for files that are made of the model.
OPTIONS = {
    "LoRA": {"lora_r": 8},
    "rsLoRA, all-linear": {"peft_use_rslora": True, "lora_target_modules": "all-linear"},
    "DoRA": {"peft_use_dora": True},
    "DoRA, rsLoRA": {"peft_use_dora": True, "peft_use_rslora": True},
    "rank and alpha patterns": {"lora_rank_pattern": {"q_proj": 2, "layers.1.mlp.*": 6},
                                "lora_alpha_pattern": {"v_proj": 3}},
    "layers": {"lora_target_modules": ["q_proj", "down_proj"], "peft_layers_to_transform": [0, 2]},
    "layers by pattern": {"peft_layers_to_transform": 1, "peft_layers_pattern": "layers"},
    "regex": {"lora_target_modules": r".*layers\.[01]\..*(v|up)_proj"},
    "excluded modules": {"lora_target_modules": "all-linear", "lora_exclude_modules": ["k_proj"]},
    "modules_to_save: norm": {"lora_target_modules": ["q_proj"], "lora_modules_to_save": ["norm"]},
    "modules_to_save: lm_head": {"lora_modules_to_save": ["lm_head"]},
    "modules_to_save: embed_tokens": {"lora_modules_to_save": ["embed_tokens"]},
    "modules_to_save: both, DoRA": {"peft_use_dora": True,
                                    "lora_modules_to_save": ["embed_tokens", "lm_head"]},
    "dropout": {"lora_dropout": 0.2},
    "DoRA, dropout": {"peft_use_dora": True, "lora_dropout": 0.2},
    "initial_adapter made by peft": {"initial_adapter": "{initial}"},
    "QLoRA, NF4": {"load_in_4bit": True},
    "QLoRA, NF4, DoRA": {"load_in_4bit": True, "peft_use_dora": True},
    "QLoRA, Q4_K": {"load_in_4bit": True, "bnb_4bit_quant_type": "q4_k"},
    "QLoRA, Q8_0": {"load_in_8bit": True},
    "base in GGUF, q8_0": {"base_model": "{q8_0}"},
    "base in GGUF, q4_k_m": {"base_model": "{q4_k_m}"},
}

# What `concord merge` and `concord export` need to be told of a base that is quantised as it is
# read; adapter_config.json has no place for it.
QUANTISED = {
    "QLoRA, NF4": ["--load-in-4bit"],
    "QLoRA, NF4, DoRA": ["--load-in-4bit"],
    "QLoRA, Q4_K": ["--load-in-4bit=q4_k"],
    "QLoRA, Q8_0": ["--load-in-8bit"],
}


def load(folder, **more):
    read = transformers.AutoModelForCausalLM.from_pretrained
    return read(folder, dtype=torch.float32, **more)


def base_of(option, model, home, merge):
    """The base as other tools have it, and whose numbers these are."""
    if option.startswith("QLoRA, NF4"):
        packed = transformers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
        return load(model, quantization_config=packed), "peft, bitsandbytes"
    if option == "QLoRA, Q8_0":
        base, kind = load(model), gguf.GGMLQuantizationType.Q8_0
        for name, module in base.named_modules():
            if isinstance(module, torch.nn.Linear) and name != "lm_head":
                packed = gguf.quants.quantize(module.weight.data.numpy(), kind)
                module.weight.data = torch.tensor(gguf.quants.dequantize(packed, kind))
        return base, "peft, gguf-py"
    if option == "QLoRA, Q4_K":
        # ggml's own search for Q4_K is in no Python package: our numbers, their forward pass.
        return load(merge(model, "base", *QUANTISED[option])), "peft"
    if option.startswith("base in GGUF"):
        file = f"base-{option.rsplit(' ', 1)[1]}.gguf"
        rope = transformers.AutoConfig.from_pretrained(model).rope_parameters
        if rope["rope_type"] != "default":
            # transformers leaves the frequencies of a GGUF file out.
            return load(merge(home / file, "base")), "peft"
        return load(home, gguf_file=file), "peft, transformers' GGUF"
    return load(model), "peft"


def initial(model, folder):
    """An adapter as peft makes it, whose second factor is not zero."""
    torch.manual_seed(3)
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=6, lora_alpha=12,
                             target_modules=["q_proj", "v_proj", "up_proj"],
                             init_lora_weights=False)
    peft.get_peft_model(load(model), config).save_pretrained(folder)
