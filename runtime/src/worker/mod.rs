//! The worker's driver: gRPC, timers and files around the engine.

mod assignment;
mod driver;
mod endpoint;
mod live;
mod peers;
mod server;

use std::net::SocketAddr;
use std::path::PathBuf;

use concord_kernels::Device;

use crate::blobs::BlobOptions;

pub(crate) use assignment::{fetch_base, fetch_config};
pub use driver::run;

/// How a worker runs.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    /// The coordinator, such as "http://127.0.0.1:7700".
    pub coordinator: String,
    /// Where other workers reach this one; port 0 takes a free one.
    pub listen: SocketAddr,
    /// What others are told to connect to; nothing tells them the listening address. It is needed
    /// where that stands for all addresses of the machine.
    pub advertise: Option<String>,
    /// Key and fetched blobs.
    pub dir: PathBuf,
    /// Which blobs are kept, and where others are found.
    pub blobs: BlobOptions,
    /// Where it computes.
    pub device: Device,
    /// Memory that it may use, in bytes.
    pub memory_bytes: u64,
    /// How it cheats, in `concord demo`.
    #[cfg(feature = "wrong-data")]
    pub wrong_data: Option<crate::wrong_data::WrongData>,
    /// How it cheats, in tests.
    #[cfg(feature = "liars")]
    pub lie: Option<crate::liar::Lie>,
}
