//! One answer: everything that determines it, and what passes between it and the client.

use borsh::{BorshDeserialize, BorshSerialize};

use super::deployment::DeploymentId;
use crate::crypto::{Digest, Domain};
use crate::limits::{
    READING_BYTES_MAX, READINGS_MAX, STOP_TEXT_BYTES_MAX, STOP_TEXTS_MAX, TOP_LOGPROBS_MAX,
};
use crate::training::F32Bits;

/// Everything that an answer is a function of, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct GenerationSpec {
    /// The model.
    pub deployment: DeploymentId,
    /// Blob address of the [`super::AdapterManifest`], if an adapter is on top.
    pub adapter: Option<Digest>,
    /// Token ids of the prompt. At least one.
    pub prompt: Vec<u32>,
    /// How tokens are drawn.
    pub sampling: SamplingSpec,
    /// The most tokens of the answer.
    pub max_tokens: u32,
    /// Tokens that end the answer. The one that does is its last.
    pub stop_tokens: Vec<u32>,
    /// Texts that end the answer: it ends with the token that completes one.
    pub stop_texts: Vec<String>,
    /// Tokens that are read otherwise than `tokenizer.json` alone has them, by rising id.
    pub readings: Vec<TokenReading>,
    /// How many alternatives to report beside each token of the answer; `None` turns logprobs off.
    pub logprobs: Option<u8>,
    /// The same for the tokens of the prompt (but the first).
    pub prompt_logprobs: Option<u8>,
}

impl GenerationSpec {
    /// The digest that claims name.
    pub fn digest(&self) -> Digest {
        Digest::of_value(Domain::Generation, self)
    }

    /// Whether its lists are within the bounds of [`crate::limits`].
    ///
    /// # Errors
    /// Which is not, as a sentence about the spec ("it has ...").
    pub fn check_bounds(&self) -> Result<(), String> {
        let is_text = |text: &String| (1..=STOP_TEXT_BYTES_MAX).contains(&text.len());
        let (texts, readings) = (&self.stop_texts, &self.readings);
        if texts.len() > STOP_TEXTS_MAX || !texts.iter().all(is_text) {
            return Err(format!(
                "it has more than {STOP_TEXTS_MAX} stop texts, or one that is empty or has more \
                 than {STOP_TEXT_BYTES_MAX} bytes"
            ));
        }
        let is_short = |reading: &TokenReading| reading.bytes.len() <= READING_BYTES_MAX;
        let is_rising = readings.is_sorted_by(|a, b| a.token < b.token);
        if readings.len() > READINGS_MAX || !is_rising || !readings.iter().all(is_short) {
            return Err(format!(
                "it reads more than {READINGS_MAX} tokens otherwise than tokenizer.json has them, \
                 or not in their order, or as too long a text"
            ));
        }
        let asked = self.logprobs.max(self.prompt_logprobs);
        match asked.is_some_and(|asked| asked > TOP_LOGPROBS_MAX) {
            true => Err(format!("it has more than {TOP_LOGPROBS_MAX} top logprobs")),
            false => Ok(()),
        }
    }
}

/// How one token is read in the text of an answer. Names of special tokens are hidden, unless they
/// mark what an answer is made of (reasoning, calls), and the files beside `tokenizer.json` may
/// make a token special. No receipt names those files, so what they change is in the spec.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct TokenReading {
    pub token: u32,
    /// What it stands for: bytes of the text, or a name that is no part of it.
    pub bytes: Vec<u8>,
    /// Whether it is no part of the text. A stop text may name it all the same.
    pub is_hidden: bool,
}

/// How tokens are drawn.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SamplingSpec {
    /// Divides the logits; 0 takes the most probable token.
    pub temperature: F32Bits,
    /// Keeps this many of the most probable tokens; 0 keeps all.
    pub top_k: u32,
    /// Keeps the most probable tokens up to this mass.
    pub top_p: F32Bits,
    /// Key of the random stream. The token at absolute position p (tokens before it) is drawn with
    /// the p-th number of the stream.
    pub seed: u64,
    /// Taken off the logit of a token for each time that the answer has it already.
    pub frequency_penalty: F32Bits,
    /// Taken off the logit of each token that the answer has already.
    pub presence_penalty: F32Bits,
    /// Added to logits, by rising token id.
    pub logit_bias: Vec<(u32, F32Bits)>,
    /// What the answer has to be.
    pub grammar: Option<GrammarSpec>,
}

