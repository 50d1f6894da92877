//! A job file as it was given: of which tool it is, its keys as Concord has them, and where each
//! comes from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use concord_data as data;
use concord_recipe::{
    Document, Place, Problem, Request, Resolved, TEXT_BYTES_MAX, Tool, ValueSource,
};
use serde_yaml_ng::Mapping;

use super::translate;

/// What the command line says about a job file.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ReadOptions {
    /// Set a key of the job file, in the file's own keys, such as lora_dropout=0 or
    /// datasets.0.path=rows.jsonl; null removes it. May be given again.
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "job")]
    pub sets: Vec<String>,
    /// The tool whose job file it is, if it is not the one that its keys show.
    #[arg(long, value_name = "TOOL", value_parser = tool, requires = "job")]
    pub tool: Option<Tool>,
}

fn tool(word: &str) -> Result<Tool, String> {
    let found = Tool::ALL.into_iter().find(|tool| tool.word() == word);
    found.ok_or_else(|| format!("known are {}", Tool::ALL.map(Tool::word).join(", ")))
}

/// A job file of any tool.
#[derive(Debug)]
pub struct GivenJob {
    file: PathBuf,
    document: Document,
    pub resolved: Resolved,
    /// Its keys as Concord has them.
    map: Mapping,
    /// Where keys of another tool's file come from, by Concord's paths, such as `datasets[0].path`.
    sources: BTreeMap<String, ValueSource>,
}

impl GivenJob {
    /// Reads a job file. What is wrong with its keys is not yet an error.
    ///
    /// # Errors
    /// Where it cannot be read, or is no YAML mapping.
    pub fn read(path: &Path, asked: &ReadOptions) -> anyhow::Result<Self> {
        let bytes = read_at_most(path, TEXT_BYTES_MAX)
            .with_context(|| format!("cannot read the job file {}", path.display()))?;
        let text = data::utf8(bytes);
        let text = text.map_err(|reason| anyhow!("{}: {reason}", path.display()))?;
        Self::parse(path, &text, asked)
    }

    /// As [`Self::read`], from the text.
    ///
    /// # Errors
    /// As there.
    pub fn parse(path: &Path, text: &str, asked: &ReadOptions) -> anyhow::Result<Self> {
        let request = Request {
            tool: asked.tool,
            sets: &asked.sets,
            files: &file_beside,
        };
        let read = concord_recipe::resolve(text, &request)
            .and_then(|job| Ok((concord_recipe::document(text, &asked.sets)?, job)));
        let (document, mut resolved) = match read {
            Ok(read) => read,
            Err(error) => bail!("{}: {error}", path.display()),
        };
        let (map, sources) = match resolved.tool {
            Tool::Concord => (document.root().clone(), BTreeMap::new()),
            _ => translate::keys(&mut resolved),
        };
        Ok(Self {
            file: path.to_path_buf(),
            document,
            resolved,
            map,
            sources,
        })
    }

    /// The path of the file, for messages.
    pub fn file(&self) -> String {
        self.file.display().to_string()
    }

    /// Its keys as Concord has them.
    pub(super) fn map(&self) -> &Mapping {
        &self.map
    }

    /// Whether Concord's own table of keys is that of the file.
    pub fn is_own(&self) -> bool {
        self.resolved.tool == Tool::Concord
    }

    /// The key of the file that one of Concord's was made from.
    pub(super) fn origin(&self, path: &str) -> Option<&str> {
        self.sources.get(path).map(|source| source.key.as_str())
    }

    /// Where one of Concord's keys comes from; `None` where it is absent.
    pub fn source(&self, path: &str) -> Option<ValueSource> {
        if let Some(source) = self.sources.get(path) {
            return Some(source.clone());
        }
        let top = path.split(['.', '[']).next().unwrap_or(path);
        let is_there = self.is_own() && self.document.get(top).is_some();
        is_there.then(|| ValueSource {
            place: Some(self.document.place(path)),
            key: path.to_string(),
            how: String::new(),
        })
    }

    /// The place of one of Concord's keys: the file, and the line where it is certain.
    pub(super) fn place(&self, path: &str) -> String {
        let place = match self.sources.get(path) {
            Some(source) => source.place.unwrap_or(Place::File),
            None if self.is_own() => self.document.place(path),
            None => Place::File,
        };
        self.at(place)
    }

    fn at(&self, place: Place) -> String {
        match place {
            Place::Line(line) => format!("{}:{line}", self.file()),
            Place::Set => "--set".to_string(),
            Place::File => self.file(),
        }
    }

    /// An error on data or model, with what Concord's keys in it are called in this file.
    pub fn in_its_words(&self, error: anyhow::Error) -> anyhow::Error {
        if self.is_own() {
            return error;
        }
        let text = format!("{error:#}");
        let has = |key: &str| {
            let mut words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
            words.any(|word| word == key)
        };
        let mut hints: Vec<String> = Vec::new();
        for (path, source) in &self.sources {
            let key = path.rsplit('.').next().unwrap_or(path);
            let is_other = source.key != *path && source.key != key;
            if is_other && has(key) && !["path", "type"].contains(&key) {
                hints.push(format!("`{key}` is made of `{}`", source.key));
            }
        }
        hints.dedup();
        if has("ignore_fields") {
            hints.push("for fields to leave out: --set 'ignore_fields=[NAME, ...]'".to_string());
        }
        match hints.is_empty() {
            true => error,
            false => error.context(format!(
                "{} is a job file of {}, where {}",
                self.file(),
                self.resolved.tool.name(),
                hints.join("; ")
            )),
        }
    }

    /// The error that a file of another tool cannot be used as it is, with all reasons: those of
    /// the translation, and `more`; or nothing where there is none.
    pub(super) fn check_foreign(&self, more: Vec<String>) -> anyhow::Result<()> {
        let line = |problem: &Problem| format!("{}: {problem}", self.at(problem.place));
        let mut lines: Vec<String> = self.resolved.problems.iter().map(line).collect();
        lines.extend(more);
        if lines.is_empty() {
            return Ok(());
        }
        let remedies: Vec<String> = self
            .resolved
            .remedies()
            .iter()
            .map(|set| quoted(set))
            .collect();
        let with = match remedies.is_empty() {
            true => String::new(),
            false => format!(
                "\nwhat is proposed here, as options: --set {}",
                remedies.join(" --set ")
            ),
        };
        bail!(
            "{} is a job file of {}, by {}, and asks for what is not computed here:\n{}{with}",
            self.file(),
            self.resolved.tool.name(),
            self.resolved.because,
            lines.join("\n")
        )
    }
}

/// An argument as a shell takes it.
fn quoted(argument: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-.=/,:@+".contains(c);
    match argument.chars().all(is_plain) {
        true => argument.to_string(),
        false => format!("'{}'", argument.replace('\'', "'\\''")),
    }
}

/// A file that a job file names, such as dataset_info.json.
fn file_beside(path: &str) -> Result<String, String> {
    let bytes = read_at_most(Path::new(path), TEXT_BYTES_MAX).map_err(|error| error.to_string())?;
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_string())
}

/// A file of at most `most` bytes, and one more where it is longer.
fn read_at_most(path: &Path, most: usize) -> std::io::Result<Vec<u8>> {
    use std::io::Read;

    let mut bytes = Vec::new();
    let limit = most as u64 + 1;
    std::fs::File::open(path)?
        .take(limit)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}
