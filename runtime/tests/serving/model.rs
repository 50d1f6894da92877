//! A model as blobs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use concord_kernels::Device;
use concord_models::decoder::{Precisions, Stage, StageOptions};
use concord_models::weights::ModelFolder;
use concord_proto::manifest::{ModelManifest, ModelTensor};
use concord_proto::serving::{Deployment, ServedPrecision};
use concord_proto::{ARITHMETIC_VERSION, canonical};
use concord_runtime::{spec, tensor_blob};

use crate::coordinator::BlobMap;

pub struct ServedModel {
    pub folder: ModelFolder,
    pub deployment: Deployment,
    pub blobs: BlobMap,
}

/// A folder of `shared/models`; none, and a line that says so, if it is missing.
pub fn shared(name: &str) -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let shared = std::env::var_os("CONCORD_SHARED").map_or(beside, PathBuf::from);
    let found = shared.join("models").join(name);
    if !found.exists() {
        println!(
            "skipped: {} is not there; set CONCORD_SHARED",
            found.display()
        );
        return None;
    }
    Some(found)
}

pub fn served(name: &str) -> Option<ServedModel> {
    let path = shared(name)?;
    let folder = ModelFolder::open(&path).unwrap();
    let config = folder.config();
    let mut blobs = BlobMap::default();
    let mut specs = config.tensors();
    specs.sort_by(|a, b| a.name.cmp(&b.name));
    let tensors = specs.into_iter().map(|spec| {
        let bytes = tensor_blob::encode(&folder.load(&spec.name).unwrap()).unwrap();
        ModelTensor {
            name: spec.name,
            bytes: bytes.len() as u64,
            blob: blobs.put(bytes),
        }
    });
    let manifest = ModelManifest {
        tensors: tensors.collect(),
        config: config.canonical(),
    };
    let tokenizer = std::fs::read(path.join("tokenizer.json")).unwrap();
    let deployment = Deployment {
        arithmetic: ARITHMETIC_VERSION,
        model: blobs.put(canonical::encode(&manifest)),
        tokenizer: blobs.put(tokenizer),
        layers: config.layers as u32,
        vocab: config.vocab as u32,
        positions: config.max_positions.min(512) as u32,
        precision: ServedPrecision::of(16),
    };
    Some(ServedModel {
        folder,
        deployment,
        blobs,
    })
}

impl ServedModel {
    /// The whole model on one device.
    pub fn whole(&self, device: &Device) -> Stage {
        let bits = |bits| spec::precision(bits).unwrap();
        let precision = self.deployment.precision;
        let config = self.folder.config().clone();
        let options = StageOptions {
            device: device.clone(),
            layers: (0..config.layers as u32).into(),
            config: config.into(),
            precisions: Precisions {
                weights: bits(precision.weights),
                activations: bits(precision.activations),
                key_values: bits(precision.key_values),
            },
            lora: None,
            trains_all: false,
            positions: self.deployment.positions as usize,
        };
        Stage::load(options, &self.folder, &BTreeMap::new()).unwrap()
    }
}
