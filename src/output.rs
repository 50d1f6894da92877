//! What a command prints: text for people, or one JSON object a line.

use std::io::Write;

use serde_json::{Value, json};

/// Where a command's results go. Results are on stdout; progress and errors on stderr.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    json: bool,
}

impl Output {
    /// Text for people, or JSON.
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether JSON is wanted.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Prints a result: `text` for people (nothing where it is empty), or `object`.
    pub fn result(&self, text: &str, object: &Value) {
        let mut stdout = std::io::stdout().lock();
        // A reader that has gone away is no reason to fail.
        let _ = match (self.json, text.is_empty()) {
            (true, _) => writeln!(stdout, "{object}"),
            (false, false) => writeln!(stdout, "{text}"),
            (false, true) => Ok(()),
        };
        let _ = stdout.flush();
    }

    /// Prints an error with all its causes.
    pub fn error(&self, error: &anyhow::Error) {
        if self.json {
            self.result(
                "",
                &json!({ "event": "error", "error": format!("{error:#}") }),
            );
        }
        let _ = writeln!(std::io::stderr(), "error: {error:#}");
    }
}
