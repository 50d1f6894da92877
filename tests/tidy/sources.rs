//! The files of the repository.

use std::fs;
use std::path::{Path, PathBuf};

/// The folder of the repository. The package that runs these tests, xtask, lies right in it.
pub fn root() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().expect("a folder around xtask")
}

/// A text file.
pub struct SourceFile {
    /// Where it lies.
    pub path: PathBuf,
    /// What it says.
    pub text: String,
}

impl SourceFile {
    /// The path from the root of the repository, with `/`.
    pub fn name(&self) -> String {
        let relative = self.path.strip_prefix(root()).expect("it lies in the root");
        relative.to_str().expect("UTF-8").replace('\\', "/")
    }

    /// Its lines, counted from 1.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.text.lines())
    }
}

/// All files with the extension, but those that are built or hidden.
pub fn source_files(extension: &str) -> Vec<SourceFile> {
    let mut files = Vec::new();
    collect(root(), extension, &mut files);
    assert!(
        !files.is_empty(),
        "no {extension} file in {}",
        root().display()
    );
    files
}

fn collect(folder: &Path, extension: &str, files: &mut Vec<SourceFile>) {
    let entries = fs::read_dir(folder).expect("the folder can be read");
    for entry in entries {
        let path = entry.expect("the folder can be read").path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or("");
        if name.starts_with('.') || name == "target" || name == "out" {
            continue;
        }
        if path.is_dir() {
            collect(&path, extension, files);
        } else if path.extension().is_some_and(|ours| ours == extension) {
            let text = fs::read_to_string(&path).expect("the file is UTF-8");
            files.push(SourceFile { path, text });
        }
    }
}
