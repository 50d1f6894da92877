//! A text file as pieces of text, so that none is held whole.

use std::io::BufRead;
use std::path::Path;

use crate::error::DataError;
use crate::files::Packing;
use crate::unpack::Unpacked;
use crate::utf8::{not_a_text, not_utf8};

/// Calls `each` with pieces of the text of a file, of some 64 KiB, with line ends of `\r\n` as
/// `\n`, and with the bytes of the file that were read since the last call.
///
/// # Errors
/// [`DataError`] with the offset of a byte that begins no character, or is NUL.
pub(crate) fn for_each(
    path: &Path,
    packing: Packing,
    each: &mut dyn FnMut(&str, u64) -> Result<(), DataError>,
) -> Result<(), DataError> {
    let mut file = Unpacked::open(path, packing)?;
    // Offset of the first byte that is not in a piece yet, and what is held back of a buffer: a
    // part of a character, or a `\r` whose next byte is not known.
    let (mut offset, mut held) = (file.mark_bytes, Vec::new());
    loop {
        let buffer = file
            .reader
            .fill_buf()
            .map_err(DataError::io("read", path))?;
        let count = buffer.len();
        if let Some(at) = buffer.iter().position(|byte| *byte == 0) {
            let at = offset + (held.len() + at) as u64;
            return Err(DataError::file(path, not_a_text(at)));
        }
        held.extend_from_slice(buffer);
        file.reader.consume(count);
        let is_last = count == 0;
        let whole = match std::str::from_utf8(&held) {
            Ok(_) => held.len(),
            Err(error) if error.error_len().is_none() && !is_last => error.valid_up_to(),
            Err(error) => {
                let at = offset + error.valid_up_to() as u64;
                return Err(DataError::file(path, not_utf8(at)));
            }
        };
        let end = match held[..whole].last() {
            Some(b'\r') if !is_last => whole - 1,
            _ => whole,
        };
        let rest = held.split_off(end);
        let piece = String::from_utf8(std::mem::replace(&mut held, rest));
        let piece = piece.map_err(|_| DataError::file(path, not_utf8(offset)))?;
        offset += piece.len() as u64;
        let read = file.read.take();
        match piece.contains("\r\n") {
            true => each(&piece.replace("\r\n", "\n"), read)?,
            false => each(&piece, read)?,
        }
        if is_last {
            return Ok(());
        }
    }
}
