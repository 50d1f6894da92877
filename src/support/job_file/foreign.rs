//! Keys and values of other tools in a job file, and what to write instead.

/// Keys of other tools whose names are unlike ours.
const KEYS: [(&[&str], &str); 16] = [
    (&["num_train_epochs", "epochs"], "set `num_epochs`"),
    (
        &["model_name_or_path", "model", "model_name"],
        "set `base_model`",
    ),
    (
        &["dataset", "train_dataset", "dataset_name"],
        "set `datasets`",
    ),
    (&["finetuning_type", "use_peft"], "set `adapter`"),
    (&["lora_rank"], "set `lora_r`"),
    (
        &["lora_target", "lora_target_linear"],
        "set `lora_target_modules`, which are all without it",
    ),
    (
        &["lora_model_dir", "adapter_name_or_path"],
        "set `initial_adapter`",
    ),
    (
        &["cutoff_len", "max_seq_length", "max_length"],
        "set `sequence_len`",
    ),
    (
        &["batch_size", "per_device_train_batch_size"],
        "set `micro_batch_size` and `gradient_accumulation_steps`",
    ),
    (&["lr_scheduler_type"], "set `lr_scheduler`"),
    (&["gradient_checkpointing"], "set `recompute`"),
    (&["lora_dropout"], "dropout is not computed, so remove it"),
    (
        &["resume_from_checkpoint"],
        "a job that is submitted again goes on where it was",
    ),
    (
        &["sample_packing", "packing"],
        "examples are not packed, and texts always are, so remove it",
    ),
    (
        &["quantization_bit"],
        "set `load_in_4bit: true` or `load_in_8bit: true`",
    ),
    (
        &["<<"],
        "YAML's merge keys are not read, so write the keys out",
    ),
];

/// Types of data sets of other tools.
const TYPES: [(&[&str], &str); 3] = [
    (
        &[
            "alpaca",
            "alpaca_chat",
            "alpaca_instruct",
            "gpteacher",
            "oasst",
            "instruction",
            "sft",
        ],
        "rows of an instruction, an input and an output are `type: instruct`, which puts no words \
         of its own around them",
    ),
    (
        &[
            "completion",
            "pretrain",
            "pretraining",
            "plain_text",
            "raw",
            "txt",
            "pt",
        ],
        "texts that are learnt whole are `type: text`",
    ),
    (
        &[
            "chat_template",
            "sharegpt",
            "chat",
            "chatml",
            "messages",
            "openai",
            "conversation",
        ],
        "conversations are not read: write each as an instruction and its output, with `type: \
         instruct`",
    ),
];

/// What to do about a key of another tool.
pub(super) fn key(name: &str) -> Option<&'static str> {
    find(&KEYS, name)
}

/// What to do about a type of data set of another tool; a style after `.` or `:` is ignored.
pub(super) fn dataset_type(name: &str) -> Option<&'static str> {
    find(&TYPES, name.split(['.', ':']).next().unwrap_or(name))
}

fn find(table: &[(&[&str], &'static str)], name: &str) -> Option<&'static str> {
    let found = table.iter().find(|(names, _)| names.contains(&name));
    found.map(|(_, remedy)| *remedy)
}
