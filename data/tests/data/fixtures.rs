//! A tokenizer and a model made here, and the way to the real ones.

use std::fs;
use std::path::{Path, PathBuf};

use concord_data::{DataError, DataLoader, DatasetKind, DatasetSource, Loaded, Sequences};
use concord_text::{ChatTemplate, TextTokenizer};
use serde_json::Value;

pub use crate::byte_tokenizer::write_tokenizer;

/// What of a model reading data depends on, beside its tokenizer.
pub struct Model {
    pub tokenizer: TextTokenizer,
    pub template: Option<ChatTemplate>,
    pub vocab: usize,
    pub max_positions: usize,
    pub eos: Vec<u32>,
}

impl Model {
    /// A model of 300 embeddings and 64 positions; ids are bytes, 256 begins, 257 ends.
    pub fn bytes() -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_tokenizer(folder.path());
        Self {
            tokenizer: TextTokenizer::open(folder.path()).unwrap(),
            template: None,
            vocab: 300,
            max_positions: 64,
            eos: vec![257],
        }
    }

    /// The model of a folder.
    pub fn open(folder: &Path) -> Self {
        let config = fs::read(folder.join("config.json")).unwrap();
        let config: Value = serde_json::from_slice(&config).unwrap();
        let size = |key: &str| config[key].as_u64().unwrap() as usize;
        let template = ChatTemplate::open(folder).unwrap();
        Self {
            tokenizer: TextTokenizer::open(folder).unwrap(),
            template: template.map(|template| template.with_clock(concord_data::CLOCK)),
            vocab: size("vocab_size"),
            max_positions: size("max_position_embeddings"),
            eos: config["eos_token_id"]
                .as_u64()
                .iter()
                .map(|id| *id as u32)
                .collect(),
        }
    }

    /// The same with another chat template.
    pub fn with_template(mut self, source: &str) -> Self {
        self.template = Some(ChatTemplate::for_tokenizer(source, &self.tokenizer).unwrap());
        self
    }

    /// A loader for it.
    pub fn loader<'a>(&'a self, len: u32, progress: &'a mut dyn FnMut(u64)) -> DataLoader<'a> {
        DataLoader {
            tokenizer: Some(&self.tokenizer),
            chat_template: self.template.as_ref(),
            vocab: self.vocab,
            max_positions: self.max_positions,
            eos: &self.eos,
            sequence_len: len,
            progress,
        }
    }

    /// The sequences of a data set.
    pub fn load(&self, source: &DatasetSource, len: u32) -> Result<Sequences, DataError> {
        self.loader(len, &mut |_| {}).load(source)
    }

    /// The sequences of data sets, each with what was read.
    pub fn load_all(
        &self,
        sources: &[DatasetSource],
        len: u32,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(Vec<Loaded>, Vec<u32>), DataError> {
        let mut tokens = Vec::new();
        let mut loader = self.loader(len, progress);
        let loaded = loader.each(sources, &mut |view| tokens.extend(view.tokens))?;
        Ok((loaded, tokens))
    }
}

/// What rows teach: the texts of the runs of tokens that are learnt, of all sequences.
pub fn taught(
    model: &Model,
    kind: DatasetKind,
    rows: &[Value],
    change: impl Fn(&mut DatasetSource),
) -> Result<Vec<String>, DataError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
    fs::write(&path, lines.join("\n")).unwrap();
    let mut source = DatasetSource::new(path, kind);
    change(&mut source);
    let len = model.max_positions as u32;
    let loaded = model.load(&source, len)?;
    let mut parts = Vec::new();
    for index in 0..loaded.count() {
        let pairs = loaded.tokens_of(index).iter().zip(loaded.mask_of(index));
        let pairs: Vec<(u32, u8)> = pairs.map(|(id, mask)| (*id, *mask)).collect();
        for run in pairs
            .chunk_by(|a, b| a.1 == b.1)
            .filter(|run| run[0].1 == 1)
        {
            let ids: Vec<u32> = run.iter().map(|(id, _)| *id).collect();
            parts.push(model.tokenizer.decode(&ids, false).unwrap());
        }
    }
    Ok(parts)
}

/// A path in `shared/` (`CONCORD_SHARED`, or beside the workspace), or `None` with a line that says
/// that the test is skipped.
pub fn shared(path: &str) -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let shared = std::env::var_os("CONCORD_SHARED")
        .map(PathBuf::from)
        .unwrap_or(beside);
    let found = shared.join(path);
    if found.exists() {
        Some(found)
    } else {
        println!(
            "skipped: {} is not there; set CONCORD_SHARED",
            found.display()
        );
        None
    }
}

/// The same tokenizer, without a file that names its end.
pub fn without_config() -> TextTokenizer {
    let folder = tempfile::tempdir().unwrap();
    write_tokenizer(folder.path());
    fs::remove_file(folder.path().join("tokenizer_config.json")).unwrap();
    TextTokenizer::open(folder.path()).unwrap()
}

/// Asserts that a message has each of `parts`.
#[track_caller]
pub fn says(error: impl ToString, parts: &[&str]) {
    let message = error.to_string();
    for part in parts {
        assert!(message.contains(part), "{message:?} does not say {part:?}");
    }
}
