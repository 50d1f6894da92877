//! Commands that are shown, timed, and must succeed.

use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Instant;

use crate::{Outcome, nvrtc, root};

/// What every check builds, in one profile and one set of features, so that it is compiled once.
pub const EVERYTHING: [&str; 3] = ["--release", "--workspace", "--locked"];

/// A command of cargo, in the folder of the repository. All of them see the same NVRTC, as with
/// another one the kernels would be built again.
pub fn cargo(arguments: &[&str]) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = command(Path::new(&cargo), arguments);
    if let Some(folder) = nvrtc::fetched() {
        command.env("CONCORD_NVRTC", folder);
    }
    command
}

/// A command in the folder of the repository.
pub fn command(program: impl AsRef<Path>, arguments: &[&str]) -> Command {
    let mut command = Command::new(program.as_ref());
    command.args(arguments).current_dir(root());
    command
}

/// The command as one would type it.
pub fn typed(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name();
    let words = program.into_iter().chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}

/// Runs the command, under a line with its name and above one with its time.
///
/// # Errors
/// A sentence that names the command, if it cannot be started or does not succeed.
pub fn run(name: &str, command: &mut Command) -> Outcome {
    within(name, command, |command| command.status())
}

/// As [`run`]; `each` sees every line that the command writes to stderr, which is shown, too.
///
/// # Errors
/// As [`run`].
pub fn run_told(name: &str, command: &mut Command, each: &mut dyn FnMut(&str)) -> Outcome {
    within(name, command, |command| {
        let mut child = command.stderr(Stdio::piped()).spawn()?;
        for line in child
            .stderr
            .take()
            .into_iter()
            .flat_map(|told| BufReader::new(told).split(b'\n'))
        {
            let line = line?;
            let line = String::from_utf8_lossy(&line);
            eprintln!("{line}");
            each(&line);
        }
        child.wait()
    })
}

fn within(
    name: &str,
    command: &mut Command,
    run: impl FnOnce(&mut Command) -> io::Result<ExitStatus>,
) -> Outcome {
    let (start, line) = (Instant::now(), typed(command));
    println!("\n== {name}: {line}");
    let status = run(command);
    println!("-- {name}: {} s", start.elapsed().as_secs());
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{name}: `{line}` ended with {status}")),
        Err(error) => Err(format!("{name}: `{line}` cannot be started: {error}")),
    }
}

/// Whether the command can be started and succeeds; what it prints is dropped.
pub fn succeeds(program: impl AsRef<Path>, arguments: &[&str]) -> bool {
    let mut command = command(program, arguments);
    command.stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// What the command prints.
///
/// # Errors
/// A sentence that names the command, if it cannot be started or does not succeed.
pub fn printed(command: &mut Command) -> Result<String, String> {
    let line = typed(command);
    let output = command.stderr(Stdio::inherit()).output();
    match output {
        Ok(output) if output.status.success() => {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        }
        Ok(output) => Err(format!("`{line}` ended with {}", output.status)),
        Err(error) => Err(format!("`{line}` cannot be started: {error}")),
    }
}
