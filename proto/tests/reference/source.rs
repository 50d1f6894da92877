//! The public types of a crate, read from its formatted source: names, fields and documentation.

use std::collections::BTreeMap;
use std::path::Path;

/// A struct or an enum.
#[derive(Default)]
pub struct TypeDoc {
    pub doc: String,
    pub fields: Vec<FieldDoc>,
}

/// A field, a variant, or a field of a variant.
pub struct FieldDoc {
    pub name: String,
    /// Its type; empty for a variant that carries nothing or named fields.
    pub shape: String,
    pub doc: String,
    /// 1 for a field of a variant.
    pub depth: usize,
}

/// All types of a crate that have an encoding, by name.
pub struct Types(BTreeMap<String, TypeDoc>);

const COLUMNS: usize = 100;

/// What the documentation of a type says that derives no encoding and has one nevertheless.
const BY_HAND: &str = "Encoded by hand";

/// A paragraph or list item in Markdown, in lines of at most 100 columns.
pub fn wrapped(mark: &str, text: &str) -> String {
    let indent = " ".repeat(mark.len());
    let mut lines = vec![mark.to_string()];
    let mut is_fresh = true;
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let line = lines.last_mut().expect("a line");
        let space = usize::from(!is_fresh);
        if !is_fresh && line.len() + space + word.len() > COLUMNS {
            lines.push(format!("{indent}{word}"));
        } else {
            line.push_str(if is_fresh { "" } else { " " });
            line.push_str(word);
        }
        is_fresh = false;
    }
    lines.join("\n") + "\n"
}

/// Links of rustdoc as code: `[`crate::a::B`]` becomes `` `B` ``.
fn plain(doc: &str) -> String {
    let mut text = doc.replace("[`", "`").replace("`]", "`");
    for prefix in [
        "crate::",
        "super::",
        "training::",
        "manifest::",
        "ledger::",
        "draw::",
    ] {
        text = text.replace(&format!("`{prefix}"), "`");
    }
    text
}

/// A type without the paths of modules.
fn short(shape: &str) -> String {
    let mut text = shape.trim_end_matches(',').to_string();
    while let Some(at) = text.find("::") {
        let start = text[..at].rfind(|c: char| !c.is_alphanumeric() && c != '_' && c != ':');
        text.replace_range(start.map_or(0, |start| start + 1)..at + 2, "");
    }
    text
}

fn names(shape: &str) -> impl Iterator<Item = &str> {
    shape.split(|c: char| !c.is_alphanumeric() && c != '_')
}

impl Types {
    /// Reads the files below `folders`.
    pub fn read(folders: &[&str]) -> Self {
        let mut types = Self(BTreeMap::new());
        for folder in folders {
            types.read_folder(Path::new(folder));
        }
        types
    }

    fn read_folder(&mut self, folder: &Path) {
        let entries = std::fs::read_dir(folder).expect("a folder");
        for entry in entries.map(|entry| entry.expect("an entry").path()) {
            if entry.is_dir() {
                self.read_folder(&entry);
            } else {
                self.read_file(&std::fs::read_to_string(&entry).expect("a source file"));
            }
        }
    }

    fn read_file(&mut self, text: &str) {
        let mut lines = text.lines().peekable();
        let (mut doc, mut is_encoded) = (String::new(), false);
        while let Some(line) = lines.next() {
            if let Some(words) = line.strip_prefix("/// ") {
                doc = [doc.as_str(), words].join(" ").trim().to_string();
            } else if line.starts_with("#[derive") {
                // The list may go on over several lines.
                let mut list = line.to_string();
                while !list.ends_with(")]") {
                    list += lines.next().expect("the end of a derive");
                }
                is_encoded = list.contains("BorshSerialize");
            } else if is_item(line) {
                let (name, rest) = item(line);
                let body: Vec<&str> = match rest {
                    "{" => lines.by_ref().take_while(|line| *line != "}").collect(),
                    _ => Vec::new(),
                };
                if is_encoded || doc.contains(BY_HAND) {
                    let fields = match rest {
                        "{" => fields(&body),
                        tuple => wrapped_value(tuple),
                    };
                    let doc = plain(&doc);
                    self.0.insert(name.to_string(), TypeDoc { doc, fields });
                }
                (doc, is_encoded) = (String::new(), false);
            } else if !line.starts_with("#[") {
                (doc, is_encoded) = (String::new(), false);
            }
        }
    }

    /// The type of this name.
    pub fn get(&self, name: &str) -> &TypeDoc {
        self.0
            .get(name)
            .unwrap_or_else(|| panic!("proto has no message {name}"))
    }

    /// The types that messages of these names consist of, sorted by name.
    pub fn reachable(&self, roots: &[String]) -> Vec<String> {
        let mut found: BTreeMap<&str, ()> = BTreeMap::new();
        let mut open: Vec<&str> = roots.iter().map(String::as_str).collect();
        while let Some(name) = open.pop() {
            let Some((name, of)) = self.0.get_key_value(name) else {
                continue;
            };
            if found.insert(name, ()).is_none() {
                open.extend(of.fields.iter().flat_map(|field| names(&field.shape)));
            }
        }
        found.into_keys().map(str::to_string).collect()
    }
}

fn is_item(line: &str) -> bool {
    line.starts_with("pub struct ") || line.starts_with("pub enum ")
}

/// Name and rest of the first line of a type.
fn item(line: &str) -> (&str, &str) {
    let rest = line
        .trim_start_matches("pub struct ")
        .trim_start_matches("pub enum ");
    let end = rest.find(|c: char| !c.is_alphanumeric()).expect("a body");
    (&rest[..end], rest[end..].trim_start())
}

/// The one field of `struct Name(pub Type);`.
fn wrapped_value(rest: &str) -> Vec<FieldDoc> {
    let shape = rest.trim_start_matches("(pub ").trim_end_matches(");");
    vec![FieldDoc {
        name: "0".to_string(),
        shape: short(shape),
        doc: String::new(),
        depth: 0,
    }]
}

fn fields(body: &[&str]) -> Vec<FieldDoc> {
    let (mut all, mut doc) = (Vec::new(), String::new());
    for line in body {
        let depth = usize::from(line.starts_with("        "));
        let line = line.trim();
        if let Some(words) = line.strip_prefix("/// ") {
            doc = [doc.as_str(), words].join(" ").trim().to_string();
            continue;
        }
        if line == "}," || line.is_empty() || line.starts_with("#[") {
            continue;
        }
        let doc = plain(&std::mem::take(&mut doc));
        let line = line.trim_start_matches("pub ");
        // A variant whose fields stand on its own line.
        if let Some((name, rest)) = line.split_once(" { ") {
            let inner = rest.trim_end_matches(" },").split(", ");
            all.push(field((name, String::new()), doc, 0));
            all.extend(inner.map(|one| field(name_and_shape(one), String::new(), 1)));
        } else {
            all.push(field(name_and_shape(line), doc, depth));
        }
    }
    all
}

fn field((name, shape): (&str, String), doc: String, depth: usize) -> FieldDoc {
    FieldDoc {
        name: name.to_string(),
        shape,
        doc,
        depth,
    }
}

/// Of `name: Type,`, `Variant(Type),`, `Variant {` and `Variant,`.
fn name_and_shape(line: &str) -> (&str, String) {
    if let Some((name, shape)) = line.split_once(": ") {
        return (name, short(shape));
    }
    let name = line.trim_end_matches([',', '{', ' ']);
    match name.split_once('(') {
        Some((name, shape)) => (name, short(shape.trim_end_matches(')'))),
        None => (name, String::new()),
    }
}
