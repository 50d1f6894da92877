//! Turns a request's body into generations for the engine. Slow: must not run on an async thread.

use concord_proto::serving::{Generation, GenerationSpec, GrammarSpec, TokenReading, choice_seed};
use concord_proto::{Digest, Domain};
use concord_text::{CallFormat, CallParser, Grammar, Guide};
use concord_text::{ReasoningSplit, TextError, TokenText, tool_grammar};
use serde_json::Value;

use crate::answer::{Choice, PlannedChoice, Reading};
use crate::api_error::ApiError;
use crate::code::Code;
use crate::gateway::Gateway;
use crate::ids;
use crate::ignored::Ignored;
use crate::json;
use crate::keys::{self, Permit, Wanted};
use crate::request::{
    AnswerShape, ChatPrompt, ChatRequest, Common, CompletionRequest, Prompt, Tools, Way,
};

/// A request, ready for the engine.
pub(crate) struct Prepared {
    pub head: Head,
    pub way: Way,
    /// All choices of the first prompt, then those of the next.
    pub planned: Vec<PlannedChoice>,
    /// Choices for each prompt.
    pub choices: usize,
    /// The prompts that answers begin with, by prompt; empty without `echo`.
    pub echoes: Vec<Echo>,
    pub wants_logprobs: bool,
    /// Fields of the request that change nothing.
    pub ignored: Ignored,
}

/// What is the same in all chunks of a response.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub id: String,
    /// Seconds since 1970.
    pub created: u64,
    pub model: String,
    /// Changes with everything that can change an answer.
    pub fingerprint: String,
    pub seed: u64,
}

/// A prompt to be sent back.
#[derive(Clone, Debug)]
pub(crate) struct Echo {
    pub text: String,
    pub tokens: Vec<u32>,
}

/// Prepares a chat; `permit` is the request's.
///
/// # Errors
/// A 400 or 404 that says what is wrong with it, or a 429.
pub(crate) fn chat(gateway: &Gateway, body: &[u8], permit: &Permit) -> Result<Prepared, ApiError> {
    let value = json::parse(body, gateway.options.limits.json_depth)?;
    let request = ChatRequest::read(value, gateway)?;
    let tokenizer = &gateway.served.tokenizer;
    let tools = request.prompt.tools.as_ref();
    let (text, ids) = chat_prompt(gateway, &request.prompt)?;
    let room = room(gateway, "messages", ids.len(), request.max_tokens)?;
    let format = match tools {
        None => None,
        Some(tools) => Some(call_format(gateway, tools)?),
    };
    let grammar = chat_grammar(gateway, &request, format)?;
    let mut plan = Plan::new(gateway, request.common, "chatcmpl-", body, permit)?;
    let split = ReasoningSplit::find(&gateway.template, &text);
    // An answer under a grammar has no reasoning in front.
    plan.split = split.filter(|_| grammar.is_none());
    if plan.split.is_some() {
        plan.kept_tokens = ReasoningSplit::marker_tokens(tokenizer);
    }
    if let Some((format, tools)) = format.zip(tools) {
        plan.calls = Some(CallParser::new(format, tools.names.clone()));
        plan.kept_tokens.extend(format.marker_tokens(tokenizer));
    }
    plan.grammar = grammar;
    plan.logprobs = request.logprobs;
    plan.reserve(ids.len(), request.max_tokens, room)?;
    plan.prompt(ids)?;
    Ok(plan.prepared(Vec::new(), request.ignored))
}

/// The prompt that the template makes from a chat: its text and its tokens.
///
/// # Errors
/// A 400.
pub(crate) fn chat_prompt(
    gateway: &Gateway,
    prompt: &ChatPrompt,
) -> Result<(String, Vec<u32>), ApiError> {
    let refuse = |error: TextError| ApiError::param("messages", format!("{error}."));
    let chat = gateway.template.render(
        &prompt.messages,
        prompt.tools.as_ref().map(|tools| &tools.list),
        prompt.add_generation_prompt,
        &prompt.variables,
    );
    let chat = chat.map_err(refuse)?;
    gateway.check_length(chat.text(), "messages")?;
    // A model's own template writes the special tokens itself.
    let adds_special = !gateway.has_template;
    let tokenizer = &gateway.served.tokenizer;
    let tokens = match gateway.options.allow_control_tokens {
        true => tokenizer.encode(chat.text(), adds_special),
        false => tokenizer.encode_chat(&chat, adds_special),
    };
    Ok((chat.text().to_string(), tokens.map_err(refuse)?))
}

