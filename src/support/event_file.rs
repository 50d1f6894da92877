//! Event files of TensorBoard: records of protocol buffers, each with its length and two checksums.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;

use anyhow::Context;

/// The first event of a file.
const VERSION: &str = "brain.Event:2";

/// Events are small; a longer record is none of ours.
const RECORD_BYTES_MAX: usize = 1 << 16;

/// A file of events, at whose end more can be written.
#[derive(Debug)]
pub struct EventFile {
    file: File,
    /// The newest step in it.
    last: Option<u64>,
}

impl EventFile {
    /// Opens a file, or begins a new one where there is none or `is_new` says so. What follows the
    /// last whole record is cut off.
    ///
    /// # Errors
    /// Where it cannot be read or written.
    pub fn open(path: &Path, is_new: bool) -> anyhow::Result<Self> {
        let failed = || format!("cannot write {}", path.display());
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).with_context(failed)?;
        }
        let mut options = OpenOptions::new();
        options.create(true).read(true).append(true);
        let mut file = options.open(path).with_context(failed)?;
        let mut bytes = Vec::new();
        if !is_new {
            file.read_to_end(&mut bytes).with_context(failed)?;
        }
        let (whole, last) = look_through(&bytes);
        file.set_len(whole as u64).with_context(failed)?;
        let mut events = Self { file, last };
        if whole == 0 {
            let mut version = Message::default();
            version.double(1, 0.0);
            version.bytes(3, VERSION.as_bytes());
            events.append(&version.0)?;
        }
        Ok(events)
    }

    /// Writes values of a step, by their tags; `time` is in seconds since 1970. Does nothing for a
    /// step that the file has.
    ///
    /// # Errors
    /// Where the disk is full, for example.
    pub fn scalars(&mut self, time: f64, step: u64, values: &[(&str, f64)]) -> anyhow::Result<()> {
        if self.last.is_some_and(|last| step <= last) {
            return Ok(());
        }
        self.more(time, step, values)?;
        self.last = Some(step);
        Ok(())
    }

    /// Writes values beside those of a step.
    ///
    /// # Errors
    /// Where the disk is full, for example.
    pub fn more(&mut self, time: f64, step: u64, values: &[(&str, f64)]) -> anyhow::Result<()> {
        let mut summary = Message::default();
        for (tag, value) in values {
            let mut entry = Message::default();
            entry.bytes(1, tag.as_bytes());
            entry.float(2, *value as f32);
            summary.bytes(1, &entry.0);
        }
        let mut event = Message::default();
        event.double(1, time);
        event.varint(2, step);
        event.bytes(5, &summary.0);
        self.append(&event.0)
    }

    /// Has TensorBoard forget what follows `step`.
    ///
    /// # Errors
    /// Where the disk is full, for example.
    pub fn forget_after(&mut self, time: f64, step: u64) -> anyhow::Result<()> {
        if self.last.is_none_or(|last| last <= step) {
            return Ok(());
        }
        // A log that starts again with the next step.
        let mut start = Message::default();
        start.varint(1, 1);
        let mut event = Message::default();
        event.double(1, time);
        event.varint(2, step + 1);
        event.bytes(7, &start.0);
        self.append(&event.0)?;
        self.last = Some(step);
        Ok(())
    }

    fn append(&mut self, event: &[u8]) -> anyhow::Result<()> {
        let length = (event.len() as u64).to_le_bytes();
        let mut record = length.to_vec();
        record.extend(checksum(&length).to_le_bytes());
        record.extend(event);
        record.extend(checksum(event).to_le_bytes());
        Ok(self.file.write_all(&record)?)
    }
}

/// How many bytes of a file are whole records, and the newest step in them.
fn look_through(bytes: &[u8]) -> (usize, Option<u64>) {
    let (mut at, mut last) = (0, None);
    while let Some(event) = record(&bytes[at..]) {
        at += event.len() + 16;
        let starts_again = field(event, 7).is_some();
        match field(event, 2) {
            Some(Field::Number(step)) if starts_again => last = step.checked_sub(1),
            Some(Field::Number(step)) => last = Some(step),
            _ => {}
        }
    }
    (at, last)
}

