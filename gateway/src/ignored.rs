//! Fields of a request that nothing uses: the response lists them.

use axum::http::HeaderValue;
use axum::response::Response;

/// Most names that a response lists; the others are only counted.
const TOLD_MAX: usize = 16;

/// Most characters of a name that a response shows.
const NAME_MAX: usize = 96;

/// The header that lists them.
pub(crate) const HEADER: &str = "x-concord-ignored";

/// The paths of fields that change no answer, such as
/// `messages[1].provider_specific_fields`.
#[derive(Debug, Default)]
pub(crate) struct Ignored {
    told: Vec<String>,
    more: usize,
}

impl Ignored {
    /// Notes a field.
    pub fn add(&mut self, path: &str) {
        if self.told.len() == TOLD_MAX {
            self.more += 1;
            return;
        }
        // Other characters must not appear in a header or in a line of a log.
        let plain = |letter: char| match letter {
            '!'..='~' if letter != ',' => letter,
            _ => '?',
        };
        self.told
            .push(path.chars().take(NAME_MAX).map(plain).collect());
    }

    /// Lists them in the header of a response, and in the log.
    pub fn tell(&self, response: &mut Response) {
        if self.told.is_empty() {
            return;
        }
        let mut text = self.told.join(", ");
        if self.more > 0 {
            text.push_str(&format!(", and {} more", self.more));
        }
        tracing::debug!("fields that change nothing: {text}");
        if let Ok(value) = HeaderValue::from_str(&text) {
            response.headers_mut().insert(HEADER, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_bounded_and_fits_a_header() {
        let mut ignored = Ignored::default();
        let mut response = Response::default();
        ignored.tell(&mut response);
        assert!(!response.headers().contains_key(HEADER));
        ignored.add("messages[0].a\r\nx: y,\u{e9}");
        for index in 0..1_000 {
            ignored.add(&format!("messages[{index}].{}", "long".repeat(1_000)));
        }
        ignored.tell(&mut response);
        let told = response.headers()[HEADER].to_str().expect("ASCII");
        assert!(told.starts_with("messages[0].a??x:?y??, "), "{told}");
        assert!(told.ends_with(", and 985 more"), "{told}");
        assert!(told.len() < 2_000, "{}", told.len());
    }
}
