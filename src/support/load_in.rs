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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::Args)]
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

    /// What the settings of a job say, which are its keys and their values; `None` where they do
    /// not have the keys.
    pub fn of_settings(settings: &[(String, String)]) -> Option<Self> {
        let of = |key: &str| {
            let found = settings.iter().find(|(name, _)| name == key);
            found.map(|(_, value)| value.trim_matches('"'))
        };
        let (four, eight) = (of("load_in_4bit")?, of("load_in_8bit")?);
        let format = match of("bnb_4bit_quant_type") {
            Some("q4_k") => FourBits::Q4K,
            _ => FourBits::Nf4,
        };
        Some(Self {
            load_in_4bit: (four == "true").then_some(format),
            load_in_8bit: eight == "true",
        })
    }

    /// How the model is, as a part of a sentence.
    pub fn in_words(self) -> String {
        match self.format() {
            None => "as its files have it".to_string(),
            Some(format) => format!("quantised to {}", format.blocks().name()),
        }
    }

    /// The options of a command line that give it.
    pub fn options(self) -> &'static str {
        match (self.load_in_4bit, self.load_in_8bit) {
            (Some(FourBits::Nf4), _) => "--load-in-4bit=nf4",
            (Some(FourBits::Q4K), _) => "--load-in-4bit=q4_k",
            (None, true) => "--load-in-8bit",
            (None, false) => "no option --load-in",
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_a_job_say_how_its_model_was_read() {
        let of = |four: &str, kind: &str, eight: &str| {
            let keys = ["load_in_4bit", "bnb_4bit_quant_type", "load_in_8bit"];
            let settings = keys.iter().zip([four, kind, eight]);
            let settings = settings.map(|(key, value)| (key.to_string(), value.to_string()));
            LoadInArgs::of_settings(&settings.collect::<Vec<_>>()).unwrap()
        };
        assert_eq!(of("false", "nf4", "false"), LoadInArgs::default());
        assert_eq!(of("true", "nf4", "false").options(), "--load-in-4bit=nf4");
        assert_eq!(
            of("true", "\"q4_k\"", "false").format(),
            Some(QuantFormat::Q4K)
        );
        assert_eq!(of("false", "nf4", "true").format(), Some(QuantFormat::Q8_0));
        assert_eq!(LoadInArgs::of_settings(&[]), None);
    }
}