/// The first record, if it is whole.
fn record(bytes: &[u8]) -> Option<&[u8]> {
    let number = |at: usize| bytes.get(at..at + 4).map(|b| [b[0], b[1], b[2], b[3]]);
    let length = bytes.get(..8)?;
    let is_right = number(8)? == checksum(length).to_le_bytes();
    let length = u64::from_le_bytes(length.try_into().ok()?);
    let length = usize::try_from(length).ok()?;
    if !is_right || length > RECORD_BYTES_MAX {
        return None;
    }
    let event = bytes.get(12..12 + length)?;
    (number(12 + length)? == checksum(event).to_le_bytes()).then_some(event)
}

/// A field of a message.
#[derive(Debug, PartialEq)]
enum Field {
    Number(u64),
    Other,
}

/// The field of a message with a number below 16, as this file writes them.
fn field(mut message: &[u8], wanted: u64) -> Option<Field> {
    while !message.is_empty() {
        let key = read_varint(&mut message)?;
        let found = match key & 7 {
            0 => Field::Number(read_varint(&mut message)?),
            1 => {
                message = message.get(8..)?;
                Field::Other
            }
            2 => {
                let length = usize::try_from(read_varint(&mut message)?).ok()?;
                message = message.get(length..)?;
                Field::Other
            }
            _ => return None,
        };
        if key >> 3 == wanted {
            return Some(found);
        }
    }
    None
}

fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..63).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// A protocol buffer in the making. Fields have numbers below 16.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn double(&mut self, field: u8, value: f64) {
        self.0.push(field << 3 | 1);
        self.0.extend(value.to_le_bytes());
    }

    fn float(&mut self, field: u8, value: f32) {
        self.0.push(field << 3 | 5);
        self.0.extend(value.to_le_bytes());
    }

    fn varint(&mut self, field: u8, value: u64) {
        self.0.push(field << 3);
        self.raw_varint(value);
    }

    fn bytes(&mut self, field: u8, bytes: &[u8]) {
        self.0.push(field << 3 | 2);
        self.raw_varint(bytes.len() as u64);
        self.0.extend(bytes);
    }

    fn raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// CRC-32C, masked as in these files: a checksum of bytes that have one themselves is weak.
fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = !0_u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            let carry = (crc & 1).wrapping_neg();
            crc = crc >> 1 ^ (0x82f6_3b78 & carry);
        }
    }
    (!crc).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(path: &Path) -> (usize, Option<u64>) {
        look_through(&std::fs::read(path).unwrap())
    }

    #[test]
    fn checksums_are_those_of_the_format() {
        // The check value of CRC-32C, of "123456789".
        let crc = 0xe306_9283_u32;
        let masked = crc.rotate_right(15).wrapping_add(0xa282_ead8);
        assert_eq!(checksum(b"123456789"), masked);
    }

    #[test]
    fn a_file_goes_on_after_its_last_whole_record() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("runs/events");
        let mut events = EventFile::open(&path, false).unwrap();
        for step in 1..=3 {
            events.scalars(1.5, step, &[("train/loss", 2.0)]).unwrap();
        }
        let (whole, last) = steps(&path);
        assert_eq!(
            (whole as u64, last),
            (path.metadata().unwrap().len(), Some(3))
        );
        let cut = File::options().write(true).open(&path).unwrap();
        cut.set_len(whole as u64 - 1).unwrap();
        let mut events = EventFile::open(&path, false).unwrap();
        assert_eq!(events.last, Some(2));
        let before = path.metadata().unwrap().len();
        events.scalars(1.5, 2, &[("train/loss", 9.0)]).unwrap();
        assert_eq!(path.metadata().unwrap().len(), before, "it has this step");
        events.scalars(1.5, 3, &[("train/loss", 2.0)]).unwrap();
        assert_eq!(steps(&path), (whole, Some(3)));
        events.forget_after(1.5, 1).unwrap();
        assert_eq!(steps(&path).1, Some(1));
        assert_eq!(EventFile::open(&path, false).unwrap().last, Some(1));
        assert_eq!(EventFile::open(&path, true).unwrap().last, None);
    }
}
