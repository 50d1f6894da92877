"""The training options that are compared: keys of a job file, and which models a case is for."""

# Keys that a case has unless it says otherwise. Curves of Hugging Face begin at rate 0.
COMMON = {"adapter": "lora", "lora_r": 4, "lora_alpha": 8, "learning_rate": 3e-3,
          "lr_scheduler": "constant", "micro_batch_size": 2}
FULL = {"adapter": "full", "learning_rate": 1e-3, "lora_r": None, "lora_alpha": None}
REGEX = r".*layers\.[01]\..*(v|up)_proj"

ADAPTERS = {
    "LoRA": {},
    "rsLoRA, all-linear": {"peft_use_rslora": True, "lora_target_modules": "all-linear"},
    "DoRA": {"peft_use_dora": True},
    "DoRA, rsLoRA": {"peft_use_dora": True, "peft_use_rslora": True},
    "rank and alpha patterns": {"lora_rank_pattern": {"q_proj": 2, r"layers.1.mlp.*": 6},
                                "lora_alpha_pattern": {"v_proj": 3}},
    "layers": {"lora_target_modules": ["q_proj", "down_proj"], "peft_layers_to_transform": [0, 2]},
    "regex": {"lora_target_modules": REGEX},
    "excluded modules": {"lora_target_modules": "all-linear", "lora_exclude_modules": ["k_proj"]},
    "modules_to_save: norm": {"lora_modules_to_save": ["norm"]},
    "modules_to_save: lm_head": {"lora_modules_to_save": ["lm_head"]},
    "modules_to_save: embed_tokens": {"lora_modules_to_save": ["embed_tokens"]},
    "LoRA, dropout 0.3": {"lora_dropout": 0.3},
    "DoRA, dropout 0.3": {"peft_use_dora": True, "lora_dropout": 0.3},
    "QLoRA, NF4": {"load_in_4bit": True},
    "QLoRA, Q8_0": {"load_in_8bit": True},
    "full": FULL,
}

OPTIMIZERS = {
    "AdamW, other betas and epsilon": {"adam_beta1": 0.8, "adam_beta2": 0.95, "adam_epsilon": 1e-6},
    "AdamW in 8 bits": {"optimizer": "adamw_8bit"},
    "AdamW in 8 bits, full": FULL | {"optimizer": "adamw_8bit"},
    "Lion": {"optimizer": "lion_32bit", "adam_beta2": 0.99, "learning_rate": 3e-4},
    "Lion in 8 bits": {"optimizer": "lion_8bit", "adam_beta2": 0.99, "learning_rate": 3e-4},
    "SGD": {"optimizer": "sgd", "learning_rate": 0.1},
    "SGD, momentum": {"optimizer": "sgd", "momentum": 0.9, "learning_rate": 0.1},
    "SGD, Nesterov": {"optimizer": "sgd", "momentum": 0.9, "nesterov": True, "learning_rate": 0.1},
    "SGD, weight decay": {"optimizer": "sgd", "weight_decay": 0.1, "learning_rate": 0.1},
    "Lion, weight decay": {"optimizer": "lion_32bit", "adam_beta2": 0.99, "learning_rate": 3e-4,
                           "weight_decay": 1},
    "weight decay, LoRA": {"weight_decay": 1},
    "weight decay, full": FULL | {"weight_decay": 1},
    "weight decay, not of norms and biases": FULL | {
        "weight_decay": 1, "weight_decay_exempt": "norms_and_biases"},
}

SCHEDULES = {
    name: {"lr_scheduler": name, "warmup_steps": warmup}
    for name, warmup in [("cosine", 3), ("linear", 3), ("constant", 3), ("cosine_from_zero", 3),
                         ("linear_from_zero", 3), ("constant_with_warmup", 3), ("inverse_sqrt", 3)]
}
SCHEDULES |= {
    "cosine_from_zero, min_lr_ratio 0.1": {"lr_scheduler": "cosine_from_zero", "warmup_steps": 3,
                                           "min_lr_ratio": 0.1},
    "inverse_sqrt, no warm-up": {"lr_scheduler": "inverse_sqrt"},
    "warmup_ratio 0.2": {"lr_scheduler": "linear_from_zero", "warmup_ratio": 0.2},
}

LOSSES = {
    "label smoothing 0.1": {"label_smoothing_factor": 0.1},
    "z-loss 1e-2": {"z_loss": 1e-2},
    "z-loss and label smoothing, full": FULL | {"z_loss": 1e-2, "label_smoothing_factor": 0.1},
    "clipping at 0.1": {"max_grad_norm": 0.1, "optimizer": "sgd", "learning_rate": 0.1},
    "no clipping": {"max_grad_norm": 0, "optimizer": "sgd", "learning_rate": 0.1},
    "accumulation of 4 microbatches": {"gradient_accumulation_steps": 4},
    "NEFTune, alpha 5": {"neftune_noise_alpha": 5},
    "recompute": {"recompute": True},
    "recompute, DoRA, dropout, NEFTune": {"recompute": True, "peft_use_dora": True,
                                          "lora_dropout": 0.1, "neftune_noise_alpha": 5},
    "evaluation": {"rows": "masked", "eval_steps": 2, "eval_on_start": True},
    "masked labels, examples of many lengths": {"rows": "masked", "micro_batch_size": 4},
    "masked labels, packed": {"rows": "masked", "sample_packing": True, "micro_batch_size": 1},
}

CASES = ADAPTERS | OPTIMIZERS | SCHEDULES | LOSSES
