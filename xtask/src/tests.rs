//! All tests, with what they need.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, ExitStatus};
use std::time::Instant;

use crate::Outcome;
use crate::output::Reader;
use crate::setup::{self, Features};
use crate::step::{EVERYTHING, cargo, run as run_step, typed};

/// Sets up what is missing, where it may; builds the tests meanwhile, and runs them.
///
/// # Errors
/// The tests do not build, or one of them fails. What is skipped is no error: it is counted.
pub fn run() -> Outcome {
    let mut missing = setup::before_the_build();
    missing.extend(setup::missing_instructions());
    let features = setup::features_at_hand();
    let rest = std::thread::spawn(setup::meanwhile);
    let mut build = tests(features);
    let built = run_step("build of the tests", build.arg("--no-run"));
    let rest = rest
        .join()
        .map_err(|_| "the set-up stopped early".to_string())?;
    built?;
    let mut command = tests(features);
    command.envs(rest.variables).arg("--no-fail-fast");
    command.args(["--", "--show-output"]);
    let mut reader = Reader::default();
    for missing in missing.iter().chain(&rest.missing) {
        reader.skip(missing);
    }
    let (start, line) = (Instant::now(), typed(&command));
    println!("\n== tests: {line}");
    let status = pass_through(command, &mut reader)
        .map_err(|error| format!("`{line}` cannot be run: {error}"))?;
    println!(
        "-- tests: {} s\n\n{}",
        start.elapsed().as_secs(),
        reader.summary()
    );
    match status.success() {
        true => Ok(()),
        false => Err(format!("`{line}` ended with {status}")),
    }
}

fn tests(features: Features) -> Command {
    let mut command = cargo(&["test", "--features", features.list()]);
    command.args(EVERYTHING);
    command
}

/// Shows what the command prints, on one stream so that lines keep their order, except for what
/// `reader` takes out.
fn pass_through(mut command: Command, reader: &mut Reader) -> std::io::Result<ExitStatus> {
    let (lines, writer) = std::io::pipe()?;
    command.stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn()?;
    // Its copies of the writer would keep the pipe open.
    drop(command);
    let mut out = std::io::stdout().lock();
    for line in BufReader::new(lines).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        if reader.shows(line.trim_end_matches('\r')) {
            // A reader that has gone away is no reason to leave the tests.
            let _ = writeln!(out, "{line}");
        }
    }
    child.wait()
}
