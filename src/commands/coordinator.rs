//! `concord coordinator`

use std::net::SocketAddr;
use std::path::PathBuf;

use concord_coordinator::server::access::{self, PoolAccess};
use concord_coordinator::server::{self, ServerError, ServerOptions};
use concord_coordinator::store::StoreError;
use serde_json::json;

use crate::support::bytes;
use crate::support::client_key;
use crate::support::output::Output;
use crate::support::referee::RefereeChoice;
use crate::support::signals::EndSignals;

/// Options of `concord coordinator`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  concord coordinator --listen 0.0.0.0:7700 --data-dir /var/lib/concord
  concord coordinator --listen 0.0.0.0:7700 --access keys.txt    # lines such as
                                                                 # worker *
                                                                 # client 77ab... ann")]
pub struct CoordinatorArgs {
    /// Where to listen. Port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:7700", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Where the database and the blobs are kept.
    #[arg(long, default_value = "concord-data", value_name = "DIR")]
    data_dir: PathBuf,
    /// Who may do what: a line for each key, `ROLE KEY note`, of the roles worker, checker, client,
    /// admin and revoked; `*` is everybody. It is read again when it changes. Without it everybody
    /// may join and submit, and sees the jobs that it has submitted. Who starts the coordinator is
    /// an admin, and sees and stops those of all.
    #[arg(long, value_name = "FILE")]
    access: Option<PathBuf>,
    /// What decides where a checker contradicts a worker, in this process: "cpu" (SIMD and
    /// threads), "reference" (scalar code, slow), or "off" on a machine without the memory for a
    /// stage of the model. Without a referee nobody is convicted on what checkers say: who is
    /// outvoted is left out of the job.
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    referee: RefereeChoice,
    /// Memory that a re-run may take, such as 8G: one is not begun that is counted to take more. By
    /// default half of what is free now.
    #[arg(long, value_name = "BYTES", value_parser = bytes::parse)]
    referee_memory: Option<u64>,
}

/// Runs a coordinator until Ctrl-C or SIGTERM. Jobs are kept, and go on when it is started again.
///
/// # Errors
/// Where the port or the folder is in use.
#[tokio::main]
pub async fn run(args: CoordinatorArgs, output: &Output) -> anyhow::Result<()> {
    let mut signals = EndSignals::install()?;
    let admin = client_key::key()?.public();
    let access = match args.access {
        Some(file) => access::follow(file, admin)?,
        None => PoolAccess::open([admin]).fixed(),
    };
    if args.referee == RefereeChoice::Off && args.referee_memory.is_some() {
        anyhow::bail!("--referee-memory has no meaning with --referee off: leave one of them out");
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let referee = args
        .referee
        .referee(&args.data_dir, args.referee_memory, cores);
    let options = ServerOptions {
        listen: args.listen,
        data_dir: args.data_dir,
        config: concord_coordinator::core::Config::default(),
        serve: None,
        access,
        referee,
    };
    let mut server = server::start(options).await.map_err(with_remedy)?;
    let (url, key) = (server.url(), server.key);
    let place = match server.addr.ip().is_unspecified() {
        true => " (others put this machine's name or address in place of that)",
        false => "",
    };
    output.result(
        &format!("coordinator {} listens on {url}{place}", key.short()),
        &json!({ "event": "listening", "url": url, "key": key.to_string() }),
    );
    tokio::select! {
        ended = server.wait() => return Ok(ended?),
        _ = signals.next() => {}
    }
    // On a full disk the shutdown waits for room; a second signal ends that.
    tokio::select! {
        ended = server.shutdown() => Ok(ended?),
        signal = signals.next() => anyhow::bail!("{signal} again: ended before all was kept"),
    }
}

/// Names the option that helps where the folder, perhaps the default one, is in use.
fn with_remedy(error: ServerError) -> anyhow::Error {
    match &error {
        ServerError::Store(StoreError::Locked(_)) => anyhow::anyhow!("{error}, with --data-dir"),
        _ => error.into(),
    }
}
