//! The data sets of a job file, whatever tool wrote it.

use std::collections::BTreeMap;

use crate::document::Place;

/// What a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RowKind {
    /// Texts that are joined and cut.
    Text,
    /// Texts that are examples of their own.
    Completion,
    /// Instruction, input and output with Alpaca's two sentences in front.
    Alpaca,
    /// Instruction, input and output as a turn of the user and one of the assistant.
    AlpacaChat,
    /// Turns, each of a role and its content.
    Chat,
    /// A prompt and its completion, as texts or as turns.
    PromptCompletion,
    /// Instruction, input and output, a line each.
    Instruct,
    /// Texts that are learnt or not, one behind the other.
    Segments,
    /// Token ids and labels.
    Tokens,
    /// What the columns of the data show: `text`, `messages`, or `prompt` and `completion`.
    ByColumns,
    /// The same, and instructions and their answers.
    Guessed,
}

/// What the model learns to predict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Learnt {
    /// Every token.
    All,
    /// The answers alone.
    Answers,
    /// The turns of these roles.
    Roles(Vec<String>),
}

/// How turns become a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TurnTemplate {
    /// By the chat template of the tokenizer.
    Tokenizer,
    /// By the one that has this name among [`crate::TEMPLATE_NAMES`].
    Named(String),
    /// By this one (Jinja).
    Jinja(String),
}

/// What happens to an example that is longer than a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooLong {
    /// It is left out.
    Drop,
    /// Its end is cut off.
    Truncate,
    /// The job is refused.
    Refuse,
    /// It becomes several sequences.
    Split,
    /// The end of each question and of each answer is cut off.
    ShortenTurns,
}

/// One data set.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    /// The path of its first key, such as `datasets[0]`.
    pub at: String,
    /// Where that stands.
    pub place: Place,
    /// The key that names the file, as `--set` takes it.
    pub path_key: String,
    /// A file or folder; or a set of the Hugging Face hub, as owner/name.
    pub path: String,
    /// Of a set of the hub: the name of its configuration.
    pub name: Option<String>,
    /// Of a set of the hub: the branch, the tag or the commit.
    pub revision: Option<String>,
    /// Files of a folder or of a set of the hub, where not all are meant.
    pub data_files: Vec<String>,
    /// Which rows, as Hugging Face's data sets write it: `train`, `train[:10%]`.
    pub split: Option<String>,
    /// The split where none is given and the set is not a single file; `train` where this is
    /// `None`.
    pub usual_split: Option<&'static str>,
    /// What its rows are.
    pub kind: RowKind,
    /// Columns by what they hold (`instruction`, `input`, `output`, `system`, `messages`, `text`,
    /// `prompt`, `completion`) and names within a turn (`role`, `content`), where they differ from
    /// the usual.
    pub fields: BTreeMap<&'static str, String>,
    /// Names within a turn by what the chat template calls them, beside `role` and `content`.
    pub properties: BTreeMap<String, String>,
    /// How an instruction and its input are written, with `{instruction}` and `{input}` in it.
    pub format: Option<String>,
    /// The same for rows without an input.
    pub no_input_format: Option<String>,
    /// Names of roles by what they mean (`user`, `assistant`, `system`, `tool`), where the file
    /// gives them.
    pub roles: BTreeMap<String, Vec<String>>,
    /// What the model learns to predict.
    pub learnt: Learnt,
    /// Which ends of turns are learnt: `turn`, `all`, `last` or `none`.
    pub learnt_ends: Option<String>,
    /// How turns become a text.
    pub template: TurnTemplate,
    /// What happens to an example that is longer than a sequence.
    pub too_long: TooLong,
    /// The first rows that are taken.
    pub max_rows: Option<u64>,
    /// The share of its rows that is taken, after a shuffle.
    pub weight: Option<f64>,
    /// Into how many parts its rows are divided after a shuffle, and which one is taken.
    pub shard: Option<(u64, u64)>,
    /// Fields of rows that are left out on purpose.
    pub ignored: Vec<String>,
    /// The fields of rows that are kept, where the file names them; all others are left out.
    pub columns: Vec<String>,
    /// Tokens that end turns, beside those of the model.
    pub end_tokens: Vec<String>,
    /// Whether a system message in front of a conversation is left out.
    pub drops_system: bool,
    /// Whether only the last answer of a conversation is learnt.
    pub last_answer: bool,
}

impl Dataset {
    /// A data set with nothing said but where it is and what its rows are.
    pub fn new(at: &str, place: Place, path: String, kind: RowKind) -> Self {
        Self {
            at: at.to_string(),
            place,
            path_key: format!("{at}.path"),
            path,
            name: None,
            revision: None,
            data_files: Vec::new(),
            split: None,
            usual_split: None,
            kind,
            fields: BTreeMap::new(),
            properties: BTreeMap::new(),
            format: None,
            no_input_format: None,
            roles: BTreeMap::new(),
            learnt: Learnt::Answers,
            learnt_ends: None,
            template: TurnTemplate::Tokenizer,
            too_long: TooLong::Truncate,
            max_rows: None,
            weight: None,
            shard: None,
            ignored: Vec::new(),
            columns: Vec::new(),
            end_tokens: Vec::new(),
            drops_system: false,
            last_answer: false,
        }
    }
}
