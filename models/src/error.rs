//! The one error of this crate: what was refused, where, and what would be accepted.

use std::path::{Path, PathBuf};

/// Why a model, an adapter or a data set cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The file system refused; also a full disk.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Io {
        /// What was being done, as a verb: `read`, `write`, `list`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file that must be JSON is not.
    #[error("{path}: not valid JSON: {reason}", path = path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The parser's message, with line and column.
        reason: String,
    },
    /// A key that the file must have is missing.
    #[error(
        "{path}: the key `{key}` is missing: take the file that was saved with the weights",
        path = path.display()
    )]
    MissingKey {
        /// The file.
        path: PathBuf,
        /// The key that is missing.
        key: &'static str,
    },
    /// A key has a value that cannot be used.
    #[error("{path}: `{key}` is {found}, but {expected}", path = path.display())]
    BadValue {
        /// The file.
        path: PathBuf,
        /// The key that has the value.
        key: &'static str,
        /// The value found, as JSON.
        found: String,
        /// The rule that the value breaks, as half a sentence.
        expected: String,
    },
    /// A key that is not read may change what the file means.
    #[error("{path}: `{key}` is {found}: {reason}", path = path.display())]
    UnusableKey {
        /// The file.
        path: PathBuf,
        /// The key that is not read.
        key: String,
        /// The value found, as JSON.
        found: String,
        /// Why it cannot be passed over, and what to do.
        reason: String,
    },
    /// The model is of a family that Concord does not compute.
    #[error(
        "{path}: the architecture `{found}` is not supported; supported are {known}: take a \
         model of one of them",
        path = path.display()
    )]
    UnknownArchitecture {
        /// The `config.json`.
        path: PathBuf,
        /// The architecture named there.
        found: String,
        /// The supported ones, comma-separated.
        known: String,
    },
    /// The activation of the feed-forward layer is one that Concord does not compute.
    #[error(
        "{path}: the activation `{found}` (`hidden_act`) is not supported; supported are `silu`, \
         `gelu`, `gelu_pytorch_tanh`, `quick_gelu`, `relu` and `relu2`: take a model that has one \
         of them",
        path = path.display()
    )]
    UnknownActivation {
        /// The `config.json`.
        path: PathBuf,
        /// The activation named there.
        found: String,
    },
    /// The rotary embedding is scaled in a way that Concord does not compute.
    #[error(
        "{path}: the RoPE type `{found}` is not supported; supported are default, \
         linear, dynamic, yarn, longrope and llama3: take a model that has one of them",
        path = path.display()
    )]
    UnsupportedRope {
        /// The `config.json`.
        path: PathBuf,
        /// The type named there.
        found: String,
    },
    /// A folder has a configuration but no weights.
    #[error(
        "{path}: no weights: neither model.safetensors nor model.safetensors.index.json is there, \
         nor pytorch_model.bin or its index{instead}",
        path = path.display()
    )]
    NoWeights {
        /// The folder.
        path: PathBuf,
        /// What is there instead and what to do with it, after a semicolon; or empty.
        instead: String,
    },
    /// A file is not valid safetensors: truncated, with overlapping tensors, or of another kind.
    #[error("{path}: not a usable safetensors file: {reason}", path = path.display())]
    BadWeightsFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file of `torch.save` is cut short, or holds something else than tensors.
    #[error("{path}: not a usable file of torch.save: {reason}", path = path.display())]
    BadPickle {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// What git keeps in place of a large file that it has not fetched.
    #[error(
        "{path}: a git-lfs pointer, which names the weights and has none: run `git lfs pull` in \
         its folder, or download the file",
        path = path.display()
    )]
    GitLfsPointer {
        /// The file.
        path: PathBuf,
    },
    /// A GGUF file is cut short, overlaps itself, or is not one.
    #[error("{path}: not a usable GGUF file: {reason}", path = path.display())]
    BadGguf {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// A part of a packed weight is not what its format needs.
    #[error("{path}: the tensor `{tensor}`: {reason}", path = path.display())]
    BadPackedTensor {
        /// The file.
        path: PathBuf,
        /// Its name in the file.
        tensor: String,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// A matrix cannot be quantised as it is read.
    #[error(
        "{path}: the tensor `{tensor}` cannot be quantised to {format}: {reason}",
        path = path.display()
    )]
    CannotQuantize {
        /// The file.
        path: PathBuf,
        /// Its name.
        tensor: String,
        /// The format of the blocks.
        format: &'static str,
        /// Why.
        reason: String,
    },
    /// A model cannot be written as a GGUF file.
    #[error("{path}: it cannot be written as GGUF: {reason}", path = path.display())]
    CannotExport {
        /// The folder of the model, or its file.
        path: PathBuf,
        /// What GGUF does not say, or is not written, and what to do.
        reason: String,
    },
    /// A tensor that the model needs is in none of its files.
    #[error(
        "{path}: the tensor `{tensor}` is missing: take the files again from where they were saved",
        path = path.display()
    )]
    MissingTensor {
        /// The file, or the folder where there are several.
        path: PathBuf,
        /// Its name in the file.
        tensor: String,
    },
    /// The tensor of a head that is not tied to the embedding is missing.
    #[error(
        "{path}: the tensor `lm_head.weight` is missing, and config.json does not say \
         tie_word_embeddings true: say so where the head is the embedding; otherwise take weights \
         that have a head",
        path = path.display()
    )]
    MissingHead {
        /// The file, or the index where there are several.
        path: PathBuf,
    },
    /// The weights have tensors that the configuration has no use for.
    #[error("{path}: {count} of its tensors would not be used, such as `{tensor}`: {reason}",
        path = path.display())]
    UnusedTensors {
        /// The file of the first of them.
        path: PathBuf,
        /// The first of them.
        tensor: String,
        /// How many there are.
        count: usize,
        /// What they are likely to be, and what to do.
        reason: String,
    },
    /// A tensor has another shape than the configuration says.
    #[error(
        "{path}: the tensor `{tensor}` has shape {found:?}, but config.json makes it {expected:?}: \
         take weights and config.json that were saved together",
        path = path.display()
    )]
    WrongShape {
        /// The file.
        path: PathBuf,
        /// Its name in the file.
        tensor: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape needed.
        expected: Vec<usize>,
    },
    /// A tensor has a number format that Concord does not read.
    #[error(
        "{path}: the tensor `{tensor}` is {found}; readable are {expected}: save it again in one \
         of them",
        path = path.display()
    )]
    WrongDtype {
        /// The file.
        path: PathBuf,
        /// Its name in the file.
        tensor: String,
        /// Its format.
        found: String,
        /// The formats accepted.
        expected: &'static str,
    },
    /// A weight is NaN or infinite, or does not fit the dtype in which it is to be written.
    #[error("{path}: {source}", path = path.display())]
    BadTensor {
        /// The file.
        path: PathBuf,
        /// Names the tensor and the element.
        source: concord_kernels::KernelError,
    },
    /// The device that computes fails.
    #[error(transparent)]
    Kernel(#[from] concord_kernels::KernelError),
    /// The tokenizer cannot be read, refuses a text, or is of another model.
    #[error(transparent)]
    Text(#[from] concord_text::TextError),
    /// An adapter uses something of PEFT that Concord does not compute.
    #[error(
        "{path}: the adapter option `{option}` is {found}, which is not supported: {remedy}",
        path = path.display()
    )]
    UnsupportedAdapter {
        /// The `adapter_config.json`.
        path: PathBuf,
        /// Its name in PEFT.
        option: String,
        /// Its value, as JSON.
        found: String,
        /// What to do instead.
        remedy: &'static str,
    },
    /// A name that no family has for a projection.
    #[error("`{found}` is not a projection that LoRA can adapt; {hint}")]
    UnknownProjection {
        /// The name given.
        found: String,
        /// The nearest one, or all of them.
        hint: String,
    },
    /// A data set was named that is neither a file here nor found on the hub.
    #[error("cannot find the data set `{name}`: there is no such file, and {reason}")]
    DataNotFound {
        /// The name given.
        name: String,
        /// Where it was searched for on the hub, and what the answer was.
        reason: String,
    },
    /// The tensors of an adapter are not those of updates of this model.
    #[error("{path}: it does not fit the model: {reason}", path = path.display())]
    OtherAdapter {
        /// The file of the tensors.
        path: PathBuf,
        /// The first tensor that does not fit, and what would do.
        reason: String,
    },
    /// A model was named that is neither a folder nor found on the hub.
    #[error("cannot find the model `{model}`: {reason}")]
    ModelNotFound {
        /// The name given.
        model: String,
        /// Where it was searched for, and what the answer was.
        reason: String,
    },
}

impl ModelError {
    /// Makes a [`ModelError::Json`] from a parser's error.
    pub(crate) fn json(path: &Path) -> impl FnOnce(serde_json::Error) -> ModelError + use<> {
        let path = path.to_path_buf();
        move |error| ModelError::Json {
            path,
            reason: error.to_string(),
        }
    }

    /// Makes a [`ModelError::Io`] from a system error.
    pub(crate) fn io(
        action: &'static str,
        path: &Path,
    ) -> impl FnOnce(std::io::Error) -> ModelError + use<> {
        let path = path.to_path_buf();
        move |source| ModelError::Io {
            action,
            path,
            source,
        }
    }
}

/// "did you mean `x`?" for the nearest of `known`, or all of them where none is near.
pub(crate) fn nearest_hint(found: &str, known: &[&str]) -> String {
    let nearest = known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(found, name), *name))
        .min()
        .filter(|(distance, _)| *distance <= 3);
    match nearest {
        Some((_, name)) => format!("did you mean `{name}`?"),
        None => format!("known are {}", known.join(", ")),
    }
}
