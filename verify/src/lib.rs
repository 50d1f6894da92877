//! The rule book of Concord: what an honest claim, an honest proof and an honest receipt look like.
//!
//! Every rule that needs no arithmetic is here, once. The coordinator checks what workers send
//! against these rules, the judge of answers what a receipt contains, and `concord verify` the
//! bundle of a finished job. Rules are pure functions; the one module that reads files is the
//! folder of a bundle.
//!
//! ```no_run
//! use concord_verify::training::bundle::{Bundle, verify};
//!
//! let bundle = Bundle::read_dir("out/shakespeare/proof".as_ref())?;
//! let report = verify(&bundle)?;
//! println!("{} steps, hash {}", report.steps, report.record);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

// Types and functions are documented; a field whose name and type say everything is not.
#![allow(missing_docs)]

pub mod serving;
pub mod training;
