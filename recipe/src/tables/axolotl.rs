//! Axolotl.

use super::Treat::{Idle, Read, Same, Unless};
use super::{KeyRow, gaps, row};

const OFF: &[&str] = &["false", "0", "none", "no", ""];

/// The job: what is trained, for how long, and how.
#[rustfmt::skip]
pub(super) const ROWS: [KeyRow; 105] = [
    row("base_model", Same("base_model")),
    row("learning_rate", Same("learning_rate")),
    row("output_dir", Same("output_dir")),
    row("sequence_len", Read("`sequence_len`; 512 if absent")),
    row("micro_batch_size", Read("`micro_batch_size`; 1 if absent")),
    row("gradient_accumulation_steps", Read("`gradient_accumulation_steps`; 1 if absent")),
    row("batch_size", Read("`gradient_accumulation_steps` is batch_size / micro_batch_size")),
    row("adapter", Read("`lora` and `qlora` are `adapter: lora`; absent is `adapter: full`")),
    row("load_in_4bit", Read("`load_in_4bit`: NF4, whose scales are not quantised again")),
    row("load_in_8bit", Read("`load_in_8bit`: GGUF's Q8_0, where Axolotl has LLM.int8()")),
    row("bnb_config_kwargs", Idle("4 bits are NF4, and its scales stay in f32")),
    row("lora_r", Same("lora_r")),
    row("lora_alpha", Read("`lora_alpha`")),
    row("peft_use_rslora", Read("`peft_use_rslora`")),
    row("lora_rank_pattern", Read("`lora_rank_pattern`")),
    row("lora_alpha_pattern", Read("`lora_alpha_pattern`")),
    row("peft_layers_to_transform", Read("`peft_layers_to_transform`")),
    row("peft_layers_pattern", Read("`peft_layers_pattern`")),
    row("lora_target_modules", Read("`lora_target_modules`; a text that is an expression is for \
        whole names")),
    row("lora_target_linear", Read("true: all projections")),
    row("lora_target_parameters", Unless { values: &[""], set: "null",
        else_: "parameters are not adapted by themselves: name projections in \
                lora_target_modules" }),
    row("lora_model_dir", Same("initial_adapter")),
    row("num_epochs", Read("`num_epochs`; 1 if absent. Steps are ceil(rows num_epochs / batch)")),
    row("max_steps", Same("max_steps")),
    row("lr_scheduler", Read("`lr_scheduler`, from rate 0, but `rex` as it is: cosine if absent")),
    row("cosine_min_lr_ratio", Read("`min_lr_ratio`")),
    row("lr_scheduler_kwargs", Read("`min_lr_ratio` from min_lr_rate")),
    row("warmup_steps", Read("`warmup_steps`; below 1 a share, rounded up")),
    row("warmup_ratio", Read("`warmup_steps` is the share, rounded down; 1 becomes 2; absent \
        with warmup_steps is 3 %, at most 100")),
    row("optimizer", Read("`adamw_*` is AdamW, with 8bit and 4bit `adamw_8bit`; `lion_*`, with \
        8bit `lion_8bit`; `sgd`")),
    row("adam_beta1", Same("adam_beta1")),
    row("adam_beta2", Same("adam_beta2")),
    row("adam_epsilon adam_eps", Same("adam_epsilon")),
    row("adam_epsilon2 adam_beta3 optim_args optim_target_modules dion_* qgalore_*",
        gaps::OTHER_OPTIMIZERS),
    row("weight_decay", Read("`weight_decay`, which norms and biases do not have")),
    row("max_grad_norm", Same("max_grad_norm")),
    row("seed", Same("seed")),
    row("save_steps", Read("`save_steps`; below 1 a share of the job")),
    row("saves_per_epoch", Read("`save_steps` is ceil(steps / (num_epochs saves_per_epoch))")),
    row("save_strategy", Read("`no` and `best`: no folders `checkpoint-N`; `epoch`: each epoch")),
    row("save_total_limit", Read("`save_total_limit`; 4 if absent")),
    row("gradient_checkpointing", Read("`recompute: true`, unless it is false")),
    row("gradient_checkpointing_kwargs selective_checkpointing activation_offloading \
        layer_offloading recompute_layer_types offload",
        Idle("how activations are kept changes no result")),
    row("datasets", Read("`datasets`")),
    row("pretraining_dataset", Read("`datasets` of type text; needs max_steps")),
    row("dataset_prepared_path dataset_processes dataset_num_proc dataset_keep_in_memory \
        dataloader_pin_memory dataloader_num_workers dataloader_prefetch_factor \
        num_dataset_shards_to_save streaming streaming_multipack_buffer_size \
        pretrain_multipack_buffer_size is_preprocess preprocess_iterable",
        Idle("the data are read once, when the job is submitted")),
    row("dataset_shard_num dataset_shard_idx", Unless { values: OFF, set: "null",
        else_: "a part of a data set is a file of its own: cut the file, and remove it" }),
    row("dataset_exact_deduplication", Unless { values: OFF, set: "false",
        else_: "equal rows are kept: take them out of the file" }),
    row("skip_prepare_dataset", Unless { values: OFF, set: "false",
        else_: "data are read from their rows: set it to false" }),
    row("shuffle_merged_datasets", Same("shuffle")),
    row("shuffle_before_merging_datasets curriculum_sampling sample_packing_sequentially",
        Unless { values: OFF, set: "false",
        else_: "the order of examples is shuffled over all data sets, or as it stands: set \
                shuffle_merged_datasets alone" }),
    row("sample_packing", gaps::PACKING),
    row("pretrain_multipack_attn", Read("with sample_packing texts of a pretraining_dataset are \
        kept apart (type completion), unless it is false (type text); true if absent")),
    row("multipack_real_batches batch_flattening pretraining_sample_concatenation",
        gaps::OTHER_PACKING),
    row("sample_packing_group_size sample_packing_bin_size sample_packing_mp_start_method \
        sample_packing_eff_est sample_packing_seq_len_multiplier total_num_tokens \
        total_supervised_tokens eval_sample_packing max_packed_sequence_len",
        Idle("it belongs to packing")),
    row("pad_to_sequence_len pad_to_multiple_of",
        Idle("padding changes no result: it is not predicted, and nothing attends to it")),
    row("excess_length_strategy", Read("what happens to longer examples; drop if absent")),
    row("min_sample_len max_prompt_len", Unless { values: &["0", "2", ""], set: "null",
        else_: "examples are not dropped by a length of your own: remove it" }),
    row("train_on_inputs", Read("true: all tokens of a row are learnt")),
    row("group_by_length", gaps::BY_LENGTH),
    row("lora_dropout", gaps::DROPOUT),
    row("peft_use_dora", gaps::DORA),
    row("peft_init_lora_weights loftq_bits loftq_config peft", gaps::FIRST_VALUES),
    row("lora_modules_to_save", Read("`lora_modules_to_save`")),
    row("peft_trainable_token_indices", gaps::SOME_TOKENS),
    row("peft_layer_replication", gaps::REPEATED_LAYERS),
    row("peft_ensure_weight_tying peft_autocast_adapter_dtype lora_fan_in_fan_out",
        Idle("it changes nothing for the projections that are adapted")),
    row("loraplus_lr_ratio", gaps::B_RATE),
    row("loraplus_lr_embedding", gaps::EMBEDDING_RATE),
    row("embedding_lr embedding_lr_scale lr_groups", gaps::RATES),
    row("lr_quadratic_warmup cosine_constant_lr_ratio lr_div_factor jagged_restart_*",
        Unless { values: OFF, set: "null",
        else_: "warm-up is linear, and the curve after it whole: remove it" }),
    row("neftune_noise_alpha noisy_embedding_alpha", gaps::NOISE),
    row("unfrozen_parameters lisa_* reinit_weights freeze_mm_modules", gaps::SOME_WEIGHTS),
    row("relora relora_* peft_use_relora merge_lora merge_method",
        Unless { values: OFF, set: "null",
        else_: "adapters are not merged on the way: remove it" }),
    row("val_set_size", Read("`val_set_size`; 0, which holds nothing out, if absent")),
    row("eval_strategy evaluation_strategy eval_steps evals_per_epoch", Read("`eval_steps`, by \
        the trainer's rules; each epoch if absent")),
    row("load_best_model_at_end", Read("`load_best_model_at_end`; if absent, true where save_steps \
        is a multiple of eval_steps")),
    row("early_stopping_patience", Read("`early_stopping_patience`")),
    row("metric_for_best_model greater_is_better", Read("must be eval_loss, and false")),
    row("loss_watchdog_threshold", Same("loss_watchdog_threshold")),
    row("loss_watchdog_patience", Same("loss_watchdog_patience")),
    row("test_datasets", Read("`test_datasets`, with the keys of `datasets`; the split is test if \
        absent, of a single file train")),
    row("do_causal_lm_eval eval_causal_lm_metrics", Read("the loss is taken, and perplexity is its \
        exponential; other measures are refused")),
    row("do_bench_eval bench_dataset bench_split generate_samples",
        gaps::EVALUATION),
    row("eval_batch_size", Idle("no loss depends on it: `micro_batch_size` is taken")),
    row("eval_sequence_len eval_table_size eval_max_new_tokens \
        num_generation_samples generation_*", Idle("the loss alone is taken, on sequences as \
        long as those that are learnt")),
    row("s2_attention", gaps::SHIFTED_ATTENTION),
    row("resume_from_checkpoint", gaps::RESUME),
    row("auto_resume_from_checkpoints", Idle("a job that is run again goes on by itself")),
    row("resize_token_embeddings_to_32x", Read("true: the embedding must have as many rows \
        already")),
    row("tokens added_tokens_overrides mean_resizing_embeddings \
        shrink_embeddings fix_untrained_tokens", gaps::NEW_TOKENS),
    row("special_tokens special_tokens.pad_token special_tokens.unk_token",
        Idle("padding is not learnt, and unknown tokens are the tokenizer's")),
    row("special_tokens.bos_token special_tokens.eos_token",
        Read("must be the tokenizer's own")),
    row("special_tokens.additional_special_tokens additional_special_tokens", gaps::NEW_TOKENS),
    row("use_eaft eaft_* reward_model process_reward_model num_labels center_rewards_coefficient",
        gaps::LOSS),
    row("rl trl vllm ebft dpo_* rl_beta orpo_alpha simpo_gamma cpo_alpha kto_* grpo* trainer_cls \
        ref_model diffusion rpo_alpha", gaps::PREFERENCE),
    row("qat quantization fp8 llmcompressor", gaps::ROUNDED_TRAINING),
    row("use_pose pose_*", Unless { values: OFF, set: "null",
        else_: "positions are those of the example: remove it" }),
    row("scaling_softmax scaling_softmax_*", Unless { values: OFF, set: "null",
        else_: "attention is computed as the model says: remove it" }),
    row("overrides_of_model_config model_config",
        Read("values that change nothing; the model's own config.json is followed")),
    row("overrides_of_model_config.output_router_logits model_config.output_router_logits",
        gaps::ROUTER_LOSS),
    row("rope_scaling overrides_of_model_config.* model_config.* overrides_of_model_kwargs \
        model_kwargs", Unless { values: &[""], set: "null",
        else_: "the model's own config.json is followed: change it there" }),
    row("revision_of_model model_revision", Read("base_model is `owner/name@revision`, where it is \
        no folder here")),
    row("eta_min", Idle("Axolotl has no such key, and passes over it")),
    row("lora_on_cpu qlora_sharded_model_loading gptq gptq_* use_onebitllms",
        Idle("packed weights are recognised by themselves")),
];

