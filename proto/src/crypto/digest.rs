//! BLAKE3 digests, every use under a domain tag of its own.

use std::fmt;
use std::str::FromStr;

use borsh::{BorshDeserialize, BorshSerialize};

/// What a digest is taken of. Two domains never share a digest, whatever the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// Bytes in a content-addressed store: tensors, manifests, data.
    Blob,
    /// A job spec: its digest is the job id.
    Job,
    /// The tokens and loss mask of one sequence.
    Sequence,
    /// The sequences of one microbatch, or the microbatches of one step.
    Batch,
    /// A step record.
    Step,
    /// A leaf of a claim.
    Leaf,
    /// A leaf of a Merkle tree.
    MerkleLeaf,
    /// An inner node of a Merkle tree.
    MerkleNode,
    /// The number of leaves and the top node of a Merkle tree.
    MerkleRoot,
    Claim,
    /// The first half of a claim.
    FirstHalf,
    Plan,
    /// What only one coordinator can derive, from a secret of its own.
    Nonce,
    /// The draw of the answers that are audited.
    Draw,
    /// The order of the sequences in one round of the data.
    Shuffle,
    /// A scalar that is an output of a leaf.
    Scalar,
    /// The squared norms that are an output of a leaf.
    Norms,
    /// An entry of the ledger.
    Ledger,
    /// A message under a signature.
    Signature,
    Deployment,
    /// The spec of a generation.
    Generation,
    /// The seed of one of the choices that a request asks for.
    ChoiceSeed,
    /// A pass between two stages.
    Pass,
    /// A row of hidden states.
    Row,
    /// Token ids.
    Tokens,
    /// A token that the last stage drew or scored, with its logprobs.
    Drawn,
    /// The receipt of an answer, in the tree of its batch.
    Receipt,
    /// A text: the body of a request, an answer.
    Text,
    /// The content of a page of keys and values: its tokens and all before them.
    Prefix,
    ApiKey,
    /// The owner of an answer, which the answer's name commits to.
    AnswerOwner,
    /// A challenge to prove who is at an address.
    AddressChallenge,
    /// The draw of the segments that a verifier replays.
    Replay,
    /// What an auditor commits to.
    Enrolment,
    /// A secret that an auditor opens.
    Reveal,
    /// A secret of an auditor, and the one before it in its chain.
    SecretChain,
    /// The draw of the leaves that an auditor re-runs.
    SecretDraw,
    /// What who has computed a leaf knows of it, under the key of a checker: no other checker can
    /// pass it off as its own.
    Trace,
}

impl Domain {
    /// The tag, as it enters BLAKE3's key derivation.
    pub const fn tag(self) -> &'static str {
        match self {
            Self::Blob => "concord.v1.blob",
            Self::Job => "concord.v1.job",
            Self::Sequence => "concord.v1.sequence",
            Self::Batch => "concord.v1.batch",
            Self::Step => "concord.v1.step",
            Self::Leaf => "concord.v1.leaf",
            Self::MerkleLeaf => "concord.v1.merkle.leaf",
            Self::MerkleNode => "concord.v1.merkle.node",
            Self::MerkleRoot => "concord.v1.merkle.root",
            Self::Claim => "concord.v1.claim",
            Self::FirstHalf => "concord.v1.claim.first",
            Self::Plan => "concord.v1.plan",
            Self::Nonce => "concord.v1.nonce",
            Self::Draw => "concord.v1.draw",
            Self::Shuffle => "concord.v1.shuffle",
            Self::Scalar => "concord.v1.scalar",
            Self::Norms => "concord.v1.norms",
            Self::Ledger => "concord.v1.ledger",
            Self::Signature => "concord.v1.signature",
            Self::Deployment => "concord.v1.deployment",
            Self::Generation => "concord.v1.generation",
            Self::ChoiceSeed => "concord.v1.choice",
            Self::Pass => "concord.v1.pass",
            Self::Row => "concord.v1.row",
            Self::Tokens => "concord.v1.tokens",
            Self::Drawn => "concord.v1.drawn",
            Self::Receipt => "concord.v1.receipt",
            Self::Text => "concord.v1.text",
            Self::Prefix => "concord.v1.prefix",
            Self::ApiKey => "concord.v1.apikey",
            Self::AnswerOwner => "concord.v1.answer.owner",
            Self::AddressChallenge => "concord.v1.address.challenge",
            Self::Replay => "concord.v1.replay",
            Self::Enrolment => "concord.v1.enrolment",
            Self::Reveal => "concord.v1.reveal",
            Self::SecretChain => "concord.v1.secret",
            Self::SecretDraw => "concord.v1.secret.draw",
            Self::Trace => "concord.v1.trace",
        }
    }

    /// What BLAKE3's key derivation makes of the tag: all that a device needs to take a digest
    /// under this domain.
    pub fn context_key(self) -> [u8; 32] {
        blake3::hazmat::hash_derive_key_context(self.tag())
    }
}

/// 32 bytes of BLAKE3.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, BorshSerialize, BorshDeserialize,
)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of `bytes` under `domain`.
    pub fn of(domain: Domain, bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(domain);
        hasher.update(bytes);
        hasher.finish()
    }

    /// The digest of the canonical encoding of `value` under `domain`.
    pub fn of_value<T: BorshSerialize>(domain: Domain, value: &T) -> Self {
        Self::of(domain, &crate::canonical::encode(value))
    }

    /// The first eight hexadecimal digits, for people.
    pub fn short(&self) -> String {
        self.to_string()[..8].to_string()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.short())
    }
}

impl FromStr for Digest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || format!("'{text}' is not a digest of 64 hexadecimal digits");
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(refuse());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| refuse())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| refuse())?;
        }
        Ok(Self(bytes))
    }
}

/// A digest taken piece by piece.
pub struct Hasher(blake3::Hasher);

impl Hasher {
    /// Starts a digest under `domain`.
    pub fn new(domain: Domain) -> Self {
        Self(blake3::Hasher::new_derive_key(domain.tag()))
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes added.
    pub fn finish(&self) -> Digest {
        Digest(*self.0.finalize().as_bytes())
    }
}
