//! The commands, each a file or a folder. Code that they share is in [`crate::support`]; no command
//! calls another.

mod chat;
mod checker;
mod compare;
mod coordinator;
mod data;
#[cfg(feature = "demo")]
mod demo;
mod export;
mod generate;
mod gpu_suite;
mod init;
mod jobs;
mod key;
mod load;
mod logits;
mod make_model;
mod merge;
mod plan;
mod push;
mod serve;
#[cfg(feature = "simulator")]
mod simulate;
mod status;
mod train;
mod verify;
mod worker;

use clap::Subcommand;

use crate::support::output::Output;

/// A command of the program.
#[derive(Subcommand)]
pub enum Command {
    /// Fine-tune a model as a job file says.
    Train(train::TrainArgs),
    /// Show what a job would learn of its data.
    Data(data::DataArgs),
    /// Write a job file for a model and a data set, with a word on each key.
    Init(init::InitArgs),
    /// Show it all in a minute or two: train, kill a worker, catch a cheat, prove it.
    #[cfg(feature = "demo")]
    Demo(demo::DemoArgs),
    /// Chat with a model, on this machine or behind an API.
    Chat(chat::ChatArgs),
    /// Continue a text.
    Generate(generate::GenerateArgs),
    /// Serve a model: an OpenAI-compatible API over a pool of workers.
    Serve(Box<serve::ServeArgs>),
    /// Make an API key for `concord serve`.
    Key(key::KeyArgs),
    /// Measure how fast an API answers many clients at a time.
    Load(load::LoadArgs),
    /// Write what a model computes for given token ids.
    Logits(logits::LogitsArgs),
    /// Show what a model takes in memory, and what fits where, before anything is loaded.
    Plan(plan::PlanArgs),
    /// Write a model with an adapter merged into it, as a Hugging Face folder.
    Merge(merge::MergeArgs),
    /// Write a model as a GGUF file, which llama.cpp reads.
    Export(export::ExportArgs),
    /// Put a result into a repository of the Hugging Face hub.
    Push(push::PushArgs),
    /// Make a model of a published shape with random weights, to measure with.
    #[command(hide = true)]
    MakeModel(make_model::MakeModelArgs),
    /// Show fine-tunes side by side: settings that differ, losses, hashes.
    Compare(compare::CompareArgs),
    /// Check the proof of a job, with no coordinator running.
    Verify(verify::VerifyArgs),
    /// List the jobs of a coordinator, watch one, or cancel one.
    Jobs(jobs::JobsArgs),
    /// Show who is in a pool and what they do.
    Status(status::StatusArgs),
    /// Check a GPU against the CPU, bit by bit, and measure it.
    GpuSuite(gpu_suite::GpuSuiteArgs),
    /// Run whole pools in this process, from seeds, with faults and liars, and check what must
    /// hold. In builds with the feature "simulator", which "full" has.
    #[cfg(feature = "simulator")]
    Simulate(simulate::SimulateArgs),
    /// Run a coordinator.
    Coordinator(coordinator::CoordinatorArgs),
    /// Run a worker.
    Worker(worker::WorkerArgs),
    /// Run a checker.
    Checker(checker::CheckerArgs),
}

impl Command {
    /// Whether it may open many connections and files.
    pub fn opens_many(&self) -> bool {
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

    /// Runs the command.
    ///
    /// # Errors
    /// Those of the command.
    pub fn run(self, output: &Output) -> anyhow::Result<()> {
        match self {
            Self::Train(args) => train::run(args, output),
            Self::Data(args) => data::run(&args, output),
            Self::Init(args) => init::run(&args, output),
            #[cfg(feature = "demo")]
            Self::Demo(args) => demo::run(&args, output),
            Self::Chat(args) => chat::run(&args, output),
            Self::Generate(args) => generate::run(&args, output),
            Self::Serve(args) => serve::run(*args, output),
            Self::Key(args) => key::run(&args, output),
            Self::Load(args) => load::run(args, output),
            Self::Logits(args) => logits::run(&args, output),
            Self::Merge(args) => merge::run(&args, output),
            Self::Export(args) => export::run(&args, output),
            Self::Push(args) => push::run(&args, output),
            Self::MakeModel(args) => make_model::run(&args, output),
            Self::Plan(args) => plan::run(&args, output),
            Self::Compare(args) => compare::run(&args, output),
            Self::Verify(args) => verify::run(&args, output),
            Self::Jobs(args) => jobs::run(&args, output),
            Self::Status(args) => status::run(&args, output),
            Self::GpuSuite(args) => gpu_suite::run(&args, output),
            #[cfg(feature = "simulator")]
            Self::Simulate(args) => simulate::run(&args, output),
            Self::Coordinator(args) => coordinator::run(args, output),
            Self::Worker(args) => worker::run(args, output),
            Self::Checker(args) => checker::run(args, output),
        }
    }
}
