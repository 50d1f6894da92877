//! Typed values of a YAML mapping. Every refusal names the file, the line where it is certain, the
//! key, its value and what is allowed.

use std::ops::RangeInclusive;
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use serde_yaml_ng::{Mapping, Value};

/// A key further off than this from every known one was not meant to be one of them.
const TYPO_MAX: usize = 3;

/// Values are shown up to this many characters.
const SHOWN_MAX: usize = 60;

/// Which ends of the range from 0 to 1 belong to it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ends {
    /// 0, but not 1.
    Lower,
    /// 1, but not 0.
    Upper,
    /// 0 and 1.
    Both,
}

/// A mapping, and where it stands in its file.
#[derive(Debug)]
pub(super) struct Keys<'a> {
    file: &'a Path,
    text: &'a str,
    /// What stands before its keys in a message, such as `datasets[0].`.
    prefix: String,
    map: Mapping,
}

impl<'a> Keys<'a> {
    /// The mapping that a YAML text consists of.
    pub(super) fn parse(file: &'a Path, text: &'a str) -> anyhow::Result<Self> {
        let value: Value = serde_yaml_ng::from_str(text)
            .with_context(|| format!("{}: not valid YAML", file.display()))?;
        match value {
            Value::Mapping(map) => Ok(Self {
                file,
                text,
                prefix: String::new(),
                map,
            }),
            Value::Null => bail!("{}: the job file is empty", file.display()),
            _ => bail!(
                "{}: a job file is a list of `key: value` lines",
                file.display()
            ),
        }
    }

    /// Refuses a key that is not among `known`, with the nearest one or with the remedy that
    /// `foreign` has for it.
    pub(super) fn refuse_unknown(
        &self,
        known: &[&str],
        foreign: &[(&str, &str)],
    ) -> anyhow::Result<()> {
        for key in self.map.keys() {
            let Some(key) = key.as_str() else {
                bail!(
                    "{}: the key {} is not a word",
                    self.file.display(),
                    shown(key)
                );
            };
            if known.contains(&key) {
                continue;
            }
            let remedy = match foreign.iter().find(|(name, _)| *name == key) {
                Some((_, remedy)) => (*remedy).to_string(),
                None => nearest(key, known),
            };
            bail!(
                "{}: unknown key `{}{key}`: {remedy}",
                self.place(key),
                self.prefix
            );
        }
        Ok(())
    }

    /// The file, and the line of `key` where only one line of the file has it.
    pub(super) fn place(&self, key: &str) -> String {
        let lines = self.text.lines().enumerate();
        let mut found = lines
            .filter(|(_, line)| has_key(line, key))
            .map(|(index, _)| index + 1);
        match (found.next(), found.next()) {
            (Some(line), None) => format!("{}:{line}", self.file.display()),
            _ => self.file.display().to_string(),
        }
    }

    /// The error that the value of `key` is not what is `allowed`.
    pub(super) fn bad(&self, key: &str, allowed: &str) -> anyhow::Error {
        let found = self.map.get(key).map(shown).unwrap_or_default();
        let place = self.place(key);
        anyhow!(
            "{place}: `{}{key}` is {found}, but must be {allowed}",
            self.prefix
        )
    }

