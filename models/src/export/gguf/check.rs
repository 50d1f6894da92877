//! Whether a file says of a model what the model is: its head is read again, before the numbers
//! are written.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use serde_json::{Map, Value};

use crate::config::DecoderConfig;
use crate::error::ModelError;
use crate::json::shown;
use crate::weights::{ModelFolder, alike};

/// Texts on which two tokenizers differ if they differ at all: words, numbers, white space, other
/// scripts, bytes that are in no word.
const TEXTS: [&str; 6] = [
    "Once upon a time, there was a girl who couldn't swim; she'd 1,234,567 reasons.",
    "  two  spaces\n\n\tand tabs \r\n end ",
    "fn main() { let x = [1, 2]; println!(\"{x:?}\"); } // HTTPServer 3.14159e-10",
    "\u{4f60}\u{597d}\u{ff0c}\u{4e16}\u{754c} \u{3053}\u{3093} \u{440}\u{443}\u{441}\u{441}",
    "caf\u{e9} cafe\u{301} na\u{ef}ve \u{1f600}\u{1f469}\u{200d}\u{1f4bb}",
    "\u{0}\u{7f}\u{fffd}",
];

/// What to do where GGUF cannot say it.
const INSTEAD: &str = "use the folder that `concord merge` writes, as safetensors";

/// Writes a file with the head of a model beside `path`, and reads it as a model.
///
/// # Errors
/// [`ModelError::CannotExport`] naming what it would say otherwise.
pub(super) fn check(
    path: &Path,
    head: &[u8],
    size: u64,
    folder: &ModelFolder,
) -> Result<(), ModelError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let path = &path.with_file_name(format!(".{name}.{}.head", std::process::id()));
    let io = || ModelError::io("write", path);
    // The numbers are a hole of the file, and no room is taken for them.
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(head)?;
        file.set_len(size)
    };
    let checked = write().map_err(io()).and_then(|()| said(path, folder));
    // What cannot be removed was not made, and that error is the one to report.
    let _ = fs::remove_file(path);
    checked
}

fn said(path: &Path, folder: &ModelFolder) -> Result<(), ModelError> {
    let cannot = |reason: String| ModelError::CannotExport {
        path: folder.dir().to_path_buf(),
        reason,
    };
    let file = ModelFolder::open(path)?;
    if let Some((key, ours, theirs)) = difference(folder.config(), file.config()) {
        return Err(cannot(format!(
            "its `{key}` is {ours}, and of such a file llama.cpp would compute with {theirs}: \
             {INSTEAD}"
        )));
    }
    let (ours, theirs) = (folder.tokenizer()?, file.tokenizer()?);
    for text in TEXTS {
        if ours.encode(text, true)? != theirs.encode(text, true)? {
            return Err(cannot(format!(
                "the tokenizer of such a file would cut {text:?} into other tokens than the \
                 model's: {INSTEAD}"
            )));
        }
    }
    Ok(())
}

/// The first field in which two configurations differ, and its values.
fn difference(ours: &DecoderConfig, theirs: &DecoderConfig) -> Option<(String, String, String)> {
    let fields = |config: &DecoderConfig| -> Map<String, Value> {
        serde_json::from_str(&config.canonical()).unwrap_or_default()
    };
    let (ours, theirs) = (fields(ours), fields(theirs));
    // Numbers are f32 in GGUF.
    let differs = |(key, value): &(&String, &Value)| !alike(Some(*value), theirs.get(*key));
    let (key, value) = ours.iter().find(differs)?;
    let other = theirs.get(key).unwrap_or(&Value::Null);
    Some((key.clone(), shown(value), shown(other)))
}
