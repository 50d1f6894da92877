//! A data set of a job: its files, its kind, the names of its fields, and what is learnt of it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use serde_json::{Map, Value};

use crate::error::DataError;
use crate::split::RowSplit;

/// The kind of a data set, by its `type` in a job file: what its rows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatasetKind {
    /// `text`: a text file is one document, with line ends of `\r\n` read as `\n`; a file of rows
    /// has one in `field` of each. Each is tokenized whole, with special tokens as the tokenizer
    /// adds them; the documents are joined, with the end-of-text token between two, and cut into
    /// full sequences; the tail is left out, and counted. Every token but the first of a sequence
    /// is predicted.
    Text,
    /// `completion`: each row is an example that is learnt whole: `field`, and the end-of-text
    /// token.
    Completion,
    /// `instruct`: each row is an example. It is the instruction and a line feed (with the special
    /// tokens that begin a text), the input and a line feed where there is one, the output, and
    /// the end-of-text token; only output and end are predicted.
    Instruct,
    /// `alpaca`: the same fields within the words of Stanford's Alpaca ("Below is an instruction
    /// that describes a task..."), without the model's chat template.
    Alpaca,
    /// `alpaca_turns`: the same fields as a turn of the user and one of the assistant, in the
    /// model's chat template; with `system` and `history` where a row has them.
    AlpacaTurns,
    /// `chat_template`: each row is a conversation, in the model's chat template.
    ChatTemplate,
    /// `sharegpt`: the same with the names of ShareGPT: `conversations` of `from` and `value`.
    ShareGpt,
    /// `prompt_completion`: a prompt and what follows it, of which only that is predicted: two
    /// texts, or two lists of turns, which go through the model's chat template.
    PromptCompletion,
    /// `input_output`: `segments` of `text` and `label`; those with `label` true are predicted.
    /// Nothing is added to them.
    InputOutput,
    /// `tokens`: a safetensors file with I64 `tokens` [step, microbatch, batch, sequence], taken
    /// as it is; every token but the first of a sequence is predicted. Or rows of `input_ids`
    /// with `labels`.
    Tokens,
}

impl DatasetKind {
    /// Every kind.
    pub const ALL: [DatasetKind; 10] = [
        DatasetKind::Text,
        DatasetKind::Completion,
        DatasetKind::Instruct,
        DatasetKind::Alpaca,
        DatasetKind::AlpacaTurns,
        DatasetKind::ChatTemplate,
        DatasetKind::ShareGpt,
        DatasetKind::PromptCompletion,
        DatasetKind::InputOutput,
        DatasetKind::Tokens,
    ];

    /// The names in a job file, in the order of [`Self::ALL`].
    pub const NAMES: [&str; 10] = [
        "text",
        "completion",
        "instruct",
        "alpaca",
        "alpaca_turns",
        "chat_template",
        "sharegpt",
        "prompt_completion",
        "input_output",
        "tokens",
    ];

    /// The name in a job file.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// Whether rows of it are conversations, all of them or some.
    pub fn has_turns(self) -> bool {
        matches!(
            self,
            Self::AlpacaTurns | Self::ChatTemplate | Self::ShareGpt | Self::PromptCompletion
        )
    }

    /// Whether rows of it have an instruction and an output.
    pub fn has_instruction(self) -> bool {
        matches!(
            self,
            Self::Instruct | Self::Alpaca | Self::AlpacaTurns | Self::PromptCompletion
        )
    }

    /// Whether rows of it may have an input beside the instruction.
    pub fn has_input(self) -> bool {
        matches!(self, Self::Instruct | Self::Alpaca | Self::AlpacaTurns)
    }

    /// Whether its rows are lists of messages with names of their own.
    pub fn has_messages(self) -> bool {
        matches!(self, Self::ChatTemplate | Self::ShareGpt)
    }
}

impl FromStr for DatasetKind {
    type Err = DataError;

    fn from_str(name: &str) -> Result<Self, DataError> {
        DatasetKind::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| DataError::UnknownKind {
                found: name.to_string(),
                hint: nearest(name),
            })
    }
}

fn nearest(name: &str) -> String {
    let distance = |known: &&str| strsim::damerau_levenshtein(name, known);
    match DatasetKind::NAMES
        .iter()
        .min_by_key(|known| distance(known))
    {
        Some(known) if distance(known) <= 3 => format!("did you mean `{known}`?"),
        _ => format!("known are {}", DatasetKind::NAMES.join(", ")),
    }
}

/// What becomes of an example that is longer than a sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExcessLength {
    /// Its end is cut off.
    #[default]
    Truncate,
    /// The end of each question and of each answer is cut off, by LLaMA-Factory's rule.
    ShortenTurns,
    /// It is left out.
    Drop,
    /// It becomes several sequences.
    Split,
    /// The data set is refused.
    Error,
}

/// Which tokens that end a turn are predicted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrainedEnds {
    /// That of each turn that is learnt.
    #[default]
    Turn,
    /// That of every turn.
    All,
    /// That of the last turn.
    Last,
    /// None.
    None,
}

/// What is taken of a set of the Hugging Face hub, or of a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HubChoice {
    /// The name of its configuration.
    pub name: Option<String>,
    /// A branch, a tag or a commit.
    pub revision: Option<String>,
    /// Patterns of the files that are meant; none for those of the split.
    pub data_files: Vec<String>,
}

/// One of the parts of equal size into which the rows are divided after a shuffle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// How many parts there are.
    pub of: u32,
    /// Which one is taken, from 0.
    pub index: u32,
}

