//! The command line of Concord.

mod blobs;
mod bytes;
mod chat;
mod checker;
mod client;
mod coordinator;
#[cfg(feature = "demo")]
mod demo;
mod device;
mod generate;
mod gpu;
mod gpu_suite;
mod home;
mod job_file;
mod jobs;
mod key;
mod load;
mod loaded_model;
mod logging;
mod logits;
mod open_files;
mod output;
mod pool;
mod scratch;
mod serve;
mod signals;
mod status;
mod table;
mod train;
mod verify;
mod worker;

use clap::{CommandFactory, Parser, Subcommand};

use crate::output::Output;

/// Trains and serves Hugging Face models on whatever machines can be had. One job, one hash: the
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

#[derive(Subcommand)]
enum Command {
    /// Fine-tune a model as a job file says.
    Train(train::Args),
    /// Show the whole line in two minutes: train, kill a worker, catch a cheat, prove it.
    #[cfg(feature = "demo")]
    Demo(demo::Args),
    /// Converse with a model, of this machine or behind an API.
    Chat(chat::Args),
    /// Continue a text.
    Generate(generate::Args),
    /// Serve a model: an OpenAI-compatible API over a pool of workers.
    Serve(Box<serve::Args>),
    /// Make an API key for `concord serve`.
    Key(key::Args),
    /// Measure how fast an API answers many clients at a time.
    Load(load::Args),
    /// Write what a model computes for given token ids.
    Logits(logits::Args),
    /// Check the proof of a job, with no coordinator running.
    Verify(verify::Args),
    /// List the jobs of a coordinator, watch one, or cancel one.
    Jobs(jobs::Args),
    /// Show who is in a pool and what they do.
    Status(status::Args),
    /// Check a GPU against the CPU, bit by bit, and measure it.
    GpuSuite(gpu_suite::Args),
    /// Run a coordinator.
    Coordinator(coordinator::Args),
    /// Run a worker.
    Worker(worker::Args),
    /// Run a checker.
    Checker(checker::Args),
}

impl Command {
    /// Whether it holds connections and files of its own, of which there may be many.
    fn opens_many(&self) -> bool {
        match self {
            Self::Train(_)
            | Self::Serve(_)
            | Self::Load(_)
            | Self::Coordinator(_)
            | Self::Worker(_)
            | Self::Checker(_) => true,
            #[cfg(feature = "demo")]
            Self::Demo(_) => true,
            _ => false,
        }
    }
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
        .and_then(|()| run(cli.command, &output));
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => output.error(&error),
    }
}

fn run(command: Command, output: &Output) -> anyhow::Result<()> {
    match command {
        Command::Train(args) => train::run(args, output),
        #[cfg(feature = "demo")]
        Command::Demo(args) => demo::run(&args, output),
        Command::Chat(args) => chat::run(&args, output),
        Command::Generate(args) => generate::run(&args, output),
        Command::Serve(args) => serve::run(*args, output),
        Command::Key(args) => key::run(&args, output),
        Command::Load(args) => load::run(args, output),
        Command::Logits(args) => logits::run(&args, output),
        Command::Verify(args) => verify::run(&args, output),
        Command::Jobs(args) => jobs::run(&args, output),
        Command::Status(args) => status::run(&args, output),
        Command::GpuSuite(args) => gpu_suite::run(&args, output),
        Command::Coordinator(args) => coordinator::run(args, output),
        Command::Worker(args) => worker::run(args, output),
        Command::Checker(args) => checker::run(args, output),
    }
}
