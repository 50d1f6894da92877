//! Runs commands of this program and reads the objects that they print: the demo does nothing that
//! a user could not type.

use std::ffi::OsStr;
use std::process::Stdio;

use anyhow::{Context, bail};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// A running command. It is killed when this is dropped.
pub struct Program {
    name: String,
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Program {
    /// Starts this program with `--json` and `args`.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start<S: AsRef<OsStr>>(args: &[S]) -> anyhow::Result<Self> {
        let name = args.first().map_or_else(String::new, |name| {
            name.as_ref().to_string_lossy().into_owned()
        });
        let mut child = Command::new(crate::support::pool::this_program()?)
            .args(["--json", "--log", "off"])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start `concord {name}`"))?;
        let stdout = child
            .stdout
            .take()
            .context("a started command has no output")?;
        Ok(Self {
            name,
            child,
            lines: BufReader::new(stdout).lines(),
        })
    }

    /// The next object that it prints; `None` once it has ended successfully.
    ///
    /// # Errors
    /// The command's own message where it fails.
    pub async fn next(&mut self) -> anyhow::Result<Option<Value>> {
        let name = &self.name;
        let line = self.lines.next_line().await;
        let Some(line) = line.with_context(|| format!("cannot read `concord {name}`"))? else {
            let status = self.child.wait().await?;
            return if status.success() {
                Ok(None)
            } else {
                bail!("`concord {name}`: {status}")
            };
        };
        let object: Value = serde_json::from_str(&line)
            .with_context(|| format!("`concord {name}` prints what is not JSON: {line}"))?;
        match object["event"].as_str() {
            Some("error") => bail!(
                "`concord {name}`: {}",
                object["error"].as_str().unwrap_or("?")
            ),
            _ => Ok(Some(object)),
        }
    }
}

/// Runs a command to its end and returns the object of the event `wanted`.
///
/// # Errors
/// Where it fails or prints none.
pub async fn run<S: AsRef<OsStr>>(args: &[S], wanted: &str) -> anyhow::Result<Value> {
    let mut program = Program::start(args)?;
    let mut found = None;
    while let Some(object) = program.next().await? {
        if object["event"] == wanted {
            found = Some(object);
        }
    }
    found.with_context(|| format!("`concord {}` prints no `{wanted}`", program.name))
}