/// Data sets and templates.
#[rustfmt::skip]
pub(super) const DATASETS: [KeyRow; 28] = [
    row("datasets[].path pretraining_dataset[].path", Read("`datasets[].path`: a file, a folder, \
        or a set of the Hugging Face hub")),
    row("datasets[].type pretraining_dataset[].type", Read("what a row is: alpaca, chat_template, \
        completion, pretrain, input_output, or token ids if absent; alpaca, gpteacher and oasst, \
        also with :chat, :chatml or :phi, alpaca_instruct, alpaca_chat and their .load_no_prompt \
        are `instruct` with their words as `format`; others are refused")),
    row("datasets[].type.field_instruction datasets[].type.field_input \
        datasets[].type.field_output datasets[].type.field_system datasets[].type.format \
        datasets[].type.no_input_format datasets[].type.system_prompt \
        datasets[].type.system_format", Read("type instruct with `format` and `no_input_format`; \
        a field_system is refused")),
    row("datasets[].split pretraining_dataset[].split", Read("`split`: train, train[:10%] and \
        the like")),
    row("datasets[].name datasets[].revision datasets[].data_files pretraining_dataset[].name \
        pretraining_dataset[].data_files", Read("`name`, `revision` and `data_files`")),
    row("datasets[].ignore_fields ignore_fields", Read("`ignore_fields`, a key of Concord's own: \
        fields of rows that are left out on purpose")),
    row("datasets[].ds_type datasets[].trust_remote_code pretraining_dataset[].trust_remote_code",
        Idle("the kind of a file is read from it, and no code of data sets is run")),
    row("datasets[].shards datasets[].shards_idx", Read("`shards` and `shards_idx`")),
    row("datasets[].preprocess_shards", Idle("the data are read once, when the job is submitted")),
    row("pretraining_dataset[].skip", Unless { values: &["0", ""], set: "null",
        else_: "leave out rows with `split: train[N:]`, and remove it" }),
    row("datasets[].field", Read("the column of a completion")),
    row("pretraining_dataset[].field pretraining_dataset[].text_column",
        Read("the column of the text")),
    row("datasets[].field_instruction datasets[].field_input datasets[].field_output \
        datasets[].field_system", Read("columns of a row")),
    row("datasets[].field_messages", Read("the column of turns; messages if absent")),
    row("datasets[].message_property_mappings datasets[].message_field_role \
        datasets[].message_field_content", Read("names within a turn; role and content if absent")),
    row("datasets[].field_thinking datasets[].template_thinking_key", Read("the field of thoughts \
        in a turn, and what the chat template calls it; reasoning_content if absent")),
    row("datasets[].roles", Read("names of roles")),
    row("datasets[].roles_to_train", Read("which turns are learnt; assistant if absent")),
    row("datasets[].train_on_eos", Read("which ends of turns are learnt; turn if absent")),
    row("datasets[].chat_template", Read("as chat_template, for this set")),
    row("datasets[].chat_template_jinja", Read("a template of your own")),
    row("datasets[].train_on_inputs", Read("true: all tokens of a row are learnt")),
    row("datasets[].drop_system_message datasets[].message_field_training",
        Read("`drop_system_message` and `message_field_training`")),
    row("datasets[].split_thinking \
        datasets[].message_field_training_detail \
        datasets[].train_on_eot datasets[].field_tools datasets[].conversation \
        datasets[].system_prompt datasets[].system_format datasets[].format \
        datasets[].no_input_format datasets[].input_format datasets[].input_transform \
        datasets[].logprobs_field datasets[].temperature datasets[].field_human \
        datasets[].field_model datasets[].field_chosen datasets[].field_rejected \
        datasets[].step_separator datasets[].max_completion_length \
        datasets[].train_on_last_step_only", Unless { values: &[""], set: "null",
        else_: "rows are not read so: write them as turns of role and content, and remove it" }),
    row("chat_template", Read("the tokenizer's own, or one that is known by name: chatml, cohere, \
        gemma, gemma3, llama3, mistral_v1, mistral_v2v3, mistral_v3_tekken, mistral_v7_tekken, \
        phi_3, phi_35, phi_4, qwen3, qwen_25; others are refused")),
    row("chat_template_jinja", Read("a template of your own")),
    row("eot_tokens", Read("`eot_tokens`: tokens that end turns, beside those of the model")),
    row("chat_template_kwargs default_system_message", Unless { values: &[""],
        set: "null",
        else_: "the chat template alone decides where turns end and what is in them: remove it" }),
];

