//! The first inputs of a target.

use std::fs;
use std::path::Path;

/// Writes the inputs to the folder that libFuzzer reads next, `fuzz/corpus/TARGET`.
pub(crate) fn write(target: &str, inputs: impl Iterator<Item = Vec<u8>>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target);
    fs::create_dir_all(&folder).expect("the folder of the inputs can be made");
    for (index, input) in inputs.enumerate() {
        let path = folder.join(format!("seed-{index}"));
        fs::write(path, input).expect("a first input can be written");
    }
}
