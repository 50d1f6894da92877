//! `concord chat`: a conversation in the terminal, with a model of this machine or behind an API.

mod command;
mod conversation;
mod local;
mod prompt_input;
mod remote;
mod verify;

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::bail;
use serde_json::json;

use crate::support::device::DeviceArgs;
use crate::support::kv_cache::KvCacheArgs;
use crate::support::load_in::LoadInArgs;
use crate::support::loaded_model::ModelArgs;
use crate::support::output::{Output, Unshown, printable};
use command::ChatCommand;
use conversation::{ChatSettings, Conversation};
use prompt_input::PromptInput;
use verify::{AnswerCheck, AnswerChecker, Standing};

/// Options of `concord chat`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  concord chat --model path/to/model
  concord chat --server http://127.0.0.1:8000
  concord chat --server http://127.0.0.1:8000 --verify path/to/model
  concord chat --server https://api.example.org --api-key \"$KEY\" --system 'You are brief.'

In the conversation: /help lists what can be done. Ctrl-C stops an answer, Ctrl-D ends.")]
pub struct ChatArgs {
    /// A model folder, a GGUF file, a folder that `concord train` wrote, or owner/name of the
    /// Hugging Face hub.
    #[arg(long, value_name = "DIR_OR_HUB_ID", required_unless_present = "server")]
    model: Option<String>,
    /// A PEFT folder with a LoRA adapter for the model.
    #[arg(long, value_name = "DIR", requires = "model")]
    adapter: Option<PathBuf>,
    #[command(flatten)]
    load_in: LoadInArgs,
    #[command(flatten)]
    kv_cache: KvCacheArgs,
    #[command(flatten)]
    device: DeviceArgs,
    /// An OpenAI-compatible API, such as that of `concord serve`, instead of a model of this
    /// machine.
    #[arg(
        long,
        value_name = "URL",
        conflicts_with_all = ["model", "adapter", "load_in_4bit", "load_in_8bit", "kv_cache_dtype"]
    )]
    server: Option<String>,
    /// The model to ask --server for; its first one by default.
    #[arg(long, value_name = "NAME", requires = "server")]
    ask_for: Option<String>,
    /// The key for --server.
    #[arg(long, value_name = "KEY", requires = "server", env = "CONCORD_API_KEY")]
    api_key: Option<String>,
    /// Compute each answer of --server, a `concord serve`, again with this model, and say what that
    /// shows. Exit status: 1 if an answer was refuted, 2 if one could not be judged.
    #[arg(long, value_name = "DIR", requires = "server")]
    verify: Option<PathBuf>,
    /// The adapter that answers, for --verify: a PEFT folder.
    #[arg(long, value_name = "DIR", requires = "verify")]
    verify_adapter: Option<PathBuf>,
    /// The system message: what the model is told before the conversation.
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Divides the logits; 0 takes the most probable token. By default what the model's
    /// generation_config.json says, or else 0.8; with --server, the server's default.
    #[arg(long, value_name = "T")]
    temperature: Option<f32>,
    /// Draw from the most probable tokens that together have this share of the probability. By
    /// default what the model's generation_config.json says, or else 1.
    #[arg(long, value_name = "P")]
    top_p: Option<f32>,
    /// The most tokens of an answer; as many as fit by default.
    #[arg(long, value_name = "N")]
    max_tokens: Option<u32>,
    /// The same seed and the same words give the same answers.
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
}

/// The side of a conversation that answers.
trait Partner {
    fn name(&self) -> String;

    /// Answers a conversation. `show` gets the text piece by piece, and returns false to stop the
    /// answer.
    fn answer(
        &mut self,
        conversation: &Conversation,
        settings: &ChatSettings,
        show: &mut dyn FnMut(&str) -> bool,
    ) -> anyhow::Result<ChatAnswer>;

    /// Checks the answer that it has just given; `None` where nobody asked for that.
    fn check(&mut self, _answer: &ChatAnswer) -> Option<AnswerCheck> {
        None
    }
}

/// An answer, and its numbers of tokens.
struct ChatAnswer {
    text: String,
    prompt_tokens: u32,
    tokens: u32,
    finish: String,
}

