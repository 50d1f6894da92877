//! The tokenizer of a model as metadata of GGUF: the inverse of what is read of such a file.

use std::collections::BTreeMap;
use std::fs;

use concord_text::TextTokenizer;
use serde::Deserialize;
use serde_json::Value;

use super::container::{MetaValue, Metadata};
use super::pre_tokenizer::{self, ByteRule};
use crate::config::DecoderConfig;
use crate::error::ModelError;
use crate::weights::ModelFolder;

/// Kinds of tokens (`tokenizer.ggml.token_type`).
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

/// The score of what merges never make.
const NO_SCORE: f32 = -1e6;

/// The parts of `tokenizer.json` that become metadata.
#[derive(Deserialize)]
struct TokenizerFile {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    model: Value,
}

#[derive(Deserialize)]
struct AddedToken {
    id: usize,
    content: String,
    special: bool,
}

/// A model of merged pairs.
#[derive(Deserialize)]
struct PairModel {
    vocab: BTreeMap<String, usize>,
    merges: Vec<Pair>,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
    #[serde(default)]
    unk_token: Option<String>,
}

/// A merge, in either of the forms that it has had.
#[derive(Deserialize)]
#[serde(untagged)]
enum Pair {
    Two([String; 2]),
    One(String),
}

impl Pair {
    fn halves(&self) -> Option<[&str; 2]> {
        match self {
            Self::Two([left, right]) => Some([left, right]),
            Self::One(text) => text.split_once(' ').map(|(left, right)| [left, right]),
        }
    }
}

/// The tokens of a file: as many as the embedding has rows.
struct Tokens {
    texts: Vec<String>,
    kinds: Vec<i32>,
}

/// The metadata of a model's tokenizer and of its chat template.
///
/// # Errors
/// [`ModelError::CannotExport`] for a tokenizer of another kind than those that are written.
pub(super) fn of(folder: &ModelFolder) -> Result<Metadata, ModelError> {
    let cannot = |reason: String| ModelError::CannotExport {
        path: folder.dir().to_path_buf(),
        reason,
    };
    let bytes = folder.tokenizer_json()?;
    let path = folder.dir().join("tokenizer.json");
    let file: TokenizerFile = serde_json::from_slice(&bytes).map_err(ModelError::json(&path))?;
    if file.model["type"] != "BPE" {
        return Err(cannot(format!(
            "its tokenizer is of the type {}, and of these BPE alone is written",
            file.model["type"]
        )));
    }
    let model: PairModel =
        serde_json::from_value(file.model.clone()).map_err(ModelError::json(&path))?;
    let tokens = tokens(&file, &model, folder.config()).map_err(cannot)?;
    let mut out = Vec::new();
    let mut put = |key: &str, value| out.push((format!("tokenizer.ggml.{key}"), value));
    let text = |value: &str| MetaValue::Text(value.to_string());
    match model.byte_fallback {
        true => {
            put("model", text("llama"));
            put("pre", text("default"));
            put("scores", MetaValue::F32s(scores(&model, &tokens)));
            let is_prefixed = pre_tokenizer::adds_space(&file.normalizer, &file.pre_tokenizer);
            put("add_space_prefix", MetaValue::Bool(is_prefixed));
        }
        false => {
            let rule = ByteRule {
                normalizer: &file.normalizer,
                pre_tokenizer: &file.pre_tokenizer,
                ignores_merges: model.ignore_merges,
                has_merges: !model.merges.is_empty(),
            };
            let pre = rule
                .name()
                .ok_or_else(|| cannot(pre_tokenizer::unknown()))?;
            put("model", text("gpt2"));
            put("pre", text(&pre));
            let pairs = model.merges.iter().filter_map(Pair::halves);
            let merges = pairs.map(|[left, right]| format!("{left} {right}"));
            put("merges", MetaValue::Texts(merges.collect()));
        }
    }
    let ids: BTreeMap<&str, usize> = (tokens
        .texts
        .iter()
        .enumerate()
        .map(|(id, text)| (text.as_str(), id)))
    .collect();
    let known = |token: Option<&str>| token.and_then(|token| ids.get(token)).copied();
    special(folder, &known, model.unk_token.as_deref(), &mut put)?;
    put("token_type", MetaValue::I32s(tokens.kinds.clone()));
    put("tokens", MetaValue::Texts(tokens.texts.clone()));
    if let Some(template) = chat_template(folder)? {
        out.push((
            "tokenizer.chat_template".to_string(),
            MetaValue::Text(template),
        ));
    }
    Ok(out)
}

