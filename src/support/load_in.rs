//! The options that quantise a model as it is read.

use std::path::Path;

use concord_kernels::packed::QuantFormat;
use concord_models::ModelError;
use concord_models::weights::ModelFolder;

/// The formats of `--load-in-4bit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum FourBits {
    /// The levels of bitsandbytes' NF4.
    Nf4,
    /// GGUF's Q4_K.
    #[value(name = "q4_k")]
    Q4K,
}

impl FourBits {
    /// The format of the blocks.
    pub fn format(self) -> QuantFormat {
        match self {
            Self::Nf4 => QuantFormat::Nf4,
            Self::Q4K => QuantFormat::Q4K,
        }
    }
}

/// Whether the model is quantised as it is read.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct LoadInArgs {
    /// Quantises the matrices of the layers to 4 bits as they are read: nf4 without a value.
    #[arg(
        long,
        value_name = "FORMAT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "nf4",
        conflicts_with = "load_in_8bit"
    )]
    pub load_in_4bit: Option<FourBits>,
    /// Quantises the matrices of the layers to 8 bits (Q8_0) as they are read.
    #[arg(long)]
    pub load_in_8bit: bool,
}

impl LoadInArgs {
    /// The format, where there is to be one.
    pub fn format(self) -> Option<QuantFormat> {
        let four = self.load_in_4bit.map(FourBits::format);
        four.or(self.load_in_8bit.then_some(QuantFormat::Q8_0))
    }
}

/// The option of [`LoadInArgs`] for a format.
pub fn option(format: QuantFormat) -> &'static str {
    match format {
        QuantFormat::Nf4 => "--load-in-4bit",
        QuantFormat::Q4K => "--load-in-4bit=q4_k",
        QuantFormat::Q8_0 => "--load-in-8bit",
    }
}

/// What the base model of a job was quantised to, by its keys and their values as text.
pub fn of_settings(settings: &[(String, String)]) -> Option<QuantFormat> {
    let is = |key: &str, value: &str| {
        let mut settings = settings.iter();
        settings.any(|(name, text)| name == key && text.trim_matches('"') == value)
    };
    match (is("load_in_4bit", "true"), is("load_in_8bit", "true")) {
        (true, _) if is("bnb_4bit_quant_type", "q4_k") => Some(QuantFormat::Q4K),
        (true, _) => Some(QuantFormat::Nf4),
        (false, true) => Some(QuantFormat::Q8_0),
        (false, false) => None,
    }
}

/// Opens a model, to be quantised as it is read where `format` says so.
///
/// # Errors
/// Naming the file and what is wrong with it, or the matrix that cannot be quantised.
pub fn open(path: &Path, format: Option<QuantFormat>) -> Result<ModelFolder, ModelError> {
    let folder = ModelFolder::open(path)?;
    match format {
        Some(format) => folder.quantized_to(format),
        None => Ok(folder),
    }
}
