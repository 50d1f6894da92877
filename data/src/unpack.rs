//! The bytes of a file, unpacked as they are read, and how far the file was read.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::rc::Rc;

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use crate::error::DataError;
use crate::files::Packing;
use crate::utf8::{MARK, refuse_utf16};

/// Bytes that are read at once.
const BUFFER_BYTES: usize = 64 << 10;

/// The longest byte order mark.
const HEAD_BYTES: u64 = 4;

/// An open file.
pub(crate) struct Unpacked {
    /// Its bytes, unpacked, without a byte order mark in front.
    pub reader: Box<dyn BufRead>,
    /// Bytes of the file that were read and not told yet.
    pub read: Rc<Cell<u64>>,
    /// Bytes of the mark in front.
    pub mark_bytes: u64,
}

impl Unpacked {
    /// Opens a file.
    ///
    /// # Errors
    /// [`DataError::Io`]; [`DataError::File`] for a text of UTF-16 or UTF-32.
    pub fn open(path: &Path, packing: Packing) -> Result<Self, DataError> {
        let file = File::open(path).map_err(DataError::io("read", path))?;
        let read = Rc::new(Cell::new(0));
        let counted = Counted {
            file,
            read: read.clone(),
        };
        let raw = BufReader::with_capacity(BUFFER_BYTES, counted);
        let reader: Box<dyn BufRead> = match packing {
            Packing::None => Box::new(raw),
            Packing::Gzip => buffered(MultiGzDecoder::new(raw)),
            Packing::Zstd => buffered(Frames::new(raw)),
        };
        let (mut reader, mut start) = (reader, Vec::new());
        let head = (&mut reader).take(HEAD_BYTES).read_to_end(&mut start);
        head.map_err(DataError::io("read", path))?;
        refuse_utf16(&start).map_err(|reason| DataError::file(path, reason))?;
        let mark_bytes = match start.starts_with(MARK) {
            true => MARK.len(),
            false => 0,
        };
        let rest = io::Cursor::new(start.split_off(mark_bytes));
        Ok(Self {
            reader: Box::new(rest.chain(reader)),
            read,
            mark_bytes: mark_bytes as u64,
        })
    }
}

fn buffered(reader: impl Read + 'static) -> Box<dyn BufRead> {
    Box::new(BufReader::with_capacity(BUFFER_BYTES, reader))
}

/// A file that counts what is read of it.
struct Counted {
    file: File,
    read: Rc<Cell<u64>>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.read.set(self.read.get() + count as u64);
        Ok(count)
    }
}

/// The frames of a zstd file, one after the other.
struct Frames<R> {
    raw: R,
    decoder: FrameDecoder,
    is_within: bool,
}

impl<R: BufRead> Frames<R> {
    fn new(raw: R) -> Self {
        Self {
            raw,
            decoder: FrameDecoder::new(),
            is_within: false,
        }
    }

    /// Opens the next frame. Frames that hold no data are skipped.
    fn open(&mut self) -> io::Result<()> {
        use FrameDecoderError::ReadFrameHeaderError as Header;
        match self.decoder.reset(&mut self.raw) {
            Ok(()) => self.is_within = true,
            Err(Header(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                let length = u64::from(length);
                let skipped = io::copy(&mut (&mut self.raw).take(length), &mut io::sink())?;
                if skipped < length {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            Err(error) => return Err(io::Error::other(error.to_string())),
        }
        Ok(())
    }

    /// Closes a frame that was read to its end.
    fn close(&mut self) -> io::Result<()> {
        self.is_within = false;
        let sums = (
            self.decoder.get_checksum_from_data(),
            self.decoder.get_calculated_checksum(),
        );
        match sums {
            (Some(stored), Some(found)) if stored != found => {
                Err(io::Error::other("the checksum of a zstd frame is wrong"))
            }
            _ => Ok(()),
        }
    }
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.is_within {
                if self.raw.fill_buf()?.is_empty() {
                    return Ok(0);
                }
                self.open()?;
            } else if self.decoder.can_collect() > 0 {
                return self.decoder.read(buffer);
            } else if self.decoder.is_finished() {
                self.close()?;
            } else {
                let blocks = BlockDecodingStrategy::UptoBlocks(1);
                let decoded = self.decoder.decode_blocks(&mut self.raw, blocks);
                decoded.map_err(|error| io::Error::other(error.to_string()))?;
            }
        }
    }
}
