//! What Concord does not compute, or what only some tools can ask for, each in one place: all
//! tables name these. Once it is computed, the constant becomes [`Treat::Same`] or [`Treat::Read`].

use super::Treat::{self, Idle, Read, Refuse, Same, Unless};

const OFF: &[&str] = &["false", "0", "none", "no", ""];

/// Dropout within adapters.
pub const DROPOUT: Treat = Read("`lora_dropout`; 0 if absent");

/// Dropout of adapters of an embedding.
pub const EMBEDDING_DROPOUT: Treat = Unless {
    values: &["0"],
    else_: "embeddings have no adapter whose inputs could be dropped: remove it",
    set: "0",
};

/// Several examples in a sequence, each as if it were alone.
pub const PACKING: Treat = Same("sample_packing");

/// Other ways to put examples together.
pub const OTHER_PACKING: Treat = Unless {
    values: OFF,
    else_: "examples share a sequence by sample_packing alone: remove it",
    set: "null",
};

/// Other measures than the loss.
pub const EVALUATION: Treat = Unless {
    values: OFF,
    else_: "the loss on held-out rows is the only measure: remove it",
    set: "null",
};

/// DoRA.
pub const DORA: Treat = Read("`peft_use_dora`");

/// LoftQ, PiSSA and other ways to begin an adapter.
pub const FIRST_VALUES: Treat = Unless {
    values: &["false", "true", ""],
    else_: "an adapter begins as PEFT's does by default, and in no other way: remove it",
    set: "null",
};

/// Noise on embeddings.
pub const NOISE: Treat = Same("neftune_noise_alpha");

/// LoRA+.
pub const B_RATE: Treat = Read("`loraplus_lr_ratio`");

/// LoRA+ for adapters of embeddings.
pub const EMBEDDING_RATE: Treat = Idle("embeddings have no adapter, whose rate it would be");

/// Rates of their own for other tensors than those of LoRA+.
pub const RATES: Treat = Unless {
    values: &[""],
    else_: "all tensors but those of loraplus_lr_ratio have one learning rate: remove it",
    set: "null",
};

/// Rows of the embedding that are trained alone.
pub const SOME_TOKENS: Treat = Unless {
    values: &[""],
    else_: "the embedding is trained whole (lora_modules_to_save), or not: remove it",
    set: "null",
};

/// Layers that are there several times.
pub const REPEATED_LAYERS: Treat = Unless {
    values: &[""],
    else_: "the model has each of its layers once: remove it",
    set: "null",
};

/// Adapters on tensors that are no module of their own.
pub const PARAMETERS: Treat = Unless {
    values: &[""],
    else_: "adapters are on projections: remove it, and name these in lora_target_modules",
    set: "null",
};

/// Training of some tensors alone.
pub const SOME_WEIGHTS: Treat = Unless {
    values: &["false", "", "0"],
    else_: "every weight is trained, or an adapter, but not some weights alone: remove it",
    set: "null",
};

/// Attention within shifted groups of tokens (LongLoRA).
pub const SHIFTED_ATTENTION: Treat = Unless {
    values: OFF,
    else_: "attention goes over all tokens before: shifted groups give another model; set it to \
            false",
    set: "false",
};

/// Batches of like length.
pub const BY_LENGTH: Treat = Unless {
    values: OFF,
    else_: "examples are not ordered by length: turn it off",
    set: "false",
};

/// New entries of the vocabulary.
pub const NEW_TOKENS: Treat = Unless {
    values: &["", "false"],
    else_: "the vocabulary stays as it is: add tokens to the model first, and remove this",
    set: "null",
};

/// Going on from a checkpoint.
pub const RESUME: Treat = Unless {
    values: OFF,
    else_: "a job that is run again goes on from its newest checkpoint by itself: remove it",
    set: "null",
};

/// Trackers of experiments, to which nothing is sent.
pub const TRACKERS: Treat = Idle(
    "nothing is sent to a tracker: steps are logged in \
    output_dir/log.jsonl, and with TensorBoard turned on as event files, too, which W&B (`wandb \
    sync`) and trackio (`import_tf_events`) read",
);

/// Losses of other kinds.
pub const LOSS: Treat = Unless {
    values: OFF,
    else_: "the loss is the cross-entropy of the next token: remove it",
    set: "null",
};

/// Label smoothing.
pub const SMOOTHING: Treat = Same("label_smoothing_factor");

/// Constants of optimizers that are not there.
pub const OTHER_OPTIMIZERS: Treat = Unless {
    values: OFF,
    else_: "no optimizer here has such a constant: remove it",
    set: "null",
};

/// Losses on the router of a model with experts.
pub const ROUTER_LOSS: Treat = Unless {
    values: OFF,
    else_: "no loss is put on the router of experts: remove it",
    set: "null",
};

/// Preference and reward training.
pub const PREFERENCE: Treat =
    Refuse("only supervised fine-tuning is computed, no preference, reward or policy training");

/// Images and sounds.
pub const MEDIA: Treat = Unless {
    values: OFF,
    else_: "texts alone are learnt, no images, videos or sounds: remove it for a data set of texts",
    set: "null",
};

/// Training with rounded weights in mind.
pub const ROUNDED_TRAINING: Treat =
    Refuse("training with fake-quantised weights is not computed: remove it");
