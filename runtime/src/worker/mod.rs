//! The worker's driver: gRPC, timers and files around the engine.

mod context;
mod driver;
mod endpoint;
mod server;
mod session;

use std::net::SocketAddr;
use std::path::PathBuf;

use concord_kernels::Device;

use crate::blobs::BlobOptions;
use crate::faults::Faults;

pub use driver::run;

/// How a worker runs.
///
/// ```no_run
/// use concord_runtime::worker::{self, WorkerOptions};
///
/// # async fn join() -> Result<(), concord_runtime::RuntimeError> {
/// let options = WorkerOptions {
///     coordinator: "concord://KEY@10.0.0.1:7700".to_string(),
///     listen: ([10, 0, 0, 7], 7701).into(),
///     advertise: None,
///     dir: "concord-worker".into(),
///     blobs: Default::default(),
///     device: concord_kernels::Device::cpu(8),
///     memory_bytes: 8 << 30,
///     faults: Default::default(),
/// };
/// // It leaves the pool, and hands its state over, once something is sent here.
/// let (leave, leaving) = tokio::sync::mpsc::channel(1);
/// worker::run(options, leaving, |id, address| println!("{} at {address}", id.short())).await?;
/// # drop(leave);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    /// The coordinator, such as "concord://127.0.0.1:7700".
    pub coordinator: String,
    /// Where other workers reach this one; port 0 takes a free one.
    pub listen: SocketAddr,
    /// What others are told to connect to; with none, the listening address. It is needed
    /// where that stands for all addresses of the machine.
    pub advertise: Option<String>,
    /// Key and fetched blobs.
    pub dir: PathBuf,
    /// Which blobs stay on disk, and where others are found.
    pub blobs: BlobOptions,
    /// Where it computes.
    pub device: Device,
    /// Memory that it may use, in bytes.
    pub memory_bytes: u64,
    /// How it cheats, in tests and in `concord demo`; not at all by default.
    pub faults: Faults,
}
