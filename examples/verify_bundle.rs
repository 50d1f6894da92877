//! Verifies the proof of a job, with no coordinator running and no model at hand:
//! `cargo run --release --example verify_bundle -- out/shakespeare/proof`.

use std::error::Error;
use std::path::Path;

use concord_verify::training::bundle::{Bundle, verify};

/// A summary of a valid bundle; else an error that names the false statement and who made it.
pub fn verified(folder: &Path) -> Result<String, Box<dyn Error>> {
    let bundle = Bundle::read_dir(folder)?;
    let report = verify(&bundle)?;
    let (drawn, agreed) = (report.audits_drawn, report.audits_agreed);
    Ok(format!(
        "job {}: {} steps, hash {}; {agreed} of {drawn} drawn pieces of work re-run and equal",
        report.job, report.steps, report.record
    ))
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args_os()
        .nth(1)
        .ok_or("usage: verify_bundle FOLDER")?;
    println!("{}", verified(Path::new(&folder))?);
    Ok(())
}
