//! What is served, and which worker holds which part of it.

use std::fmt;

use borsh::{BorshDeserialize, BorshSerialize};

use super::precision::ServedPrecision;
use crate::crypto::{Digest, Domain, WorkerId};
use crate::manifest::ModelTensor;
use crate::training::{Edge, ExpertCuts, Layers, LoraUpdates};

/// The model behind an API, bit for bit. No machine is named in it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Deployment {
    /// Version of the arithmetic contract.
    pub arithmetic: u32,
    /// Blob address of the [`crate::manifest::ModelManifest`].
    pub model: Digest,
    /// Blob address of the bytes of `tokenizer.json`: grammars are over its tokens.
    pub tokenizer: Digest,
    /// Decoder layers of the model.
    pub layers: u32,
    /// Size of the vocabulary: the width of the logits.
    pub vocab: u32,
    /// Positions that a sequence may have, prompt and answer.
    pub positions: u32,
    /// Bits of the operands of products: of weights (u8) and activations (u8). Where keys and
    /// values have others, the highest bit of the second byte is set, and theirs follow (u8).
    pub precision: ServedPrecision,
}

/// The digest of a [`Deployment`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct DeploymentId(pub Digest);

impl fmt::Debug for DeploymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "deployment {}", self.0.short())
    }
}

impl Deployment {
    /// The digest that names it in claims, receipts and messages.
    pub fn id(&self) -> DeploymentId {
        DeploymentId(Digest::of_value(Domain::Deployment, self))
    }
}

/// A LoRA adapter. Its blob address names it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct AdapterManifest {
    /// Where it has updates, and of which shape.
    pub lora: LoraUpdates,
    /// The factors, by the names that PEFT gives them, in the order of their names.
    pub tensors: Vec<ModelTensor>,
}

/// What the planner of a deployment needs to know of its model. No tensor is in it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ServingProfile {
    /// Multiply-adds of one layer, for one token.
    pub layer_macs: u64,
    /// Multiply-adds of the head, for one token.
    pub head_macs: u64,
    /// Bytes that one layer takes in memory.
    pub layer_bytes: u64,
    /// Bytes of the embedding.
    pub embed_bytes: u64,
    pub head_bytes: u64,
    /// Bytes that both ends count, and a stage with both ends holds once.
    pub shared_bytes: u64,
    /// Bytes of keys and values of one page in one layer.
    pub page_layer_bytes: u64,
    /// Bytes of the hidden state of one token, on its way between two stages.
    pub row_bytes: u64,
    /// Cuts within a layer.
    pub cuts: ExpertCuts,
}

/// A model to serve. The blobs that it names are in the store.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ServedModel {
    /// What is served.
    pub deployment: Deployment,
    /// For the planner.
    pub profile: ServingProfile,
    /// Stages of a pipeline; 0 leaves it to the planner.
    pub stages: u32,
    /// Pipelines side by side; 0 leaves it to the planner.
    pub pipelines: u32,
    /// Workers to wait for before the first plan.
    pub min_workers: u32,
    /// Pages of keys and values of a pipeline; 0 takes what the memory of its workers allows.
    pub pages: u32,
    /// Share of the answers that is audited, `p * 2^32`.
    pub audit_rate: u64,
}

/// Which stage of a pipeline a worker holds. A later assignment replaces it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct StageAssignment {
    /// What is served.
    pub deployment: Deployment,
    /// Which pipeline.
    pub pipeline: u32,
    /// Counts the plans of the deployment; messages of an older one are dropped.
    pub epoch: u32,
    /// Opens the stream to the coordinator ([`super::StageStreamHello`]).
    pub ticket: [u8; 32],
    /// Layers of each stage of the pipeline, in order.
    pub stages: Vec<Layers>,
    /// Who holds them.
    pub workers: Vec<WorkerId>,
    /// Where each of them is reached.
    pub endpoints: Vec<String>,
    /// Index of the stage to hold; none for a worker that only stands by.
    pub stage: Option<u32>,
    /// Pages of keys and values to have room for.
    pub pages: u32,
    /// Adapters to load, by blob address of their [`AdapterManifest`].
    pub adapters: Vec<Digest>,
    /// Runs of layers to keep loaded as a standby, in case their holder is lost.
    pub standby: Vec<Layers>,
}

impl StageAssignment {
    /// The layers of the stage to hold.
    pub fn layers(&self) -> Option<Layers> {
        self.stages.get(self.stage? as usize).copied()
    }

    /// Checks shape and bounds.
    ///
    /// # Errors
    /// A sentence naming what does not hold.
    pub fn validate(&self) -> Result<(), String> {
        let count = self.stages.len();
        if count == 0 || self.workers.len() != count || self.endpoints.len() != count {
            return Err("stages, workers and endpoints differ in number".to_string());
        }
        let mut at = Edge::default();
        for stage in &self.stages {
            if stage.start != at || stage.end <= at {
                return Err("the stages do not follow each other".to_string());
            }
            at = stage.end;
        }
        if at != Edge::from(self.deployment.layers) {
            return Err(format!("the stages end at layer {at}"));
        }
        if self.stage.is_some_and(|stage| stage as usize >= count) {
            return Err("the stage to hold is none of the pipeline".to_string());
        }
        let beyond = |layers: &Layers| layers.start >= layers.end || layers.end > at;
        if self.standby.iter().any(beyond) {
            return Err("layers to stand by for that the model lacks".to_string());
        }
        Ok(())
    }
}
