//! The sources of the kernels.

use std::fs;
use std::path::{Path, PathBuf};

/// A `.cu` file: one module, named as the file.
pub struct Module {
    /// The file's name without its extension, such as "rmsnorm".
    pub name: String,
    /// Where it lies, from the folder of the crate.
    pub path: PathBuf,
    /// Its content.
    pub text: String,
}

/// The modules of a folder of the crate, by name; cargo builds again when the folder changes.
///
/// # Errors
/// A text that names the file that cannot be read.
pub fn modules(folder: &str) -> Result<Vec<Module>, String> {
    println!("cargo::rerun-if-changed={folder}");
    let mut modules = Vec::new();
    for path in files(folder, "cu")? {
        let name = path.file_stem().and_then(|name| name.to_str());
        let name = name.unwrap_or_default().to_string();
        let text = read(&path)?;
        modules.push(Module { name, path, text });
    }
    Ok(modules)
}

/// The files of a folder of the crate with the extension, sorted by name.
///
/// # Errors
/// A text that names the folder where it cannot be read.
pub fn files(folder: &str, extension: &str) -> Result<Vec<PathBuf>, String> {
    let failed = |cause| format!("the folder {folder} of the kernels cannot be read: {cause}");
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|ours| ours == extension) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// The text of a file.
///
/// # Errors
/// A text that names the file where it cannot be read.
pub fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|cause| format!("{} cannot be read: {cause}", path.display()))
}
