//! From the path of a data set to its files, and from a file to its bytes.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::DataError;
use crate::pattern;
use crate::source::{DatasetKind, DatasetSource};

/// A data set has at most so many files.
const FILES_MAX: usize = 10_000;

/// Folders are read to this depth.
const DEPTH_MAX: u32 = 8;

/// Endings of formats that hold texts, and are not read.
const UNREAD: [&str; 11] = [
    "arrow", "zip", "xz", "bz2", "tar", "tgz", "7z", "pdf", "xlsx", "docx", "pkl",
];

/// Endings of texts.
const TEXTS: [&str; 3] = ["txt", "text", "md"];

/// Names of files beside the data of a folder, which hold none: their beginnings.
const BESIDE: [&str; 6] = [
    "readme",
    "license",
    "licence",
    "notice",
    "dataset_info",
    "citation",
];

/// Words in names of files that hold other splits than the one for training.
const HELD_OUT: [&str; 6] = ["test", "validation", "valid", "val", "dev", "eval"];

/// The word in names of files for training.
const TRAIN: &str = "train";

/// How the bytes of a file are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    None,
    Gzip,
    Zstd,
}

/// What the bytes of a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileForm {
    /// One text.
    Plain,
    /// Rows as JSON: a line each, or an array.
    Json,
    /// Rows whose fields stand between this byte.
    Separated(u8),
    /// Rows in columns.
    Parquet,
    /// Tensors.
    Safetensors,
}

/// The forms of a file's bytes, by its name and the kind of the data set. Rows may have any name:
/// what is not known by its ending is JSON.
pub(crate) fn form(path: &Path, kind: DatasetKind) -> (Packing, FileForm) {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.to_lowercase();
    let (packing, name) = match (name.strip_suffix(".gz"), name.strip_suffix(".zst")) {
        (Some(name), _) => (Packing::Gzip, name),
        (_, Some(name)) => (Packing::Zstd, name),
        _ => (Packing::None, name.as_str()),
    };
    let form = match name.rsplit_once('.').map_or("", |(_, ending)| ending) {
        "jsonl" | "ndjson" | "json" => FileForm::Json,
        "csv" => FileForm::Separated(b','),
        "tsv" => FileForm::Separated(b'\t'),
        "parquet" => FileForm::Parquet,
        "safetensors" if kind == DatasetKind::Tokens => FileForm::Safetensors,
        _ if kind == DatasetKind::Text => FileForm::Plain,
        _ => FileForm::Json,
    };
    (packing, form)
}

impl DatasetSource {
    /// Whether the data set has rows with fields, in one of its files or in all; else it is texts,
    /// or token ids.
    pub fn has_rows(&self) -> bool {
        match self.kind {
            DatasetKind::Text => {
                let has_many = self.path.is_dir() || pattern::is_pattern(&self.path);
                let is_text = self
                    .path
                    .extension()
                    .is_some_and(|end| TEXTS.iter().any(|e| end == *e));
                // What is not here, and not named as a text, is a set of the hub.
                let is_far = !self.path.exists() && !is_text;
                has_many || is_far || form(&self.path, self.kind).1 != FileForm::Plain
            }
            DatasetKind::Tokens => form(&self.path, self.kind).1 != FileForm::Safetensors,
            _ => true,
        }
    }

    /// Its files, in the order in which they are read: by their paths, byte by byte.
    ///
    /// # Errors
    /// [`DataError`] naming what cannot be read, and what to name instead.
    pub fn files(&self) -> Result<Vec<PathBuf>, DataError> {
        if let Some(given) = &self.given_files {
            given.iter().try_for_each(|path| refuse_unread(path))?;
            return Ok(given.clone());
        }
        if self.path.is_dir() {
            return self.of_folder();
        }
        if self.path.exists() {
            refuse_unread(&self.path)?;
            if let Some(other) = self.split.as_ref().filter(|split| split.name != TRAIN) {
                return Err(self.fail(format!(
                    "it is one file, whose rows are the split `train`, and not `{}`",
                    other.name
                )));
            }
            return Ok(vec![self.path.clone()]);
        }
        if !pattern::is_pattern(&self.path) {
            refuse_unread(&self.path)?;
            return Err(self.fail(
                "cannot read it: there is no such file, and no such set of the Hugging Face hub, \
                 which is named as owner/name",
            ));
        }
        let found = pattern::matches(&self.path, FILES_MAX).map_err(|why| self.fail(why))?;
        if found.is_empty() {
            return Err(self.fail("no file has a name of this pattern"));
        }
        for path in &found {
            refuse_unread(path)?;
        }
        Ok(found)
    }

