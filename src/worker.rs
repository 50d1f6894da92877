//! `concord worker`

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use concord_kernels::Device;
use concord_proto::WorkerId;
use concord_proto::address::Address;
use concord_runtime::blobs::BlobOptions;
use concord_runtime::measure;
use concord_runtime::worker::{self, WorkerOptions};
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

use crate::bytes;
use crate::device::DeviceArgs;
use crate::output::Output;
use crate::signals::EndSignals;

/// Options of `concord worker`.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  concord worker --coordinator http://10.0.0.1:7700 --dir ~/.concord --listen 0.0.0.0:7701 --advertise http://10.0.0.7:7701"
)]
pub struct Args {
    /// The coordinator.
    #[arg(long, default_value = "http://127.0.0.1:7700", value_name = "URL")]
    coordinator: String,
    /// Where other workers reach this one. Port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// What other workers are told to connect to; the listening address by default. Needed where
    /// that is 0.0.0.0, which nobody can connect to.
    #[arg(long, value_name = "URL")]
    advertise: Option<String>,
    /// Key and fetched blobs. A worker is known by its key: one folder for each worker.
    #[arg(long, default_value = "concord-worker", value_name = "DIR")]
    dir: PathBuf,
    /// Memory that the worker may use, such as 512M or 8G: of the GPU where it computes on one. By
    /// default what is free now. Two workers on one GPU need a share each.
    #[arg(long, value_name = "BYTES", value_parser = bytes::parse)]
    memory: Option<u64>,
    /// The blobs of a coordinator on this machine (the folder `blobs` in its --data-dir): what is there
    /// is read there, and not fetched and kept a second time.
    #[arg(long, value_name = "DIR")]
    blobs: Option<PathBuf>,
    /// Fetched blobs of earlier jobs that are kept on disk.
    #[arg(long, default_value = "4G", value_name = "BYTES", value_parser = bytes::parse)]
    spare_blobs: u64,
    /// Leave when standard input ends: for workers that another program starts.
    #[arg(long, hide = true)]
    until_stdin_closes: bool,
    /// Cheat, such as "wrong-data@3".
    #[cfg(feature = "liars")]
    #[arg(long, hide = true)]
    lie: Option<concord_runtime::liar::Lie>,
    #[command(flatten)]
    device: DeviceArgs,
}

/// Runs a worker until Ctrl-C or SIGTERM, which let it hand over its work first.
///
/// # Errors
/// Where the coordinator refuses or is out of reach, or the port is taken.
#[tokio::main]
pub async fn run(args: Args, output: &Output) -> anyhow::Result<()> {
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
        // No command line reaches the cheat of `concord demo`.
        #[cfg(feature = "demo")]
        wrong_data: None,
        #[cfg(feature = "liars")]
        lie: args.lie,
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

/// Memory that a worker on `device` may use, where it was given so much or nothing was said. A GPU
/// was opened with that bound already.
pub fn memory_bytes(device: &Device, asked: Option<u64>) -> u64 {
    match (device, asked) {
        (Device::Cpu(_) | Device::Reference, Some(bytes)) => bytes,
        _ => measure::device_memory(device),
    }
}

/// Says so when the program is asked to end, or standard input ends where that is asked for. Asked
/// a second time it ends at once.
pub async fn until_told(mut signals: EndSignals, stdin: bool, leave: mpsc::Sender<()>) {
    let closed = async {
        if stdin {
            let mut byte = [0; 1];
            while tokio::io::stdin()
                .read(&mut byte)
                .await
                .is_ok_and(|count| count > 0)
            {}
        } else {
            std::future::pending::<()>().await;
        }
    };
    tokio::pin!(closed);
    let mut is_asked = false;
    loop {
        let signal = tokio::select! {
            signal = signals.next() => signal,
            () = &mut closed => std::process::exit(0),
        };
        if is_asked {
            tracing::warn!("{signal} again: ends at once");
            std::process::exit(1);
        }
        is_asked = true;
        if !stdin {
            tracing::warn!("{signal}: leaves once its work is handed over; again ends it at once");
        }
        let _ = leave.send(()).await;
    }
}
