//! Bytes of a file as text. What is not UTF-8 is refused, with a message that says what it is.

/// The byte order mark of UTF-8, which some editors put in front of a text. It is not part of the
/// text.
pub(crate) const MARK: &[u8] = b"\xef\xbb\xbf";

/// The text of a file in UTF-8, without a byte order mark in front.
///
/// # Errors
/// Half a sentence on what the bytes are instead, with the offset of the first byte that is wrong.
pub fn utf8(bytes: Vec<u8>) -> Result<String, String> {
    refuse_utf16(&bytes)?;
    if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
        return Err(not_a_text(at as u64));
    }
    let mut text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        not_utf8(at as u64)
    })?;
    if text.as_bytes().starts_with(MARK) {
        text.drain(..MARK.len());
    }
    Ok(text)
}

/// What is said of a text with a NUL at this byte.
pub(crate) fn not_a_text(at: u64) -> String {
    format!("not a text: byte {at} is NUL; if it is UTF-16, save it as UTF-8")
}

/// What is said of a text with something else than UTF-8 from this byte on.
pub(crate) fn not_utf8(at: u64) -> String {
    format!("not UTF-8 text: byte {at} begins no character; save it as UTF-8")
}

/// Refuses bytes that begin with a byte order mark of UTF-16 or UTF-32.
pub(crate) fn refuse_utf16(bytes: &[u8]) -> Result<(), String> {
    match bytes {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, 0, 0xfe, 0xff, ..] => {
            Err("not UTF-8 text: it begins as UTF-16 or UTF-32 does; save it as UTF-8".to_string())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_in_front_is_no_part_of_the_text() {
        assert_eq!(utf8(b"\xef\xbb\xbfab".to_vec()).unwrap(), "ab");
        assert_eq!(utf8(b"\xef\xbb\xbf".to_vec()).unwrap(), "");
        // Within the text, and a second one, it is a character like any other.
        let inner = utf8(b"\xef\xbb\xbf\xef\xbb\xbfa\xef\xbb\xbf".to_vec());
        assert_eq!(inner.unwrap(), "\u{feff}a\u{feff}");
    }

    #[test]
    fn what_is_no_text_is_named() {
        let cases: [(&[u8], &str); 6] = [
            (b"\xff\xfea\0", "UTF-16"),
            (b"\xfe\xff\0a", "UTF-16"),
            (b"\0\0\xfe\xff\0\0\0a", "UTF-32"),
            (b"ab\0", "byte 2 is NUL"),
            (b"ab\xc3", "byte 2 begins no character"),
            (b"\xef\xbb\xbfab\xff", "byte 5 begins no character"),
        ];
        for (bytes, expected) in cases {
            let error = utf8(bytes.to_vec()).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
