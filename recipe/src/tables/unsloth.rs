//! Unsloth Studio.

use super::Treat::{Idle, Read, Same, Unless};
use super::{KeyRow, gaps, row};

const OFF: &[&str] = &["false", "0", "none", "no", ""];

#[rustfmt::skip]
pub(super) const ROWS: [KeyRow; 37] = [
    row("model", Same("base_model")),
    row("data.dataset", Read("`datasets[].path`")),
    row("ignore_fields", Read("a key of Concord's own: fields of rows that are left out on \
        purpose")),
    row("data.format_type", Read("alpaca, chatml or sharegpt: turns; auto: by columns")),
    row("data.dataset_text_field", Read("the column of a text")),
    row("lora.lora_r", Read("`lora_r`; 16 if absent")),
    row("lora.lora_alpha", Read("`lora_alpha`; 16 if absent")),
    row("lora.lora_dropout", gaps::DROPOUT),
    row("lora.target_modules", Read("`lora_target_modules`; all-linear is all")),
    row("lora.use_rslora", Read("`peft_use_rslora`")),
    row("lora.use_dora", gaps::DORA),
    row("lora.use_loftq", Unless { values: OFF, set: "false",
        else_: "an adapter begins as PEFT's does by default: set it to false" }),
    row("lora.vision_all_linear lora.finetune_vision_layers",
        Idle("the language model alone is trained")),
    row("lora.finetune_language_layers lora.finetune_attention_modules \
        lora.finetune_mlp_modules", Unless { values: &["true"], set: "true",
        else_: "name projections in lora.target_modules instead, and set it to true" }),
    row("training.training_type", Read("`adapter`: lora or full; lora if absent")),
    row("training.load_in_4bit", Read("`load_in_4bit`; false if absent")),
    row("training.batch_size", Read("`micro_batch_size`; 1 if absent")),
    row("training.gradient_accumulation_steps", Read("`gradient_accumulation_steps`; 1 if absent")),
    row("training.gradient_checkpointing", Read("`recompute`, unless false or none")),
    row("training.learning_rate", Read("`learning_rate`; 2e-4 if absent")),
    row("training.max_seq_length", Read("`sequence_len`; 2048 if absent")),
    row("training.max_steps", Read("`max_steps`, instead of epochs; 0 is absent")),
    row("training.num_epochs", Read("`num_epochs`; 1 if absent, 0 is absent")),
    row("training.packing", gaps::PACKING),
    row("training.random_seed", Read("`seed`; 3407 if absent")),
    row("training.save_steps", Read("`save_steps`; 100 if absent, 0: no folders `checkpoint-N`")),
    row("training.eval_steps", Read("`eval_steps`, where `val_set_size` is given beside it; 0 is \
        absent")),
    row("training.train_on_completions", Read("true: answers alone are learnt")),
    row("training.weight_decay", Read("`weight_decay`, which norms and biases do not have")),
    row("training.optim", Read("`adamw_*` is AdamW; adamw_8bit if absent; `lion_*`, `sgd`")),
    row("training.lr_scheduler_type", Read("`lr_scheduler`, from rate 0: linear if absent")),
    row("training.warmup_steps", Read("`warmup_steps`")),
    row("training.warmup_ratio", Read("`warmup_steps` is the share, rounded up")),
    row("training.max_grad_norm", Same("max_grad_norm")),
    row("training.output_dir output_dir", Same("output_dir")),
    row("audio_input audio_type", gaps::MEDIA),
    row("logging inference", Idle("steps are logged in output_dir/log.jsonl, and answers are no \
        part of a job")),
];
