//! What contributors run, as `cargo xtask COMMAND`: the quick check, everything that a change must
//! pass, and all tests with the set-up that they need. It uses the standard library alone, so that
//! it is there seconds after a clone.

mod checks;
mod examples;
mod fuzz;
mod licences;
mod nvrtc;
mod output;
mod setup;
mod step;
mod tests;

use std::path::PathBuf;
use std::process::ExitCode;

const HELP: &str = "\
cargo xtask COMMAND

  check     format, lints, rules on the text, tests of the light crates: before each commit
  test      sets up what the tests need, where it may, and runs all of them (`./test` calls it)
  ci        everything that a change must pass, the tests last; with --without-tests all but them
  fuzz      TARGET SECONDS: changes inputs of a target of `fuzz` until they pass or one fails; the
            target `all` is each of them
  licences  are the licences and the sources of all dependencies among the allowed ones?

Where CONCORD_NO_INSTALL is set nothing is installed; what is missing is named instead.";

/// What a command gives: nothing, or why it failed.
type Outcome = Result<(), String>;

/// The folder of the repository.
fn root() -> PathBuf {
    let package = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let root = package.parent().map(PathBuf::from);
    root.unwrap_or(package)
}

fn run(arguments: &[&str]) -> Outcome {
    match arguments {
        ["check"] => checks::quick(),
        ["test"] => tests::run(),
        ["ci"] => checks::all().and_then(|()| tests::run()),
        ["ci", "--without-tests"] => checks::all(),
        ["fuzz", target, seconds] => fuzz::run(target, seconds),
        ["licences"] => licences::check(),
        [] | ["help" | "--help" | "-h"] => {
            println!("{HELP}");
            Ok(())
        }
        other => Err(format!("there is no `{}`\n\n{HELP}", other.join(" "))),
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("error: {reason}");
            ExitCode::FAILURE
        }
    }
}
