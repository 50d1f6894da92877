//! The blob of a tensor, whose address is that of its numbers.
//!
//! A model is the same whether its numbers are stored as f32 or in a shorter format. So a tensor in
//! another format than f32 has the address of the blob of the same numbers as f32: a job on a bf16
//! checkpoint is the same job as one on that checkpoint saved as f32. What is stored and sent is
//! the short form.

use borsh::{BorshDeserialize, BorshSerialize};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::canonical;
use crate::crypto::{Digest, Domain, Hasher};

/// The mark at the beginning of the blob of a tensor whose elements are not f32. No other blob
/// begins with it.
pub const COMPACT: [u8; 16] = *b"concord compact:";

/// How the elements of a stored tensor are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum StoredDtype {
    /// IEEE binary32, little-endian.
    F32,
    /// IEEE binary16.
    F16,
    /// The upper half of a binary32.
    Bf16,
}

impl StoredDtype {
    /// Bytes of an element.
    pub fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// Widens whole elements to f32, which is exact.
    pub fn widened(self, elements: &[u8]) -> Vec<f32> {
        match self {
            Self::F32 => {
                let words = elements.as_chunks().0.iter();
                words.map(|word| f32::from_le_bytes(*word)).collect()
            }
            Self::F16 => widened_f16(elements),
            Self::Bf16 => {
                let halves = elements.as_chunks().0.iter();
                halves
                    .map(|half| bf16::from_le_bytes(*half).to_f32())
                    .collect()
            }
        }
    }
}

/// What precedes the elements in the blob of a tensor, so that its address binds the shape.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct TensorHeader {
    /// How the elements are written.
    pub dtype: StoredDtype,
    /// Row-major shape.
    pub shape: Vec<u64>,
}

impl TensorHeader {
    /// A hasher that has taken in this header; the elements come next.
    pub fn hasher(&self) -> AddressHasher {
        let mut hasher = AddressHasher::default();
        hasher.update(&self.prefix());
        hasher
    }

    /// The address of the blob of this header and `elements`, without allocating the blob.
    pub fn digest(&self, elements: &[u8]) -> Digest {
        let mut hasher = self.hasher();
        hasher.update(elements);
        hasher.finish()
    }

    /// All that precedes the elements: [`COMPACT`] where they are not f32, and the header.
    pub fn prefix(&self) -> Vec<u8> {
        let header = canonical::encode(self);
        match self.dtype {
            StoredDtype::F32 => header,
            _ => [&COMPACT[..], &header].concat(),
        }
    }

    /// Bytes of all elements, or `None` where the product overflows.
    pub fn element_bytes(&self) -> Option<u64> {
        let count = self
            .shape
            .iter()
            .try_fold(1u64, |product, &dim| product.checked_mul(dim))?;
        count.checked_mul(self.dtype.bytes())
    }

    /// The blob of a tensor: the prefix, then the elements.
    pub fn blob(&self, elements: &[u8]) -> Vec<u8> {
        [&self.prefix()[..], elements].concat()
    }

    /// The header that `bytes` begin with, and the length of the prefix.
    ///
    /// # Errors
    /// A sentence, where they begin with no valid header.
    pub fn peek(bytes: &[u8]) -> Result<(Self, usize), String> {
        let compact = bytes.strip_prefix(&COMPACT);
        let mut rest = compact.unwrap_or(bytes);
        let header = Self::deserialize(&mut rest).map_err(|error| format!("no tensor: {error}"))?;
        if header.shape.len() > crate::limits::RANK_MAX {
            return Err(format!("a tensor of rank {}", header.shape.len()));
        }
        // A second spelling would give the same numbers a second address.
        if compact.is_some() == (header.dtype == StoredDtype::F32) {
            return Err(format!("{:?} numbers in the wrong frame", header.dtype));
        }
        Ok((header, bytes.len() - rest.len()))
    }

    /// Splits the blob of a tensor into header and elements.
    ///
    /// # Errors
    /// A sentence, where the blob is no tensor or its length does not fit its shape.
    pub fn split(blob: &[u8]) -> Result<(Self, &[u8]), String> {
        let (header, len) = Self::peek(blob)?;
        let rest = &blob[len..];
        match header.element_bytes() {
            Some(bytes) if bytes == rest.len() as u64 => Ok((header, rest)),
            _ => Err(format!(
                "{} bytes do not fill the shape {:?}",
                rest.len(),
                header.shape
            )),
        }
    }
}

/// The address of a blob whose bytes are in memory.
pub fn address_of(bytes: &[u8]) -> Digest {
    let mut hasher = AddressHasher::default();
    hasher.update(bytes);
    hasher.finish()
}

/// Computes the address of a blob from its bytes, piece by piece: the digest of the bytes or, for a
/// tensor in a short format, of its numbers as f32. No more than one piece is held in memory.
///
/// ```
/// use concord_proto::tensor::{StoredDtype, TensorHeader};
///
/// let of = |dtype, elements: &[u8]| TensorHeader { dtype, shape: vec![2] }.digest(elements);
/// let one_and_two = of(StoredDtype::F32, &[0, 0, 0x80, 0x3f, 0, 0, 0, 0x40]);
/// assert_eq!(of(StoredDtype::Bf16, &[0x80, 0x3f, 0, 0x40]), one_and_two);
/// assert_eq!(of(StoredDtype::F16, &[0, 0x3c, 0, 0x40]), one_and_two);
/// ```
pub struct AddressHasher {
    hasher: Hasher,
    /// Over the bytes as they are: the address of a compact tensor that turns out to be truncated
    /// or malformed.
    plain: Hasher,
    state: HasherState,
}

