//! Keeps bytes on disk, in an unnamed file that ends with the process.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};

/// The file, created when it is first needed.
#[derive(Default)]
pub struct Spool {
    file: Option<File>,
    bytes: u64,
}

/// A range of bytes in a [`Spool`].
pub struct Spooled {
    start: u64,
    bytes: usize,
}

impl Spool {
    /// Adds bytes.
    ///
    /// # Errors
    /// Where the disk has no room for them.
    pub fn put(&mut self, bytes: &[u8]) -> std::io::Result<Spooled> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(tempfile::tempfile()?),
        };
        // Overwrites what a failed write may have left.
        file.seek(SeekFrom::Start(self.bytes))?;
        file.write_all(bytes)?;
        let start = self.bytes;
        self.bytes += bytes.len() as u64;
        Ok(Spooled {
            start,
            bytes: bytes.len(),
        })
    }

    /// Reads bytes again.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn get(&self, spooled: &Spooled) -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; spooled.bytes];
        if let Some(mut file) = self.file.as_ref() {
            file.seek(SeekFrom::Start(spooled.start))?;
            file.read_exact(&mut bytes)?;
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_in_any_order() {
        let mut spool = Spool::default();
        let texts: [&[u8]; 4] = [b"first", b"", b"the third", b"4"];
        let spooled = texts.map(|text| spool.put(text).unwrap());
        for index in [2, 0, 3, 1, 2] {
            assert_eq!(spool.get(&spooled[index]).unwrap(), texts[index]);
        }
    }
}
