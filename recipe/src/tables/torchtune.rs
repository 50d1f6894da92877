//! torchtune.

use super::Treat::{Idle, Read, Refuse, Same, Unless};
use super::{KeyRow, gaps, row};

const OFF: &[&str] = &["false", "0", "none", "no", ""];

#[rustfmt::skip]
pub(super) const ROWS: [KeyRow; 52] = [
    row("output_dir", Same("output_dir")),
    row("checkpointer.checkpoint_dir", Same("base_model")),
    row("checkpointer._component_ checkpointer.checkpoint_files checkpointer.model_type \
        checkpointer.output_dir checkpointer.enable_dcp",
        Idle("weights are read from the folder, by its config.json")),
    row("checkpointer.keep_last_n_checkpoints keep_last_n_checkpoints",
        Read("`save_total_limit`; none is deleted if absent")),
    row("checkpointer.recipe_checkpoint", gaps::RESUME),
    row("checkpointer.adapter_checkpoint", Unless { values: &[""], set: "null",
        else_: "set initial_adapter to a PEFT folder" }),
    row("model._component_", Read("a name with lora_ or qlora_ is `adapter: lora`; with qlora_ \
        `load_in_4bit`; else `adapter: full`")),
    row("model.lora_attn_modules", Read("`lora_target_modules`; output_proj is o_proj")),
    row("model.apply_lora_to_mlp", Read("true: gate_proj, up_proj and down_proj, too")),
    row("model.apply_lora_to_output", Unless { values: OFF, set: "false",
        else_: "the head is not adapted: set it to false" }),
    row("model.lora_rank", Read("`lora_r`; 8 if absent")),
    row("model.lora_alpha", Read("`lora_alpha`; 16 if absent")),
    row("model.lora_dropout", gaps::DROPOUT),
    row("model.use_dora", Read("`peft_use_dora`; refused with dropout, which torchtune has on \
        the adapter alone")),
    row("model.quantize_base", Read("`load_in_4bit`")),
    row("model.image_size", gaps::MEDIA),
    row("model.encoder_trainable model.decoder_trainable model.fusion_trainable",
        Refuse("texts alone are learnt, no models of images")),
    row("model.*", Refuse("the model is read as its config.json says: remove it")),
    row("tokenizer.max_seq_len", Read("`sequence_len`; null, which is no limit, is \
        `longest`: as the longest example, at most the model's positions")),
    row("tokenizer._component_ tokenizer.path tokenizer.merges_file tokenizer.vocab_path \
        tokenizer.merges_path tokenizer.tokenizer_json_path tokenizer.tokenizer_config_json_path",
        Idle("the tokenizer is that of the model's folder")),
    row("tokenizer.prompt_template", Unless { values: &[""], set: "null",
        else_: "the chat template alone decides: remove it" }),
    row("tokenizer.image_size tokenizer.max_num_tiles", gaps::MEDIA),
    row("dataset._component_",
        Read("what a row is, by the name of the builder: Alpaca, chats or texts")),
    row("dataset.source dataset.data_files", Read("`datasets[].path`")),
    row("dataset.column dataset.column_map dataset.conversation_column \
        dataset.conversation_style", Read("columns of a row")),
    row("dataset.train_on_input", Read("true: all tokens of a row are learnt")),
    row("dataset.packed", gaps::PACKING),
    row("dataset.split", Read("`datasets[].split`: train, train[:95%] and the like")),
    row("dataset.name dataset.subset", Read("`datasets[].name`")),
    row("ignore_fields", Read("a key of Concord's own: fields of rows that are left out on \
        purpose")),
    row("dataset.new_system_prompt dataset.add_eos \
        dataset.partition dataset.image_dir dataset.image_tag", Unless { values: &["", "true"],
        set: "null", else_: "rows are read as they are: remove it" }),
    row("dataset_val", Read("`test_datasets`, with the keys of `dataset`, where \
        run_val_every_n_steps is given")),
    row("dataset_val.packed", Idle("no loss depends on whether examples share a sequence")),
    row("run_val_every_n_steps", Read("`eval_steps`; without it nothing is evaluated")),
    row("batch_size_val", Idle("no loss depends on it: `micro_batch_size` is taken")),
    row("seed", Read("`seed`; null, which is a random one, is 42 here")),
    row("shuffle", Same("shuffle")),
    row("batch_size", Same("micro_batch_size")),
    row("epochs", Read("`num_epochs`; steps of an epoch are rounded down")),
    row("max_steps_per_epoch", Read("most steps of an epoch")),
    row("gradient_accumulation_steps", Same("gradient_accumulation_steps")),
    row("optimizer._component_", Read("torch.optim.AdamW, AdamW of \
        bitsandbytes or torchao, torch.optim.SGD")),
    row("optimizer.momentum", Same("momentum")),
    row("optimizer.nesterov", Same("nesterov")),
    row("optimizer.lr optimizer.weight_decay optimizer.betas optimizer.eps", Read("`learning_rate` \
        (1e-3), `weight_decay` (0.01; of SGD 0), `adam_beta1`, `adam_beta2`, `adam_epsilon`")),
    row("lr_scheduler._component_ lr_scheduler.num_warmup_steps lr_scheduler.num_cycles",
        Read("`lr_scheduler: cosine_from_zero` and `warmup_steps`; constant if absent")),
    row("clip_grad_norm", Read("`max_grad_norm`; 0, which is none, if absent")),
    row("enable_activation_checkpointing", Read("`recompute`; false if absent")),
    row("loss._component_", Read("cross-entropy, however it is cut; others are refused")),
    row("resume_from_checkpoint", gaps::RESUME),
    row("quantizer kd_loss kd_ratio teacher_model teacher_checkpointer ref_checkpointer \
        policy_model reward_* value_checkpointer ref_policy_checkpointer ppo_* gamma lmbda \
        kl_coeff num_steps grpo_samples orchestration postprocessing inference_checkpointer \
        penalise_no_eos whiten_rewards min_response_length forward_batch_size base_model_path \
        tasks prompt max_new_tokens max_generated_tokens stop_token_ids evaluator limit \
        loss.beta loss.epsilon loss.kl_coeff loss.label_smoothing loss.value_clip_range \
        loss.value_coeff", Refuse("this recipe does not fine-tune on given answers: \
        distillation, policies, evaluation and quantisation are not computed here")),
    row("device dtype compile log_every_n_steps log_level log_peak_memory_stats metric_logger \
        profiler optimizer.fused optimizer_in_bwd enable_activation_offloading \
        save_adapter_weights_only fsdp_cpu_offload fsdp_reshard_after_forward fsdp \
        custom_sharded_layers low_cpu_ram tensor_parallel_dim tensor_parallel_plan \
        data_parallel_* context_parallel_dim memory_efficient_fsdp_wrap collate_fn \
        enable_kv_cache enable_fp8_training \
        fp8_recipe_name save_every_n_epochs save_every_n_steps name my_components \
        cudnn_deterministic_mode ac_mode ac_option loss.num_output_chunks loss.ignore_index \
        expert_parallel_dim \
        use_grouped_mm dataset.filter_fn async_generation",
        Idle("speed, memory, logs and machines change no result")),
];
