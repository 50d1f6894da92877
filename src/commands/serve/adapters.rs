//! Adapters on the command line.

use std::path::PathBuf;
use std::str::FromStr;

/// An adapter on the command line: "NAME=FOLDER".
#[derive(Clone, Debug)]
pub struct NamedAdapter {
    /// The name of the model that requests ask for.
    pub name: String,
    /// A PEFT folder.
    pub folder: PathBuf,
}

impl FromStr for NamedAdapter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, folder)) if !name.is_empty() && !folder.is_empty() => Ok(Self {
                name: name.to_string(),
                folder: folder.into(),
            }),
            _ => Err(format!("'{text}': NAME=FOLDER, such as poet=out/poet")),
        }
    }
}
