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

/// All files with the extension, except those that are built or hidden.
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

/// Fails with all lines that break a rule.
pub fn assert_none(broken: &[String], rule: &str) {
    assert!(broken.is_empty(), "{rule}:\n{}", broken.join("\n"));
}

/// Lines of files with the extension for which `breaks` holds, as file and line.
pub fn lines_where(extension: &str, breaks: impl Fn(&SourceFile, &str) -> bool) -> Vec<String> {
    let files = source_files(extension);
    let broken = files
        .iter()
        .map(|file| lines_of(file, |line| breaks(file, line)));
    broken.flatten().collect()
}

/// Lines of the file for which `breaks` holds, as file and line.
pub fn lines_of(file: &SourceFile, breaks: impl Fn(&str) -> bool) -> Vec<String> {
    let broken = file.lines().filter(|(_, line)| breaks(line));
    let shown =
        |(number, line): (usize, &str)| format!("{}:{number}: {}", file.name(), line.trim());
    broken.map(shown).collect()
}

/// The line without comment and without what stands in quotes on it.
pub fn code(line: &str) -> String {
    let outside: Vec<&str> = line.split('"').step_by(2).collect();
    let outside = outside.join("\"\"");
    outside.split("//").next().unwrap_or("").to_string()
}

/// Whether the text has the word, not within a longer name.
pub fn has_word(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(|c| !is_part(c)).any(|part| part == word)
}
