//! Reads the bytes of a file in order, with checks against its end.

/// Bytes that are read in order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// A cursor at byte `at`, which must not be beyond the end.
    pub(super) fn at(bytes: &'a [u8], at: usize) -> Self {
        Self {
            bytes,
            at: at.min(bytes.len()),
        }
    }

    /// The offset of the next byte.
    pub(super) fn place(&self) -> usize {
        self.at
    }

    /// The length of the whole file.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let taken = self.bytes[self.at..].get(..count);
        let taken = taken.ok_or_else(|| {
            format!(
                "is cut short: {count} bytes are needed at byte {}, and the file has {}",
                self.at,
                self.bytes.len()
            )
        })?;
        self.at += count;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(super) fn skip(&mut self, count: u64) -> Result<(), String> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        self.take(count).map(|_| ())
    }

    /// Reads a string: its length in bytes, then the bytes.
    pub(super) fn text(&mut self) -> Result<&'a [u8], String> {
        let length = u64::from_le_bytes(self.array()?);
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }

    /// The bytes from here up to `end`.
    pub(super) fn until(&self, end: &Cursor<'a>) -> &'a [u8] {
        &self.bytes[self.at..end.at]
    }
}
