//! Finds for which generations of GPUs a module must be compiled separately: those for which the
//! preprocessor gives different text.

use std::path::Path;
use std::process::Command;

/// The generations that are emulated: a GPU runs the code of the latest of them that is not newer
/// than itself.
const ARCHES: [u32; 4] = [61, 70, 75, 80];

/// The earliest generation of each run of generations for which `source` is the same text; `[None]`
/// where nothing asks for `ARCH`. `text` is the source with all that it includes, `compiler` gives
/// a command that compiles for a generation.
///
/// # Errors
/// A text: what the preprocessor said.
pub fn apart(
    source: &Path,
    text: &str,
    compiler: impl Fn(Option<u32>) -> Result<Command, String>,
) -> Result<Vec<Option<u32>>, String> {
    if !asks_for_arch(text) {
        return Ok(vec![None]);
    }
    let mut apart = Vec::new();
    let mut before = Vec::new();
    for arch in ARCHES {
        let mut command = compiler(Some(arch))?;
        command.args(["-E", "-P", "-x", "c++"]).arg(source);
        let result = command.output();
        let result = result.map_err(|cause| format!("the C++ compiler does not start: {cause}"))?;
        if !result.status.success() {
            let said = String::from_utf8_lossy(&result.stderr);
            return Err(format!("{} cannot be read: {said}", source.display()));
        }
        if result.stdout != before {
            apart.push(Some(arch));
            before = result.stdout;
        }
    }
    Ok(apart)
}

fn asks_for_arch(text: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let code = text.lines().filter(|line| !line.contains("#define ARCH"));
    code.flat_map(|line| line.split(|c| !is_part(c)))
        .any(|word| word == "ARCH")
}
