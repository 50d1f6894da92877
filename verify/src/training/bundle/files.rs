//! A bundle as files of canonical encodings.
//!
//! A file of one value is its encoding. A file of many values has one after another, each preceded
//! by its length as a little-endian u32: so the bound on messages holds for each value, however
//! long the job, and a broken one is named by its number.

use borsh::{BorshDeserialize, BorshSerialize};
use concord_proto::canonical;
use concord_proto::limits::BLOB_BYTES_MAX;
use concord_proto::session::Scalars;

use super::{Bundle, StepClaims, VerifyError, VoidClaims};
use crate::training::WorkerClaim;

pub(super) const SPEC: &str = "job.spec";
pub(super) const DATA: &str = "data.manifest";
pub(super) const INITIAL: &str = "state.initial";
pub(super) const RECORDS: &str = "chain.records";
pub(super) const CLAIMS: &str = "claims.steps";
pub(super) const VOIDED: &str = "claims.void";
pub(super) const LEDGER: &str = "ledger.entries";

/// The files of a bundle.
pub const FILES: [&str; 7] = [SPEC, DATA, INITIAL, RECORDS, CLAIMS, VOIDED, LEDGER];

/// What precedes the claims of a step in their file.
#[derive(BorshSerialize, BorshDeserialize)]
struct StepHead {
    step: u32,
    scalars: Scalars,
    claims: u32,
}

/// What precedes the claims of a void attempt.
#[derive(BorshSerialize, BorshDeserialize)]
struct VoidHead {
    attempt: u32,
    claims: u32,
}

impl Bundle {
    /// The files, by name.
    pub fn files(&self) -> Vec<(String, Vec<u8>)> {
        let (mut claims, mut voided) = (Vec::new(), Vec::new());
        self.claims
            .iter()
            .for_each(|step| put_step(&mut claims, step));
        for void in &self.voided {
            put_void(&mut voided, void);
        }
        let contents = [
            canonical::encode(&self.spec),
            canonical::encode(&self.data),
            canonical::encode(&self.initial_state),
            put_all(&self.records),
            claims,
            voided,
            put_all(&self.ledger),
        ];
        FILES
            .iter()
            .map(|name| name.to_string())
            .zip(contents)
            .collect()
    }

    /// The bundle of these files, in any order.
    ///
    /// # Errors
    /// [`VerifyError`] naming the file that is missing, is there twice, does not belong to a bundle
    /// or holds bytes that are no canonical encoding, and where in it these are.
    pub fn from_files(files: &[(String, Vec<u8>)]) -> Result<Self, VerifyError> {
        for (index, (name, _)) in files.iter().enumerate() {
            if !FILES.contains(&name.as_str()) {
                let name = clipped(name);
                return Err(VerifyError::new(&name, "the file", "no file of a bundle"));
            }
            if files[..index].iter().any(|(other, _)| other == name) {
                return Err(VerifyError::new(name, "the file", "it is there twice"));
            }
        }
        let bytes = |name: &str| {
            let found = files.iter().find(|(other, _)| other == name);
            found
                .map(|(_, bytes)| bytes.as_slice())
                .ok_or_else(|| VerifyError::new(name, "the file", "it is missing"))
        };
        Ok(Self {
            spec: one(SPEC, bytes(SPEC)?)?,
            data: one(DATA, bytes(DATA)?)?,
            initial_state: one(INITIAL, bytes(INITIAL)?)?,
            records: Elements::of(RECORDS, bytes(RECORDS)?).all("record")?,
            claims: read_claims(bytes(CLAIMS)?)?,
            voided: read_voided(bytes(VOIDED)?)?,
            ledger: Elements::of(LEDGER, bytes(LEDGER)?).all("entry")?,
        })
    }
}

/// The files of a bundle as one blob: the canonical list of (file name, bytes).
pub fn to_blob(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    borsh::to_vec(files).expect("writing to memory does not fail")
}

/// The files in a blob made by [`to_blob`].
///
/// # Errors
/// [`VerifyError`] where the blob is too long or is not such a list.
pub fn from_blob(blob: &[u8]) -> Result<Vec<(String, Vec<u8>)>, VerifyError> {
    let refuse = |reason: String| VerifyError::new("bundle", "the list of files", reason);
    if blob.len() as u64 > BLOB_BYTES_MAX {
        return Err(refuse(format!("{} bytes are over the bound", blob.len())));
    }
    borsh::from_slice(blob).map_err(|error| refuse(error.to_string()))
}

