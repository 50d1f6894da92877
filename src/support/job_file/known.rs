//! Every key of a job file: its meaning, its allowed values, and its default. Job files are read by
//! this table, and `concord train --keys` prints it.

use std::fmt;

use concord_data::DatasetKind;
use concord_proto::limits::{MICROBATCHES_MAX, STEPS_MAX};

/// Where a key belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    /// The top level of the file.
    Job,
    /// An entry of `datasets`.
    Dataset,
    /// The mapping `precision`.
    Precision,
}

/// The allowed values of a key.
#[derive(Clone, Copy, Debug)]
pub(super) enum Allowed {
    /// A text that is not empty.
    Text,
    /// A path; `~/` is the home directory.
    Path,
    /// A path, or a name on the Hugging Face hub.
    Model,
    /// A list of texts.
    Names,
    /// `true` or `false`.
    Flag,
    /// One of a few words.
    Words(&'static [&'static str]),
    /// A whole number from the first to the second.
    Whole(u32, u32),
    /// The same, or this word.
    WholeOr(u32, u32, &'static str),
    /// A whole number of 64 bits.
    Seed,
    /// A number above 0.
    Positive,
    /// A number, 0 or more.
    NotNegative,
    /// A share below 1, or a whole number.
    ShareOrCount,
    /// A number from 0 to 1.
    Share(Ends),
    /// 8, 14 or 16.
    Bits,
    /// Names of modules, or an expression for them.
    Modules,
    /// Indices of layers, or one.
    Layers,
    /// Texts, or one.
    NameOrNames,
    /// A mapping from expressions to ranks.
    Ranks,
    /// A mapping from expressions to numbers above 0.
    Alphas,
    /// Numbers above 0 that add up to 1.
    Shares,
    /// A list of mappings.
    Mappings,
    Mapping,
}

/// Which ends of the range from 0 to 1 belong to it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ends {
    /// 0, but not 1.
    Lower,
    /// 1, but not 0.
    Upper,
    /// 0 and 1.
    Both,
}

