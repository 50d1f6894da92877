//! LLaMA-Factory.

use super::Treat::{Idle, Read, Refuse, Same, Unless};
use super::{KeyRow, gaps, row};

const OFF: &[&str] = &["false", "0", "none", "no", ""];

#[rustfmt::skip]
pub(super) const ROWS: [KeyRow; 56] = [
    row("stage", Read("sft; pt is type text; others are refused")),
    row("cutoff_len", Read("`sequence_len`; 2048 if absent. Longer examples lose a part of each \
        turn (`excess_length_strategy: shorten_turns`), or their end where turns are not told \
        apart: train_on_prompt, mask_history, templates with one end for all answers")),
    row("finetuning_type", Read("`adapter`: lora or full; lora if absent")),
    row("template", Read("a chat template that is known by name; if absent, the tokenizer's; \
        others are refused")),
    row("ignore_fields", Read("a key of Concord's own: fields of rows that are left out on \
        purpose")),
    row("dataset", Read("names in dataset_info.json, with commas between them: files, or sets of \
        the Hugging Face hub")),
    row("dataset_dir", Read("the folder of dataset_info.json; data if absent")),
    row("gradient_checkpointing", Same("recompute")),
    row("disable_gradient_checkpointing", Read("`recompute` is its opposite; false if absent")),
    row("lora_rank", Read("`lora_r`; 8 if absent")),
    row("lora_alpha", Read("`lora_alpha`; twice the rank if absent")),
    row("lora_target", Read("`lora_target_modules`; all if absent")),
    row("lora_dropout", gaps::DROPOUT),
    row("use_rslora", Read("`peft_use_rslora`")),
    row("use_dora", gaps::DORA),
    row("pissa_init pissa_iter pissa_convert", gaps::FIRST_VALUES),
    row("loraplus_lr_ratio", gaps::B_RATE),
    row("loraplus_lr_embedding", gaps::EMBEDDING_RATE),
    row("additional_target", Read("`lora_modules_to_save`")),
    row("create_new_adapter", Unless { values: OFF, set: "false",
        else_: "an adapter is trained on, or begun: remove it or adapter_name_or_path" }),
    row("adapter_name_or_path", Read("`initial_adapter`, one")),
    row("adapter_folder", Unless { values: &[""], set: "null",
        else_: "give the folder in adapter_name_or_path" }),
    row("freeze_*", gaps::SOME_WEIGHTS),
    row("quantization_bit", Read("`load_in_4bit` or `load_in_8bit`")),
    row("quantization_method", Unless { values: &["bnb", "bitsandbytes", ""], set: "null",
        else_: "the base is quantised to NF4 or Q8_0: remove it" }),
    row("quantization_type", Unless { values: &["nf4", ""], set: "null",
        else_: "4 bits are NF4: remove it" }),
    row("double_quantization quantization_device_map",
        Idle("4 bits are NF4, and its scales stay in f32")),
    row("max_samples", Read("the first rows of each data set")),
    row("packing", Read("false, or with stage pt: texts are joined and cut")),
    row("neat_packing", gaps::PACKING),
    row("train_on_prompt", Read("true: all tokens are learnt")),
    row("mask_history", Read("`mask_history`: of a conversation the last answer is learnt")),
    row("val_size", Read("`val_set_size`; 0, which holds nothing out, if absent")),
    row("eval_dataset", Read("`test_datasets`: names in dataset_info.json, as in `dataset`")),
    row("eval_on_each_dataset compute_accuracy", gaps::EVALUATION),
    row("mix_strategy interleave_probs", Read("the same; data sets alternate by sequences, not \
        by rows")),
    row("disable_shuffling", Read("`shuffle` is its opposite; false if absent")),
    row("streaming buffer_size tokenized_path preprocessing_num_workers preprocessing_batch_size \
        overwrite_cache data_shared_file_system tokenizer_num_proc ignore_pad_token_for_loss",
        Idle("the data are read once, when the job is submitted")),
    row("tool_format", Unless { values: &[""], set: "null",
        else_: "the chat template alone decides: remove it" }),
    row("default_system", Read("the template's system text for conversations without one")),
    row("enable_thinking", Read("false: the template drops thoughts; true if absent")),
    row("resize_vocab add_tokens add_special_tokens new_special_tokens_config \
        init_special_tokens", gaps::NEW_TOKENS),
    row("rope_scaling mixture_of_depths use_llama_pro llama_pro_*", Unless { values: OFF,
        set: "null", else_: "the model is trained as it is: remove it" }),
    row("moe_aux_loss_coef", gaps::ROUTER_LOSS),
    row("use_galore galore_* use_apollo apollo_* use_badam badam_* use_adam_mini use_muon",
        gaps::OTHER_OPTIMIZERS),
    row("use_dft_loss use_asft_loss asft_alpha use_eaft_loss eaft_*", gaps::LOSS),
    row("pref_* ref_model ref_model_* reward_model reward_model_* dpo_label_smoothing kto_* \
        simpo_gamma ppo_* ppo_target oft_* oft_target use_kt kt_*",
        Refuse("only supervised fine-tuning by LoRA or in full is computed: remove it")),
    row("freeze_vision_tower image_* video_* audio_* crop_to_patches use_audio_in_video",
        Idle("texts alone are learnt, and rows with images are refused")),
    row("early_stopping_steps", Read("`early_stopping_patience`")),
    row("shift_attn", gaps::SHIFTED_ATTENTION),
    row("split_special_tokens", Unless { values: OFF, set: "false",
        else_: "special tokens are tokens of their own: set it to false" }),
    row("pure_bf16 flash_attn use_unsloth use_unsloth_gc enable_liger_kernel \
        use_reentrant_gc use_v1_kernels upcast_layernorm upcast_lmhead_output fp8 fp8_* \
        use_cache infer_backend infer_dtype offload_folder ray_* sequence_parallel_* cp_* \
        disable_version_check use_sequence_parallel sequence_parallel",
        Idle("a faster kernel, or another number format, changes no result")),
    row("plot_loss use_swanlab swanlab_* include_effective_tokens_per_second hf_hub_token \
        ms_hub_token om_hub_token print_param_status cache_dir \
        export_* max_new_tokens top_p top_k temperature do_sample",
        Idle("it belongs to other commands of LLaMA-Factory, to its logs or its machine")),
    row("model model_class train_dataset dist_config kernel_config init_config peft_config \
        quant_config optim_config micro_batch_size batching_strategy sample_backend",
        Refuse("this is a file of LLaMA-Factory's v1, whose keys have other names: write \
                model_name_or_path, dataset, finetuning_type and so on")),
    row("use_mca tensor_model_parallel_size pipeline_model_parallel_size \
        expert_model_parallel_size overlap_* use_distributed_optimizer \
        moe_grouped_gemm moe_token_dispatcher_type bias_activation_fusion apply_rope_fusion \
        recompute_granularity", Idle("the work is cut over workers as --plan says")),
    row("model_revision", Read("model_name_or_path is `owner/name@revision`, where it is no folder \
        here")),
];
