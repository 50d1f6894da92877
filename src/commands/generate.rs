//! `concord generate`: continues a text.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};
use concord_kernels::ops::sample::Sampling;
use concord_models::generate::Generator;
use concord_models::generation_config::{GenerationConfig, end_tokens};
use concord_text::TextTokenizer;
use serde_json::json;

use crate::support::loaded_model::{ModelArgs, TEMPERATURE};
use crate::support::output::Output;

/// Options of `concord generate`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  concord generate --model models/llama --prompt \"Once upon a time\"
  concord generate --model out/shakespeare --prompt \"ROMEO:\" --temperature 0
  concord generate --model Qwen/Qwen2.5-0.5B --prompt-file question.txt --max-tokens 256 --seed 7")]
#[command(group(clap::ArgGroup::new("text").required(true).args(["prompt", "prompt_file"])))]
pub struct GenerateArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// The text to continue.
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// A file with the text to continue; "-" reads standard input.
    #[arg(long, value_name = "FILE")]
    prompt_file: Option<PathBuf>,
    /// Tokens to generate, at most.
    #[arg(long, default_value_t = 128, value_name = "N")]
    max_tokens: u32,
    /// Divides the logits before a token is drawn; 0 takes the most probable token. By default
    /// what the model's generation_config.json says, or else 0.8.
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    temperature: Option<f32>,
    /// Draw from this many of the most probable tokens; 0 draws from all. By default what the
    /// model's generation_config.json says, or else 0.
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Draw from the most probable tokens that together have this share of the probability. By
    /// default what the model's generation_config.json says, or else 1.
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    top_p: Option<f32>,
    /// The same seed draws the same text, on any machine.
    #[arg(long, default_value_t = 0, value_name = "SEED")]
    seed: u64,
    /// Take the prompt as it is, without the special tokens that begin a text.
    #[arg(long)]
    raw: bool,
    /// Go on after the token that ends a text.
    #[arg(long)]
    ignore_eos: bool,
    /// Say at the end how many tokens each expert of each layer had: on standard error, or with
    /// --json in the last object. For models with experts.
    #[arg(long)]
    expert_loads: bool,
}

/// A finished completion.
struct Completion {
    text: String,
    tokens: u32,
    finish: &'static str,
}

/// Streams the completion to stdout, ended by a line feed.
///
/// # Errors
/// Naming what is wrong with the options, the model or the prompt.
pub fn run(args: &GenerateArgs, output: &Output) -> anyhow::Result<()> {
    args.check()?;
    let prompt = args.prompt()?;
    let model = args.model.open()?;
    let sampling = args.sampling(&model.generation()?);
    let tokenizer = model.tokenizer()?;
    let ids = tokenizer.encode(&prompt, !args.raw)?;
    let positions = model.config().max_positions;
    if ids.is_empty() {
        bail!("the prompt has no tokens: give a text, or leave --raw out");
    }
    if ids.len() >= positions {
        bail!(
            "the prompt has {} tokens, but the model has {positions} positions: shorten it to \
             {} tokens or fewer",
            ids.len(),
            positions - 1
        );
    }
    let room = u32::try_from(positions - ids.len()).unwrap_or(u32::MAX);
    let limit = args.max_tokens.min(room);
    if args.expert_loads && model.config().experts.is_none() {
        bail!("--expert-loads: the model has no experts; leave it out");
    }
    let stage = model.load(ids.len() + limit as usize)?;
    let stops = if args.ignore_eos {
        Vec::new()
    } else {
        end_tokens(model.config(), &tokenizer)
    };
    let start = Instant::now();
    let mut run = Run {
        tokenizer: &tokenizer,
        output,
        prompt: &ids,
        stops: &stops,
        limit,
    };
    let completion = run.complete(&mut Generator::new(&stage, sampling)?)?;
    let seconds = start.elapsed().as_secs_f64();
    let finish = match completion.finish {
        "length" if limit < args.max_tokens => "positions",
        finish => finish,
    };
    let mut object = json!({
        "event": "completion", "text": completion.text, "tokens": completion.tokens,
        "prompt_tokens": ids.len(), "finish": finish, "seconds": seconds,
        "tokens_per_second": f64::from(completion.tokens) / seconds.max(1e-9),
    });
    if args.expert_loads {
        let loads = stage.expert_loads();
        tell_loads(&loads, output);
        object["expert_loads"] = json!(BTreeMap::from_iter(loads));
    }
    output.result("", &object);
    if finish == "positions" && !output.is_json() {
        eprintln!(
            "cut after {} of at most {} tokens: the model has {positions} positions",
            completion.tokens, args.max_tokens
        );
    }
    Ok(())
}

