//! A YAML text as a tree, where each key stands, and keys that are set from outside.

mod depth;
mod lines;
mod path;

use serde_yaml_ng::{Mapping, Value};

use lines::KeyLines;

/// Bytes of the longest text that is read. The longest file of any tool has some 10,000.
pub const TEXT_BYTES_MAX: usize = 1 << 20;

/// Bytes of all values together, with what aliases stand for, in multiples of the text's.
const VALUES_PER_TEXT: usize = 64;

/// Brackets and braces that may be open at once. The reader takes time by their square.
const OPEN_MAX: usize = 256;

/// Keys of all mappings. The longest file of any tool has some 300.
const KEYS_MAX: usize = 5_000;

/// Why a text is no job file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAJob {
    /// It is too long.
    #[error("the file has {0} bytes; a job file has at most {TEXT_BYTES_MAX}")]
    TooLong(usize),
    /// It has several documents.
    #[error(
        "there are several YAML documents in the file; a job file is one, so remove what is behind \
         the second `---`"
    )]
    Documents,
    /// It is not YAML.
    #[error("not valid YAML: {0}")]
    Yaml(String),
    /// Lists and mappings stand too deep in each other.
    #[error(
        "line {0}: more than {OPEN_MAX} brackets, braces or list marks are open; a job file has a \
         few"
    )]
    Depth(usize),
    /// It has too many keys.
    #[error("the file has {0} keys; a job file has at most {KEYS_MAX}")]
    Keys(usize),
    /// It is empty.
    #[error("the job file is empty")]
    Empty,
    /// It is a list or a lone value.
    #[error("a job file is a list of `key: value` lines")]
    NoKeys,
    /// Aliases stand for more than the text has.
    #[error("aliases (`*name`) repeat more than a job file needs: write the values out")]
    Aliases,
    /// A `--set` that cannot be read.
    #[error("--set {0}: {1}")]
    Set(String, String),
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A line of the file, from 1.
    Line(usize),
    /// An argument `--set`.
    Set,
    /// Somewhere in the file.
    File,
}

/// A job file of any tool, read but not understood.
#[derive(Clone, Debug)]
pub struct Document {
    root: Mapping,
    lines: KeyLines,
    /// Paths of the keys that were set from outside.
    set: Vec<String>,
}

