//! `concord data`: what a job would learn of its data, before anything is trained.

mod preview;
mod reader;
mod shown;

use clap::Subcommand;

use crate::support::output::Output;

/// Options of `concord data`.
#[derive(clap::Args)]
pub struct DataArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Show sequences with what is learnt of them, and count rows, tokens and what is left out.
    Preview(preview::PreviewArgs),
}

/// Runs it.
///
/// # Errors
/// Those of the action.
pub fn run(args: &DataArgs, output: &Output) -> anyhow::Result<()> {
    match &args.action {
        Action::Preview(args) => preview::run(args, output),
    }
}