    /// The files of a folder, and of the folders in it.
    fn of_folder(&self) -> Result<Vec<PathBuf>, DataError> {
        let mut found = Vec::new();
        self.walk(&self.path, 0, &mut found)?;
        found.sort();
        let words = |path: &Path| {
            let inner = path.strip_prefix(&self.path).unwrap_or(path);
            let text = inner.to_string_lossy().to_lowercase();
            let words = text.split(|c: char| !c.is_alphanumeric());
            words.map(str::to_string).collect::<Vec<String>>()
        };
        if let Some(split) = &self.split {
            // Where no name has the word of a split, all rows are for training.
            let wanted = split.name.to_lowercase();
            let has = |path: &PathBuf, word: &str| words(path).iter().any(|own| own == word);
            let is_cut = found
                .iter()
                .any(|path| has(path, TRAIN) || HELD_OUT.iter().any(|word| has(path, word)));
            if is_cut || wanted != TRAIN {
                found.retain(|path| has(path, &wanted));
            }
            return match found.is_empty() {
                true => Err(self.fail(format!("no file of the folder has `{wanted}` in its name"))),
                false => Ok(found),
            };
        }
        let is_train = |path: &PathBuf| words(path).iter().any(|word| word == TRAIN);
        let held_out = found.iter().find(|path| {
            let words = words(path);
            words.iter().any(|word| HELD_OUT.contains(&word.as_str()))
        });
        match (held_out, found.iter().any(is_train)) {
            (Some(other), true) => {
                return Err(self.fail(format!(
                    "the folder has files of several splits, such as {}: set `split: train`, or \
                     name the files by a pattern such as *train*",
                    other.display()
                )));
            }
            (Some(other), false) if found.len() > 1 => {
                return Err(self.fail(format!(
                    "the folder has {}, which is held out by its name, and no file with the word \
                     `train`: name the files by a pattern such as *.jsonl",
                    other.display()
                )));
            }
            _ => {}
        }
        match found.is_empty() {
            true => Err(self.fail("there is no file of data in the folder")),
            false => Ok(found),
        }
    }

    fn walk(&self, folder: &Path, depth: u32, found: &mut Vec<PathBuf>) -> Result<(), DataError> {
        if depth > DEPTH_MAX {
            return Err(DataError::file(
                folder,
                "the folders stand too deep in each other",
            ));
        }
        let entries = fs::read_dir(folder).map_err(DataError::io("list", folder))?;
        for entry in entries {
            let path = entry.map_err(DataError::io("list", folder))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let name = name.to_lowercase();
            if name.starts_with('.') || BESIDE.iter().any(|start| name.starts_with(start)) {
                continue;
            }
            if path.is_dir() {
                self.walk(&path, depth + 1, found)?;
                continue;
            }
            refuse_unread(&path)?;
            if !is_data(&path, self.kind) {
                return Err(DataError::file(
                    &path,
                    "its name does not say that it is data, and files of a folder are not left \
                     out in silence: name the files by a pattern such as *.jsonl",
                ));
            }
            found.push(path);
            if found.len() > FILES_MAX {
                return Err(self.fail(format!("it has more than {FILES_MAX} files")));
            }
        }
        Ok(())
    }
}

/// Whether the name of a file in a folder is that of data of a kind.
fn is_data(path: &Path, kind: DatasetKind) -> bool {
    let name = path.to_string_lossy().to_lowercase();
    let (_, form) = form(path, kind);
    let bare = name.trim_end_matches(".gz").trim_end_matches(".zst");
    match form {
        FileForm::Plain => [".txt", ".text", ".md"]
            .iter()
            .any(|end| bare.ends_with(end)),
        FileForm::Json => [".jsonl", ".ndjson", ".json"]
            .iter()
            .any(|end| bare.ends_with(end)),
        FileForm::Separated(_) | FileForm::Parquet | FileForm::Safetensors => true,
    }
}

/// Refuses a file by its ending, with a message that is clearer than what its bytes would cause.
fn refuse_unread(path: &Path) -> Result<(), DataError> {
    let ending = path.extension().unwrap_or_default().to_string_lossy();
    let ending = ending.to_lowercase();
    let refuse = |words: &str| Err(DataError::file(path, format!(".{ending} files {words}")));
    // Opening a pipe would wait for someone to write into it.
    if fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        return Err(DataError::file(
            path,
            "it is no file, but a pipe or a device: write its rows to a file",
        ));
    }
    if ending == "parquet" && !cfg!(feature = "parquet") {
        return refuse(
            "are not read by this build: build it with `--features full`, or write the rows to a \
             .jsonl file, one JSON object a line",
        );
    }
    match UNREAD.contains(&ending.as_str()) {
        true => refuse(
            "are not read; write the rows to a .jsonl file, one JSON object a line (it may be \
             packed as .gz or .zst)",
        ),
        false => Ok(()),
    }
}