/// A data set of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct DatasetSource {
    /// A file, a folder of files, or a path with `*` or `?` in it.
    pub path: PathBuf,
    /// What its rows are.
    pub kind: DatasetKind,
    /// For `text` in rows and `completion`: the key of the document.
    pub field: String,
    /// The key of the instruction or the prompt.
    pub field_instruction: String,
    /// The key of what the instruction is about; rows may lack it.
    pub field_input: String,
    /// The key of the output or the completion.
    pub field_output: String,
    /// For `instruct`: the prompt, with `{instruction}` and `{input}` where these go; `None` for a
    /// line each.
    pub format: Option<String>,
    /// The same for rows without an input; `None` for that of others.
    pub no_input_format: Option<String>,
    /// For conversations: the key of the list of messages.
    pub field_messages: String,
    /// Names of fields within messages, by the name that the chat template has for them: `role`,
    /// `content` and others.
    pub message_properties: BTreeMap<String, String>,
    /// For conversations: the key within a message of whether it is learnt.
    pub field_training: Option<String>,
    /// Roles by the names that rows have for them.
    pub roles: BTreeMap<String, String>,
    /// Roles whose turns are learnt.
    pub roles_to_train: Vec<String>,
    /// Which ends of turns are learnt.
    pub train_on_eos: TrainedEnds,
    /// Whether everything is learnt, not only answers.
    pub train_on_inputs: bool,
    /// The text of a chat template in place of the model's own.
    pub chat_template: Option<String>,
    /// Variables for the chat template.
    pub template_variables: Map<String, Value>,
    /// Keys of rows and messages that are left out on purpose.
    pub ignore_fields: Vec<String>,
    /// Where it is not empty: the keys of rows that are kept; all others are left out on purpose.
    pub columns: Vec<String>,
    /// What becomes of examples that are too long.
    pub excess_length: ExcessLength,
    /// Which part of the rows is taken; of a folder also which files.
    pub split: Option<RowSplit>,
    /// The share of these rows that is drawn, in (0, 1].
    pub weight: Option<f64>,
    /// The part of these rows that is taken; never beside a share.
    pub shard: Option<Shard>,
    /// The seed of that draw, or of the shuffle before rows are divided.
    pub seed: u64,
    /// Only so many rows are taken, the first ones of these.
    pub max_samples: Option<u32>,
    /// What is meant of a set of the hub.
    pub hub: HubChoice,
    /// The files, where they are not those of `path`: those of a set of the hub.
    pub given_files: Option<Vec<PathBuf>>,
    /// Tokens that end turns, beside those of the model.
    pub eot_tokens: Vec<String>,
    /// Whether a system message in front of a conversation is left out.
    pub drop_system_message: bool,
    /// Whether only the last answer of a conversation is learnt.
    pub mask_history: bool,
}

impl DatasetSource {
    /// A data set with the names, the roles and the rules that are usual for its kind.
    pub fn new(path: impl Into<PathBuf>, kind: DatasetKind) -> Self {
        let (instruction, output) = match kind {
            DatasetKind::PromptCompletion => ("prompt", "completion"),
            _ => ("instruction", "output"),
        };
        let (messages, role, content) = match kind {
            DatasetKind::ShareGpt => ("conversations", "from", "value"),
            _ => ("messages", "role", "content"),
        };
        let properties = [("role", role), ("content", content)];
        Self {
            path: path.into(),
            kind,
            field: "text".to_string(),
            field_instruction: instruction.to_string(),
            field_input: "input".to_string(),
            field_output: output.to_string(),
            format: None,
            no_input_format: None,
            field_messages: messages.to_string(),
            message_properties: properties
                .map(|(to, from)| (to.to_string(), from.to_string()))
                .into(),
            field_training: None,
            roles: ROLES
                .map(|(from, to)| (from.to_string(), to.to_string()))
                .into(),
            roles_to_train: vec!["assistant".to_string()],
            train_on_eos: TrainedEnds::default(),
            train_on_inputs: false,
            chat_template: None,
            template_variables: Map::new(),
            ignore_fields: Vec::new(),
            columns: Vec::new(),
            excess_length: match kind {
                DatasetKind::Completion => ExcessLength::Split,
                _ => ExcessLength::Truncate,
            },
            split: None,
            weight: None,
            shard: None,
            seed: 42,
            max_samples: None,
            hub: HubChoice::default(),
            given_files: None,
            eot_tokens: Vec::new(),
            drop_system_message: false,
            mask_history: false,
        }
    }

    /// Whether a part or a share of the rows is taken.
    pub(crate) fn selects(&self) -> bool {
        let is_drawn = self.weight.is_some() || self.shard.is_some();
        is_drawn || self.split.as_ref().is_some_and(RowSplit::is_part)
    }

    /// The error that this data set cannot be used as a whole.
    pub(crate) fn fail(&self, reason: impl Into<String>) -> DataError {
        DataError::file(&self.path, reason)
    }

    /// The field of messages for what a chat template calls `property`.
    pub(crate) fn property<'a>(&'a self, property: &'a str) -> &'a str {
        let named = self.message_properties.get(property);
        named.map_or(property, String::as_str)
    }
}

/// Names of roles that mean the same everywhere.
const ROLES: [(&str, &str); 9] = [
    ("assistant", "assistant"),
    ("gpt", "assistant"),
    ("function_call", "function_call"),
    ("human", "user"),
    ("user", "user"),
    ("observation", "tool"),
    ("system", "system"),
    ("developer", "developer"),
    ("tool", "tool"),
];
