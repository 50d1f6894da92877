//! How the codes of a page lie: as products of single rows take them, in groups of the elements
//! that a vector instruction adds up in one lane.

use crate::coded::Precision;
use crate::reference::attention::AttentionShape;
use crate::reference::pages::PAGE_TOKENS;

/// Columns of what lies in pages come in multiples of it: the 32-bit lanes of a vector.
pub(crate) const LANES: usize = 16;

/// The byte of a code of 0. Codes of 8 bits lie 128 higher, as bytes without a sign, which is what
/// AVX-512 multiplies with signed digits.
pub(crate) const CODE_ZERO: u8 = 128;

/// The shape of a page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    /// Neighbours along the summed axis that share a lane: 2 codes of 16 bits, or 4 of 8.
    group: usize,
}

impl Sizes {
    pub(super) fn new(shape: &AttentionShape, precision: Precision) -> Self {
        Self {
            kv_heads: shape.kv_heads,
            head_dim: shape.head_dim,
            group: if precision == Precision::I8 { 4 } else { 2 },
        }
    }

    /// Codes of the keys of one head: groups of features, then tokens.
    fn keys(self) -> usize {
        self.head_dim.next_multiple_of(self.group) * PAGE_TOKENS
    }

    /// Features of a value, filled up to whole vectors.
    fn width(self) -> usize {
        self.head_dim.next_multiple_of(LANES)
    }

    /// Codes of the values of one head: groups of tokens, then features.
    fn values(self) -> usize {
        self.width() * PAGE_TOKENS
    }

    /// Bytes of the codes of one head.
    pub(super) fn bytes(self) -> usize {
        4 / self.group * (self.keys() + self.values())
    }

    /// Where a feature of the key of a slot stands.
    fn key_at(self, feature: usize, slot: usize) -> usize {
        (feature / self.group * PAGE_TOKENS + slot) * self.group + feature % self.group
    }

    /// Where a feature of the value of a slot stands.
    fn value_at(self, feature: usize, slot: usize) -> usize {
        (slot / self.group * self.width() + feature) * self.group + slot % self.group
    }
}

/// Codes of a page: keys `[kv_heads, head_dim / group, PAGE_TOKENS, group]`, values
/// `[kv_heads, PAGE_TOKENS / group, width, group]`.
#[derive(Clone, Debug)]
pub(super) enum PageCodes {
    /// Of more than 8 bits, in pairs.
    Words { keys: Vec<i16>, values: Vec<i16> },
    /// Of 8 bits, in quads, each plus [`CODE_ZERO`].
    Bytes { keys: Vec<u8>, values: Vec<u8> },
}

/// What one key head has of [`PageCodes`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum HeadCodes<'a> {
    /// `[head_dim / 2, PAGE_TOKENS, 2]` and `[PAGE_TOKENS / 2, width, 2]`, `width` being `head_dim`
    /// filled up to whole vectors.
    Words { keys: &'a [i16], values: &'a [i16] },
    /// `[head_dim / 4, PAGE_TOKENS, 4]` and `[PAGE_TOKENS / 4, width, 4]`.
    Bytes { keys: &'a [u8], values: &'a [u8] },
}

impl PageCodes {
    pub(super) fn new(sizes: Sizes) -> Self {
        let keys = sizes.kv_heads * sizes.keys();
        let values = sizes.kv_heads * sizes.values();
        if sizes.group == 4 {
            return Self::Bytes {
                keys: vec![0; keys],
                values: vec![0; values],
            };
        }
        Self::Words {
            keys: vec![0; keys],
            values: vec![0; values],
        }
    }

    pub(super) fn head(&self, sizes: Sizes, head: usize) -> HeadCodes<'_> {
        let (keys_len, values_len) = (sizes.keys(), sizes.values());
        let of_keys = head * keys_len..(head + 1) * keys_len;
        let of_values = head * values_len..(head + 1) * values_len;
        match self {
            Self::Words { keys, values } => HeadCodes::Words {
                keys: &keys[of_keys],
                values: &values[of_values],
            },
            Self::Bytes { keys, values } => HeadCodes::Bytes {
                keys: &keys[of_keys],
                values: &values[of_values],
            },
        }
    }

    pub(super) fn put_key(&mut self, sizes: Sizes, (head, slot): (usize, usize), codes: &[i16]) {
        let first = head * sizes.keys();
        let places = |feature| first + sizes.key_at(feature, slot);
        match self {
            Self::Words { keys, .. } => put(keys, places, codes, |code| code),
            Self::Bytes { keys, .. } => put(keys, places, codes, byte),
        }
    }

    pub(super) fn put_value(&mut self, sizes: Sizes, (head, slot): (usize, usize), codes: &[i16]) {
        let first = head * sizes.values();
        let places = |feature| first + sizes.value_at(feature, slot);
        match self {
            Self::Words { values, .. } => put(values, places, codes, |code| code),
            Self::Bytes { values, .. } => put(values, places, codes, byte),
        }
    }
}

#[inline(always)]
fn put<T>(
    stored: &mut [T],
    place: impl Fn(usize) -> usize,
    codes: &[i16],
    as_stored: impl Fn(i16) -> T,
) {
    for (feature, &code) in codes.iter().enumerate() {
        stored[place(feature)] = as_stored(code);
    }
}

/// The byte of a code of 8 bits.
fn byte(code: i16) -> u8 {
    (code + i16::from(CODE_ZERO)) as u8
}

/// The code of a byte.
fn code_of(byte: u8) -> i16 {
    i16::from(byte) - i16::from(CODE_ZERO)
}

impl HeadCodes<'_> {
    /// A feature of the key of a slot.
    pub(super) fn key(&self, sizes: Sizes, feature: usize, slot: usize) -> i16 {
        let at = sizes.key_at(feature, slot);
        match self {
            Self::Words { keys, .. } => keys[at],
            Self::Bytes { keys, .. } => code_of(keys[at]),
        }
    }

    /// A feature of the value of a slot.
    pub(super) fn value(&self, sizes: Sizes, feature: usize, slot: usize) -> i16 {
        let at = sizes.value_at(feature, slot);
        match self {
            Self::Words { values, .. } => values[at],
            Self::Bytes { values, .. } => code_of(values[at]),
        }
    }
}
