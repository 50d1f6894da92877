//! The states that are kept in a proof, so that what lies between two of them can be computed again
//! (`concord verify --replay`). The claims of the proof name every tensor of a state by its digest,
//! so the folder has the tensors under these names, and a list of the steps.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use concord_proto::limits::BLOB_BYTES_MAX;
use concord_proto::{AdapterSpec, Digest, JobSpec};
use concord_verify::training::segments::steps_after_update;
use serde::{Deserialize, Serialize};

use crate::support::result_names::{STATES, STATES_INDEX};

/// By default a job has at most so many segments, each of at least so many steps, and the states
/// between them take at most so many bytes: those of adapters are small.
const SEGMENTS: u32 = 20;
const SEGMENT_STEPS_MIN: u32 = 50;
const BYTES_MAX: u64 = 1 << 30;

/// Most bytes of the list of states.
const INDEX_BYTES_MAX: u64 = 1 << 24;

/// Bytes of a value.
const VALUE_BYTES: u64 = 4;

/// Steps between two states that a job keeps: what was `asked` for, or the default; 0 is none.
pub fn every(asked: Option<u32>, spec: &JobSpec) -> u32 {
    if let Some(asked) = asked {
        return asked;
    }
    let fitting = BYTES_MAX / state_bytes(spec).max(1);
    match (&spec.adapter, fitting) {
        (AdapterSpec::Full, _) | (_, 0) => 0,
        (AdapterSpec::Lora(_), fitting) => {
            let segments = fitting.saturating_add(1).min(SEGMENTS.into()) as u32;
            spec.steps.div_ceil(segments).max(SEGMENT_STEPS_MIN)
        }
    }
}

/// The updates, counted from 1, after which a state is kept: every so many, but not the last one,
/// as nothing follows from the state after it.
pub fn updates(spec: &JobSpec, every: u32) -> impl Iterator<Item = u32> + use<> {
    let (steps, every) = (spec.steps, every);
    (1..=count(spec, every))
        .map(move |number| number * every)
        .take_while(move |update| *update < steps)
}

/// How many states are kept.
pub fn count(spec: &JobSpec, every: u32) -> u32 {
    match every {
        0 => 0,
        every => spec.steps.saturating_sub(1) / every,
    }
}

/// Bytes of a state: values and moments.
pub fn state_bytes(spec: &JobSpec) -> u64 {
    let values = trained_values(spec);
    let moments = spec.optimizer.rule.moment_bytes(values);
    values.saturating_mul(VALUE_BYTES).saturating_add(moments)
}

/// Numbers of all trained tensors.
pub fn trained_values(spec: &JobSpec) -> u64 {
    let values = |shape: &[u64]| {
        shape
            .iter()
            .fold(1_u64, |all, &dim| all.saturating_mul(dim))
    };
    let tensors = spec.trainable.iter().map(|tensor| values(&tensor.shape));
    tensors.fold(0, u64::saturating_add)
}

/// The list of the states.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatesIndex {
    /// The updates, counted from 1, after which a state is kept.
    pub updates: Vec<u32>,
}

/// The kept states of a proof.
#[derive(Debug)]
pub struct KeptStates {
    folder: PathBuf,
    /// By steps of the chain, the updates in each.
    pub steps: BTreeMap<u32, u32>,
}

impl KeptStates {
    /// Those of the proof in a folder, of a job with this spec; none where none were kept.
    ///
    /// # Errors
    /// Where their list cannot be read, or names an update that the job lacks.
    pub fn of(proof: &Path, spec: &JobSpec) -> anyhow::Result<Self> {
        let folder = proof.join(STATES);
        let path = folder.join(STATES_INDEX);
        let place = path.display();
        let index: StatesIndex = match read_file(&path, INDEX_BYTES_MAX) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .with_context(|| format!("{place}: not the list of the kept states"))?,
            Err(error) if error.kind() == ErrorKind::NotFound => StatesIndex::default(),
            Err(error) => return Err(error).with_context(|| format!("cannot read {place}")),
        };
        let mut steps = BTreeMap::new();
        for update in index.updates {
            let Some(done) = steps_after_update(spec, update) else {
                bail!(
                    "{place}: a state after step {update}, and the job has {}",
                    spec.steps
                );
            };
            steps.insert(done, update);
        }
        Ok(Self { folder, steps })
    }

    /// The bytes of a tensor.
    ///
    /// # Errors
    /// Why they cannot be read.
    pub fn read(&self, address: Digest) -> Result<Vec<u8>, String> {
        let path = self.folder.join(address.to_string());
        read_file(&path, BLOB_BYTES_MAX).map_err(|why| format!("{}: {why}", path.display()))
    }
}

/// The bytes of a file of at most `most`. A proof may come from others: reading a pipe would wait,
/// and reading a device never end.
fn read_file(path: &Path, most: u64) -> std::io::Result<Vec<u8>> {
    let found = std::fs::metadata(path)?;
    if !found.is_file() {
        return Err(std::io::Error::other("it is no regular file"));
    }
    if found.len() > most {
        let bytes = found.len();
        return Err(std::io::Error::other(format!(
            "{bytes} bytes are over the bound"
        )));
    }
    std::fs::read(path)
}