/// Speed, memory, logs and machines.
#[rustfmt::skip]
pub(super) const SPEED: [KeyRow; 25] = [
    row("bf16 fp16 tf32 bfloat16 float16 float32 torch_dtype fp32_norms fp32_norm_classes",
        Idle("results have one arithmetic, NUMERICS.md")),
    row("attn_implementation flash_attention flash_attn_* flash_optimum xformers_attention \
        sdp_attention sdpa_* flex_attention flex_attn_compile_kwargs sage_attention \
        eager_attention gemma4_hybrid_attn_impl large_head_attention \
        fused_attn_kernel",
        Idle("attention is exact, whatever computes it")),
    row("plugins", Read("cut_cross_entropy, liger and swanlab change nothing; others are \
        refused")),
    row("cut_cross_entropy chunked_cross_entropy chunked_cross_entropy_num_chunks liger_* \
        lora_mlp_kernel lora_qkv_kernel lora_o_kernel lora_embedding_kernel use_kernels \
        unsloth_* torch_compile torch_compile_* tiled_mlp tiled_mlp_* use_scattermoe use_sonicmoe \
        experts_implementation dsv4_* use_dsv4_kernels use_glm_dsa_kernels \
        llama4_linearized_experts",
        Idle("a faster kernel changes no result here")),
    row("quantize_moe_experts nvfp4_merge_aware model_quantization_config \
        model_quantization_config_kwargs", Idle("experts are quantised as load_in_4bit says, and \
        packed weights are recognised by themselves")),
    row("deepspeed deepcompile fsdp fsdp_config fsdp_version fsdp_final_state_dict_type \
        ddp ddp_* dp_shard_size dp_replicate_size tensor_parallel_size context_parallel_size \
        context_parapllel_size sequence_parallel_degree expert_parallel_* heads_k_stride \
        ring_attn_func accelerator_config world_size local_rank device device_map torchdistx_path \
        max_memory gpu_memory_limit low_cpu_mem_usage experimental_skip_move_to_device \
        auto_find_batch_size dataloader_drop_last embeddings_skip_upcast",
        Idle("the work is cut over workers as --plan says, and the result is the same")),
    row("use_tensorboard", Read("true: `report_to: tensorboard`")),
    row("logging_dir", Read("`logging_dir`, with use_tensorboard")),
    row("wandb_* use_wandb mlflow_* use_mlflow hf_mlflow_log_artifacts comet_* use_comet \
        use_trackio trackio_* swanlab_* use_swanlab use_otel_metrics otel_* project_name",
        gaps::TRACKERS),
    row("logging_steps include_tokens_per_second include_tkps \
        profiler_* tensorboard_*", Idle("steps are logged in output_dir/log.jsonl")),
    row("model_type tokenizer_type processor_type type_of_model cls_model_config \
        tokenizer_use_fast tokenizer_legacy is_falcon_derived_model is_llama_derived_model \
        is_mistral_derived_model is_qwen_derived_model",
        Idle("the family is read from config.json")),
    row("processor_kwargs", gaps::MEDIA),
    row("base_model_config tokenizer_config", Unless { values: &[""], set: "null",
        else_: "configuration and tokenizer are those of base_model: put them there" }),
    row("tokenizer_use_mistral_common", Unless { values: OFF, set: "false",
        else_: "tokenizer.json of the model is read: set it to false" }),
    row("trust_remote_code", Idle("no code of models is run; families are known or refused")),
    row("hf_use_auth_token", Idle("set HF_TOKEN for gated models")),
    row("push_dataset_to_hub hub_model_id hub_strategy hub_revision",
        Idle("nothing is pushed: push output_dir yourself")),
    row("save_only_model save_safetensors save_first_step dynamic_checkpoint \
        tokenizer_save_jinja_files", Idle("adapters and weights are safetensors")),
    row("strict debug remove_unused_columns gc_steps gc_collect_steps torch_empty_cache_steps \
        full_finetune test_value base_model_ignore_patterns branch dockerfile_commands gpu \
        gpu_count memory memory_preprocess node_count provider secrets timeout \
        timeout_preprocess volumes use_ray ray_* resources_per_worker gradio_*",
        Idle("it belongs to the machine that Axolotl runs on")),
    row("is_multimodal image_size image_resize_algorithm", gaps::MEDIA),
    row("sample_generation", gaps::EVALUATION),
    row("router_aux_loss_coef", gaps::ROUTER_LOSS),
    row("label_smoothing_factor", gaps::SMOOTHING),
    row("axolotl_config_path capabilities env_capabilities", Idle("Axolotl fills it in itself")),
    row("lora_embedding_dropout", gaps::EMBEDDING_DROPOUT),
];
