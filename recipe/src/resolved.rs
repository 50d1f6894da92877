//! What comes out: a job in Concord's keys, where each value comes from, and all that is wrong.

use std::fmt;

use serde_yaml_ng::Value;

use crate::dataset::Dataset;
use crate::document::Place;
use crate::length::{Length, Saves, Warmup};
use crate::tool::Tool;

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct ValueSource {
    /// Where the key stands; `None` where it is absent, and the tool's default holds.
    pub place: Option<Place>,
    /// The key, as the file has it.
    pub key: String,
    /// How the value was made from the key's; empty where it is the same.
    pub how: String,
}

/// A value of one of Concord's keys.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// Concord's key.
    pub key: &'static str,
    /// Its value.
    pub value: Value,
    /// Where the value comes from.
    pub source: ValueSource,
}

/// Something that keeps the job from being run.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// Where the key stands.
    pub place: Place,
    /// The key as the file has it.
    pub key: String,
    /// What is wrong, as the rest of a sentence that begins with the key.
    pub what: String,
    /// What to do; may be empty.
    pub remedy: String,
    /// The argument of `--set` that does it, where there is one.
    pub set: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "`{}` {}", self.key, self.what)?;
        match self.remedy.as_str() {
            "" => Ok(()),
            remedy => write!(f, "; {remedy}"),
        }
    }
}

/// A key that changes nothing here.
#[derive(Clone, Debug, PartialEq)]
pub struct Idle {
    /// Where the key stands.
    pub place: Place,
    /// The key as the file has it.
    pub key: String,
    /// Why not.
    pub why: String,
}

/// What is needed beyond Concord's keys: rules that need the number of rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// How long the job is.
    pub length: Length,
    /// Its warm-up.
    pub warmup: Warmup,
    /// When checkpoints are written.
    pub saves: Saves,
    /// When the loss on held-out rows is taken; `None` where nothing is held out.
    pub evaluations: Option<Saves>,
}

/// A token that the file names, and that the model's tokenizer must have in that place; or what
/// else must be so already, since models stay as they are.
#[derive(Clone, Debug, PartialEq)]
pub struct Expected {
    /// Where the key stands.
    pub place: Place,
    /// The key as the file has it.
    pub key: String,
    /// Its place in a tokenizer.
    pub role: TokenRole,
    /// The token.
    pub text: String,
}

/// The place of a token in a tokenizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenRole {
    /// The token that begins a text.
    Begin,
    /// The token that ends one.
    End,
    /// None: the model's embedding has a row for each token, and their number rounded up to a
    /// multiple of 32.
    RowsOf32,
}

/// A job file of any tool in Concord's terms.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// Whose file it is.
    pub tool: Tool,
    /// By which keys the tool was found.
    pub because: String,
    /// Values of Concord's keys, each key once at most. Empty for Concord's own files, which are
    /// read by Concord's own table.
    pub settings: Vec<Setting>,
    /// The revision of the base model, where that is one of the hub.
    pub model_revision: Option<Setting>,
    /// The data sets.
    pub datasets: Vec<Dataset>,
    /// Data sets that are not learnt from: the loss on them is taken.
    pub test_datasets: Vec<Dataset>,
    /// `None` for Concord's own files.
    pub rules: Option<Rules>,
    /// Tokens that the tokenizer must have.
    pub expected: Vec<Expected>,
    /// All that keeps the job from being run, in the order of the file.
    pub problems: Vec<Problem>,
    /// Keys that are accepted and change nothing, in the order of the file.
    pub idle: Vec<Idle>,
    /// What is to be known of the translation.
    pub notes: Vec<String>,
}

impl Resolved {
    /// The value of one of Concord's keys.
    pub fn setting(&self, key: &str) -> Option<&Setting> {
        self.settings.iter().find(|setting| setting.key == key)
    }

    /// The arguments `--set` that would remove all problems that have one.
    pub fn remedies(&self) -> Vec<&str> {
        let sets = self
            .problems
            .iter()
            .filter_map(|problem| problem.set.as_deref());
        sets.collect()
    }
}