/// What an answer has to be. Tokens after which it cannot become that are not drawn.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum GrammarSpec {
    /// Any JSON object.
    JsonObject,
    /// JSON that a schema allows; the text of the schema.
    JsonSchema(String),
    /// A grammar in the dialect of Lark that llguidance reads (tool calls).
    Lark(String),
}

/// The seed of choice `index` of a request: the first has the seed of the request.
pub fn choice_seed(seed: u64, index: u32) -> u64 {
    if index == 0 {
        return seed;
    }
    let digest = Digest::of_value(Domain::ChoiceSeed, &(seed, index));
    let first: [u8; 8] = digest.0[..8].try_into().expect("a digest has 32 bytes");
    u64::from_le_bytes(first)
}

/// A generation on its way to the scheduler. Only its spec affects the tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// Names the receipt, such as "chatcmpl-...-0".
    pub id: String,
    /// The name of the model that it was asked of, for the receipt.
    pub model: String,
    /// Whose it is, for fair queueing: the digest of an API key, or of nothing.
    pub owner: Digest,
    pub spec: GenerationSpec,
    /// Digest of the request's body, for the receipt.
    pub body: Digest,
}

/// A token and how probable the model finds it, by its logits before bias, grammar and temperature.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct TokenLogprob {
    pub token: u32,
    /// Natural logarithm of its probability; 0 where none was asked for.
    pub logprob: F32Bits,
    /// The most probable tokens, most probable first, the lowest id first among equals.
    pub top: Vec<(u32, F32Bits)>,
}

impl TokenLogprob {
    /// A token whose logprob nobody asked for.
    pub fn unasked(token: u32) -> Self {
        Self {
            token,
            logprob: F32Bits::from(0.0),
            top: Vec::new(),
        }
    }

    /// The digest that the last stage claims, bit for bit.
    pub fn digest(&self) -> Digest {
        Digest::of_value(Domain::Drawn, self)
    }
}

/// What becomes of a generation, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// It waits in the queue.
    Queued {
        /// Generations before it.
        ahead: u32,
    },
    /// A part of the prompt has been processed.
    Prefill {
        done: u32,
        /// Of how many.
        total: u32,
    },
    /// Logprobs of prompt tokens `1..`, once, before the first token.
    Prompt(Vec<TokenLogprob>),
    /// The next token of the answer. Under a grammar the next one waits for [`Control::Allow`].
    Token(TokenLogprob),
    /// A stage is lost; it goes on once another one has rebuilt its keys and values.
    Paused,
    /// It goes on.
    Resumed,
    /// It is done. The last update.
    Finished {
        /// Why.
        finish: Finish,
        /// What it took.
        usage: Usage,
    },
    /// It cannot go on; what is there is right. The last update.
    Failed {
        /// Why, for the client.
        reason: String,
        /// Whether asking again may help.
        retry: bool,
        /// What it took.
        usage: Usage,
    },
}

/// Why an answer ended. The first of these that holds is the reason; all but the last follow from
/// the spec and the tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Finish {
    /// A stop token.
    StopToken,
    /// A stop text. Tokens that were drawn before it was seen are no part of the answer.
    StopText,
    /// Nothing may follow by the grammar.
    Grammar,
    /// `max_tokens`, or no position left.
    Length,
    /// The client was gone, or had not read to the end, when the receipt was signed: whether a stop
    /// text came before is not known. Only its coordinator says so.
    Cancelled,
}

/// What a generation took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt: u32,
    /// Those of them that came out of the prefix cache.
    pub cached: u32,
    /// Tokens of the answer.
    pub answer: u32,
}

/// What the client says about a running generation. Dropping the channel cancels it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// Under a grammar: the candidates after `answer` tokens of the answer, as bits (token t is bit
    /// `t % 8` of byte `t / 8`). The first one, with `answer` 0, allows the first token.
    Allow {
        /// Tokens of the answer so far.
        answer: u32,
        /// The candidates.
        tokens: Vec<u8>,
    },
    /// The answer ends after so many tokens. Later tokens are dropped. [`Update::Finished`]
    /// follows.
    Stop {
        /// Tokens of the answer.
        answer: u32,
        /// [`Finish::StopText`] or [`Finish::Grammar`].
        finish: Finish,
    },
    /// After [`Update::Finished`]: what was sent, for the receipt.
    Close {
        /// The digest of the text, under [`Domain::Text`].
        text: Digest,
        /// Why the answer ended, also where a stop text came too late for [`Self::Stop`].
        finish: Finish,
    },
}
