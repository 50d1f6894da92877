//! The file that marks an output folder as belonging to a job.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, bail};
use concord_models::export;
use concord_proto::JobId;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::support::job_file::AdapterKind;
use crate::support::result_names;

/// Version of the file. One of another version may have fields that this release does not know.
const VERSION: u32 = 1;

/// What a result consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResultKind {
    /// An adapter.
    Lora,
    /// All weights of a model.
    Full,
}

impl ResultKind {
    /// The kind of result that training gives.
    pub fn of(adapter: AdapterKind) -> Self {
        match adapter {
            AdapterKind::Lora => Self::Lora,
            AdapterKind::Full => Self::Full,
        }
    }

    /// Its name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lora => "LoRA",
            Self::Full => "full",
        }
    }
}

/// The job of an output folder, and its progress.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    version: u32,
    /// Its id.
    pub job: String,
    /// Its name, for messages.
    pub name: String,
    /// What its result consists of.
    pub kind: ResultKind,
    /// Files of the result, by their paths within the folder.
    pub files: Vec<String>,
    /// The states of the folders `checkpoint-N`, by their steps.
    #[serde(default)]
    pub checkpoints: BTreeMap<u32, String>,
    /// The result as it was printed, once it is there.
    pub result: Option<Value>,
    /// A digest of all that the job is but for its steps.
    #[serde(default)]
    pub apart_from_steps: String,
    /// The keys of the job and their values, for people.
    #[serde(default)]
    pub settings: Vec<(String, String)>,
}

impl Mark {
    /// Name of the file with the steps of the job, beside it.
    pub const LOG_FILE: &str = result_names::LOG_FILE;

    /// Name of the file.
    pub const FILE: &str = ".concord-job.json";

    /// The mark of a job that is not done.
    pub fn new(job: JobId, name: &str, kind: ResultKind) -> Self {
        Self {
            version: VERSION,
            job: job.to_string(),
            name: name.to_string(),
            kind,
            files: Vec::new(),
            checkpoints: BTreeMap::new(),
            result: None,
            apart_from_steps: String::new(),
            settings: Vec::new(),
        }
    }

    /// The mark of a folder, if it has one.
    ///
    /// # Errors
    /// Where it cannot be read, or is of another version.
    pub fn read(dir: &Path) -> anyhow::Result<Option<Self>> {
        let path = dir.join(Self::FILE);
        let place = path.display();
        let remedy = "choose another output_dir, or remove this one";
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("output_dir: cannot read {place}"));
            }
        };
        let value: Value = serde_json::from_slice(&bytes)
            .with_context(|| format!("output_dir: {place} is damaged ({remedy})"))?;
        if value["version"] != VERSION {
            bail!("output_dir: {place} is of another release of concord: {remedy}");
        }
        let mark: Self = serde_json::from_value(value)
            .with_context(|| format!("output_dir: {place} is damaged ({remedy})"))?;
        let is_id = mark.job.len() == 64 && mark.job.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_id {
            bail!("output_dir: {place} is damaged: `job` is no id of a job ({remedy})");
        }
        // These files may be moved and removed later. The folder may come from others, so only
        // what this program writes may be among them.
        match mark.files.iter().find(|file| !result_names::is_path(file)) {
            Some(file) => {
                bail!("output_dir: {place} names `{file}`, which is no file of a result: {remedy}")
            }
            None => Ok(Some(mark)),
        }
    }

    /// Writes the mark, replacing an older one.
    ///
    /// # Errors
    /// Where it cannot be written; the older mark stays.
    pub fn write(&self, dir: &Path) -> anyhow::Result<()> {
        let mut text = serde_json::to_string_pretty(self).context("the mark of the job")?;
        text.push('\n');
        let path = dir.join(Self::FILE);
        let written = export::replace_file(&path, |out| out.write_all(text.as_bytes()));
        written.context("output_dir")
    }
}
