//! Receipts that are signed together. A busy coordinator signs one root over many of them, and each
//! carries its path: whoever has one can check it alone, and sees nothing of the others.
//!
//! ```
//! use concord_proto::serving::BatchedReceipt;
//! use concord_proto::Keypair;
//!
//! let key = Keypair::from_secret([1; 32]);
//! let batch = BatchedReceipt::sign(&key, vec![b"one".to_vec(), b"two".to_vec()]);
//! assert_eq!(batch[1].signer(), key.public());
//! assert!(batch[1].open().is_err(), "these are no receipts");
//! ```

use borsh::{BorshDeserialize, BorshSerialize};

use super::receipt::Receipt;
use crate::canonical::{self, DecodeError};
use crate::crypto::{Digest, Domain, Keypair, PublicKey, Signed, SignedError};
use crate::merkle::{self, MerklePath};

/// What is signed about receipts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ReceiptBatch {
    /// The Merkle root over the digests of the receipts, under [`Domain::Receipt`].
    pub root: Digest,
    /// How many they are.
    pub count: u32,
}

/// A receipt, with all that shows who signed it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct BatchedReceipt {
    /// The canonical encoding of a [`Receipt`].
    pub receipt: Vec<u8>,
    /// From the receipt to the root of the batch.
    pub path: MerklePath,
    /// A signed [`ReceiptBatch`].
    pub batch: Signed,
}

/// Why a receipt was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BatchedReceiptError {
    /// The signature on the batch does not hold, or it is none.
    #[error(transparent)]
    Signed(#[from] SignedError),
    /// The receipt is not in the batch: altered, or with the path or the batch of another one.
    #[error("the receipt is not in the batch that {0} signed: its path does not lead to its root")]
    Outside(PublicKey),
    /// The bytes in the batch are no receipt.
    #[error("{signer} signed bytes that are no receipt: {why}")]
    Malformed {
        /// Who signed them.
        signer: PublicKey,
        /// What is wrong with them.
        why: DecodeError,
    },
}

impl BatchedReceipt {
    /// Signs the canonical encodings of receipts, all at once.
    pub fn sign(key: &Keypair, receipts: Vec<Vec<u8>>) -> Vec<Self> {
        let digests: Vec<Digest> = receipts.iter().map(|bytes| digest(bytes)).collect();
        let batch = ReceiptBatch {
            root: merkle::root(&digests),
            count: digests.len() as u32,
        };
        let batch = Signed::new(key, &batch);
        let of = |(index, receipt): (u32, Vec<u8>)| Self {
            receipt,
            path: merkle::path(&digests, index).expect("a leaf for each receipt"),
            batch: batch.clone(),
        };
        (0..).zip(receipts).map(of).collect()
    }

    /// A receipt in a batch of its own.
    pub fn alone(key: &Keypair, receipt: &Receipt) -> Self {
        let mut all = Self::sign(key, vec![canonical::encode(receipt)]);
        all.pop().expect("one receipt")
    }

    /// Who signed it.
    pub fn signer(&self) -> PublicKey {
        self.batch.signer
    }

    /// Checks signature, path and encoding, then gives the receipt.
    ///
    /// # Errors
    /// [`BatchedReceiptError`], naming the signer.
    pub fn open(&self) -> Result<Receipt, BatchedReceiptError> {
        let signer = self.signer();
        let batch: ReceiptBatch = self.batch.open()?;
        let is_inside = merkle::proves(&batch.root, &digest(&self.receipt), &self.path);
        if !is_inside || batch.count != self.path.count {
            return Err(BatchedReceiptError::Outside(signer));
        }
        let malformed = |why| BatchedReceiptError::Malformed { signer, why };
        canonical::decode(&self.receipt).map_err(malformed)
    }
}

fn digest(receipt: &[u8]) -> Digest {
    Digest::of(Domain::Receipt, receipt)
}
