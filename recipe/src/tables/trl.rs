//! TRL, as its scripts and the alignment-handbook read files.

use super::Treat::{Idle, Read, Refuse, Unless};
use super::{KeyRow, gaps, row};

#[rustfmt::skip]
pub(super) const ROWS: [KeyRow; 39] = [
    row("max_length max_seq_length", Read("`sequence_len`; 1024 if absent")),
    row("use_peft", Read("true: `adapter: lora`; else `adapter: full`")),
    row("lora_r", Read("`lora_r`; 16 if absent")),
    row("lora_alpha", Read("`lora_alpha`; 32 if absent")),
    row("lora_dropout", Read("0.05 if absent")),
    row("lora_target_modules", Read("`lora_target_modules`; q_proj and v_proj if absent, \
        `all-linear` is all")),
    row("use_rslora", Read("`peft_use_rslora`")),
    row("use_dora", gaps::DORA),
    row("lora_modules_to_save", Read("`lora_modules_to_save`")),
    row("lora_target_parameters", gaps::PARAMETERS),
    row("lora_task_type", Unless { values: &["causal_lm", ""], set: "null",
        else_: "a language model is trained: remove it" }),
    row("load_in_4bit", Read("`load_in_4bit`: NF4, whose scales are not quantised again")),
    row("load_in_8bit", Read("`load_in_8bit`: GGUF's Q8_0, where bitsandbytes has LLM.int8()")),
    row("bnb_4bit_quant_type", Unless { values: &["nf4", ""], set: "null",
        else_: "4 bits are NF4: remove it" }),
    row("use_bnb_nested_quant bnb_4bit_quant_storage",
        Idle("4 bits are NF4, and its scales stay in f32")),
    row("gradient_checkpointing", Read("`recompute`; true if absent")),
    row("packing", Read("`sample_packing`, by packing_strategy")),
    row("packing_strategy", Read("bfd, which older versions call ffd, is `sample_packing`; \
        bfd_split cuts long rows into several; wrapped is `type: text`")),
    row("padding_free eval_packing pad_to_multiple_of", Idle("padding changes no result")),
    row("dataset_name", Read("`datasets[].path`")),
    row("dataset_config", Read("`datasets[].name`")),
    row("dataset_streaming", Idle("the data are read once, when the job is submitted")),
    row("dataset_test_split", Read("`test_datasets`: this split of dataset_name, where \
        eval_strategy asks for it; test if absent")),
    row("dataset_train_split", Read("`datasets[].split`: train, train[:10%] and the like")),
    row("ignore_fields", Read("a key of Concord's own: fields of rows that are left out on \
        purpose")),
    row("dataset_text_field", Read("the column of a text")),
    row("dataset_mixture dataset_mixer dataset_splits datasets",
        Read("`datasets`: id is the path, config the name, with split, columns and weight")),
    row("dataset_kwargs", Read("add_special_tokens and append_concat_token: the tokenizer's and \
        TRL's own rules hold")),
    row("chat_template", Read("a template of your own")),
    row("chat_template_path", Unless { values: &[""], set: "null",
        else_: "the template is the tokenizer's: put it into the model's folder, and remove \
                this" }),
    row("assistant_only_loss", Read("true: answers alone are learnt; else whole conversations")),
    row("completion_only_loss", Read("false: prompts are learnt, too")),
    row("eos_token", Read("must be the tokenizer's own")),
    row("loss_type", Unless { values: &["nll", "chunked_nll", ""], set: "null",
        else_: "the loss is the cross-entropy of the next token; other losses and preference \
                training are not computed" }),
    row("beta max_prompt_length max_completion_length reference_free ref_model_* \
        precompute_ref_log_probs desirable_weight undesirable_weight num_generations reward_* \
        label_smoothing rpo_alpha simpo_gamma cpo_alpha", gaps::PREFERENCE),
    row("model_revision", Read("model_name_or_path is `owner/name@revision`, where it is no folder \
        here")),
    row("activation_offloading shuffle_dataset use_liger ignore_bias_buffers \
        max_steps_per_epoch benchmark config", Idle("it changes no result")),
    row("wandb_*", gaps::TRACKERS),
    row("vision_* dataset_image_field", Refuse("texts alone are learnt: remove it")),
];
