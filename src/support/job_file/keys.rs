//! Typed values of a YAML mapping, read by the table of known keys. Every error names the file, the
//! line if it is certain, the key, its value and what is allowed.

use anyhow::{Context, anyhow, bail};
use serde_json::Map;
use serde_yaml_ng::{Mapping, Value};

use super::foreign;
use super::given::GivenJob;
use super::known::{Absent, Allowed, Ends, KEYS, Key, Section};
use super::modules;
use crate::support::home;

/// The largest edit distance at which a known key is suggested.
const TYPO_MAX: usize = 3;

/// At most so many characters of a value are shown.
const SHOWN_MAX: usize = 60;

/// A mapping, and its place in the file.
#[derive(Debug)]
pub(super) struct Keys<'a> {
    given: &'a GivenJob,
    section: Section,
    /// The prefix of its keys in messages, such as `datasets[0].`.
    prefix: String,
    map: Mapping,
}

impl<'a> Keys<'a> {
    /// The top level of a file.
    pub(super) fn of(given: &'a GivenJob) -> Self {
        Self {
            given,
            section: Section::Job,
            prefix: String::new(),
            map: given.map().clone(),
        }
    }

    /// Refuses unknown keys, with the nearest known one or with what to do instead, keys without
    /// a value, and values that are not allowed.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let wrong = self.wrong();
        // All errors at once, so that a file can be corrected in one go.
        match wrong.is_empty() {
            true => Ok(()),
            false => bail!(wrong.join("\n")),
        }
    }

    /// What [`Self::check`] finds, a line each.
    pub(super) fn wrong(&self) -> Vec<String> {
        let pairs = self.map.iter();
        let wrong = pairs.filter_map(|(key, value)| self.check_one(key, value).err());
        wrong.map(|error| error.to_string()).collect()
    }

    fn check_one(&self, key: &Value, value: &Value) -> anyhow::Result<()> {
        let Some(name) = key.as_str() else {
            bail!(
                "{}: the key {} is not a word",
                self.given.file(),
                shown(key)
            );
        };
        let (place, prefix) = (self.place(name), &self.prefix);
        let Some(key) = self.section.keys().find(|key| key.name == name) else {
            bail!(
                "{place}: unknown key `{prefix}{name}`: {}",
                self.remedy(name)
            );
        };
        if has_tag(value) {
            bail!("{place}: `{prefix}{name}` has a tag of YAML (!...), which means nothing here");
        }
        if value.is_null() {
            let hint = match name {
                // In some tools this means a full fine-tune.
                "adapter" => "write `adapter: full` to train every weight",
                _ => "write one, or remove the key",
            };
            bail!(
                "{place}: `{prefix}{name}` has no value, but must be {}; {hint}",
                key.allowed
            );
        }
        match holds(value, key.allowed) {
            true => Ok(()),
            false => Err(self.bad(name, key.allowed)),
        }
    }

    /// What to do about a key that this section does not have.
    fn remedy(&self, name: &str) -> String {
        if let Some(remedy) = foreign::key(name) {
            return remedy.to_string();
        }
        match KEYS.iter().find(|key| key.name == name) {
            Some(key) => format!("it belongs into {}", key.section.place()),
            None => nearest(
                name,
                &self.section.keys().map(|key| key.name).collect::<Vec<_>>(),
            ),
        }
    }

    /// The file, and the line of `key` where it is certain.
    pub(super) fn place(&self, key: &str) -> String {
        self.given.place(&format!("{}{key}", self.prefix))
    }

    /// A key as messages name it: with the key of the other tool that it was made from.
    fn name(&self, key: &str) -> String {
        let name = format!("{}{key}", self.prefix);
        match self.given.origin(&name) {
            Some(origin) if origin != name => format!("`{name}` (from `{origin}`)"),
            _ => format!("`{name}`"),
        }
    }

    /// The error that the value of `key` is not what is `allowed`.
    pub(super) fn bad(&self, key: &str, allowed: impl std::fmt::Display) -> anyhow::Error {
        let found = self.map.get(key).map(shown).unwrap_or_default();
        let (place, name) = (self.place(key), self.name(key));
        let is_type = self.section == Section::Dataset && key == "type";
        let word = self.word_given(key).filter(|_| is_type);
        let remedy = match (key, word.and_then(foreign::dataset_type)) {
            (_, Some(remedy)) => format!("; {remedy}"),
            ("report_to", _) => format!("; {}", foreign::TRACKERS),
            _ => String::new(),
        };
        anyhow!("{place}: {name} is {found}, but must be {allowed}{remedy}")
    }

    /// The error that a key has no effect; `because` says why.
    pub(super) fn idle(&self, key: &str, because: &str) -> anyhow::Error {
        let (place, name) = (self.place(key), self.name(key));
        anyhow!("{place}: {name} has no effect {because}; remove it")
    }

    /// The error that a key is needed.
    pub(super) fn missing(&self, key: &str) -> anyhow::Error {
        anyhow!(
            "{}: the key `{}{key}` is missing",
            self.given.file(),
            self.prefix
        )
    }

    /// The text of `key`, if it is a text.
    pub(super) fn word_given(&self, key: &str) -> Option<&str> {
        self.map.get(key)?.as_str()
    }

    /// Whether `key` is there.
    pub(super) fn has(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    /// The table's entry of `name`, and its value or the table's default.
    fn get(&self, name: &str) -> anyhow::Result<(&'static Key, Option<Value>)> {
        let mut keys = self.section.keys();
        let key = keys.find(|key| key.name == name);
        let key = key.with_context(|| format!("a bug: no key `{}{name}`", self.prefix))?;
        let value = match (self.map.get(name), key.absent) {
            (Some(value), _) => Some(value.clone()),
            (None, Absent::Is(default)) => Some(serde_yaml_ng::from_str(default)?),
            (None, Absent::Means(_)) => None,
            (None, Absent::Refused) => return Err(self.missing(name)),
        };
        Ok((key, value))
    }

    fn read_if<T>(
        &self,
        name: &str,
        convert: impl FnOnce(&Value, Allowed) -> Option<T>,
    ) -> anyhow::Result<Option<T>> {
        let (key, value) = self.get(name)?;
        let Some(value) = value else {
            return Ok(None);
        };
        match convert(&value, key.allowed) {
            None => Err(self.bad(name, key.allowed)),
            some => Ok(some),
        }
    }

    /// As [`Self::read_if`], for a key that always has a value, given or by default.
    fn read<T>(
        &self,
        name: &str,
        convert: impl FnOnce(&Value, Allowed) -> Option<T>,
    ) -> anyhow::Result<T> {
        let value = self.read_if(name, convert)?;
        value.with_context(|| format!("a bug: no default for `{}{name}`", self.prefix))
    }

    /// A value by one of its readings; `None` where the key is absent.
    pub(super) fn value_if<T>(
        &self,
        name: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> anyhow::Result<Option<T>> {
        self.read_if(name, |value, _| read(value))
    }

    /// A text that is not empty; `None` where the key is absent.
    pub(super) fn text_if(&self, name: &str) -> anyhow::Result<Option<String>> {
        self.read_if(name, |value, _| text(value))
    }

    /// A mapping with keys of any name; an empty one where the key is absent.
    pub(super) fn mapping(&self, name: &str) -> anyhow::Result<Map<String, serde_json::Value>> {
        let map = self.read_if(name, |value, _| json_map(value.as_mapping()?))?;
        Ok(map.unwrap_or_default())
    }

    /// A path, with `~` expanded; `None` where the key is absent.
    pub(super) fn path_if(&self, name: &str) -> anyhow::Result<Option<String>> {
        let Some(path) = self.read_if(name, |value, _| text(value))? else {
            return Ok(None);
        };
        let path = home::expand(&path);
        path.map(Some)
            .with_context(|| format!("{}: `{}{name}`", self.place(name), self.prefix))
    }

    /// A path, with `~` expanded.
    pub(super) fn path(&self, name: &str) -> anyhow::Result<String> {
        let path = self.path_if(name)?;
        path.with_context(|| format!("a bug: no default for `{}{name}`", self.prefix))
    }

    /// A list of texts; `None` where the key is absent.
    pub(super) fn texts_if(&self, name: &str) -> anyhow::Result<Option<Vec<String>>> {
        let texts = |value: &Value| value.as_sequence()?.iter().map(text).collect();
        self.read_if(name, |value, _| texts(value))
    }

    /// `true` or `false`.
    pub(super) fn flag(&self, name: &str) -> anyhow::Result<bool> {
        self.read(name, |value, _| value.as_bool())
    }

    /// `true` or `false`; `None` where the key is absent.
    pub(super) fn flag_if(&self, name: &str) -> anyhow::Result<Option<bool>> {
        self.read_if(name, |value, _| value.as_bool())
    }

    /// The meaning of a word; `meanings` are in the order of the words in the table.
    pub(super) fn word<T: Copy>(&self, name: &str, meanings: &[T]) -> anyhow::Result<T> {
        self.read(name, |value, allowed| meaning(value, allowed, meanings))
    }

    /// As [`Self::word`]; `None` where the key is absent.
    pub(super) fn word_if<T: Copy>(&self, name: &str, meanings: &[T]) -> anyhow::Result<Option<T>> {
        self.read_if(name, |value, allowed| meaning(value, allowed, meanings))
    }

    /// A whole number within the range of the table.
    pub(super) fn whole(&self, name: &str) -> anyhow::Result<u32> {
        self.read(name, whole)
    }

    /// As [`Self::whole`]; `None` where the key is absent.
    pub(super) fn whole_if(&self, name: &str) -> anyhow::Result<Option<u32>> {
        self.read_if(name, whole)
    }

    /// A whole number within the range of the table, or `None` for the word that is allowed, too.
    pub(super) fn whole_or_word(&self, name: &str) -> anyhow::Result<Option<u32>> {
        self.read(name, |value, allowed| match (value.as_str(), allowed) {
            (Some(given), Allowed::WholeOr(.., word)) if given == word => Some(None),
            _ => whole(value, allowed).map(Some),
        })
    }

    /// Any whole number of 64 bits.
    pub(super) fn seed(&self, name: &str) -> anyhow::Result<u64> {
        self.read(name, |value, _| seed(value))
    }

    /// A finite number within the range of the table, rounded to f32.
    pub(super) fn number(&self, name: &str) -> anyhow::Result<f32> {
        self.read(name, real)
    }

    /// As [`Self::number`]; `None` where the key is absent.
    pub(super) fn number_if(&self, name: &str) -> anyhow::Result<Option<f32>> {
        self.read_if(name, real)
    }

    /// As [`Self::number_if`], not rounded: the f32 nearest to 0.1 is above it, and a tenth of 30
    /// steps would be rounded up to 4.
    pub(super) fn exact_if(&self, name: &str) -> anyhow::Result<Option<f64>> {
        self.read_if(name, |value, allowed| {
            real(value, allowed)?;
            number(value)
        })
    }

    /// A mapping; an empty one where the key is absent.
    pub(super) fn map(&self, name: &str, section: Section) -> anyhow::Result<Keys<'a>> {
        let map = self.read_if(name, |value, _| value.as_mapping().cloned())?;
        Ok(self.inner(section, format!("{name}."), map.unwrap_or_default()))
    }

    /// A list of mappings.
    pub(super) fn maps(&self, name: &str, section: Section) -> anyhow::Result<Vec<Keys<'a>>> {
        let map = |value: &Value| value.as_mapping().cloned();
        let maps = |value: &Value| value.as_sequence()?.iter().map(map).collect();
        let maps: Vec<Mapping> = self.read(name, |value, _| maps(value))?;
        let numbered = |(index, map)| self.inner(section, format!("{name}[{index}]."), map);
        Ok(maps.into_iter().enumerate().map(numbered).collect())
    }

    fn inner(&self, section: Section, prefix: String, map: Mapping) -> Keys<'a> {
        Keys {
            given: self.given,
            section,
            prefix,
            map,
        }
    }
}

