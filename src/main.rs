//! The command line of Concord.

mod commands;
#[cfg(test)]
mod docs;
mod support;

use clap::{CommandFactory, Parser};

use commands::Command;
use support::output::Output;
use support::{home, logging, open_files};

/// Trains and serves Hugging Face models on whatever machines there are. One job, one hash: the
/// result is a pure function of the job spec, whatever machines did the work.
#[derive(Parser)]
#[command(version, about, max_term_width = 100)]
struct Cli {
    /// Print one JSON object a line, with stable keys, instead of text for people.
    #[arg(long, global = true)]
    json: bool,
    /// What to log on stderr, such as "info" or "concord_runtime=debug".
    #[arg(long, global = true, default_value = "warn", value_name = "FILTER")]
    log: String,
    #[command(subcommand)]
    command: Command,
}

fn main() -> std::process::ExitCode {
    let cli = match home::arguments(&Cli::command(), std::env::args_os()) {
        Ok(given) => Cli::parse_from(given),
        Err(error) => {
            Output::new(false).error(&error);
            return std::process::ExitCode::from(2);
        }
    };
    let output = Output::new(cli.json);
    let limited = match cli.command.opens_many() {
        true => open_files::raise_limit(),
        false => Ok(()),
    };
    let result = logging::start(&cli.log, cli.json)
        .and(limited)
        .and_then(|()| cli.command.run(&output));
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => output.error(&error),
    }
}
