//! The trainer of transformers, which TRL and LLaMA-Factory build upon.

use super::Treat::{Idle, Read, Same, Unless};
use super::{KeyRow, gaps, row};

#[rustfmt::skip]
pub(super) const ROWS: [KeyRow; 40] = [
    row("model_name_or_path", Same("base_model")),
    row("output_dir", Read("`output_dir`; trainer_output if absent")),
    row("learning_rate", Read("`learning_rate`; 5e-5 if absent (TRL: 2e-5)")),
    row("per_device_train_batch_size", Read("`micro_batch_size`; 8 if absent")),
    row("gradient_accumulation_steps", Read("`gradient_accumulation_steps`; 1 if absent")),
    row("num_train_epochs", Read("`num_epochs`; 3 if absent")),
    row("max_steps", Read("`max_steps`, instead of epochs, where it is above 0")),
    row("lr_scheduler_type", Read("`lr_scheduler`, from rate 0: linear if absent")),
    row("lr_scheduler_kwargs", Read("`min_lr_ratio` from min_lr_rate")),
    row("warmup_ratio", Read("`warmup_steps` is the share, rounded up")),
    row("warmup_steps", Read("`warmup_steps`; below 1 a share, rounded up")),
    row("weight_decay", Read("`weight_decay`, which norms and biases do not have")),
    row("adam_beta1", Same("adam_beta1")),
    row("adam_beta2", Same("adam_beta2")),
    row("adam_epsilon", Same("adam_epsilon")),
    row("max_grad_norm", Same("max_grad_norm")),
    row("optim", Read("`adamw_*` is AdamW, with 8bit `adamw_8bit`; `lion_*`, `sgd`")),
    row("optim_args optim_target_modules", gaps::OTHER_OPTIMIZERS),
    row("seed", Same("seed")),
    row("data_seed", Unless { values: &["42", ""], set: "null",
        else_: "data are shuffled by `seed`: remove it" }),
    row("save_strategy", Read("`no` and `best`: no folders `checkpoint-N`; `epoch`: each epoch")),
    row("save_steps", Read("`save_steps`; 500 if absent, below 1 a share of the job")),
    row("save_total_limit", Read("`save_total_limit`; none is deleted if absent")),
    row("report_to", Read("tensorboard and all: `report_to: tensorboard`; to others nothing is \
        sent")),
    row("logging_dir", Read("`logging_dir`, with tensorboard")),
    row("gradient_checkpointing", Read("`recompute`")),
    row("resume_from_checkpoint", gaps::RESUME),
    row("neftune_noise_alpha", gaps::NOISE),
    row("label_smoothing_factor", gaps::SMOOTHING),
    row("group_by_length", gaps::BY_LENGTH),
    row("eval_strategy evaluation_strategy eval_steps do_eval", Read("`eval_steps`: each epoch, \
        steps (logging_steps if absent), a share of them below 1; `no`: the last step alone")),
    row("eval_on_start load_best_model_at_end", Read("the same")),
    row("metric_for_best_model greater_is_better", Read("must be eval_loss, and false")),
    row("eval_delay", Read("must be 0")),
    row("per_device_eval_batch_size eval_accumulation_steps batch_eval_metrics bf16_full_eval \
        fp16_full_eval prediction_loss_only", Idle("no loss depends on it: `micro_batch_size` and \
        `precision` are those of training")),
    row("dataloader_drop_last average_tokens_across_devices", Idle("every row is taken, and the \
        loss is the mean over all predicted tokens of a step")),
    row("do_train", Unless { values: &["true"], set: "true",
        else_: "a job trains: `concord generate` and `concord serve` use a model" }),
    row("do_predict predict_with_generate", gaps::EVALUATION),
    row("run_name project trackio_*", gaps::TRACKERS),
    row("bf16 fp16 tf32 dtype torch_dtype half_precision_backend fp16_opt_level \
        gradient_checkpointing_kwargs torch_compile torch_compile_* use_liger_kernel \
        liger_kernel_config attn_implementation use_cpu no_cuda \
        use_mps_device local_rank ddp_* fsdp fsdp_* deepspeed accelerator_config \
        parallelism_config tpu_* dataloader_num_workers dataloader_pin_memory \
        dataloader_prefetch_factor dataloader_persistent_workers dataset_num_proc \
        auto_find_batch_size remove_unused_columns logging_* log_level log_level_replica \
        log_on_each_node disable_tqdm debug \
        include_num_input_tokens_seen include_tokens_per_second skip_memory_metrics \
        torch_empty_cache_steps full_determinism restore_callback_states_from_checkpoint \
        save_only_model save_safetensors save_on_each_node \
        enable_jit_checkpoint overwrite_output_dir push_to_hub push_to_hub_* hub_* \
        model_revision_of_hub trust_remote_code use_fast_tokenizer token low_cpu_mem_usage \
        jit_mode_eval ray_scope",
        Idle("speed, memory, logs and machines change no result; nothing is pushed to a hub")),
];
