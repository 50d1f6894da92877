//! A moment of an optimizer in 8 bits a number.

use std::borrow::Cow;
use std::fmt;

use crate::reference::adamw_8bit::{BLOCK_WORDS, MOMENT_BLOCK, decode_block, encode_block};
use crate::{Buffer, KernelError, Tensor};

pub use crate::reference::adamw_8bit::MomentKind;

/// A moment of AdamW as codes of 8 bits, with an f32 scale for each block of 256 numbers, on the
/// host or in the memory of a GPU: see NUMERICS.md, section 6.
///
/// It is words of 32 bits, block by block: the scale, then the codes, four in a word, the first in
/// the lowest bits. The last block may be shorter; what its last word has beyond the codes is 0.
///
/// ```
/// use concord_kernels::{MomentKind, PackedMoment};
///
/// let moment = PackedMoment::zeros(MomentKind::Second, &[3, 100]);
/// assert_eq!(moment.words()?.len(), (1 + 64) + (1 + 11));
/// assert_eq!(moment.decoded()?.data(), [0.0; 300]);
/// # Ok::<(), concord_kernels::KernelError>(())
/// ```
#[derive(Clone, PartialEq)]
pub struct PackedMoment {
    kind: MomentKind,
    shape: Vec<usize>,
    words: Buffer<u32>,
}

impl PackedMoment {
    /// A moment of zeros, on the host.
    pub fn zeros(kind: MomentKind, shape: &[usize]) -> Self {
        let len = shape.iter().product();
        let mut words = vec![0; words_of(len)];
        for (block, words) in words.chunks_mut(BLOCK_WORDS).enumerate() {
            let codes: &mut [u8] = bytemuck::cast_slice_mut(&mut words[1..]);
            codes[..block_len(len, block)].fill(kind.zero());
        }
        Self {
            kind,
            shape: shape.to_vec(),
            words: words.into(),
        }
    }

    /// The moment that is nearest to `numbers`, on the host.
    ///
    /// # Errors
    /// [`KernelError::NotFinite`], naming `name`, where a number is not;
    /// [`KernelError::Cuda`] where they lie on a GPU that is lost.
    pub fn nearest(kind: MomentKind, name: &str, numbers: &Tensor) -> Result<Self, KernelError> {
        numbers.check_finite(name)?;
        let mut moment = Self::zeros(kind, numbers.shape());
        let (words, numbers) = (moment.words.values_mut()?, numbers.values()?);
        let blocks = words
            .chunks_mut(BLOCK_WORDS)
            .zip(numbers.chunks(MOMENT_BLOCK));
        blocks.for_each(|(words, numbers)| encode_block(kind, numbers, words));
        Ok(moment)
    }

    /// A moment of `words`, as [`Self::words`] gives them.
    ///
    /// # Errors
    /// [`KernelError::DoesNotFit`] where they do not fill `shape`, where a scale is negative or not
    /// finite, or where something follows the last code.
    pub fn new(kind: MomentKind, shape: &[usize], words: Vec<u32>) -> Result<Self, KernelError> {
        let refuse = |why: String| Err(KernelError::DoesNotFit(why));
        let len = shape.iter().product();
        if words.len() != words_of(len) {
            let count = words.len();
            return refuse(format!(
                "{count} words are no moment of the shape {shape:?}"
            ));
        }
        for (block, words) in words.chunks(BLOCK_WORDS).enumerate() {
            if words[0] >= f32::INFINITY.to_bits() {
                let scale = f32::from_bits(words[0]);
                return refuse(format!("block {block} of a moment has the scale {scale}"));
            }
            let codes: &[u8] = bytemuck::cast_slice(&words[1..]);
            if codes[block_len(len, block)..].iter().any(|&byte| byte != 0) {
                return refuse(format!(
                    "block {block} of a moment has bytes after its codes"
                ));
            }
        }
        Ok(Self {
            kind,
            shape: shape.to_vec(),
            words: words.into(),
        })
    }

    /// Which moment it is.
    pub fn kind(&self) -> MomentKind {
        self.kind
    }

    /// The shape of the tensor whose moment it is.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of numbers.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the words lie on the host.
    pub fn is_on_host(&self) -> bool {
        matches!(self.words, Buffer::Host(_))
    }

    /// The words, fetched where they lie on a GPU.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where the GPU is lost.
    pub fn words(&self) -> Result<Cow<'_, [u32]>, KernelError> {
        self.words.values()
    }

    /// The numbers that its codes stand for, in its shape, on the host.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where the GPU is lost.
    pub fn decoded(&self) -> Result<Tensor, KernelError> {
        let mut numbers = vec![0.0; self.len()];
        let words = self.words()?;
        let blocks = words
            .chunks(BLOCK_WORDS)
            .zip(numbers.chunks_mut(MOMENT_BLOCK));
        blocks.for_each(|(words, numbers)| decode_block(self.kind, words, numbers));
        Tensor::new(&self.shape, numbers)
    }

    /// Moves it to the host; nothing is copied where it lies there.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where the GPU is lost.
    pub fn into_host(self) -> Result<Self, KernelError> {
        let words = Buffer::Host(self.words.into_values()?);
        Ok(Self { words, ..self })
    }

    pub(crate) fn buffer(&self) -> &Buffer<u32> {
        &self.words
    }

    pub(crate) fn buffer_mut(&mut self) -> &mut Buffer<u32> {
        &mut self.words
    }

    pub(crate) fn map_buffer(
        self,
        change: impl FnOnce(Buffer<u32>) -> Result<Buffer<u32>, KernelError>,
    ) -> Result<Self, KernelError> {
        let words = change(self.words)?;
        Ok(Self { words, ..self })
    }
}

/// Words of a moment of `len` numbers.
fn words_of(len: usize) -> usize {
    len.div_ceil(MOMENT_BLOCK) + len.div_ceil(4)
}

/// Numbers of a block of a moment of `len` numbers.
fn block_len(len: usize, block: usize) -> usize {
    (len - block * MOMENT_BLOCK).min(MOMENT_BLOCK)
}

impl fmt::Debug for PackedMoment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PackedMoment({:?}){:?}", self.kind, self.shape)
    }
}