/// A line for each layer: of how many tokens each expert had its share, from the first to the last.
fn tell_loads(loads: &[(u32, Vec<u64>)], output: &Output) {
    if output.is_json() {
        return;
    }
    for (layer, counts) in loads {
        let most = counts.iter().copied().max().unwrap_or(0);
        let sum: u64 = counts.iter().sum();
        let even = sum as f64 / counts.len().max(1) as f64;
        let counts: Vec<String> = counts.iter().map(u64::to_string).collect();
        eprintln!(
            "layer {layer}: tokens of each expert {}; the busiest has {:.2} times its share",
            counts.join(" "),
            most as f64 / even.max(1e-9)
        );
    }
}

impl GenerateArgs {
    fn check(&self) -> anyhow::Result<()> {
        let temperature = self.temperature.unwrap_or(TEMPERATURE);
        if !(temperature.is_finite() && temperature >= 0.0) {
            bail!("--temperature {temperature}: a number, 0 or more");
        }
        let top_p = self.top_p.unwrap_or(1.0);
        if !(top_p > 0.0 && top_p <= 1.0) {
            bail!("--top-p {top_p}: a share above 0, at most 1");
        }
        Ok(())
    }

    /// The sampling by the options, or else by the model's `generation_config.json`.
    fn sampling(&self, generation: &GenerationConfig) -> Sampling {
        let temperature = self.temperature.or(generation.temperature);
        Sampling {
            temperature: temperature.unwrap_or(TEMPERATURE),
            top_k: self
                .top_k
                .or(generation.top_k.map(|count| count as usize))
                .unwrap_or(0),
            top_p: self.top_p.or(generation.top_p).unwrap_or(1.0),
            seed: self.seed,
        }
    }

    fn prompt(&self) -> anyhow::Result<String> {
        match (&self.prompt, &self.prompt_file) {
            (Some(text), _) => Ok(text.clone()),
            (None, Some(path)) => read_prompt(path),
            (None, None) => bail!("give --prompt or --prompt-file"),
        }
    }
}

fn read_prompt(path: &Path) -> anyhow::Result<String> {
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .context("cannot read standard input")?;
        return Ok(text);
    }
    std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the prompt file {}", path.display()))
}

/// A completion while it is generated and printed.
struct Run<'a> {
    tokenizer: &'a TextTokenizer,
    output: &'a Output,
    prompt: &'a [u32],
    stops: &'a [u32],
    limit: u32,
}

impl Run<'_> {
    fn complete(&mut self, generator: &mut Generator<'_>) -> anyhow::Result<Completion> {
        let mut stream = self.tokenizer.stream();
        // The prompt goes through the stream as well, because the text of a token, such as a space
        // in front, depends on the tokens before it.
        for id in self.prompt {
            stream.push(*id)?;
        }
        let mut completion = Completion {
            text: String::new(),
            tokens: 0,
            finish: "length",
        };
        let mut feed = self.prompt.to_vec();
        while completion.tokens < self.limit {
            let id = generator.next(&feed).context("the text cannot go on")?;
            if self.stops.contains(&id) {
                completion.finish = "stop";
                break;
            }
            completion.tokens += 1;
            let piece = stream.push(id)?;
            if !self.show(&piece) {
                // Stdout is closed.
                break;
            }
            self.output
                .result("", &json!({ "event": "token", "id": id, "text": piece }));
            completion.text.push_str(&piece);
            feed = vec![id];
        }
        let rest = stream.finish()?;
        self.show(&rest);
        completion.text.push_str(&rest);
        // The next output, such as the prompt of a shell, begins on a new line.
        self.show("\n");
        Ok(completion)
    }

    /// Writes a piece of the text. Returns false where stdout is closed.
    fn show(&self, piece: &str) -> bool {
        if self.output.is_json() || piece.is_empty() {
            return true;
        }
        let mut stdout = std::io::stdout().lock();
        stdout
            .write_all(piece.as_bytes())
            .and_then(|()| stdout.flush())
            .is_ok()
    }
}