/// Prepares a completion.
///
/// # Errors
/// As [`chat`].
pub(crate) fn completion(
    gateway: &Gateway,
    body: &[u8],
    permit: &Permit,
) -> Result<Prepared, ApiError> {
    let value = json::parse(body, gateway.options.limits.json_depth)?;
    let request = CompletionRequest::read(value, gateway)?;
    let mut plan = Plan::new(gateway, request.common, "cmpl-", body, permit)?;
    plan.logprobs = request.logprobs;
    plan.prompt_logprobs = request.logprobs.filter(|_| request.echo);
    let tokenizer = &gateway.served.tokenizer;
    let refuse = |error| ApiError::param("prompt", format!("{error}."));
    let mut echoes = Vec::new();
    for prompt in request.prompts {
        let (tokens, text) = match prompt {
            Prompt::Text(text) => {
                gateway.check_length(&text, "prompt")?;
                let tokens = tokenizer.encode(&text, request.add_special_tokens);
                (tokens.map_err(refuse)?, Some(text))
            }
            Prompt::Tokens(tokens) => (tokens, None),
        };
        let wanted = Some(request.max_tokens);
        let room = room(gateway, "prompt", tokens.len(), wanted)?;
        plan.reserve(tokens.len(), wanted, room)?;
        if request.echo {
            let text = match text {
                Some(text) => text,
                None => tokenizer.decode(&tokens, true).map_err(refuse)?,
            };
            let tokens = tokens.clone();
            echoes.push(Echo { text, tokens });
        }
        plan.prompt(tokens)?;
    }
    Ok(plan.prepared(echoes, request.ignored))
}

/// How many tokens an answer has room for.
fn room(
    gateway: &Gateway,
    field: &str,
    prompt: usize,
    max_tokens: Option<u32>,
) -> Result<u32, ApiError> {
    let positions = gateway.served.deployment.positions;
    let prompt = u32::try_from(prompt).unwrap_or(u32::MAX);
    if prompt == 0 {
        return Err(ApiError::param(field, format!("'{field}' has no token.")));
    }
    let left = positions.saturating_sub(prompt);
    match max_tokens {
        Some(wanted) if wanted > left || prompt > positions => {
            Err(ApiError::too_long(field, prompt, wanted, positions))
        }
        Some(wanted) => Ok(wanted),
        None if left == 0 => Err(ApiError::too_long(field, prompt, 1, positions)),
        None => Ok(left),
    }
}

/// The format in which the model writes calls. Calls can be forced even if the model's template
/// does not know tools.
fn call_format(gateway: &Gateway, tools: &Tools) -> Result<CallFormat, ApiError> {
    let template = gateway.has_template.then_some(&gateway.template);
    match CallFormat::find(template, &gateway.served.tokenizer) {
        Some(format) => Ok(format),
        None if tools.forced.is_some() => Ok(CallFormat::Hermes),
        None => {
            let message = "This model's chat template knows no tools: leave 'tools' out, or force \
                           a call by 'tool_choice'.";
            Err(ApiError::param("tools", message).code(Code::UnsupportedParameter))
        }
    }
}

fn chat_grammar(
    gateway: &Gateway,
    request: &ChatRequest,
    format: Option<CallFormat>,
) -> Result<Option<(Grammar, &'static str)>, ApiError> {
    if let (Some(tools), Some(format)) = (&request.prompt.tools, format)
        && let Some(forced) = &tools.forced
    {
        let tokenizer = &gateway.served.tokenizer;
        let grammar = tool_grammar(format, &tools.list, forced, tools.parallel, tokenizer);
        let grammar = grammar.map_err(|error| ApiError::param("tools", format!("{error}.")))?;
        return Ok(Some((grammar, "tools")));
    }
    let grammar = match &request.shape {
        AnswerShape::Text => return Ok(None),
        AnswerShape::JsonObject => Grammar::JsonObject,
        AnswerShape::JsonSchema(schema) => {
            Grammar::JsonSchema(Value::Object(schema.clone()).to_string())
        }
    };
    Ok(Some((grammar, "response_format")))
}

/// A grammar in the form of an answer's spec.
fn as_spec(grammar: &Grammar) -> GrammarSpec {
    match grammar.clone() {
        Grammar::JsonObject => GrammarSpec::JsonObject,
        Grammar::JsonSchema(schema) => GrammarSpec::JsonSchema(schema),
        Grammar::Lark(lark) => GrammarSpec::Lark(lark),
    }
}

/// A reading in the form of an answer's spec.
fn as_reading(text: &TokenText) -> TokenReading {
    let TokenText {
        token,
        bytes,
        is_hidden,
    } = text.clone();
    TokenReading {
        token,
        bytes,
        is_hidden,
    }
}

/// The parts that all choices of a request share, and the choices so far.
struct Plan<'a> {
    gateway: &'a Gateway,
    common: Common,
    head: Head,
    permit: &'a Permit,
    body: Digest,
    /// With the field of the request that it comes from.
    grammar: Option<(Grammar, &'static str)>,
    split: Option<ReasoningSplit>,
    calls: Option<CallParser>,
    /// Special tokens that `split` and `calls` have to see by their names.
    kept_tokens: Vec<u32>,
    logprobs: Option<u8>,
    prompt_logprobs: Option<u8>,
    max_tokens: u32,
    planned: Vec<PlannedChoice>,
}

