//! Keys and values of other tools in a job file, and what to write instead.

use concord_data::DatasetKind;

/// Keys of other tools whose names are unlike ours.
const KEYS: [(&[&str], &str); 19] = [
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
    (&["lr"], "set `learning_rate`"),
    (&["gradient_checkpointing"], "set `recompute`"),
    (
        &["noisy_embedding_alpha", "neftune_alpha"],
        "set `neftune_noise_alpha`",
    ),
    (&["label_smoothing"], "set `label_smoothing_factor`"),
    (
        &["resume_from_checkpoint"],
        "a job that is submitted again goes on where it was",
    ),
    (
        &["packing"],
        "set `sample_packing`; texts always fill their sequences",
    ),
    (
        &["quantization_bit"],
        "set `load_in_4bit: true` or `load_in_8bit: true`",
    ),
    (
        &[
            "wandb_project",
            "wandb_entity",
            "wandb_name",
            "wandb_run_id",
            "wandb_mode",
            "wandb_watch",
            "wandb_log_model",
            "use_wandb",
            "use_trackio",
            "trackio_project_name",
            "trackio_run_name",
            "trackio_space_id",
            "run_name",
        ],
        TRACKERS,
    ),
    (
        &["<<"],
        "YAML's merge keys are not read, so write the keys out",
    ),
];

/// What there is in place of W&B, trackio and their like.
pub(super) const TRACKERS: &str = "nothing is sent to a tracker: steps are logged in \
    output_dir/log.jsonl, and with `report_to: tensorboard` as event files, too, which W&B (`wandb \
    sync`) and trackio (`import_tf_events`) read";

/// Types of data sets of other tools.
const TYPES: [(&[&str], &str); 4] = [
    (
        &[
            "alpaca_chat",
            "alpaca_instruct",
            "alpaca_w_system",
            "gpteacher",
            "oasst",
            "instruction",
            "sft",
        ],
        "rows of an instruction, an input and an output are `type: alpaca` in the words of \
         Stanford's Alpaca, `type: alpaca_turns` in the model's chat template, and `type: \
         instruct` in no words but their own",
    ),
    (
        &["pretrain", "pretraining", "plain_text", "raw", "txt", "pt"],
        "texts that are learnt whole are `type: text` where they are joined, and `type: \
         completion` where each is a sequence for itself",
    ),
    (
        &[
            "chat",
            "chatml",
            "messages",
            "openai",
            "conversation",
            "conversational",
        ],
        "conversations are `type: chat_template`",
    ),
    (
        &["prompt-completion", "prompt_response", "input-output"],
        "these are `type: prompt_completion` and `type: input_output`",
    ),
];

/// What to do about a key of another tool.
pub(super) fn key(name: &str) -> Option<&'static str> {
    find(&KEYS, name)
}

/// What to do about a type of data set of another tool, which may have a style after `.` or `:`.
pub(super) fn dataset_type(name: &str) -> Option<&'static str> {
    let stem = name.split(['.', ':']).next().unwrap_or(name);
    match DatasetKind::NAMES.contains(&stem) && stem != name {
        true => Some("styles of a type are not known, so leave out what is behind its name"),
        false => find(&TYPES, stem),
    }
}

fn find(table: &[(&[&str], &'static str)], name: &str) -> Option<&'static str> {
    let found = table.iter().find(|(names, _)| names.contains(&name));
    found.map(|(_, remedy)| *remedy)
}