enum HasherState {
    /// The first bytes, which may yet become a compact prefix.
    Beginning(Vec<u8>),
    /// Bytes are hashed as they are.
    Plain,
    /// Elements are hashed as f32.
    Compact {
        dtype: StoredDtype,
        /// The first bytes of an element whose last byte has not come yet.
        partial: Vec<u8>,
        /// Bytes of elements that are still to come.
        left: u64,
    },
    /// A compact tensor with bytes beyond its shape, or without a valid header: hashed as plain
    /// bytes.
    Broken,
}

impl Default for AddressHasher {
    fn default() -> Self {
        Self {
            hasher: Hasher::new(Domain::Blob),
            plain: Hasher::new(Domain::Blob),
            state: HasherState::Beginning(Vec::new()),
        }
    }
}

impl AddressHasher {
    /// Longer than any prefix.
    const PREFIX_BYTES_MAX: usize = 256;
    /// Bytes of elements that are widened at a time.
    const PIECE: usize = 1 << 15;

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.state {
            HasherState::Plain => self.hasher.update(bytes),
            HasherState::Beginning(first) => {
                let room = Self::PREFIX_BYTES_MAX - first.len();
                let (head, rest) = bytes.split_at(room.min(bytes.len()));
                first.extend_from_slice(head);
                if first.len() >= Self::PREFIX_BYTES_MAX || !Self::may_be_compact(first) {
                    self.begin();
                    self.update(rest);
                }
            }
            HasherState::Compact { .. } => {
                self.plain.update(bytes);
                self.widen(bytes);
            }
            HasherState::Broken => self.plain.update(bytes),
        }
    }

    /// The address of all bytes added. A truncated compact tensor is hashed as plain bytes.
    pub fn finish(mut self) -> Digest {
        if let HasherState::Beginning(_) = self.state {
            self.begin();
        }
        match self.state {
            HasherState::Plain | HasherState::Compact { left: 0, .. } => self.hasher.finish(),
            _ => self.plain.finish(),
        }
    }

    fn may_be_compact(first: &[u8]) -> bool {
        let known = first.len().min(COMPACT.len());
        first[..known] == COMPACT[..known]
    }

    /// Decides what the blob is, by its first bytes.
    fn begin(&mut self) {
        let state = std::mem::replace(&mut self.state, HasherState::Plain);
        let HasherState::Beginning(first) = state else {
            return;
        };
        if !first.starts_with(&COMPACT) {
            self.hasher.update(&first);
            return;
        }
        self.plain.update(&first);
        let header = TensorHeader::peek(&first);
        let compact = header.ok().and_then(|(header, prefix)| {
            let left = header.element_bytes()?;
            let is_compact = header.dtype != StoredDtype::F32;
            is_compact.then_some((header, prefix, left))
        });
        let Some((header, prefix, left)) = compact else {
            self.state = HasherState::Broken;
            return;
        };
        self.state = HasherState::Compact {
            dtype: header.dtype,
            partial: Vec::new(),
            left,
        };
        let wide = TensorHeader {
            dtype: StoredDtype::F32,
            ..header
        };
        self.hasher.update(&wide.prefix());
        self.widen(&first[prefix..]);
    }

    fn widen(&mut self, bytes: &[u8]) {
        let HasherState::Compact {
            dtype,
            partial,
            left,
        } = &mut self.state
        else {
            return;
        };
        let Some(after) = left.checked_sub(bytes.len() as u64) else {
            self.state = HasherState::Broken;
            return;
        };
        *left = after;
        let mut rest = bytes;
        let width = dtype.bytes() as usize;
        if !partial.is_empty() {
            let missing = (width - partial.len()).min(rest.len());
            let (first, later) = rest.split_at(missing);
            partial.extend_from_slice(first);
            rest = later;
            if partial.len() < width {
                return;
            }
            hash_wide(&mut self.hasher, &dtype.widened(partial));
        }
        let whole = rest.len() - rest.len() % width;
        for piece in rest[..whole].chunks(Self::PIECE) {
            hash_wide(&mut self.hasher, &dtype.widened(piece));
        }
        *partial = rest[whole..].to_vec();
    }
}

fn hash_wide(hasher: &mut Hasher, numbers: &[f32]) {
    let mut bytes = Vec::with_capacity(4 * numbers.len());
    for number in numbers {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    hasher.update(&bytes);
}

/// Widens f16 elements to f32 in slices, for which processors have vector instructions.
fn widened_f16(bytes: &[u8]) -> Vec<f32> {
    const SLICE: usize = 2_048;
    let mut wide = vec![0.0; bytes.len() / 2];
    let mut halves = [f16::ZERO; SLICE];
    for (bytes, wide) in bytes.chunks(2 * SLICE).zip(wide.chunks_mut(SLICE)) {
        for (half, pair) in halves.iter_mut().zip(bytes.as_chunks().0) {
            *half = f16::from_le_bytes(*pair);
        }
        halves[..wide.len()].convert_to_f32_slice(wide);
    }
    wide
}