    /// Whether `key` has a value.
    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// The value of a key that must be there.
    pub(super) fn need<T>(&self, key: &str, value: Option<T>) -> anyhow::Result<T> {
        let (file, prefix) = (self.file.display(), &self.prefix);
        value.ok_or_else(|| anyhow!("{file}: the key `{prefix}{key}` is missing"))
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    fn read<T>(
        &self,
        key: &str,
        convert: impl FnOnce(&Value) -> Option<T>,
        allowed: &str,
    ) -> anyhow::Result<Option<T>> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => convert(value)
                .map(Some)
                .ok_or_else(|| self.bad(key, allowed)),
        }
    }

    /// A text that is not empty.
    pub(super) fn text(&self, key: &str) -> anyhow::Result<Option<String>> {
        let text = |value: &Value| value.as_str().map(str::to_string);
        self.read(
            key,
            |value| text(value).filter(|text| !text.trim().is_empty()),
            "a text",
        )
    }

    /// A list of texts.
    pub(super) fn texts(&self, key: &str) -> anyhow::Result<Option<Vec<String>>> {
        let text = |value: &Value| value.as_str().map(str::to_string);
        let texts = |value: &Value| value.as_sequence()?.iter().map(text).collect();
        self.read(key, texts, "a list of names")
    }

    /// `true` or `false`.
    pub(super) fn flag(&self, key: &str) -> anyhow::Result<Option<bool>> {
        self.read(key, Value::as_bool, "true or false")
    }

    /// One of a few words.
    pub(super) fn one_of<T: Copy>(
        &self,
        key: &str,
        words: &[(&str, T)],
    ) -> anyhow::Result<Option<T>> {
        let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
        let word = |value: &Value| {
            let asked = value.as_str()?;
            words
                .iter()
                .find(|(name, _)| *name == asked)
                .map(|(_, meaning)| *meaning)
        };
        self.read(key, word, &format!("one of {}", names.join(", ")))
    }

    /// A whole number within a range.
    pub(super) fn whole(
        &self,
        key: &str,
        range: RangeInclusive<u32>,
    ) -> anyhow::Result<Option<u32>> {
        let allowed = format!("a whole number from {} to {}", range.start(), range.end());
        let in_range = |value: &Value| {
            let number = number(value).filter(|number| number.fract() == 0.0)?;
            let inside = f64::from(*range.start())..=f64::from(*range.end());
            // Whole and within a range of u32: the conversion is exact.
            inside.contains(&number).then_some(number as u32)
        };
        self.read(key, in_range, &allowed)
    }

    /// Any whole number of 64 bits.
    pub(super) fn seed(&self, key: &str) -> anyhow::Result<Option<u64>> {
        self.read(key, Value::as_u64, "a whole number from 0 to 2^64 - 1")
    }

    /// A finite number for which `holds`, rounded to f32.
    pub(super) fn number(
        &self,
        key: &str,
        holds: impl Fn(f32) -> bool,
        allowed: &str,
    ) -> anyhow::Result<Option<f32>> {
        let rounded = |value: &Value| number(value).map(|number| number as f32);
        let good = |number: &f32| number.is_finite() && holds(*number);
        self.read(key, |value| rounded(value).filter(good), allowed)
    }

    /// A number from 0 to 1.
    pub(super) fn share(&self, key: &str, ends: Ends) -> anyhow::Result<Option<f32>> {
        match ends {
            Ends::Lower => self.number(key, |x| (0.0..1.0).contains(&x), "0 or more, and below 1"),
            Ends::Upper => self.number(key, |x| x > 0.0 && x <= 1.0, "above 0, and at most 1"),
            Ends::Both => self.number(key, |x| (0.0..=1.0).contains(&x), "from 0 to 1"),
        }
    }

    /// A mapping.
    pub(super) fn map(&self, key: &str) -> anyhow::Result<Option<Keys<'a>>> {
        let map = self.read(
            key,
            |value| value.as_mapping().cloned(),
            "a mapping of keys",
        )?;
        Ok(map.map(|map| self.inner(format!("{key}."), map)))
    }

    /// A list of mappings.
    pub(super) fn maps(&self, key: &str) -> anyhow::Result<Option<Vec<Keys<'a>>>> {
        let map = |value: &Value| value.as_mapping().cloned();
        let maps = |value: &Value| value.as_sequence()?.iter().map(map).collect();
        let maps: Option<Vec<Mapping>> = self.read(key, maps, "a list of mappings")?;
        let numbered = |(index, map)| self.inner(format!("{key}[{index}]."), map);
        Ok(maps.map(|maps| maps.into_iter().enumerate().map(numbered).collect()))
    }

    fn inner(&self, prefix: String, map: Mapping) -> Keys<'a> {
        Keys {
            file: self.file,
            text: self.text,
            prefix,
            map,
        }
    }
}

/// A number, also where YAML takes its spelling (such as `1e-3` in quotes) for a text.
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// Whether a line sets `key`, in the block form or in the flow form of YAML.
fn has_key(line: &str, key: &str) -> bool {
    let code = line.split(" #").next().unwrap_or(line);
    code.match_indices(key).any(|(start, _)| {
        let before = code[..start].trim_end_matches(['"', '\'']);
        let after = code[start + key.len()..].trim_start_matches(['"', '\'']);
        let begins = before.is_empty() || before.ends_with([' ', '{', ',', '-']);
        begins && after.trim_start().starts_with(':')
    })
}

/// A value as it may stand in a message.
fn shown(value: &Value) -> String {
    let text = match value {
        Value::String(text) => format!("\"{text}\""),
        // The flow form, on one line.
        Value::Sequence(_) | Value::Mapping(_) => serde_json::to_string(value).unwrap_or_default(),
        other => serde_yaml_ng::to_string(other).unwrap_or_default(),
    };
    let text = text.trim_end();
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_string(),
    }
}

fn nearest(key: &str, known: &[&str]) -> String {
    let distance = |name: &&str| strsim::damerau_levenshtein(key, name);
    match known.iter().min_by_key(|name| distance(name)) {
        Some(name) if distance(name) <= TYPO_MAX => format!("did you mean `{name}`?"),
        _ => format!("known are {}", known.join(", ")),
    }
}
