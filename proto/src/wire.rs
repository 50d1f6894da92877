//! The gRPC stubs, and the header of a tensor on its way between workers.

#![allow(missing_docs, clippy::all, clippy::pedantic)]

use borsh::{BorshDeserialize, BorshSerialize};

use crate::claim::{Origin, Port};
use crate::job::JobId;

tonic::include_proto!("concord.v1");

/// What precedes a tensor, or several, sent from one worker to another.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct FrameHeader {
    /// The job.
    pub job: JobId,
    /// The plan's epoch.
    pub epoch: u32,
    /// The step.
    pub step: u32,
    /// The microbatch, or the first of a node.
    pub microbatch: u32,
    /// What it is, and its digest.
    pub port: Port,
    /// The sender and its signature over [`Origin::message`].
    pub origin: Origin,
    /// Bytes that follow: tensor blobs, one after another.
    pub bytes: u64,
}

impl From<crate::Signed> for Envelope {
    fn from(signed: crate::Signed) -> Self {
        Self {
            signer: signed.signer.0.to_vec(),
            body: signed.body,
            signature: signed.signature.to_vec(),
        }
    }
}

impl TryFrom<Envelope> for crate::Signed {
    type Error = String;

    fn try_from(envelope: Envelope) -> Result<Self, String> {
        let signer = envelope
            .signer
            .try_into()
            .map_err(|_| "a signer is not 32 bytes")?;
        let signature = envelope
            .signature
            .try_into()
            .map_err(|_| "a signature is not 64 bytes")?;
        Ok(Self {
            signer: crate::PublicKey(signer),
            body: envelope.body,
            signature,
        })
    }
}
