//! `concord key`: API keys for `concord serve`.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use serde_json::json;

use crate::support::output::Output;

/// Options of `concord key`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  concord key alice --file keys            # prints the key once; the file has its digest alone
  concord key ops --file keys --admin      # may load and unload adapters
  concord key bob --file keys --requests-per-minute 60 --concurrent 4
  concord serve --model path/to/model --api-keys keys

A server that runs reads the file again when it changes: a new key counts within a second, and a key
whose line is taken out is refused, with its requests under way.")]
pub struct KeyArgs {
    /// The name of the key's owner.
    name: String,
    /// The key file to which its line is added; by default the line is printed.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Most requests in a minute.
    #[arg(long, value_name = "N")]
    requests_per_minute: Option<u32>,
    /// Most requests at a time.
    #[arg(long, value_name = "N")]
    concurrent: Option<u32>,
    /// Most tokens of prompts and answers in a day (UTC).
    #[arg(long, value_name = "N")]
    tokens_per_day: Option<u64>,
    /// Let it load and unload adapters.
    #[arg(long)]
    admin: bool,
}

/// Makes a key.
///
/// # Errors
/// Where the name is not allowed in a key file, or the file cannot be written.
pub fn run(args: &KeyArgs, output: &Output) -> anyhow::Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.@".contains(c);
    anyhow::ensure!(
        !args.name.is_empty() && args.name.chars().all(plain),
        "'{}': a name of letters, digits and -_.@",
        args.name
    );
    let (key, mut line) = concord_gateway::new_key(&args.name)?;
    let limits = [
        ("rpm", args.requests_per_minute.map(u64::from)),
        ("concurrent", args.concurrent.map(u64::from)),
        ("tokens_per_day", args.tokens_per_day),
    ];
    for (name, limit) in limits {
        if let Some(limit) = limit {
            line.push_str(&format!(" {name}={limit}"));
        }
    }
    if args.admin {
        line.push_str(" admin");
    }
    let text = match &args.file {
        Some(path) => {
            append(path, &line)?;
            key.clone()
        }
        None => format!("{key}\n{line}"),
    };
    output.result(&text, &json!({ "event": "key", "key": key, "line": line }));
    Ok(())
}

fn append(path: &PathBuf, line: &str) -> anyhow::Result<()> {
    let place = || format!("cannot write {}", path.display());
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .create(true)
        .append(true)
        .open(path)
        .with_context(place)?;
    writeln!(file, "{line}").with_context(place)
}
