//! The members of a zip archive that are not compressed, as torch writes them.

use std::collections::BTreeMap;
use std::ops::Range;

use super::{AGAIN, SAVE_AGAIN, part};

/// The end of the directory, and the longest comment behind it.
const END: [u8; 4] = *b"PK\x05\x06";
const END_BYTES: usize = 22;
const COMMENT_MAX: usize = u16::MAX as usize;
/// The same for archives beyond 4 GiB, and what says where it is.
const END_64: [u8; 4] = *b"PK\x06\x06";
const LOCATOR_64: [u8; 4] = *b"PK\x06\x07";
const LOCATOR_BYTES: usize = 20;

const ENTRY: [u8; 4] = *b"PK\x01\x02";
const ENTRY_BYTES: usize = 46;
const LOCAL: [u8; 4] = *b"PK\x03\x04";
const LOCAL_BYTES: usize = 30;

/// The field of an entry that has its sizes in 64 bits.
const SIZES_64: u16 = 1;

/// What stands in place of a size that needs 64 bits.
const IN_64: u64 = u32::MAX as u64;

/// Where the bytes of each member lie.
pub(super) fn members(map: &[u8]) -> Result<BTreeMap<String, Range<usize>>, String> {
    let (count, mut at) = directory(map)?;
    let mut members = BTreeMap::new();
    // An entry takes some bytes of the file, so that this ends with it, whatever the count says.
    for _ in 0..count {
        let fixed = part(map, at, ENTRY_BYTES)?;
        if fixed[..4] != ENTRY {
            return Err(format!("its directory is broken at byte {at}; {AGAIN}"));
        }
        let [name, extra, comment] = [28, 30, 32].map(|place| usize::from(u16_at(fixed, place)));
        let name_bytes = part(map, at + ENTRY_BYTES, name)?;
        let extra_bytes = part(map, at + ENTRY_BYTES + name, extra)?;
        let name_text = std::str::from_utf8(name_bytes);
        let name_text = name_text.map_err(|_| format!("a member has no name in UTF-8; {AGAIN}"))?;
        let bytes = member(map, fixed, extra_bytes)
            .map_err(|reason| format!("its member `{name_text}` {reason}"))?;
        if members.insert(name_text.to_string(), bytes).is_some() {
            return Err(format!("it has the member `{name_text}` twice; {AGAIN}"));
        }
        at += ENTRY_BYTES + name + extra + comment;
    }
    Ok(members)
}

/// How many entries the directory has, and where it begins.
fn directory(map: &[u8]) -> Result<(u64, usize), String> {
    let cut = || format!("it is a zip archive that is cut short; {AGAIN}");
    let last = map.len().checked_sub(END_BYTES).ok_or_else(cut)?;
    let first = last.saturating_sub(COMMENT_MAX);
    let end = (first..=last).rev().find(|&at| map[at..].starts_with(&END));
    let end = end.ok_or_else(cut)?;
    let fixed = part(map, end, END_BYTES)?;
    let (count, start) = (u64::from(u16_at(fixed, 10)), u64::from(u32_at(fixed, 16)));
    let locator = end.checked_sub(LOCATOR_BYTES);
    let locator = locator.map(|at| &map[at..end]);
    let (count, start) = match locator.filter(|locator| locator.starts_with(&LOCATOR_64)) {
        None => (count, start),
        Some(locator) => {
            let at = usize::try_from(u64_at(locator, 8)).unwrap_or(usize::MAX);
            let fixed = part(map, at, 56)?;
            if fixed[..4] != END_64 {
                return Err(cut());
            }
            (u64_at(fixed, 32), u64_at(fixed, 48))
        }
    };
    Ok((count, usize::try_from(start).map_err(|_| cut())?))
}

/// Where the bytes of an entry lie.
fn member(map: &[u8], entry: &[u8], extra: &[u8]) -> Result<Range<usize>, String> {
    let (flags, method) = (u16_at(entry, 8), u16_at(entry, 10));
    if method != 0 || flags & 1 != 0 {
        return Err(format!("is compressed or encrypted: {SAVE_AGAIN}"));
    }
    let [stored, whole, start] = [20, 24, 42].map(|place| u64::from(u32_at(entry, place)));
    // Sizes beyond 32 bits stand in a field of their own, in this order.
    let mut wide = field(extra, SIZES_64).unwrap_or(&[]).as_chunks().0.iter();
    let mut size = |size: u64| match size {
        IN_64 => wide
            .next()
            .map_or(u64::MAX, |word| u64::from_le_bytes(*word)),
        size => size,
    };
    let (whole, stored, start) = (size(whole), size(stored), size(start));
    if whole != stored {
        return Err(format!("has two sizes; {AGAIN}"));
    }
    let number = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let local = part(map, number(start), LOCAL_BYTES)?;
    if local[..4] != LOCAL {
        return Err(format!("is not where the directory says; {AGAIN}"));
    }
    let before = LOCAL_BYTES + usize::from(u16_at(local, 26)) + usize::from(u16_at(local, 28));
    let first = number(start) + before;
    part(map, first, number(whole))?;
    Ok(first..first + number(whole))
}

/// A field of those behind an entry.
fn field(mut extra: &[u8], kind: u16) -> Option<&[u8]> {
    while extra.len() >= 4 {
        let length = usize::from(u16_at(extra, 2));
        let bytes = extra.get(4..4 + length)?;
        if u16_at(extra, 0) == kind {
            return Some(bytes);
        }
        extra = &extra[4 + length..];
    }
    None
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