impl<'a> Plan<'a> {
    fn new(
        gateway: &'a Gateway,
        common: Common,
        prefix: &str,
        body: &[u8],
        permit: &'a Permit,
    ) -> Result<Self, ApiError> {
        permit.asks(&common.model);
        let deployment = gateway.served.deployment.id().0;
        let fingerprint = match common.adapter {
            None => format!("fp_{}", deployment.short()),
            Some(adapter) => format!("fp_{}_{}", deployment.short(), adapter.short()),
        };
        let head = Head {
            id: ids::answer(prefix, &permit.account().owner())?,
            created: keys::now().as_secs(),
            model: common.model.clone(),
            fingerprint,
            seed: common.sampling.seed,
        };
        Ok(Self {
            gateway,
            common,
            head,
            permit,
            body: Digest::of(Domain::Text, body),
            grammar: None,
            split: None,
            calls: None,
            kept_tokens: Vec::new(),
            logprobs: None,
            prompt_logprobs: None,
            max_tokens: 0,
            planned: Vec::new(),
        })
    }

    /// Sets aside tokens of the key's day for the answers to a prompt, which limits their length.
    fn reserve(&mut self, prompt: usize, answer: Option<u32>, room: u32) -> Result<(), ApiError> {
        self.max_tokens = self.permit.reserve(Wanted {
            prompt: u32::try_from(prompt).unwrap_or(u32::MAX),
            answer,
            room,
            choices: self.common.n,
        })?;
        Ok(())
    }

    /// Plans the choices of one more prompt.
    fn prompt(&mut self, tokens: Vec<u32>) -> Result<(), ApiError> {
        let mut guide = self.guide()?;
        let served = &self.gateway.served;
        let others = served
            .tokenizer
            .read_otherwise(&self.kept_tokens, served.deployment.vocab);
        for index in 0..self.common.n {
            // All choices follow the same grammar, which is compiled once.
            let own_guide = match index + 1 == self.common.n {
                true => guide.take(),
                false => guide.clone(),
            };
            let mut sampling = self.common.sampling.clone();
            // The index of the choice in the response, which counts over all prompts.
            let number = self.planned.len() as u32;
            // With a seed of the request, each prompt gets the answers that it gets alone.
            let which = if self.common.is_seeded { index } else { number };
            sampling.seed = choice_seed(self.head.seed, which);
            sampling.grammar = self.grammar.as_ref().map(|(grammar, _)| as_spec(grammar));
            let choice = Choice::new(self.reading(own_guide, others.clone()), &tokens);
            let generation = Generation {
                id: format!("{}-{number}", self.head.id),
                model: self.common.model.clone(),
                owner: self.permit.account().owner(),
                spec: GenerationSpec {
                    deployment: self.gateway.served.deployment.id(),
                    adapter: self.common.adapter,
                    prompt: tokens.clone(),
                    sampling,
                    max_tokens: self.max_tokens,
                    stop_tokens: self.common.stop_tokens.clone(),
                    stop_texts: self.common.stops.clone(),
                    readings: others.iter().map(as_reading).collect(),
                    logprobs: self.logprobs,
                    // All choices of a prompt have the same logprobs of it, and each one reports
                    // them.
                    prompt_logprobs: self.prompt_logprobs,
                },
                body: self.body,
            };
            self.planned.push(PlannedChoice { generation, choice });
        }
        Ok(())
    }

    fn guide(&self) -> Result<Option<Guide>, ApiError> {
        let start = |(grammar, param): &(Grammar, &'static str)| {
            let guides = &self.gateway.guides;
            guides.start(grammar, &self.common.stop_tokens, param)
        };
        self.grammar.as_ref().map(start).transpose()
    }

    fn reading(&self, guide: Option<Guide>, others: Vec<TokenText>) -> Reading {
        Reading {
            tokenizer: self.gateway.served.tokenizer.clone(),
            stops: self.common.stops.clone(),
            others,
            max_tokens: self.max_tokens,
            wants_logprobs: self.logprobs.is_some(),
            split: self.split.clone(),
            calls: self.calls.clone(),
            guide,
            stop_tokens: self.common.stop_tokens.clone(),
        }
    }

    fn prepared(self, echoes: Vec<Echo>, ignored: Ignored) -> Prepared {
        Prepared {
            head: self.head,
            way: self.common.way,
            planned: self.planned,
            choices: self.common.n as usize,
            echoes,
            wants_logprobs: self.logprobs.is_some(),
            ignored,
        }
    }
}