/// What an absent key means.
#[derive(Clone, Copy, Debug)]
pub(super) enum Absent {
    /// The file is refused.
    Refused,
    /// This value, as YAML.
    Is(&'static str),
    /// What the text says.
    Means(&'static str),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    /// Where it belongs.
    pub section: Section,
    pub name: &'static str,
    /// Its allowed values.
    pub allowed: Allowed,
    /// What its absence means.
    pub absent: Absent,
    /// What it does.
    pub meaning: &'static str,
}

use Absent::{Is, Means, Refused};
use Allowed::*;
use Section::{Dataset, Job, Precision};

const fn key(
    section: Section,
    name: &'static str,
    allowed: Allowed,
    absent: Absent,
    meaning: &'static str,
) -> Key {
    Key {
        section,
        name,
        allowed,
        absent,
        meaning,
    }
}

/// Names of other tools: AdamW, with moments of f32 twice, then of 8 bits; Lion, with a momentum of
/// f32 twice, then of 8 bits; gradient descent.
const OPTIMIZERS: [&str; 11] = [
    "adamw_torch",
    "adamw_torch_fused",
    "adamw_8bit",
    "adamw_torch_8bit",
    "adamw_bnb_8bit",
    "paged_adamw_8bit",
    "lion_32bit",
    "paged_lion_32bit",
    "lion_8bit",
    "paged_lion_8bit",
    "sgd",
];

/// What has no weight decay.
const EXEMPT: [&str; 2] = ["none", "norms_and_biases"];

/// The curves of the learning rate.
pub(super) const CURVES: [&str; 8] = [
    "cosine",
    "linear",
    "constant",
    "cosine_from_zero",
    "linear_from_zero",
    "constant_with_warmup",
    "inverse_sqrt",
    "rex",
];

/// The word for a sequence length that the data decide.
pub(super) const LONGEST: &str = "longest";

/// Every key, in the order of the help page.
#[rustfmt::skip]
pub(super) const KEYS: [Key; 101] = [
    key(Job, "base_model", Model, Refused, "the model that is tuned"),
    key(Job, "load_in_4bit", Flag, Means("false, but true with adapter: qlora"),
        "whether the matrices of the layers are quantised to 4 bits as they are read: QLoRA; what \
         is trained and proven is an adapter of that model"),
    key(Job, "bnb_4bit_quant_type", Words(&["nf4", "q4_k"]), Is("nf4"),
        "the format of load_in_4bit: bitsandbytes' NF4, or GGUF's Q4_K"),
    key(Job, "load_in_8bit", Flag, Is("false"), "the same, to 8 bits: GGUF's Q8_0"),
    key(Job, "datasets", Mappings, Refused,
        "the data, one mapping for each data set; they are joined in this order, unless \
        mix_strategy says otherwise"),
    key(Dataset, "path", Path, Refused,
        "a file, a folder of files, a pattern with * and ?, or owner/name of the Hugging Face hub; \
        rows are read from .jsonl, .json, .csv, .tsv and (with the feature `parquet`) .parquet; \
        any but this also in .gz or .zst"),
    key(Dataset, "type", Words(&DatasetKind::NAMES), Refused,
        "text: documents, a .txt file or rows, joined and cut; completion: each row is learnt for \
        itself; instruct: rows of an instruction, an optional input and an output, of which only \
        the output is learnt; each is a line, without the model's chat template; alpaca: the same \
        in the words of Stanford's Alpaca; alpaca_turns: the same as turns of a conversation, in \
        the model's chat template; chat_template: lists of messages; sharegpt: the same as \
        `conversations` of `from` and `value`; prompt_completion: `prompt` and `completion`, two \
        texts or two lists of messages; input_output: `segments` of `text` and `label`; tokens: \
        rows of `input_ids` and `labels`, or a safetensors file with one tensor `tokens`, I64 \
        [step, microbatch, batch, sequence]"),
    key(Dataset, "name", Text, Means("the configuration default, or the only one"),
        "of a set of the hub: the name of its configuration"),
    key(Dataset, "revision", Text, Is("main"),
        "of a set of the hub: a branch, a tag or a commit"),
    key(Dataset, "data_files", Names, Means("the files of the split"),
        "of a folder or a set of the hub: the files that are meant, by patterns with * and ?"),
    key(Dataset, "split", Text, Means("all rows; a folder with files of several splits is \
        refused, and of a set of the hub it is train"),
        "which rows are taken: train, train[:10%], train[1000:2000], train[-100:]; of a folder \
        those files that have the word in their names"),
    key(Dataset, "weight", Share(Ends::Upper), Is("1"),
        "the share of these rows that is drawn, by seed; rounded down"),
    key(Dataset, "shards", Whole(1, u32::MAX), Is("1"),
        "into how many parts these rows are divided, after a shuffle by seed; one is taken"),
    key(Dataset, "shards_idx", Whole(0, u32::MAX), Is("0"), "which one, from 0"),
    key(Dataset, "max_samples", Whole(1, u32::MAX), Means("all rows"),
        "so many of these rows, the first"),
    key(Dataset, "field", Text, Is("text"),
        "for text in rows and completion: the field of the document"),
    key(Dataset, "field_instruction", Text, Means("instruction; prompt for prompt_completion"),
        "for rows of an instruction or a prompt: its field"),
    key(Dataset, "field_input", Text, Is("input"),
        "for rows of an instruction: the field of the input, which follows it; rows may lack it"),
    key(Dataset, "field_output", Text, Means("output; completion for prompt_completion"),
        "for rows of an instruction or a prompt: the field of the answer"),
    key(Dataset, "format", Text, Means("{instruction} and {input}, a line each"),
        "for instruct: the prompt, with {instruction} and {input} in it; a brace is written twice"),
    key(Dataset, "no_input_format", Text, Means("what format says"),
        "for instruct: the same for rows without an input"),
    key(Dataset, "field_messages", Text, Means("messages; conversations for sharegpt"),
        "for conversations: the field of the list of messages"),
    key(Dataset, "message_property_mappings", Mapping,
        Means("role: role and content: content; from and value for sharegpt"),
        "for conversations: the fields within messages, by the names that the chat template has"),
    key(Dataset, "message_field_training", Text, Means("roles_to_train alone counts"),
        "for conversations: the field within messages that says whether one is learnt"),
    key(Dataset, "roles", Mapping, Means("user: [user, human], assistant: [assistant, gpt], \
        system, tool: [tool, observation]"),
        "for conversations: names of roles, as lists by the role that they mean"),
    key(Dataset, "roles_to_train", Names, Means("assistant"),
        "for conversations: roles whose turns are learnt"),
    key(Dataset, "train_on_eos", Words(&["turn", "all", "last", "none"]), Is("turn"),
        "for conversations: which tokens that end a turn are learnt: of turns that are learnt, of \
        all, of the last one, of none; refused for a template with {% generation %}"),
    key(Dataset, "train_on_inputs", Flag, Is("false"),
        "whether prompts are learnt, too; by default answers alone are"),
    key(Dataset, "eot_tokens", Names, Means("the end tokens of the model alone"),
        "for conversations: tokens that end turns, too"),
    key(Dataset, "drop_system_message", Flag, Is("false"),
        "for conversations: whether a system message in front is left out"),
    key(Dataset, "mask_history", Flag, Is("false"),
        "for conversations: whether only the last of the turns is learnt that would be"),
    key(Dataset, "chat_template", Text, Means("that of the model (tokenizer_default)"),
        "for conversations: the path of a .jinja file, the text of a template, or a name: chatml, \
        gemma, gemma3, llama3, mistral_v1, mistral_v2v3, mistral_v3_tekken, mistral_v7_tekken, \
        phi_3, phi_35, phi_4, qwen3, qwen_25"),
    key(Dataset, "chat_template_kwargs", Mapping, Means("none"),
        "for conversations: variables for the chat template, such as enable_thinking"),
    key(Dataset, "excess_length_strategy",
        Words(&["truncate", "drop", "split", "error", "shorten_turns"]),
        Means("truncate; split for completion"),
        "what becomes of an example that is longer than sequence_len: its end is cut off, it is \
        left out, it becomes several sequences, the job is refused, or each question and each \
        answer loses its end, as in LLaMA-Factory"),
    key(Dataset, "ignore_fields", Names, Means("every field must be used, or known to hold \
        nothing to learn"), "fields of rows and messages to leave out on purpose"),
    key(Dataset, "columns", Names, Means("what ignore_fields says"),
        "fields of rows to keep; all others are left out on purpose"),
    key(Job, "mix_strategy", Words(&["concat", "interleave_under", "interleave_over"]),
        Is("concat"),
        "how data sets are put together: joined; or alternating, sequence by sequence, until one \
        is taken whole, or until all are, where those that end earlier begin anew; all tokens \
        are in memory while that is done"),
    key(Job, "interleave_probs", Shares, Means("they take turns"),
        "how often each data set is next, drawn by seed"),
    key(Job, "adapter", Words(&["lora", "qlora", "full"]), Is("lora"),
        "what is trained: a LoRA adapter, one on a base of 4 bits (load_in_4bit, which it \
         implies), or every weight"),
    key(Job, "lora_r", Whole(1, 4_096), Means("8, or that of initial_adapter"),
        "rank of the adapter"),
    key(Job, "lora_alpha", Positive, Means("16, or that of initial_adapter"),
        "the adapter is scaled by lora_alpha / lora_r"),
    key(Job, "lora_target_modules", Modules,
        Means("all of the model, or those of initial_adapter"),
        "projections that are adapted: of most families q_proj, k_proj, v_proj, o_proj, gate_proj, \
         up_proj, down_proj; docs/families.md has the names of the others; or modules, by their \
         names or the ends of these"),
    key(Job, "lora_dropout", Share(Ends::Lower), Is("0"),
        "the share of the adapter's inputs that is dropped in training, as PEFT does it; rounded \
         to 1/65,536"),
    key(Job, "lora_exclude_modules", Modules, Means("none"), "modules of these without an update"),
    key(Job, "peft_layers_to_transform", Layers, Means("all"), "layers that are adapted"),
    key(Job, "peft_layers_pattern", NameOrNames, Means("any"),
        "for peft_layers_to_transform: the name of the list of layers within the model"),
    key(Job, "lora_rank_pattern", Ranks, Means("lora_r for all"),
        "other ranks: the first expression that fits the end of a module's name decides"),
    key(Job, "lora_alpha_pattern", Alphas, Means("lora_alpha for all"),
        "other values of lora_alpha, likewise"),
    key(Job, "peft_use_rslora", Flag, Is("false"),
        "whether updates are scaled by lora_alpha / sqrt(rank) instead"),
    key(Job, "peft_use_dora", Flag, Is("false"),
        "whether each row of an adapted matrix is brought to a length that is trained (DoRA)"),
    key(Job, "lora_modules_to_save", NameOrNames, Means("none"),
        "modules that are trained whole beside the adapter, and saved with it: ends of names, such \
         as lm_head, embed_tokens or norm"),
    key(Job, "initial_adapter", Path, Means("a fresh adapter, drawn from seed"),
        "a PEFT folder from which the training starts"),
    key(Job, "sequence_len", WholeOr(2, 1 << 20, LONGEST), Refused,
        "tokens of a sequence; longest: as many as the longest example has, at most those that the \
        model knows; what becomes of longer examples: see excess_length_strategy"),
    key(Job, "sample_packing", Flag, Is("false"),
        "whether short examples share a sequence; each is computed as if it were alone"),
    key(Job, "micro_batch_size", Whole(1, 65_536), Is("1"), "sequences of a microbatch"),
    key(Job, "gradient_accumulation_steps", Whole(1, MICROBATCHES_MAX), Is("1"),
        "microbatches of a step, over all replicas"),
    key(Job, "max_steps", Whole(1, STEPS_MAX), Means("what num_epochs gives"),
        "steps; with num_epochs, the most"),
    key(Job, "num_epochs", Positive, Means("as many as max_steps takes"),
        "passes over the data: steps are their sequences, times the passes, divided by those of a \
         step, rounded up"),
    key(Job, "learning_rate", Share(Ends::Upper), Refused, "the peak of the learning rate"),
    key(Job, "lr_scheduler", Words(&CURVES), Is("cosine"),
        "the curve of the learning rate after the warm-up; the first three, and rex, which is \
         Axolotl's, begin warm-up above 0, the others, which are those of Hugging Face, at 0"),
    key(Job, "min_lr_ratio", Share(Ends::Both), Is("0"),
        "for cosine_from_zero and rex: the share of the peak where the curve ends"),
    key(Job, "loraplus_lr_ratio", Positive, Means("1: all tensors have one rate"),
        "the learning rate of the matrices B of the adapter, and of what has one dimension, over \
         that of the rest (LoRA+, whose authors propose 16)"),
    key(Job, "warmup_steps", Whole(0, STEPS_MAX), Is("0"), "steps of warm-up, at most max_steps"),
    key(Job, "warmup_ratio", Share(Ends::Both), Means("what warmup_steps says"),
        "the same, as a share of the steps, rounded up"),
    key(Job, "optimizer", Words(&OPTIMIZERS), Is("adamw_torch"),
        "AdamW, whose moments lie in memory and in checkpoints as f32 (the first two words), or in \
         8 bits (the next four), by Concord's own definition: NUMERICS.md, section 6; Lion, which \
         keeps one moment, likewise; or gradient descent, which keeps one if there is momentum"),
    key(Job, "adam_beta1", Share(Ends::Lower), Is("0.9"),
        "decay of AdamW's first moment, or the share of Lion's in its direction"),
    key(Job, "adam_beta2", Share(Ends::Lower), Is("0.999"),
        "decay of AdamW's second moment, or of Lion's only one, for which its paper has 0.99"),
    key(Job, "adam_epsilon", Share(Ends::Upper), Is("1e-8"),
        "added to the square root of AdamW's second moment"),
    key(Job, "momentum", Share(Ends::Lower), Is("0"), "decay of the momentum of sgd"),
    key(Job, "nesterov", Flag, Is("false"), "whether sgd looks ahead along its momentum"),
    key(Job, "weight_decay", Share(Ends::Both), Is("0"),
        "decay of what is trained: decoupled from the gradient, but with sgd, where it is added"),
    key(Job, "weight_decay_exempt", Words(&EXEMPT), Is("none"),
        "what has no weight decay: norms_and_biases are what the trainer of Hugging Face spares"),
    key(Job, "max_grad_norm", NotNegative, Is("1"),
        "the global norm to which gradients are clipped; 0 turns clipping off"),
    key(Job, "neftune_noise_alpha", NotNegative, Is("0"),
        "noise on embeddings in training (NEFTune): uniform, up to alpha / sqrt(tokens of the \
        example * hidden size)"),
    key(Job, "label_smoothing_factor", Share(Ends::Lower), Is("0"),
        "the share of each target that is spread over the vocabulary; the loss that is shown has \
        it"),
    key(Job, "z_loss", NotNegative, Is("0"),
        "the factor on the squared log-sum-exp of the logits that is added to the loss of a token"),
    key(Job, "seed", Seed, Is("42"),
        "the seed of the order of sequences, of a fresh adapter, of dropout and noise"),
    key(Job, "shuffle", Flag, Means("true; false for a file of tokens"),
        "whether each round of the data has a new order of sequences"),
    key(Job, "output_dir", Path, Refused, "the folder of the result and its proof"),
    key(Job, "save_steps", Whole(1, STEPS_MAX), Is("10"),
        "steps between two checkpoints, from which an interrupted job goes on"),
    key(Job, "save_strategy", Words(&["steps", "epoch", "no"]), Is("steps"),
        "when a checkpoint is also written as a folder checkpoint-N in output_dir, an adapter or a \
        model with trainer_state.json: after save_steps and at the end, each epoch, or never"),
    key(Job, "saves_per_epoch", Positive, Means("what save_steps says"),
        "checkpoints of each epoch, instead of save_steps"),
    key(Job, "save_total_limit", Whole(0, STEPS_MAX), Is("2"),
        "the most folders checkpoint-N that are kept, the newest; 0 keeps all"),
    key(Job, "replay_steps", Whole(0, STEPS_MAX),
        Means("for an adapter 20 segments, of 50 steps or more and of states of at most 1 GiB in \
        all; 0 with `adapter: full`"),
        "steps between two states, tensors and moments, that are kept in the proof: anyone can \
        compute what lies between two of them again (`concord verify --replay`); 0 keeps none, and \
        the job can be replayed as a whole alone"),
    key(Job, "report_to", Words(&["none", "tensorboard"]), Is("none"),
        "where steps are written besides output_dir/log.jsonl: tensorboard makes event files"),
    key(Job, "logging_dir", Path, Means("runs in output_dir"),
        "for report_to: tensorboard: the folder of the event files"),
    key(Job, "val_set_size", ShareOrCount, Means("nothing is held out"),
        "how much of the data is held out, and never learnt: a share, rounded up, or so many \
        examples, drawn by seed"),
    key(Job, "test_datasets", Mappings, Means("what val_set_size says"),
        "data sets that are held out in its place, with the keys of datasets"),
    key(Job, "eval_steps", ShareOrCount, Means("the end of the job"),
        "steps between two evaluations, which take the loss on what is held out, or a share of \
        the steps, not 0; after the last step there is one in any case"),
    key(Job, "evals_per_epoch", Positive, Means("what eval_steps says"),
        "evaluations in each pass over the data"),
    key(Job, "eval_batch_size", Whole(1, 65_536), Means("micro_batch_size, or what makes 4,096 \
        microbatches"), "sequences of a microbatch of an evaluation"),
    key(Job, "eval_on_start", Flag, Is("false"), "whether there is one before the first step"),
    key(Job, "load_best_model_at_end", Flag, Is("false"),
        "whether the result is the state with the lowest loss on what is held out, and not the \
        last one"),
    key(Job, "early_stopping_patience", Whole(1, STEPS_MAX), Means("all steps are done"),
        "the job ends after so many evaluations in a row without a lower loss"),
    key(Job, "early_stopping_threshold", NotNegative, Is("0"),
        "by how much a loss must be lower to count as lower, in nats"),
    key(Job, "loss_watchdog_threshold", Positive, Means("no loss is too high"),
        "the job fails after steps with a loss above this"),
    key(Job, "loss_watchdog_patience", Whole(1, STEPS_MAX), Is("3"), "so many of them in a row"),
    key(Job, "precision", Mapping, Means("both keys below have their values"),
        "bits of the operands of matrix products"),
    key(Precision, "weights", Bits, Is("16"), "bits of a weight"),
    key(Precision, "activations", Bits, Is("16"), "bits of an activation"),
    key(Job, "recompute", Flag, Is("false"),
        "whether each layer is computed again on the way back: less memory, a third more work"),
];

impl Section {
    pub(super) fn keys(self) -> impl Iterator<Item = &'static Key> {
        KEYS.iter().filter(move |key| key.section == self)
    }

    /// Where its keys belong, as text.
    pub(super) fn place(self) -> &'static str {
        match self {
            Job => "the top level of the file",
            Dataset => "an entry of `datasets`",
            Precision => "`precision`",
        }
    }

