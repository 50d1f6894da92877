//! Copies of the sources for the host's compiler, in which `__shared__` variables are references to
//! memory of the block, which starts as garbage.

use std::fs;
use std::path::{Path, PathBuf};

use crate::sources;

/// The folders of the crate whose files are compiled, with the extensions.
const SOURCES: [(&str, &str); 5] = [
    ("cuda", "cu"),
    ("cuda", "cuh"),
    ("emulator", "cu"),
    ("emulator", "h"),
    ("emulator", "cpp"),
];

/// Copies all sources into a folder below `out`; gives the folder.
///
/// # Errors
/// A text that names the file that cannot be read or written, or the line that is not understood.
pub fn copies(out: &Path) -> Result<PathBuf, String> {
    let folder = out.join("emulated");
    let failed = |path: &Path, cause| format!("{} cannot be written: {cause}", path.display());
    // From scratch, or a file that was deleted from the sources would still be found here.
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(|cause| failed(&folder, cause))?;
    }
    fs::create_dir_all(&folder).map_err(|cause| failed(&folder, cause))?;
    for (from, extension) in SOURCES {
        for path in sources::files(from, extension)? {
            let copy = folder.join(path.file_name().unwrap_or_default());
            let text = copy_of(&path)?;
            fs::write(&copy, text).map_err(|cause| failed(&copy, cause))?;
        }
    }
    Ok(folder)
}

fn copy_of(path: &Path) -> Result<String, String> {
    let path_text = path.display();
    // Compilers name the file that a person edits.
    let mut copy = format!("#line 1 \"{path_text}\"\n");
    for (number, line) in (1..).zip(sources::read(path)?.lines()) {
        if line.trim_start().starts_with("__shared__ ") {
            copy += &of_the_block(line).ok_or_else(|| {
                format!(
                    "{path_text}:{number}: write one variable and all of its declaration on the \
                     line of __shared__, so that the emulated GPU can place it"
                )
            })?;
        } else {
            copy += line;
        }
        copy.push('\n');
    }
    Ok(copy)
}

/// A line such as `__shared__ f32 tile[8][4];` as C++ of the host: a reference to memory of the
/// block, which the block knows by the address of a byte that only this line has.
fn of_the_block(line: &str) -> Option<String> {
    let (declaration, rest) = line.split_once(';')?;
    let declaration = declaration.trim_start().strip_prefix("__shared__ ")?;
    if declaration.contains(['=', ',']) && !declaration.contains('<') {
        return None;
    }
    let dimensions = declaration.find('[').unwrap_or(declaration.len());
    let (before, dimensions) = declaration.split_at(dimensions);
    let before = before.trim_end();
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let name = before.rsplit(|c| !is_part(c)).next()?;
    let type_name = before.strip_suffix(name)?;
    (!name.is_empty() && !type_name.trim().is_empty()).then(|| {
        format!(
            "typedef {type_name}{name}_of_block{dimensions}; static char {name}_key; \
             auto &{name} = emulator::shared_variable<{name}_of_block>(&{name}_key);{rest}"
        )
    })
}
