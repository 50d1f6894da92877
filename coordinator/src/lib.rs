//! The coordinator: it plans, commits steps, has them audited and persists the proof. It holds no
//! tensor and links no kernel: it plans from a model's profile and decides by digests.
//!
//! The modules are layers. [`planner`] and [`blobs`] stand on their own; [`core`] decides, without
//! clock, sockets or disk; [`store`] persists what it decides; [`serving`] drives what is served;
//! [`server`] runs all of them:
//!
//! ```
//! use concord_coordinator::core::Config;
//! use concord_coordinator::server::access::PoolAccess;
//! use concord_coordinator::server::{self, ServerOptions};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! let options = ServerOptions {
//!     listen: "127.0.0.1:0".parse()?,
//!     data_dir: folder.path().to_path_buf(),
//!     config: Config::default(),
//!     serve: None,
//!     access: PoolAccess::open([]).fixed(),
//!     referee: None,
//! };
//! let server = server::start(options).await?;
//! println!("workers and clients reach it at {}", server.url());
//! server.shutdown().await?;
//! # Ok(())
//! # }
//! ```

pub mod blobs;
pub mod core;
pub mod planner;
pub mod server;
pub mod serving;
pub mod store;
