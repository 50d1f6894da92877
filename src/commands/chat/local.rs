//! A chat with a model on this machine.

use anyhow::{Context, bail};
use concord_kernels::ops::sample::Sampling;
use concord_models::decoder::Stage;
use concord_models::generate::Generator;
use concord_models::generation_config::{GenerationConfig, end_tokens};
use concord_text::{ChatTemplate, TextTokenizer};
use serde_json::Map;

use super::conversation::{ChatSettings, Conversation};
use super::{ChatAnswer, Partner};
use crate::support::loaded_model::{ModelArgs, TEMPERATURE};

/// A model in memory.
pub(super) struct Local {
    name: String,
    stage: Stage,
    tokenizer: TextTokenizer,
    template: ChatTemplate,
    /// Whether the tokenizer adds its special tokens to the rendered conversation. A model's own
    /// template writes them itself; the plain template has none.
    adds_special: bool,
    stops: Vec<u32>,
    positions: usize,
    generation: GenerationConfig,
}

impl Local {
    pub(super) fn open(args: &ModelArgs) -> anyhow::Result<Self> {
        let model = args.open()?;
        let tokenizer = model.tokenizer()?;
        let template = model.folder().chat_template()?;
        let positions = model.config().max_positions;
        let generation = model.generation()?;
        Ok(Self {
            name: model.dir().display().to_string(),
            stage: model.load(positions)?,
            stops: end_tokens(model.config(), &tokenizer),
            adds_special: template.is_none(),
            template: template.unwrap_or_else(ChatTemplate::plain),
            tokenizer,
            positions,
            generation,
        })
    }
}

impl Partner for Local {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn answer(
        &mut self,
        conversation: &Conversation,
        settings: &ChatSettings,
        show: &mut dyn FnMut(&str) -> bool,
    ) -> anyhow::Result<ChatAnswer> {
        let messages = conversation.messages();
        let chat = self.template.render(&messages, None, true, &Map::new())?;
        // The names of special tokens in a message stay text.
        let prompt = self.tokenizer.encode_chat(&chat, self.adds_special)?;
        if prompt.is_empty() || prompt.len() >= self.positions {
            bail!(
                "the conversation has {} tokens and the model {} positions: /clear or /undo",
                prompt.len(),
                self.positions
            );
        }
        let room = (self.positions - prompt.len()) as u32;
        let sampling = Sampling {
            temperature: settings
                .temperature
                .or(self.generation.temperature)
                .unwrap_or(TEMPERATURE),
            top_k: self.generation.top_k.unwrap_or(0) as usize,
            top_p: settings.top_p.or(self.generation.top_p).unwrap_or(1.0),
            seed: settings.seed.unwrap_or_else(seed_of_now),
        };
        let mut generator = Generator::new(&self.stage, sampling)?;
        let mut stream = self.tokenizer.stream();
        for id in &prompt {
            stream.push(*id)?;
        }
        let mut answer = ChatAnswer {
            text: String::new(),
            prompt_tokens: prompt.len() as u32,
            tokens: 0,
            finish: "length".to_string(),
        };
        let mut feed = prompt;
        let most = settings.max_tokens.map_or(room, |most| most.min(room));
        while answer.tokens < most {
            let id = generator.next(&feed).context("the answer cannot go on")?;
            answer.tokens += 1;
            if self.stops.contains(&id) {
                answer.finish = "stop".to_string();
                break;
            }
            let piece = stream.push(id)?;
            answer.text.push_str(&piece);
            if !show(&piece) {
                answer.finish = "stopped".to_string();
                break;
            }
            feed = vec![id];
        }
        let rest = stream.finish()?;
        show(&rest);
        answer.text.push_str(&rest);
        Ok(answer)
    }
}

/// A seed that differs from one answer to the next.
fn seed_of_now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |elapsed| elapsed.as_nanos() as u64)
}
