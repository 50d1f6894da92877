//! The access log: one JSON object per line.
//!
//! A thread of its own writes it, so that requests never wait for the disk: if the disk is too
//! slow, lines are lost, and counted. The file is opened for each batch of lines, so that a program
//! that rotates logs may move it away at any time.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use tokio::sync::oneshot;

use crate::error::GatewayError;

/// At most so many lines wait for the disk.
const WAITING_MAX: usize = 4_096;

/// Lines that are written at a time.
const RUN_MAX: usize = 512;

/// The path that means stderr.
const STDERR: &str = "-";

enum LogEntry {
    Line(String),
    /// Answer once all lines before are written.
    Flush(oneshot::Sender<()>),
}

/// The access log.
pub(crate) struct AccessLog {
    inputs: SyncSender<LogEntry>,
    /// Lines that could not be written, and are not yet counted in the metrics.
    lost: Arc<AtomicU64>,
}

impl AccessLog {
    /// Opens the log, which is appended to the file at `path`; `-` is stderr.
    ///
    /// # Errors
    /// [`GatewayError::Write`].
    pub fn open(path: &Path) -> Result<Self, GatewayError> {
        let fail = |error| GatewayError::Write {
            path: path.to_path_buf(),
            error,
        };
        append(path, "").map_err(fail)?;
        let (inputs, waiting) = sync_channel(WAITING_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let writer = Writer {
            path: path.to_path_buf(),
            has_failed: false,
            lost: lost.clone(),
        };
        let builder = thread::Builder::new().name("access-log".to_string());
        builder.spawn(move || writer.run(&waiting)).map_err(fail)?;
        Ok(Self { inputs, lost })
    }

    /// Writes a line. Returns how many lines were lost since the last call, because too many
    /// waited or because the file could not be written.
    pub fn write(&self, line: String) -> u64 {
        let waits = self.inputs.try_send(LogEntry::Line(line)).is_ok();
        self.lost.swap(0, Ordering::Relaxed) + u64::from(!waits)
    }

    /// Waits until all lines so far are written, or cannot be.
    pub async fn flush(&self) {
        let (done, written) = oneshot::channel();
        if self.inputs.try_send(LogEntry::Flush(done)).is_ok() {
            // An error means that the writer has ended.
            let _ = written.await;
        }
    }
}

struct Writer {
    path: PathBuf,
    has_failed: bool,
    lost: Arc<AtomicU64>,
}

impl Writer {
    fn run(mut self, inputs: &Receiver<LogEntry>) {
        while let Ok(first) = inputs.recv() {
            let (mut text, mut done) = (String::new(), Vec::new());
            for input in std::iter::once(first).chain(inputs.try_iter().take(RUN_MAX)) {
                match input {
                    LogEntry::Line(line) => {
                        text.push_str(&line);
                        text.push('\n');
                    }
                    LogEntry::Flush(sender) => done.push(sender),
                }
            }
            let written = append(&self.path, &text);
            if written.is_err() {
                let lines = text.lines().count() as u64;
                self.lost.fetch_add(lines, Ordering::Relaxed);
            }
            match written {
                Ok(()) => self.has_failed = false,
                // Logged once, and again only after a success.
                Err(error) if !std::mem::replace(&mut self.has_failed, true) => {
                    let path = self.path.display();
                    tracing::error!("accesses are not written to {path}: {error}");
                }
                Err(_) => {}
            }
            for sender in done {
                // The waiting task may be gone.
                let _ = sender.send(());
            }
        }
    }
}

fn append(path: &Path, text: &str) -> io::Result<()> {
    if path.as_os_str() == STDERR {
        return io::stderr().write_all(text.as_bytes());
    }
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    let end = file.metadata()?.len();
    file.write_all(text.as_bytes()).inspect_err(|_| {
        // On a full disk, half a line may have been written, and the next one would be joined to
        // it. A pipe cannot be truncated, which is ignored.
        let _ = file.set_len(end);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_follow_the_path_of_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, moved) = (folder.path().join("log"), folder.path().join("log.1"));
        std::fs::write(&path, "old\n").expect("written");
        let log = AccessLog::open(&path).expect("a log");
        assert_eq!(log.write("one".to_string()), 0);
        log.flush().await;
        std::fs::rename(&path, &moved).expect("moved");
        assert_eq!(log.write("two".to_string()), 0);
        log.flush().await;
        let read = |path| std::fs::read_to_string(path).expect("a file");
        assert_eq!(read(&moved), "old\none\n");
        assert_eq!(read(&path), "two\n");
        let none = folder.path().join("none/log");
        let error = AccessLog::open(&none).err().expect("no folder").to_string();
        assert!(
            error.contains("cannot write") && error.contains("none"),
            "{error}"
        );
    }
}
