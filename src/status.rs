//! Placeholder until the command is written.
use crate::output::Output;
/// Options.
#[derive(clap::Args)]
pub struct Args {}
/// Runs.
pub fn run(_args: &Args, _output: &Output) -> anyhow::Result<()> { anyhow::bail!("not there yet") }