/// A name that came from outside, short enough for a message.
fn clipped(name: &str) -> String {
    name.chars().take(40).collect()
}

fn put<T: BorshSerialize>(bytes: &mut Vec<u8>, value: &T) {
    let element = canonical::encode(value);
    bytes.extend_from_slice(&(element.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&element);
}

fn put_all<T: BorshSerialize>(values: &[T]) -> Vec<u8> {
    let mut bytes = Vec::new();
    values.iter().for_each(|value| put(&mut bytes, value));
    bytes
}

fn one<T: BorshSerialize + BorshDeserialize>(file: &str, bytes: &[u8]) -> Result<T, VerifyError> {
    canonical::decode(bytes).map_err(|why| VerifyError::new(file, "its one value", why))
}

fn put_step(bytes: &mut Vec<u8>, step: &StepClaims) {
    let head = StepHead {
        step: step.step,
        scalars: step.scalars.clone(),
        claims: step.claims.len() as u32,
    };
    put(bytes, &head);
    step.claims.iter().for_each(|claim| put(bytes, claim));
}

fn put_void(bytes: &mut Vec<u8>, void: &VoidClaims) {
    let head = VoidHead {
        attempt: void.attempt,
        claims: void.claims.len() as u32,
    };
    put(bytes, &head);
    void.claims.iter().for_each(|claim| put(bytes, claim));
}

fn read_claims(bytes: &[u8]) -> Result<Vec<StepClaims>, VerifyError> {
    let mut elements = Elements::of(CLAIMS, bytes);
    let mut steps = Vec::new();
    while !elements.at_end() {
        steps.push(elements.next_step(&format!("step {}", steps.len()))?);
    }
    Ok(steps)
}

fn read_voided(bytes: &[u8]) -> Result<Vec<VoidClaims>, VerifyError> {
    let mut elements = Elements::of(VOIDED, bytes);
    let mut voided = Vec::new();
    while !elements.at_end() {
        let of = format!("void attempt {}", voided.len());
        let head: VoidHead = elements.next(&format!("head of {of}"))?;
        voided.push(VoidClaims {
            attempt: head.attempt,
            claims: elements.next_claims(&of, head.claims)?,
        });
    }
    Ok(voided)
}

/// A file of many values, read from the front.
struct Elements<'a> {
    file: &'static str,
    rest: &'a [u8],
}

impl<'a> Elements<'a> {
    fn of(file: &'static str, rest: &'a [u8]) -> Self {
        Self { file, rest }
    }

    fn at_end(&self) -> bool {
        self.rest.is_empty()
    }

    fn next<T: BorshSerialize + BorshDeserialize>(
        &mut self,
        place: &str,
    ) -> Result<T, VerifyError> {
        let refuse = |why: String| VerifyError::new(self.file, place, why);
        let cut = || refuse("the file ends within it".to_string());
        let (length, rest) = self.rest.split_first_chunk::<4>().ok_or_else(cut)?;
        let length = u32::from_le_bytes(*length) as usize;
        let (element, rest) = rest.split_at_checked(length).ok_or_else(cut)?;
        self.rest = rest;
        canonical::decode(element).map_err(|why| VerifyError::new(self.file, place, why))
    }

    fn next_step(&mut self, of: &str) -> Result<StepClaims, VerifyError> {
        let head: StepHead = self.next(&format!("head of {of}"))?;
        Ok(StepClaims {
            step: head.step,
            scalars: head.scalars,
            claims: self.next_claims(of, head.claims)?,
        })
    }

    fn next_claims(&mut self, of: &str, count: u32) -> Result<Vec<WorkerClaim>, VerifyError> {
        let mut claims = Vec::new();
        for index in 0..count {
            claims.push(self.next(&format!("claim {index} of {of}"))?);
        }
        Ok(claims)
    }

    fn all<T: BorshSerialize + BorshDeserialize>(
        mut self,
        what: &str,
    ) -> Result<Vec<T>, VerifyError> {
        let mut values = Vec::new();
        while !self.at_end() {
            let place = format!("{what} {}", values.len());
            values.push(self.next(&place)?);
        }
        Ok(values)
    }
}
