//! Separates what a model thinks from what it says.

use crate::chat_template::ChatTemplate;
use crate::held::certain;
use crate::tokenizer::TextTokenizer;

const OPEN: &str = "<think>";
const CLOSE: &str = "</think>";

/// Splits an answer into what stands in `<think>...</think>` and what follows. Only the first
/// such block, at the start of the answer, is reasoning. White space around the tags is dropped.
///
/// ```
/// use concord_text::ReasoningSplit;
///
/// let mut split = ReasoningSplit::new(false);
/// let (mut reasoning, mut content) = (String::new(), String::new());
/// for piece in ["<thi", "nk>two and two", "</think>\n\n", "Four."] {
///     let parts = split.push(piece);
///     reasoning += &parts.reasoning;
///     content += &parts.content;
/// }
/// content += &split.finish().content;
/// assert_eq!((reasoning.as_str(), content.as_str()), ("two and two", "Four."));
/// ```
#[derive(Clone, Debug)]
pub struct ReasoningSplit {
    state: State,
    /// What may be the start of a tag, or white space that may be dropped.
    held: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing but white space so far.
    Start,
    /// Behind the opening tag, nothing but white space so far.
    Opened,
    Thinking,
    /// Behind the closing tag, nothing but white space so far.
    Closed,
    Answering,
}

/// Pieces of the two, either or both empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// What was thought.
    pub reasoning: String,
    /// What was said.
    pub content: String,
}

impl ReasoningSplit {
    /// With `inside`, the prompt ends with the opening tag already.
    pub fn new(inside: bool) -> Self {
        let state = if inside { State::Opened } else { State::Start };
        Self {
            state,
            held: String::new(),
        }
    }

    /// A splitter for a model whose template knows thinking, or `None` for other models. `prompt`
    /// is the rendered conversation.
    pub fn find(template: &ChatTemplate, prompt: &str) -> Option<Self> {
        let thinks = template.mentions(CLOSE) || template.mentions(OPEN);
        thinks.then(|| Self::new(prompt.trim_end().ends_with(OPEN)))
    }

    /// The tags, where they are special tokens: give them to
    /// [`crate::TextTokenizer::read_otherwise`].
    pub fn marker_tokens(tokenizer: &TextTokenizer) -> Vec<u32> {
        let tags = [OPEN, CLOSE].into_iter();
        tags.filter_map(|name| tokenizer.token_id(name)).collect()
    }

    /// Takes the next piece of an answer.
    pub fn push(&mut self, piece: &str) -> Split {
        let mut split = Split::default();
        self.held.push_str(piece);
        while self.step(&mut split) {}
        split
    }

    /// Gives what is held back: the answer has ended.
    pub fn finish(&mut self) -> Split {
        let rest = std::mem::take(&mut self.held);
        match self.state {
            State::Opened | State::Closed if rest.trim().is_empty() => Split::default(),
            State::Opened | State::Thinking => Split {
                reasoning: rest.trim_end().to_string(),
                content: String::new(),
            },
            State::Start | State::Closed | State::Answering => Split {
                reasoning: String::new(),
                content: rest,
            },
        }
    }

    /// Goes to the next state, if what is held decides that; else gives out what need not wait.
    fn step(&mut self, split: &mut Split) -> bool {
        match self.state {
            State::Start => {
                let text = self.held.trim_start();
                if let Some(rest) = text.strip_prefix(OPEN) {
                    self.held = rest.to_string();
                    self.state = State::Opened;
                    return true;
                }
                let waits = OPEN.starts_with(text);
                if !waits {
                    self.state = State::Answering;
                }
                !waits
            }
            State::Opened | State::Closed => {
                self.held = self.held.trim_start().to_string();
                let is_text = !self.held.is_empty();
                if is_text && self.state == State::Opened {
                    self.state = State::Thinking;
                } else if is_text {
                    self.state = State::Answering;
                }
                is_text
            }
            State::Thinking => {
                if let Some((before, rest)) = self.held.split_once(CLOSE) {
                    split.reasoning.push_str(before.trim_end());
                    self.held = rest.to_string();
                    self.state = State::Closed;
                    return true;
                }
                let keep = certain(&self.held, CLOSE);
                split.reasoning.extend(self.held.drain(..keep));
                false
            }
            State::Answering => {
                split.content.push_str(&self.held);
                self.held.clear();
                false
            }
        }
    }
}
