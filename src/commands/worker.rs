//! `concord worker`

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use concord_proto::WorkerId;
use concord_proto::address::Address;
use concord_runtime::blobs::BlobOptions;
use concord_runtime::measure;
use concord_runtime::worker::{self, WorkerOptions};
use serde_json::json;
use tokio::sync::mpsc;

use crate::support::bytes;
use crate::support::device::{DeviceArgs, memory_bytes};
use crate::support::leave::until_told;
use crate::support::output::Output;
use crate::support::signals::EndSignals;

/// Options of `concord worker`.
#[derive(clap::Args)]
#[command(after_help = "Example:
  concord worker --coordinator concord://KEY@10.0.0.1:7700 --dir ~/.concord \\
    --listen 0.0.0.0:7701 --advertise concord://10.0.0.7:7701")]
pub struct WorkerArgs {
    /// The coordinator.
    #[arg(long, default_value = "concord://127.0.0.1:7700", value_name = "URL")]
    coordinator: String,
    /// Where other workers reach this one. Port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// The address that other workers are told to connect to; by default the listening address.
    /// Needed where that is 0.0.0.0.
    #[arg(long, value_name = "URL")]
    advertise: Option<String>,
    /// The folder of its key and fetched blobs. A worker is known by its key, so each needs a
    /// folder of its own.
    #[arg(long, default_value = "concord-worker", value_name = "DIR")]
    dir: PathBuf,
    /// Memory that the worker may use, such as 512M or 8G; on a GPU, memory of the GPU. By default
    /// what is free now. Two workers on one GPU need a share each.
    #[arg(long, value_name = "BYTES", value_parser = bytes::parse)]
    memory: Option<u64>,
    /// The blobs of a coordinator on this machine (the folder `blobs` in its --data-dir): blobs
    /// that are in it are read there instead of being fetched and stored again.
    #[arg(long, value_name = "DIR")]
    blobs: Option<PathBuf>,
    /// How much of the blobs of earlier jobs stays on disk.
    #[arg(long, default_value = "4G", value_name = "BYTES", value_parser = bytes::parse)]
    spare_blobs: u64,
    /// Leave when standard input ends: for workers that another program starts.
    #[arg(long, hide = true)]
    until_stdin_closes: bool,
    /// Cheat, such as "wrong-data@3".
    #[cfg(feature = "liars")]
    #[arg(long, hide = true)]
    lie: Option<concord_runtime::faults::Faults>,
    #[command(flatten)]
    device: DeviceArgs,
}

/// Runs a worker until Ctrl-C or SIGTERM, which let it hand over its work first.
///
/// # Errors
/// Where the coordinator refuses or is out of reach, or the port is taken.
#[tokio::main]
pub async fn run(args: WorkerArgs, output: &Output) -> anyhow::Result<()> {
    let signals = EndSignals::install()?;
    let device = args.device.device(args.memory)?;
    let memory_bytes = memory_bytes(&device, args.memory);
    let options = WorkerOptions {
        coordinator: args.coordinator.clone(),
        listen: args.listen,
        advertise: args.advertise,
        dir: args.dir,
        blobs: BlobOptions {
            shared: args.blobs,
            spare_bytes: args.spare_blobs,
        },
        device,
        memory_bytes,
        #[cfg(feature = "liars")]
        faults: args.lie.unwrap_or_default(),
        // Only `concord demo` starts a worker that lies, and not by this command.
        #[cfg(not(feature = "liars"))]
        faults: Default::default(),
    };
    let (name, coordinator) = (measure::device_name(&options.device), args.coordinator);
    let started = |id: &WorkerId, address: &Address| {
        let short = id.short();
        output.result(
            &format!("worker {short} on {name} at {address}, for {coordinator}"),
            &json!({
                "event": "started", "worker": id.to_string(), "address": address.to_string(),
                "device": name, "coordinator": coordinator,
            }),
        );
    };
    let (leave, left) = mpsc::channel(1);
    tokio::spawn(until_told(signals, args.until_stdin_closes, leave));
    let ended = worker::run(options, left, started).await;
    ended.context("the worker stops")
}