/// Whether a value, or one in its lists, has a YAML tag, which conversions would ignore.
fn has_tag(value: &Value) -> bool {
    match value {
        Value::Tagged(_) => true,
        Value::Sequence(values) => values.iter().any(has_tag),
        _ => false,
    }
}

/// A mapping of YAML as JSON, with texts as keys.
fn json_map(mapping: &Mapping) -> Option<Map<String, serde_json::Value>> {
    let pair = |(key, value): (&Value, &Value)| {
        Some((key.as_str()?.to_string(), serde_json::to_value(value).ok()?))
    };
    mapping.iter().map(pair).collect()
}

/// What one of the allowed words stands for.
fn meaning<T: Copy>(value: &Value, allowed: Allowed, meanings: &[T]) -> Option<T> {
    let (Allowed::Words(words), Some(asked)) = (allowed, value.as_str()) else {
        return None;
    };
    let index = words.iter().position(|word| *word == asked)?;
    meanings.get(index).copied()
}

fn text(value: &Value) -> Option<String> {
    let text = value.as_str().map(str::to_string);
    text.filter(|text| !text.trim().is_empty())
}

/// A number, also where it is a text to YAML, such as `1e-3` in quotes.
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => decimal(text)?.parse().ok(),
        _ => None,
    }
}

