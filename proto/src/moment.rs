//! The blob of a moment in 8 bits: NUMERICS.md, section 6, has its numbers.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::canonical;
use crate::limits::RANK_MAX;

/// The mark at the beginning of the blob of a moment in 8 bits. No other blob begins with it.
pub const MOMENT_MARK: [u8; 16] = *b"concord moment8:";

/// Numbers that share a scale.
const BLOCK: u64 = 256;

/// What precedes the words in the blob of a moment in 8 bits, so that its address binds the shape.
///
/// The words of 32 bits follow, little-endian: for each block of 256 numbers its scale and its
/// codes, four in a word; what the last word has beyond the codes is 0.
///
/// ```
/// use concord_proto::moment::MomentHeader;
///
/// let header = MomentHeader { is_second: false, shape: vec![2, 130] };
/// let words = vec![0; 4 * ((1 + 64) + (1 + 1))];
/// let blob = header.blob(&words);
/// assert_eq!(MomentHeader::split(&blob)?, (header, &words[..]));
/// assert!(MomentHeader::split(&blob[1..]).is_err());
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct MomentHeader {
    /// Whether it is the second moment, whose codes have other levels.
    pub is_second: bool,
    /// The shape of the tensor whose moment it is.
    pub shape: Vec<u64>,
}

impl MomentHeader {
    /// All that precedes the words: the mark and the header.
    pub fn prefix(&self) -> Vec<u8> {
        [&MOMENT_MARK[..], &canonical::encode(self)].concat()
    }

    /// Bytes of the words, or nothing where they cannot be counted.
    pub fn word_bytes(&self) -> Option<u64> {
        let mut dims = self.shape.iter();
        let numbers = dims.try_fold(1_u64, |all, &dim| all.checked_mul(dim))?;
        let words = numbers.div_ceil(BLOCK).checked_add(numbers.div_ceil(4))?;
        words.checked_mul(4)
    }

    /// The blob: the prefix, then the words.
    pub fn blob(&self, words: &[u8]) -> Vec<u8> {
        [&self.prefix()[..], words].concat()
    }

    /// Splits a blob into header and words.
    ///
    /// # Errors
    /// A sentence, where the blob is no moment in 8 bits or its length does not fit its shape.
    pub fn split(blob: &[u8]) -> Result<(Self, &[u8]), String> {
        let marked = blob.strip_prefix(&MOMENT_MARK);
        let mut rest = marked.ok_or("no moment in 8 bits")?;
        let header = Self::deserialize(&mut rest)
            .map_err(|error| format!("no moment in 8 bits: {error}"))?;
        let Self { shape, .. } = &header;
        if shape.len() > RANK_MAX {
            return Err(format!("a moment of rank {}", shape.len()));
        }
        match header.word_bytes() {
            Some(bytes) if bytes == rest.len() as u64 => Ok((header, rest)),
            _ => Err(format!(
                "{} bytes are no moment of the shape {shape:?}",
                rest.len()
            )),
        }
    }
}