/// Chats until the input ends.
///
/// # Errors
/// Naming what is wrong with the options, the model or the server.
pub fn run(args: &ChatArgs, output: &Output) -> anyhow::Result<()> {
    let settings = ChatSettings {
        temperature: args.temperature,
        top_p: args.top_p,
        max_tokens: args.max_tokens,
        seed: args.seed,
    };
    settings.check()?;
    let partner: Box<dyn Partner> = match (&args.server, &args.model) {
        (Some(url), _) => {
            let (name, key) = (args.ask_for.clone(), args.api_key.clone());
            let checker = match &args.verify {
                None => None,
                Some(model) => Some(AnswerChecker::open(
                    model,
                    args.verify_adapter.as_deref(),
                    args.device.device(None)?,
                )?),
            };
            Box::new(remote::Api::connect(url, name, key, checker)?)
        }
        (None, Some(model)) => {
            let model = ModelArgs {
                model: model.clone(),
                adapter: args.adapter.clone(),
                load_in: args.load_in,
                kv_cache: args.kv_cache,
                device: args.device.clone(),
            };
            Box::new(local::Local::open(&model)?)
        }
        (None, None) => bail!("give --model DIR, or --server URL"),
    };
    let stop = Arc::new(AtomicBool::new(false));
    let _runtime = stop_on_ctrl_c(stop.clone())?;
    let mut chat = Chat {
        partner,
        conversation: Conversation::new(args.system.clone()),
        settings,
        output: *output,
        stop,
        worst: None,
    };
    let mut input = PromptInput::open()?;
    if input.is_terminal() {
        eprintln!("{}. /help lists what can be done.", chat.partner.name());
    }
    while let Some(line) = input.next()? {
        if !chat.take(&line)? {
            break;
        }
    }
    input.keep();
    match chat.worst {
        Some(Standing::Refuted) => bail!("an answer of this conversation was refuted"),
        Some(Standing::Unshown) => {
            let words = "an answer of this conversation could not be judged".to_string();
            Err(Unshown(words).into())
        }
        Some(Standing::Shown) | None => Ok(()),
    }
}

/// Sets `stop` at each Ctrl-C, as long as the returned runtime lives.
fn stop_on_ctrl_c(stop: Arc<AtomicBool>) -> anyhow::Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    runtime.spawn(async move {
        while tokio::signal::ctrl_c().await.is_ok() {
            stop.store(true, Ordering::Relaxed);
        }
    });
    Ok(runtime)
}

struct Chat {
    partner: Box<dyn Partner>,
    conversation: Conversation,
    settings: ChatSettings,
    output: Output,
    stop: Arc<AtomicBool>,
    /// The worst that came of checking answers.
    worst: Option<Standing>,
}

impl Chat {
    /// Carries out a line of input. Returns false where it ends the chat.
    fn take(&mut self, line: &str) -> anyhow::Result<bool> {
        let command = match ChatCommand::parse(line) {
            Ok(command) => command,
            Err(why) => {
                eprintln!("{why}");
                return Ok(true);
            }
        };
        match command {
            ChatCommand::Nothing => {}
            ChatCommand::Quit => return Ok(false),
            ChatCommand::Say(text) => {
                self.conversation.say(text);
                self.answer();
            }
            ChatCommand::Retry => match self.conversation.forget_answer() {
                true => self.answer(),
                false => eprintln!("there is no answer to do again"),
            },
            other => {
                let said = other.carry_out(&mut self.conversation, &mut self.settings);
                match said {
                    Ok(text) => eprintln!("{text}"),
                    Err(why) => eprintln!("{why:#}"),
                }
            }
        }
        Ok(true)
    }

    /// Asks for an answer and shows it. A failure is printed, and the chat goes on.
    fn answer(&mut self) {
        self.stop.store(false, Ordering::Relaxed);
        let (stop, output) = (self.stop.clone(), self.output);
        let start = Instant::now();
        let mut shown = String::new();
        let mut show = |piece: &str| {
            shown.push_str(piece);
            show_piece(piece, &output) && !stop.load(Ordering::Relaxed)
        };
        let answered = self
            .partner
            .answer(&self.conversation, &self.settings, &mut show);
        if !self.output.is_json() {
            println!();
        }
        match answered {
            Ok(answer) => {
                let seconds = start.elapsed().as_secs_f64();
                self.conversation.answered(answer.text.clone());
                self.conversation.tokens = (answer.prompt_tokens, answer.tokens);
                self.output.result(
                    "",
                    &json!({ "event": "answer", "text": answer.text, "tokens": answer.tokens,
                        "prompt_tokens": answer.prompt_tokens, "finish": answer.finish,
                        "seconds": seconds }),
                );
                self.conversation.seconds = seconds;
                self.check(&answer);
            }
            Err(error) => {
                self.output.error(&error);
                match shown.is_empty() {
                    true => self.conversation.unsay(),
                    false => self.conversation.answered(shown),
                }
            }
        }
    }
}

impl Chat {
    /// Checks an answer, where that was asked for, and says what came of it.
    fn check(&mut self, answer: &ChatAnswer) {
        let Some(check) = self.partner.check(answer) else {
            return;
        };
        if !self.output.is_json() {
            eprintln!("{}", printable(&check.words()));
        }
        self.output.result("", &check.object());
        self.worst = self.worst.max(Some(check.standing));
    }
}

/// Writes a piece of an answer. Returns false where stdout is closed.
fn show_piece(piece: &str, output: &Output) -> bool {
    if output.is_json() {
        return true;
    }
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(piece.as_bytes());
    written.and_then(|()| stdout.flush()).is_ok()
}
