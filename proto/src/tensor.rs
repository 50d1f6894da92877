//! The blob of a tensor, whose address is that of its numbers.
//!
//! Numbers can be written down as f32 or shorter, down to blocks of some bits a number; a model is
//! the same one either way. So a tensor in another format than f32 has the address of the blob of
//! the same numbers as f32: a job whose model is a bf16 checkpoint is the job whose model is that
//! checkpoint saved as f32, and one on a GGUF file is that on the numbers that its blocks mean.
//! What is stored and sent is the short form.

use borsh::{BorshDeserialize, BorshSerialize};
use concord_formats::BlockFormat;
use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::canonical;
use crate::crypto::{Digest, Domain, Hasher};

/// The mark at the beginning of the blob of a tensor whose elements are not f32. No other blob
/// begins with it.
pub const COMPACT: [u8; 16] = *b"concord compact:";

/// The numbers of whole blocks.
///
/// # Panics
/// Where `elements` are no whole blocks.
pub fn numbers(format: BlockFormat, elements: &[u8]) -> Vec<f32> {
    if format == BlockFormat::F16 {
        return widened_f16(elements);
    }
    let mut numbers = vec![0.0; elements.len() / format.bytes() * format.elements()];
    format.decode(elements, &mut numbers);
    numbers
}

/// What precedes the elements in the blob of a tensor, so that its address binds the shape.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct TensorHeader {
    /// How the elements are written.
    pub dtype: BlockFormat,
    /// Row-major shape; a row, along the last axis, is whole blocks.
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
            BlockFormat::F32 => header,
            _ => [&COMPACT[..], &header].concat(),
        }
    }

    /// Bytes of all elements, or nothing where they cannot be counted or a row is no whole number
    /// of blocks.
    pub fn element_bytes(&self) -> Option<u64> {
        let (cols, rows) = match self.shape.split_last() {
            Some((cols, rows)) => (*cols, rows),
            None => (1, &[][..]),
        };
        let row = self.dtype.row_bytes(usize::try_from(cols).ok()?)?;
        // Rows first: an empty row would hide that they are too many to count.
        let rows = rows
            .iter()
            .try_fold(1_u64, |all, &dim| all.checked_mul(dim))?;
        rows.checked_mul(row as u64)
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
        // Another spelling would be a second address of the same numbers.
        if compact.is_some() == (header.dtype == BlockFormat::F32) {
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
/// use concord_formats::BlockFormat;
/// use concord_proto::tensor::TensorHeader;
///
/// let of = |dtype, elements: &[u8]| TensorHeader { dtype, shape: vec![2] }.digest(elements);
/// let one_and_two = of(BlockFormat::F32, &[0, 0, 0x80, 0x3f, 0, 0, 0, 0x40]);
/// assert_eq!(of(BlockFormat::Bf16, &[0x80, 0x3f, 0, 0x40]), one_and_two);
/// assert_eq!(of(BlockFormat::F16, &[0, 0x3c, 0, 0x40]), one_and_two);
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
        dtype: BlockFormat,
        /// Bytes of a block that is not whole.
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
    /// Numbers that are widened at a time.
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

    /// Adds elements of a tensor whose header was one of f32.
    pub fn update_numbers(&mut self, numbers: &[f32]) {
        for some in numbers.chunks(Self::PIECE) {
            self.update(&bytes_of(some));
        }
    }

    /// The address of all bytes added. A compact tensor that is not whole is bytes like others.
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
            let is_compact = header.dtype != BlockFormat::F32;
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
            dtype: BlockFormat::F32,
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
        let width = dtype.bytes();
        if !partial.is_empty() {
            let missing = (width - partial.len()).min(rest.len());
            let (first, later) = rest.split_at(missing);
            partial.extend_from_slice(first);
            rest = later;
            if partial.len() < width {
                return;
            }
            self.hasher.update(&bytes_of(&numbers(*dtype, partial)));
        }
        let whole = rest.len() - rest.len() % width;
        for piece in rest[..whole].chunks(Self::PIECE / dtype.elements() * width) {
            self.hasher.update(&bytes_of(&numbers(*dtype, piece)));
        }
        *partial = rest[whole..].to_vec();
    }
}

fn bytes_of(numbers: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0; 4 * numbers.len()];
    for (bytes, number) in bytes.as_chunks_mut().0.iter_mut().zip(numbers) {
        *bytes = number.to_le_bytes();
    }
    bytes
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
