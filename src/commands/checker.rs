//! `concord checker`

use std::path::PathBuf;

use anyhow::Context;
use concord_proto::WorkerId;
use concord_runtime::blobs::BlobOptions;
use concord_runtime::checker::{self, CheckerOptions};
use concord_runtime::measure;
use serde_json::json;
use tokio::sync::mpsc;

use crate::support::bytes;
use crate::support::device::DeviceArgs;
use crate::support::leave::until_told;
use crate::support::output::Output;
use crate::support::signals::EndSignals;

/// Options of `concord checker`.
#[derive(clap::Args)]
#[command(after_help = "Example:
  concord checker --coordinator concord://KEY@10.0.0.1:7700 --dir ~/.checker --isa portable")]
pub struct CheckerArgs {
    /// The coordinator.
    #[arg(long, default_value = "concord://127.0.0.1:7700", value_name = "URL")]
    coordinator: String,
    /// The folder of its key and fetched blobs. A checker is known by its key, so each needs a
    /// folder of its own.
    #[arg(long, default_value = "concord-checker", value_name = "DIR")]
    dir: PathBuf,
    /// Memory that the checker may use, such as 2G; on a GPU, memory of the GPU. By default what is
    /// free now. Half of it may be weights that stay loaded between two leaves.
    #[arg(long, value_name = "BYTES", value_parser = bytes::parse)]
    memory: Option<u64>,
    /// The blobs of a coordinator on this machine (the folder `blobs` in its --data-dir): blobs
    /// that are in it are read there instead of being fetched and stored again.
    #[arg(long, value_name = "DIR")]
    blobs: Option<PathBuf>,
    /// Be an auditor: re-run only what its own secrets draw, of jobs whose submitter has named its
    /// key (`concord train --audit` starts one).
    #[arg(long)]
    auditor: bool,
    /// How much of the blobs of earlier jobs stays on disk.
    #[arg(long, default_value = "4G", value_name = "BYTES", value_parser = bytes::parse)]
    spare_blobs: u64,
    /// Leave when standard input ends: for checkers that another program starts.
    #[arg(long, hide = true)]
    until_stdin_closes: bool,
    /// Cheat, such as "lazy-checker".
    #[cfg(feature = "liars")]
    #[arg(long, hide = true)]
    lie: Option<concord_runtime::faults::Faults>,
    #[command(flatten)]
    device: DeviceArgs,
}

/// Runs a checker until Ctrl-C or SIGTERM.
///
/// # Errors
/// Where the coordinator refuses or is out of reach.
#[tokio::main]
pub async fn run(args: CheckerArgs, output: &Output) -> anyhow::Result<()> {
    let signals = EndSignals::install()?;
    let device = args.device.device(args.memory)?;
    let memory = args.memory;
    let options = CheckerOptions {
        coordinator: args.coordinator.clone(),
        dir: args.dir,
        blobs: BlobOptions {
            shared: args.blobs,
            spare_bytes: args.spare_blobs,
        },
        is_auditor: args.auditor,
        kept_bytes: memory.unwrap_or_else(|| measure::device_memory(&device)) / 2,
        device,
        #[cfg(feature = "liars")]
        faults: args.lie.unwrap_or_default(),
        #[cfg(not(feature = "liars"))]
        faults: Default::default(),
    };
    let (name, coordinator) = (measure::device_name(&options.device), args.coordinator);
    let started = |id: &WorkerId| {
        let who = match args.auditor {
            true => format!("auditor {id}"),
            false => format!("checker {}", id.short()),
        };
        output.result(
            &format!("{who} on {name}, for {coordinator}"),
            &json!({
                "event": "started", "checker": id.to_string(), "device": name,
                "coordinator": coordinator,
            }),
        );
    };
    let (leave, left) = mpsc::channel(1);
    tokio::spawn(until_told(signals, args.until_stdin_closes, leave));
    let ended = checker::run(options, left, started).await;
    ended.context("the checker stops")
}
