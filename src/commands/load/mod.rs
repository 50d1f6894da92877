//! `concord load`: how fast an OpenAI-compatible API answers many clients at a time.

mod client;
mod figures;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::support::output::Output;
use crate::support::table::table;
use client::{Endpoint, LoadRequest};
use figures::{Figures, LoadRun};

/// Each client's request numbers are a range of this length.
const REQUESTS_MAX: u32 = 1 << 20;

/// Options of `concord load`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  concord load --server http://127.0.0.1:8000
  concord load --server http://127.0.0.1:8000 --clients 1,8,32,128 --tokens 64 --seconds 20

Each client sends one request after another, with prompts of its own, and reads the stream. Prompts
are token ids, so that servers of one model get the same work. Another server of the same model, on
the same machine at another time, is the fair comparison.")]
pub struct LoadArgs {
    /// The API.
    #[arg(long, default_value = "http://127.0.0.1:8000", value_name = "URL")]
    server: String,
    /// The model to ask for; none is named by default.
    #[arg(long, value_name = "NAME")]
    ask_for: Option<String>,
    /// The key for the API.
    #[arg(long, value_name = "KEY", env = "CONCORD_API_KEY")]
    api_key: Option<String>,
    /// Numbers of clients at a time, each in a run of its own.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "1,8,32,128",
        value_name = "N,N"
    )]
    clients: Vec<usize>,
    /// Tokens of each answer, which is forced to have exactly that many.
    #[arg(long, default_value_t = 64, value_name = "N")]
    tokens: u32,
    /// Tokens of a prompt.
    #[arg(long, default_value_t = 32, value_name = "N")]
    prompt_tokens: u32,
    /// Prompts are drawn from token ids below this.
    #[arg(long, default_value_t = 256, value_name = "N")]
    vocab: u32,
    /// How long a run takes. Answers that are running at its end are awaited, but their later
    /// tokens do not count.
    #[arg(long, default_value_t = 10.0, value_name = "S")]
    seconds: f64,
}

/// Sends requests to an API and prints how fast it answered.
///
/// # Errors
/// Where the API is out of reach or refuses a request.
#[tokio::main]
pub async fn run(args: LoadArgs, output: &Output) -> anyhow::Result<()> {
    if args.clients.is_empty() || args.clients.contains(&0) {
        bail!("--clients: numbers above 0, such as 1,8,32");
    }
    if !(args.seconds > 0.0 && args.tokens > 0 && args.prompt_tokens > 0 && args.vocab > 4) {
        bail!("--seconds, --tokens and --prompt-tokens must be above 0, --vocab above 4");
    }
    let args = Arc::new(args);
    let endpoint = Endpoint::new(&args.server, args.api_key.as_deref())?;
    // The first request may load or compile something, so it is not measured.
    let first = endpoint.connect().await?.ask(&args.request(u32::MAX)).await;
    first.context("the first request")?;
    let mut rows = Vec::new();
    for &clients in &args.clients {
        let figures = one_run(&args, &endpoint, clients, output).await?;
        output.result("", &figures.object(clients));
        rows.push(figures.row(clients));
    }
    if !output.is_json() {
        println!("{}", table(Figures::HEADINGS, &rows));
    }
    Ok(())
}

impl LoadArgs {
    /// The request with this number. No two have the same prompt, and each run has the same
    /// requests.
    fn request(&self, number: u32) -> LoadRequest {
        let mut state = u64::from(number).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut next = || {
            // xorshift64 is enough: prompts only need to differ.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            3 + (state >> 33) as u32 % (self.vocab - 3)
        };
        let prompt: Vec<u32> = (0..self.prompt_tokens).map(|_| next()).collect();
        let mut body = json!({
            "prompt": prompt, "max_tokens": self.tokens, "temperature": 0.8, "seed": number,
            "stream": true, "stream_options": { "include_usage": true }, "ignore_eos": true,
        });
        if let Some(model) = &self.ask_for {
            body["model"] = json!(model);
        }
        LoadRequest {
            body: body.to_string(),
        }
    }
}

async fn one_run(
    args: &Arc<LoadArgs>,
    endpoint: &Endpoint,
    clients: usize,
    output: &Output,
) -> anyhow::Result<Figures> {
    let bar = match output.is_json() {
        true => ProgressBar::hidden(),
        false => ProgressBar::new((args.seconds * 10.0) as u64),
    };
    bar.set_style(ProgressStyle::with_template("{msg} {bar:30}")?);
    bar.set_message(format!("{clients} clients"));
    let start = Instant::now();
    let end = start + Duration::from_secs_f64(args.seconds);
    let mut tasks = tokio::task::JoinSet::new();
    for client in 0..clients {
        let (args, endpoint) = (args.clone(), endpoint.clone());
        tasks.spawn(async move {
            let mut run = LoadRun::new(start, end);
            let mut connection = endpoint.connect().await?;
            let mut number = client as u32 * REQUESTS_MAX;
            while Instant::now() < end {
                run.add(&connection.ask(&args.request(number)).await?);
                number += 1;
            }
            anyhow::Ok(run)
        });
    }
    let ticking = {
        let bar = bar.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(100)).await;
                bar.inc(1);
            }
        })
    };
    let mut runs = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        runs.push(ended??);
    }
    ticking.abort();
    bar.finish_and_clear();
    Ok(Figures::of(&runs, args.seconds))
}