/// The text, if it is a number that all YAML parsers read alike: 010, for example, is eight to some
/// and ten to others.
fn decimal(text: &str) -> Option<&str> {
    let text = text.trim();
    let digits = text.trim_start_matches(['+', '-']);
    let is_octal = digits.starts_with('0') && digits[1..].starts_with(|c: char| c.is_ascii_digit());
    (!is_octal).then_some(text)
}

fn whole(value: &Value, allowed: Allowed) -> Option<u32> {
    let number = number(value).filter(|number| number.fract() == 0.0)?;
    // A whole number within u32: the conversion is exact.
    let number = (0.0..=f64::from(u32::MAX))
        .contains(&number)
        .then_some(number as u32)?;
    let holds = match allowed {
        Allowed::Whole(first, last) | Allowed::WholeOr(first, last, _) => {
            (first..=last).contains(&number)
        }
        Allowed::Bits => [8, 14, 16].contains(&number),
        _ => false,
    };
    holds.then_some(number)
}

fn real(value: &Value, allowed: Allowed) -> Option<f32> {
    // -0 becomes +0, so that both give the same job.
    let number = number(value)? as f32 + 0.0;
    let holds = match allowed {
        Allowed::Positive => number > 0.0,
        Allowed::NotNegative => number >= 0.0,
        Allowed::ShareOrCount => {
            let is_count = number.fract() == 0.0 && number <= 16_777_216.0;
            number >= 0.0 && (number < 1.0 || is_count)
        }
        Allowed::Share(Ends::Lower) => (0.0..1.0).contains(&number),
        Allowed::Share(Ends::Upper) => number > 0.0 && number <= 1.0,
        Allowed::Share(Ends::Both) => (0.0..=1.0).contains(&number),
        _ => false,
    };
    (number.is_finite() && holds).then_some(number)
}

