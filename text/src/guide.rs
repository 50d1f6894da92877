//! Which tokens may come next so that an answer fits a grammar.
//!
//! The candidates are a function of `tokenizer.json`, the size of the vocabulary, the grammar, the
//! stop tokens and the answer so far: the judge of an answer gets the same ones.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use llguidance::api::{ParserLimits, StopReason, TopLevelGrammar};
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};

use crate::error::TextError;
use crate::grammar::Grammar;
use crate::schema_numbers;
use crate::tokenizer::TextTokenizer;

/// Bytes that the text of a grammar may have.
pub const GRAMMAR_MAX: usize = 256 << 10;

/// The most ids of a vocabulary: what the trie of tokens can name.
const VOCAB_MAX: u32 = (1 << 24) - 2;

/// Longer tokens are never candidates: the trie cannot hold them.
const TOKEN_BYTES_MAX: usize = 1_000;

/// Characters of an error that are shown.
const WORDS_MAX: usize = 400;

/// Makes guides for the tokens of one model. Built once.
pub struct GuideFactory {
    parsers: ParserFactory,
    vocab: u32,
}

/// What may come next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// These tokens, as bits: token t is bit `t % 8` of byte `t / 8`; `vocab` bits, rounded up to
    /// bytes. Stop tokens are among them exactly where the grammar may end.
    Tokens(Vec<u8>),
    /// Nothing: the grammar is complete.
    End,
}

impl GuideFactory {
    /// `vocab` is the width of the model's logits; ids of the tokenizer from there on are no
    /// candidates.
    ///
    /// # Errors
    /// [`TextError::Grammar`] where the tokens cannot be laid out.
    pub fn new(tokenizer: &TextTokenizer, vocab: u32) -> Result<Self, TextError> {
        if vocab == 0 || vocab > VOCAB_MAX {
            return Err(refused(format!("a vocabulary of {vocab} tokens")));
        }
        let build = || {
            // One more token than the model has: it stands for the end of the grammar.
            let info = TokRxInfo::new(vocab + 1, vocab);
            let mut words: Vec<Vec<u8>> = (0..vocab).map(|id| word(tokenizer, id)).collect();
            words.push(b"\xFF<|end of grammar|>".to_vec());
            let trie = TokTrie::from(&info, &words);
            let tokens: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
            let slices = llguidance::earley::SlicedBiasComputer::general_slices();
            ParserFactory::new(&tokens, InferenceCapabilities::default(), &slices)
        };
        let built = catch_unwind(AssertUnwindSafe(build));
        let built = built.map_err(|_| refused("the tokenizer's tokens contradict each other"))?;
        let mut parsers = built.map_err(explained)?;
        parsers.quiet();
        *parsers.limits_mut() = limits();
        Ok(Self { parsers, vocab })
    }

    /// A guide for a new answer. `stop_tokens` end the answer.
    ///
    /// # Errors
    /// [`TextError::Grammar`] naming what is wrong or not supported.
    pub fn start(&self, grammar: &Grammar, stop_tokens: &[u32]) -> Result<Guide, TextError> {
        let grammar = parsed(grammar)?;
        let parser = catch_unwind(AssertUnwindSafe(|| self.parsers.create_parser(grammar)));
        let parser = parser.map_err(|_| refused("it contradicts itself"))?;
        let parser = parser.map_err(explained)?;
        Ok(Guide {
            matcher: Matcher::new(Ok(parser)),
            vocab: self.vocab,
            stops: stop_tokens.to_vec(),
            ended: false,
        })
    }
}

/// Follows one answer.
pub struct Guide {
    matcher: Matcher,
    vocab: u32,
    stops: Vec<u32>,
    ended: bool,
}

impl Clone for Guide {
    /// An independent copy, with bounds on cost of its own.
    fn clone(&self) -> Self {
        Self {
            matcher: self.matcher.deep_clone(),
            vocab: self.vocab,
            stops: self.stops.clone(),
            ended: self.ended,
        }
    }
}