fn tokens(
    file: &TokenizerFile,
    model: &PairModel,
    config: &DecoderConfig,
) -> Result<Tokens, String> {
    let mut texts: Vec<Option<String>> = vec![None; config.vocab];
    let mut kinds = vec![UNUSED; config.vocab];
    let own = model.vocab.iter().map(|(text, id)| {
        let is_byte = model.byte_fallback
            && text.len() == 6
            && text.starts_with("<0x")
            && text.ends_with('>');
        (*id, text, if is_byte { BYTE } else { NORMAL })
    });
    let added = file.added_tokens.iter().map(|token| {
        let is_unknown = model.unk_token.as_deref() == Some(&token.content);
        let kind = match token.special {
            true if is_unknown => UNKNOWN,
            true => CONTROL,
            false => USER_DEFINED,
        };
        (token.id, &token.content, kind)
    });
    for (id, text, kind) in own.chain(added) {
        let (Some(place), Some(old)) = (texts.get_mut(id), kinds.get_mut(id)) else {
            return Err(format!(
                "its tokenizer has the token `{text}` with the number {id}, and the embedding has \
                 {} rows: take the tokenizer that belongs to the model",
                config.vocab
            ));
        };
        (*place, *old) = (Some(text.clone()), kind);
    }
    let padded = texts.into_iter().enumerate();
    Ok(Tokens {
        // Rows of the embedding that no token has.
        texts: padded
            .map(|(id, text)| text.unwrap_or_else(|| format!("[PAD{id}]")))
            .collect(),
        kinds,
    })
}

/// Pairs are merged by falling score: so the first merge that makes a token decides its score.
fn scores(model: &PairModel, tokens: &Tokens) -> Vec<f32> {
    let mut ranks: BTreeMap<String, usize> = BTreeMap::new();
    for (rank, pair) in model.merges.iter().filter_map(Pair::halves).enumerate() {
        ranks.entry(pair.concat()).or_insert(rank);
    }
    let score = |(text, kind): (&String, &i32)| match (ranks.get(text), *kind) {
        (Some(rank), _) => -(*rank as f32),
        (None, NORMAL) => NO_SCORE,
        (None, _) => 0.0,
    };
    tokens.texts.iter().zip(&tokens.kinds).map(score).collect()
}

/// The tokens with a meaning, and whether a text begins or ends with one.
fn special(
    folder: &ModelFolder,
    known: &dyn Fn(Option<&str>) -> Option<usize>,
    unknown: Option<&str>,
    put: &mut impl FnMut(&str, MetaValue),
) -> Result<(), ModelError> {
    let tokenizer = folder.tokenizer()?;
    let config = folder.config();
    let mut token = |key: &str, id: Option<usize>| {
        if let Some(id) = id.filter(|id| *id < config.vocab) {
            put(&format!("{key}_token_id"), MetaValue::U32(id as u32));
        }
    };
    let number = |id: u32| id as usize;
    let bos = known(tokenizer.bos()).or(config.bos.map(number));
    token("bos", bos);
    let first = known(tokenizer.eos());
    let others = config.eos.iter().copied().map(number);
    let mut ends: Vec<usize> = first.into_iter().collect();
    ends.extend(others.filter(|id| Some(*id) != first));
    for (key, id) in ["eos", "eot", "eom"].into_iter().zip(&ends) {
        token(key, Some(*id));
    }
    token("unknown", known(unknown));
    let [adds_bos, adds_eos] = frame(&tokenizer, bos, &ends)?;
    put("add_bos_token", MetaValue::Bool(adds_bos));
    put("add_eos_token", MetaValue::Bool(adds_eos));
    Ok(())
}

/// Whether a text gets the first token, and the last one.
fn frame(
    tokenizer: &TextTokenizer,
    bos: Option<usize>,
    ends: &[usize],
) -> Result<[bool; 2], ModelError> {
    let ids = tokenizer.encode("a", true)?;
    let is =
        |id: Option<&u32>, token: Option<usize>| id.is_some_and(|id| token == Some(*id as usize));
    Ok([
        is(ids.first(), bos),
        ends.iter().any(|end| is(ids.last(), Some(*end))),
    ])
}

/// The text of the model's chat template.
fn chat_template(folder: &ModelFolder) -> Result<Option<String>, ModelError> {
    let path = folder.dir().join("chat_template.jinja");
    if path.is_file() {
        return fs::read_to_string(&path)
            .map(Some)
            .map_err(ModelError::io("read", &path));
    }
    let path = folder.dir().join("tokenizer_config.json");
    let made = folder.made_companions()?;
    let made = made
        .into_iter()
        .find(|(name, _)| *name == "tokenizer_config.json");
    let text = match made {
        Some((_, text)) => text,
        None if path.is_file() => {
            fs::read_to_string(&path).map_err(ModelError::io("read", &path))?
        }
        None => return Ok(None),
    };
    let config: Value = serde_json::from_str(&text).map_err(ModelError::json(&path))?;
    let template = &config["chat_template"];
    let named = template.as_array().and_then(|all| {
        let is_default = |one: &&Value| one["name"] == "default";
        all.iter().find(is_default)?["template"].as_str()
    });
    Ok(template.as_str().or(named).map(str::to_string))
}
