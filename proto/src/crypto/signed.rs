//! Ed25519 keys, and canonical messages under a signature.

use std::fmt;
use std::str::FromStr;

use borsh::{BorshDeserialize, BorshSerialize};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

use crate::canonical::{self, DecodeError};
use crate::crypto::{Digest, Domain};

/// A public key: the name of a worker, a checker or a coordinator.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct PublicKey(pub [u8; 32]);

/// A worker is known by its public key.
pub type WorkerId = PublicKey;

impl PublicKey {
    /// The first eight hexadecimal digits, for people.
    pub fn short(&self) -> String {
        Digest(self.0).short()
    }

    /// Checks `signature` over the digest of a message.
    pub fn verifies(&self, message: &Digest, signature: &[u8; 64]) -> bool {
        VerifyingKey::from_bytes(&self.0).is_ok_and(|key| {
            key.verify_strict(&message.0, &Signature::from_bytes(signature))
                .is_ok()
        })
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Digest(self.0).fmt(f)
    }
}

impl FromStr for PublicKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digest = Digest::from_str(text);
        let refuse = |_| format!("'{text}' is not a key of 64 hexadecimal digits");
        digest.map(|digest| Self(digest.0)).map_err(refuse)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

/// A private key.
#[derive(Clone)]
pub struct Keypair(SigningKey);

impl Keypair {
    /// The key of a 32-byte secret.
    pub fn from_secret(secret: [u8; 32]) -> Self {
        Self(SigningKey::from_bytes(&secret))
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// The secret half, for a library that signs with it.
    #[cfg(feature = "grpc")]
    pub(crate) fn secret(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// Signs the digest of a message.
    pub fn sign(&self, message: &Digest) -> [u8; 64] {
        self.0.sign(&message.0).to_bytes()
    }
}

impl fmt::Debug for Keypair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keypair({})", self.public().short())
    }
}

/// The canonical encoding of a `T` under a signature. The bytes stay as they were signed.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Signed {
    /// Who signed.
    pub signer: PublicKey,
    /// The canonical encoding.
    pub body: Vec<u8>,
    /// Over [`Domain::Signature`] and the body.
    pub signature: [u8; 64],
}

/// Why a signed message was refused.
#[derive(Debug, thiserror::Error)]
pub enum SignedError {
    /// The signature is not the signer's over the body.
    #[error("the signature of {0} does not fit the message")]
    Forged(PublicKey),
    /// The body is not a canonical encoding of the type.
    #[error("{signer} signed bytes that cannot be read: {why}")]
    Malformed {
        /// Who signed them.
        signer: PublicKey,
        /// What is wrong with them.
        why: DecodeError,
    },
}

impl Signed {
    /// Signs `value`.
    pub fn new<T: BorshSerialize>(key: &Keypair, value: &T) -> Self {
        let body = canonical::encode(value);
        let signature = key.sign(&Digest::of(Domain::Signature, &body));
        Self {
            signer: key.public(),
            body,
            signature,
        }
    }

    /// Checks the signature and the encoding, then gives the value.
    ///
    /// # Errors
    /// [`SignedError`], naming the signer.
    pub fn open<T: BorshSerialize + BorshDeserialize>(&self) -> Result<T, SignedError> {
        if !self
            .signer
            .verifies(&Digest::of(Domain::Signature, &self.body), &self.signature)
        {
            return Err(SignedError::Forged(self.signer));
        }
        canonical::decode(&self.body).map_err(|why| SignedError::Malformed {
            signer: self.signer,
            why,
        })
    }
}
