//! The tools whose job files are read.

/// A tool that reads job files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tool {
    /// Concord itself.
    Concord,
    /// Axolotl.
    Axolotl,
    /// TRL and transformers, as the alignment-handbook uses them.
    Trl,
    /// LLaMA-Factory.
    LlamaFactory,
    /// torchtune.
    Torchtune,
    /// Unsloth Studio.
    Unsloth,
}

impl Tool {
    /// All, in the order of the reference.
    pub const ALL: [Self; 6] = [
        Self::Concord,
        Self::Axolotl,
        Self::Trl,
        Self::LlamaFactory,
        Self::Torchtune,
        Self::Unsloth,
    ];

    /// Its name in texts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Concord => "Concord",
            Self::Axolotl => "Axolotl",
            Self::Trl => "TRL",
            Self::LlamaFactory => "LLaMA-Factory",
            Self::Torchtune => "torchtune",
            Self::Unsloth => "Unsloth Studio",
        }
    }

    /// Its name on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Concord => "concord",
            Self::Axolotl => "axolotl",
            Self::Trl => "trl",
            Self::LlamaFactory => "llama-factory",
            Self::Torchtune => "torchtune",
            Self::Unsloth => "unsloth",
        }
    }
}