impl Guide {
    /// The candidates for the next token.
    ///
    /// # Errors
    /// [`TextError::Grammar`] where the grammar costs too much to follow, or no token of the model
    /// can follow.
    pub fn allowed(&mut self) -> Result<Next, TextError> {
        match self.matcher.stop_reason() {
            _ if self.ended => return Ok(Next::End),
            StopReason::NoExtension | StopReason::EndOfSentence => return Ok(Next::End),
            // An error stays: the same one is given again.
            _ => {}
        }
        let mask = self.matcher.compute_mask().map_err(explained)?;
        let mut bits = vec![0u8; (self.vocab as usize).div_ceil(8)];
        for token in mask.iter().filter(|token| *token < self.vocab) {
            bits[token as usize / 8] |= 1 << (token % 8);
        }
        let may_end = mask.is_allowed(self.vocab);
        if may_end && bits.iter().all(|byte| *byte == 0) {
            return Ok(Next::End);
        }
        for token in self.stops.iter().filter(|token| **token < self.vocab) {
            let (byte, bit) = (*token as usize / 8, 1u8 << (token % 8));
            match may_end {
                true => bits[byte] |= bit,
                false => bits[byte] &= !bit,
            }
        }
        match bits.iter().all(|byte| *byte == 0) {
            true => Err(refused(
                "no token of the model can follow the answer so far",
            )),
            false => Ok(Next::Tokens(bits)),
        }
    }

    /// Takes the next token of the answer.
    ///
    /// # Errors
    /// [`TextError::NotAllowed`] for a token that is no candidate.
    pub fn accept(&mut self, token: u32) -> Result<(), TextError> {
        let fail = |reason: String| TextError::NotAllowed { token, reason };
        if self.ended || self.matcher.is_stopped() {
            return Err(fail("nothing may follow".to_string()));
        }
        if self.stops.contains(&token) {
            let may_end = self.matcher.is_accepting();
            if !may_end.map_err(|error| fail(explained(error).to_string()))? {
                return Err(fail("the answer cannot end here".to_string()));
            }
            self.ended = true;
            return Ok(());
        }
        if token >= self.vocab {
            return Err(fail("the model has no such token".to_string()));
        }
        let taken = self.matcher.try_consume_tokens(&[token]);
        match taken.map_err(|error| fail(explained(error).to_string()))? {
            0 => Err(fail("the grammar needs something else".to_string())),
            _ => Ok(()),
        }
    }
}

/// The library's words, in short: they may quote a whole grammar.
fn explained(error: impl ToString) -> TextError {
    let words = error.to_string().replace("<non-verbose/>", "");
    let words = words.trim();
    if words.starts_with("NoExtensionBias") {
        return refused("nothing that the model can write fulfils it");
    }
    let mut short: String = words.chars().take(WORDS_MAX).collect();
    if short.len() < words.len() {
        short += " ...";
    }
    refused(short)
}

fn refused(reason: impl Into<String>) -> TextError {
    TextError::Grammar {
        reason: reason.into(),
    }
}

/// Bounds of what a grammar may cost, in counts and never in time: they are part of the rule.
fn limits() -> ParserLimits {
    ParserLimits {
        max_lexer_states: 50_000,
        max_grammar_size: 100_000,
        verbose_errors: false,
        ..ParserLimits::default()
    }
}

/// A token as the trie has it: special ones behind a byte that no text has.
fn word(tokenizer: &TextTokenizer, id: u32) -> Vec<u8> {
    let (mut bytes, is_special) = tokenizer.file_bytes(id);
    if is_special {
        bytes.insert(0, TokTrie::SPECIAL_TOKEN_MARKER);
    }
    match bytes.len() > TOKEN_BYTES_MAX {
        true => Vec::new(),
        false => bytes,
    }
}

/// A schema under which JSON may have one blank or line end between its tokens, and no more: weak
/// models may write white space without end. A schema that has options of its own keeps them.
pub fn with_bounded_space(mut schema: Value) -> Value {
    if let Some(object) = schema.as_object_mut() {
        let options = json!({"whitespace_pattern": r"[ \n]"});
        object.entry("x-guidance").or_insert(options);
    }
    schema
}

fn parsed(grammar: &Grammar) -> Result<TopLevelGrammar, TextError> {
    let (Grammar::JsonSchema(text) | Grammar::Lark(text)) = grammar else {
        let schema = with_bounded_space(json!({"type": "object"}));
        return Ok(TopLevelGrammar::from_json_schema(schema));
    };
    if text.len() > GRAMMAR_MAX {
        return Err(refused(format!(
            "it has {} bytes, more than {GRAMMAR_MAX}: make it smaller",
            text.len()
        )));
    }
    match grammar {
        Grammar::Lark(_) => Ok(TopLevelGrammar::from_lark(text.clone())),
        _ => {
            let schema: Value = serde_json::from_str(text)
                .map_err(|error| refused(format!("the schema is no JSON: {error}")))?;
            schema_numbers::check(&schema).map_err(refused)?;
            let schema = with_bounded_space(schema);
            Ok(TopLevelGrammar::from_json_schema(schema))
        }
    }
}