/// Whether a value is one of those that are allowed.
fn holds(value: &Value, allowed: Allowed) -> bool {
    let names = |value: &Value| {
        value
            .as_sequence()
            .is_some_and(|v| v.iter().all(|v| v.is_string()))
    };
    match allowed {
        Allowed::Text | Allowed::Path | Allowed::Model => text(value).is_some(),
        Allowed::Names => names(value),
        Allowed::Modules => modules::modules(value).is_some(),
        Allowed::Layers => modules::layers(value).is_some(),
        Allowed::NameOrNames => modules::texts(value).is_some(),
        Allowed::Ranks => modules::ranks(value).is_some(),
        Allowed::Alphas => modules::alphas(value).is_some(),
        Allowed::Flag => value.is_bool(),
        Allowed::Words(words) => value.as_str().is_some_and(|word| words.contains(&word)),
        Allowed::Whole(..) | Allowed::Bits => whole(value, allowed).is_some(),
        Allowed::WholeOr(.., word) => {
            value.as_str() == Some(word) || whole(value, allowed).is_some()
        }
        Allowed::Seed => seed(value).is_some(),
        Allowed::Positive | Allowed::NotNegative | Allowed::ShareOrCount | Allowed::Share(_) => {
            real(value, allowed).is_some()
        }
        Allowed::Shares => modules::shares(value).is_some(),
        Allowed::Mappings => {
            let items = value.as_sequence();
            items.is_some_and(|items| items.iter().all(Value::is_mapping))
        }
        Allowed::Mapping => value.is_mapping(),
    }
}

fn seed(value: &Value) -> Option<u64> {
    match value {
        Value::String(digits) => decimal(digits)?.parse().ok(),
        value => value.as_u64(),
    }
}

/// A value as it is shown in a message.
pub(super) fn shown(value: &Value) -> String {
    let text = match value {
        Value::String(text) => format!("\"{text}\""),
        // In flow style, on one line.
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
    // In a short word so many letters are most of it.
    let most = TYPO_MAX.min(key.chars().count() / 2);
    match known.iter().min_by_key(|name| distance(name)) {
        Some(name) if distance(name) <= most => format!("did you mean `{name}`?"),
        _ => format!("known are {}", known.join(", ")),
    }
}
