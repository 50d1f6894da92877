//! The rule book of Concord: what an honest claim, an honest proof and an honest receipt look like.
//!
//! Every rule that needs no arithmetic stands here once. The coordinator holds against them what
//! workers send, the judge of answers what a receipt has in it, and `concord verify` everything
//! that a finished job left behind. Rules are pure functions; the one module that reads files is
//! the folder of a bundle.
//!
//! ```no_run
//! use concord_verify::training::bundle::{Bundle, verify};
//!
//! let bundle = Bundle::read_dir("out/shakespeare/proof".as_ref())?;
//! let report = verify(&bundle)?;
//! println!("{} steps, hash {}", report.steps, report.record);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

// Types and functions have a sentence; a field whose name and type say all has none.
#![allow(missing_docs)]

pub mod serving;
pub mod training;
