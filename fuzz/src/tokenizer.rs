//! Tokenizers.

use std::fs;

use concord_text::TextTokenizer;

use crate::{fixtures, seeds};

/// Writes the first inputs. From then on a panic ends this process where it leaves [`read`] alone:
/// those of the library of tokenizers become errors, and libFuzzer would end at once.
pub fn write_seeds() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    fixtures::write_tokenizer(folder.path());
    let file = fs::read(folder.path().join("tokenizer.json")).expect("it was written");
    seeds::write("tokenizer", std::iter::once(file));
    std::panic::set_hook(Box::new(|_| {}));
}

/// Reads a `tokenizer.json`: it is taken, and then a text has tokens or an error; or it is refused
/// by name.
///
/// # Panics
/// Where it is neither.
pub fn read(input: &[u8]) {
    match TextTokenizer::from_bytes(input, None) {
        Ok(tokenizer) => {
            if let Ok(tokens) = tokenizer.encode("<s>caf\u{e9} 12\n", true) {
                let _ = tokenizer.decode(&tokens, true);
            }
            let _ = tokenizer.check(300);
        }
        Err(error) => {
            let message = error.to_string();
            assert!(message.contains("tokenizer"), "{message}");
        }
    }
}