    /// The prefix of its keys.
    pub(super) fn prefix(self) -> &'static str {
        match self {
            Job => "",
            Dataset => "datasets[].",
            Precision => "precision.",
        }
    }
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Text => f.write_str("a text"),
            Path => f.write_str("a path"),
            Model => f.write_str("a model folder, or owner/name of the Hugging Face hub"),
            Names => f.write_str("a list of names"),
            Modules => f.write_str(
                "a list of at least one name, all-linear, or a regular expression for whole names",
            ),
            Layers => f.write_str("the index of a layer, or a list of such"),
            NameOrNames => f.write_str("a name, or a list of names"),
            Ranks => f.write_str("a mapping of names of modules to whole numbers above 0"),
            Alphas => f.write_str("a mapping of names of modules to numbers above 0"),
            Flag => f.write_str("true or false"),
            Words(words) => write!(f, "one of {}", words.join(", ")),
            Whole(first, last) => write!(f, "a whole number from {first} to {last}"),
            WholeOr(first, last, word) => {
                write!(f, "a whole number from {first} to {last}, or {word}")
            }
            Seed => f.write_str("a whole number from 0 to 2^64 - 1"),
            Positive => f.write_str("a number above 0"),
            NotNegative => f.write_str("a number, 0 or more"),
            ShareOrCount => f.write_str("a share below 1, or a whole number"),
            Share(Ends::Lower) => f.write_str("0 or more, and below 1"),
            Share(Ends::Upper) => f.write_str("above 0, and at most 1"),
            Share(Ends::Both) => f.write_str("from 0 to 1"),
            Bits => f.write_str("one of 8, 14 and 16 (bits)"),
            Shares => f.write_str("a list of numbers above 0 that add up to 1"),
            Mappings => f.write_str("a list of mappings"),
            Mapping => f.write_str("a mapping of keys"),
        }
    }
}