impl Document {
    /// Reads a YAML text, which must be a mapping.
    ///
    /// # Errors
    /// [`NotAJob`] where it is none.
    pub fn read(text: &str) -> Result<Self, NotAJob> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(NotAJob::TooLong(text.len()));
        }
        if let Some(line) = depth::too_deep(text, OPEN_MAX) {
            return Err(NotAJob::Depth(line));
        }
        let value = serde_yaml_ng::from_str(text).map_err(|error| {
            let error = error.to_string();
            match error.contains("more than one document") {
                true => NotAJob::Documents,
                false => NotAJob::Yaml(error),
            }
        })?;
        if weight(&value) > text.len().max(64) * VALUES_PER_TEXT {
            return Err(NotAJob::Aliases);
        }
        let keys = keys(&value);
        if keys > KEYS_MAX {
            return Err(NotAJob::Keys(keys));
        }
        match value {
            Value::Mapping(root) => Ok(Self {
                root,
                lines: KeyLines::of(text),
                set: Vec::new(),
            }),
            Value::Null => Err(NotAJob::Empty),
            _ => Err(NotAJob::NoKeys),
        }
    }

    /// Sets a key from `key=value`; the value is YAML, `null` removes the key, and `.` leads into
    /// mappings and lists, as in `datasets.0.path`.
    ///
    /// # Errors
    /// [`NotAJob::Set`] where it cannot be read or leads nowhere.
    pub fn set(&mut self, argument: &str) -> Result<(), NotAJob> {
        let wrong = |why: &str| NotAJob::Set(argument.to_string(), why.to_string());
        let (key, value) = argument
            .split_once('=')
            .ok_or_else(|| wrong("write key=value"))?;
        let value: Value = match value {
            "" => Value::String(String::new()),
            value if depth::too_deep(value, OPEN_MAX).is_some() => {
                return Err(wrong("the value has too many brackets"));
            }
            value => serde_yaml_ng::from_str(value)
                .map_err(|error| wrong(&format!("the value is not valid YAML: {error}")))?,
        };
        let parts = path::parts(key.trim()).map_err(|why| wrong(&why))?;
        let path = path::put(&mut self.root, &parts, value).map_err(|why| wrong(&why))?;
        self.set.push(path);
        Ok(())
    }

    /// The mapping at the top.
    pub fn root(&self) -> &Mapping {
        &self.root
    }

    /// The same with another tree, such as one whose references are replaced.
    pub(crate) fn with_root(&self, root: Mapping) -> Self {
        Self {
            root,
            ..self.clone()
        }
    }

    /// The value at a path such as `model.lora_rank`; `None` where there is none, or null.
    pub fn get(&self, path: &str) -> Option<&Value> {
        let mut at: Option<&Value> = None;
        for part in path.split('.') {
            let map = match at {
                None => &self.root,
                Some(value) => value.as_mapping()?,
            };
            at = Some(map.get(part)?);
        }
        at.filter(|value| !value.is_null())
    }

    /// Where a path stands.
    pub fn place(&self, path: &str) -> Place {
        let within = |set: &String| {
            path.strip_prefix(set.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        if self.set.iter().any(within) {
            return Place::Set;
        }
        self.lines.line(path).map_or(Place::File, Place::Line)
    }
}

/// A measure of the memory that a value takes: its nodes and the bytes of its texts.
fn weight(value: &Value) -> usize {
    match value {
        Value::String(text) => 1 + text.len(),
        Value::Sequence(values) => values.iter().fold(1, |sum, value| sum + weight(value)),
        Value::Mapping(map) => {
            let pair = |(key, value)| weight(key) + weight(value);
            map.iter().map(pair).fold(1, |sum, part| sum + part)
        }
        Value::Tagged(tagged) => 1 + weight(&tagged.value),
        _ => 1,
    }
}

/// The keys of all its mappings.
fn keys(value: &Value) -> usize {
    match value {
        Value::Sequence(values) => values.iter().map(keys).sum(),
        Value::Mapping(map) => map.values().map(|value| 1 + keys(value)).sum(),
        Value::Tagged(tagged) => keys(&tagged.value),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "base_model: m\ndatasets:\n  - path: a\n    type: x\nmodel: {r: 8}\n";

    #[test]
    fn values_are_found_with_their_place() {
        let document = Document::read(TEXT).unwrap();
        assert_eq!(document.get("model.r").unwrap().as_u64(), Some(8));
        assert_eq!(document.get("model.s"), None);
        assert_eq!(document.place("datasets[0].type"), Place::Line(4));
        assert_eq!(document.place("nowhere"), Place::File);
    }

    #[test]
    fn keys_are_set_and_removed() {
        let mut document = Document::read(TEXT).unwrap();
        for argument in [
            "datasets.0.path=b",
            "model.r=4",
            "model.t.u=[1, 2]",
            "base_model=null",
        ] {
            document.set(argument).unwrap();
        }
        let entry = document.get("datasets").unwrap().as_sequence().unwrap();
        assert_eq!(entry[0].get("path").unwrap().as_str(), Some("b"));
        assert_eq!(document.get("model.r").unwrap().as_u64(), Some(4));
        assert!(document.get("model.t.u").unwrap().is_sequence());
        assert!(!document.root().contains_key("base_model"));
        assert_eq!(document.place("model.r"), Place::Set);
        assert_eq!(document.place("model.t.u"), Place::Set);
        assert_eq!(document.place("datasets[0].path"), Place::Set);
        assert_eq!(document.place("datasets[0].type"), Place::Line(4));
        document.set("datasets[1].path=c").unwrap();
        assert_eq!(
            document
                .get("datasets")
                .unwrap()
                .as_sequence()
                .unwrap()
                .len(),
            2
        );
        for argument in [
            "x",
            "=1",
            "base_model.x.y=[",
            "datasets.7.path=a",
            "datasets.x=1",
            "a..b=1",
        ] {
            let error = document.set(argument).unwrap_err().to_string();
            assert!(error.starts_with(&format!("--set {argument}: ")), "{error}");
        }
    }

    #[test]
    fn what_is_no_job_is_refused() {
        let no = |text: &str| Document::read(text).unwrap_err();
        assert_eq!(no(""), NotAJob::Empty);
        assert_eq!(no("- a"), NotAJob::NoKeys);
        assert_eq!(no("a: 1\n---\nb: 2"), NotAJob::Documents);
        assert!(matches!(no("a: [b\nc: d"), NotAJob::Yaml(_)));
        assert!(matches!(
            no(&" ".repeat(TEXT_BYTES_MAX + 1)),
            NotAJob::TooLong(_)
        ));
        // What takes the reader minutes, or more stack than there is.
        for deep in ["[", "{", "- ", "? ", "{a: ", "[[{"] {
            let text = format!("a: 1\nb: {}", deep.repeat(TEXT_BYTES_MAX / 4 / deep.len()));
            assert_eq!(no(&text), NotAJob::Depth(2), "{deep}");
        }
        let many: String = (0..60_000).map(|i| format!("k{i}: 1\n")).collect();
        assert_eq!(no(&many), NotAJob::Keys(60_000));
        // Aliases of aliases: a few bytes that stand for a gigabyte.
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_string();
        for level in 1..8 {
            let below = format!("*a{}", level - 1);
            let items = vec![below; 10].join(", ");
            text += &format!("a{level}: &a{level} [{items}]\n");
        }
        assert!(matches!(no(&text), NotAJob::Yaml(_) | NotAJob::Aliases));
    }
}
