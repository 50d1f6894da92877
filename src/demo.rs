//! `concord demo`

use crate::output::Output;

/// Options of `concord demo`.
#[derive(clap::Args)]
pub struct Args {}

/// Shows the whole line.
///
/// # Errors
/// Where a part of it does not work.
pub fn run(_args: &Args, _output: &Output) -> anyhow::Result<()> {
    anyhow::bail!("the demo is not there yet")
}
