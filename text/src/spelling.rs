//! How the names of tokens in `tokenizer.json` spell the bytes of a text.

use serde_json::Value;

/// What a tokenizer's decoder does to the name of each token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spelling {
    steps: Vec<Step>,
    /// How many spaces are removed from the start of a text.
    leading_spaces: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// Each character of the name is a byte, as in GPT-2.
    ByteLevel,
    /// `<0x0A>` is a byte.
    ByteFallback,
    /// One string stands for another, such as U+2581 for a space.
    Replace(String, String),
    /// A space in front, but where the name begins with this, which is dropped.
    Words(String),
}

impl Spelling {
    /// Reads the `decoder` of a `tokenizer.json`. Steps that only matter at the end of a text are
    /// left out, and so are those that no text model has.
    pub fn of(decoder: &Value) -> Self {
        let mut spelling = Self::default();
        spelling.take(decoder);
        spelling
    }

    fn take(&mut self, decoder: &Value) {
        let text = |key: &str| decoder[key].as_str().unwrap_or_default().to_string();
        match decoder["type"].as_str() {
            // Without a decoder, the library joins names with spaces.
            None => self.words(String::new()),
            Some("Sequence") => {
                let inner = decoder["decoders"].as_array();
                inner.into_iter().flatten().for_each(|step| self.take(step));
            }
            Some("ByteLevel") => self.steps.push(Step::ByteLevel),
            Some("ByteFallback") => self.steps.push(Step::ByteFallback),
            Some("Metaspace") => {
                let space = Step::Replace(text("replacement"), " ".to_string());
                self.steps.push(space);
                let never = decoder["prepend_scheme"] == "never";
                self.leading_spaces = usize::from(!never);
            }
            Some("Replace") => {
                if let Some(pattern) = decoder["pattern"]["String"].as_str() {
                    let step = Step::Replace(pattern.to_string(), text("content"));
                    self.steps.push(step);
                }
            }
            Some("Strip") if decoder["content"] == " " => {
                let start = decoder["start"].as_u64().unwrap_or(0);
                self.leading_spaces = usize::try_from(start).unwrap_or(0);
            }
            Some("WordPiece") => self.words(text("prefix")),
            Some("BPEDecoder") => {
                let step = Step::Replace(text("suffix"), " ".to_string());
                self.steps.push(step);
            }
            Some(_) => {}
        }
    }

    fn words(&mut self, prefix: String) {
        self.steps.push(Step::Words(prefix));
        self.leading_spaces = 1;
    }

    /// Whether a name's characters are bytes, and no other step follows.
    pub fn is_byte_level(&self) -> bool {
        self.steps == [Step::ByteLevel] && self.leading_spaces == 0
    }

    /// The bytes that a token's name stands for within a text. One that was added to the
    /// vocabulary is matched as it is written, so its letters are never bytes.
    pub fn bytes(&self, name: &str, is_added: bool) -> Vec<u8> {
        let mut name = name.to_string();
        for step in &self.steps {
            match step {
                Step::ByteLevel if is_added => return name.into_bytes(),
                Step::ByteLevel => {
                    // A name with another character stands for itself.
                    let bytes: Option<Vec<u8>> = name.chars().map(byte_of).collect();
                    return bytes.unwrap_or(name.into_bytes());
                }
                Step::ByteFallback => {
                    if let Some(byte) = hex_byte(&name) {
                        return vec![byte];
                    }
                }
                Step::Replace(from, to) if !from.is_empty() => name = name.replace(from, to),
                Step::Replace(..) => {}
                Step::Words(prefix) => match name.strip_prefix(prefix.as_str()) {
                    Some(rest) if !prefix.is_empty() => name = rest.to_string(),
                    _ => name.insert(0, ' '),
                },
            }
        }
        name.into_bytes()
    }

    /// How many spaces are removed from the start of a text.
    pub fn leading_spaces(&self) -> usize {
        self.leading_spaces
    }
}

/// `<0x0A>` to 10.
fn hex_byte(name: &str) -> Option<u8> {
    let hex = name.strip_prefix("<0x")?.strip_suffix('>')?;
    let is_hex = hex.len() == 2 && hex.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_hex.then(|| u8::from_str_radix(hex, 16).ok())?
}

/// The byte behind a character of a byte-level name: bytes that are printable in Latin-1 are
/// themselves; the others follow from U+0100 on, in their order.
fn byte_of(character: char) -> Option<u8> {
    let printable = |byte: &u8| matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    match u32::from(character) {
        code @ 0..=0xFF => u8::try_from(code).ok().filter(printable),
        code => {
            let hidden = usize::try_from(code - 0x100).ok()?;
            (0..=255u8).filter(|byte| !printable(byte)).nth(hidden)
        }
    }
}
