//! What a command prints: text, or one JSON object per line.

use std::fmt;
use std::io::Write;
use std::process::ExitCode;

use concord_proto::limits::is_unprintable;
use serde_json::{Value, json};

/// The output of a command. Results go to stdout, progress and errors to stderr.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    json: bool,
}

/// The command was ended by Ctrl-C or SIGTERM before its work was done, which is neither a failure
/// nor a success.
#[derive(Debug)]
pub struct StoppedBySignal {
    signal: &'static str,
    words: String,
}

impl StoppedBySignal {
    /// An end by `signal`, as [`crate::support::signals::EndSignals::next`] names it; `words` say
    /// what happens to the work.
    pub fn new(signal: &'static str, words: String) -> Self {
        Self { signal, words }
    }

    /// 128 plus the number of the signal, as in shells.
    pub fn code(&self) -> u8 {
        match self.signal {
            "SIGTERM" => 128 + 15,
            _ => 128 + 2,
        }
    }
}

impl fmt::Display for StoppedBySignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl std::error::Error for StoppedBySignal {}

/// What was to be shown is neither shown nor refuted: the context of an error that says why not.
/// The exit status is 2, as that of a command line that cannot be read.
#[derive(Debug)]
pub struct Unshown(pub String);

impl fmt::Display for Unshown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unshown {}

impl Output {
    /// Output as text, or as JSON.
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether JSON is wanted.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Prints a result: `text` (nothing if it is empty), or `object` with `--json`. The text may
    /// have words of others: what controls a terminal is shown as "?".
    pub fn result(&self, text: &str, object: &Value) {
        self.coloured(&printable(text), object);
    }

    /// As [`Output::result`], of text that has colours, and whose foreign words are printable.
    pub fn coloured(&self, text: &str, object: &Value) {
        let mut stdout = std::io::stdout().lock();
        // A closed stdout is no reason to fail.
        let _ = match (self.json, text.is_empty()) {
            (true, _) => writeln!(stdout, "{object}"),
            (false, false) => writeln!(stdout, "{text}"),
            (false, true) => Ok(()),
        };
        let _ = stdout.flush();
    }

    /// Prints an error with all its causes, and returns the exit status for it.
    pub fn error(&self, error: &anyhow::Error) -> ExitCode {
        if let Some(stopped) = error.downcast_ref::<StoppedBySignal>() {
            let (signal, code) = (stopped.signal, stopped.code());
            let object = json!({
                "event": "stopped", "signal": signal, "exit_code": code, "reason": stopped.words,
            });
            if self.json {
                self.result("", &object);
            }
            let stopped = printable(&stopped.words);
            let _ = writeln!(std::io::stderr(), "{signal}: {stopped}");
            return ExitCode::from(code);
        }
        let words = in_words(error);
        if self.json {
            self.result("", &json!({ "event": "error", "error": words }));
        }
        let _ = writeln!(std::io::stderr(), "error: {}", printable(&words));
        match error.is::<Unshown>() {
            true => ExitCode::from(2),
            false => ExitCode::FAILURE,
        }
    }
}

/// The text with "?" for each character that moves the cursor or turns the direction of others,
/// except ends of lines and tabs.
pub fn printable(text: &str) -> String {
    let shown = text.chars().map(|letter| match letter {
        '\n' | '\t' => letter,
        letter if is_unprintable(letter) => '?',
        letter => letter,
    });
    shown.collect()
}

/// A count with its noun, such as "1 stage" or "2 stages".
pub fn counted(count: u64, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        _ => format!("{count} {noun}s"),
    }
}

/// An error with its causes, each said once: some errors have their cause in their own message and
/// also as their source.
pub fn in_words(error: &anyhow::Error) -> String {
    let mut words: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = cause.to_string();
        let parts: Vec<&str> = text.split(": ").collect();
        // The longest overlap of the end of the text so far with the beginning of the cause.
        let said = (0..=parts.len().min(words.len()))
            .rev()
            .find(|&count| words[words.len() - count..] == parts[..count]);
        words.extend(
            parts[said.unwrap_or(0)..]
                .iter()
                .map(|part| (*part).to_string()),
        );
    }
    words.dedup();
    words.join(": ")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use anyhow::{Context, anyhow};
    use concord_coordinator::server::ServerError;
    use concord_coordinator::store::StoreError;
    use concord_models::ModelError;
    use concord_runtime::RuntimeError;

    use super::*;

    fn missing() -> std::io::Error {
        std::io::Error::from_raw_os_error(2)
    }

    fn of_model(path: &str) -> ModelError {
        ModelError::Io {
            action: "read",
            path: path.into(),
            source: missing(),
        }
    }

    #[test]
    fn a_chain_says_everything_once() {
        let os = "No such file or directory (os error 2)";
        let io = |action, why| RuntimeError::Io {
            action,
            path: "dir".to_string(),
            why,
        };
        let folder = StoreError::Folder {
            path: "data".into(),
            why: missing(),
        };
        let cases: Vec<(anyhow::Error, String)> = vec![
            // Its message already has its source.
            (of_model("a").into(), format!("cannot read a: {os}")),
            // The same below another one, wrapped once and twice.
            (
                anyhow::Error::from(of_model("a")).context("base_model"),
                format!("base_model: cannot read a: {os}"),
            ),
            (
                anyhow::Error::from(of_model("a")).context("cannot read a"),
                format!("cannot read a: {os}"),
            ),
            (
                anyhow::Error::from(RuntimeError::Model(of_model("a"))).context("the worker stops"),
                format!("the worker stops: cannot read a: {os}"),
            ),
            (
                anyhow::Error::from(io("use", missing())),
                format!("cannot use dir: {os}"),
            ),
            (
                anyhow::Error::from(ServerError::Store(folder)),
                format!("cannot use the folder data: {os}"),
            ),
            // A cause that is not in the words stays.
            (
                std::fs::read(Path::new("/nowhere/at/all"))
                    .context("cannot read x")
                    .unwrap_err(),
                format!("cannot read x: {os}"),
            ),
            // Words that were joined before.
            (
                anyhow!("{:#}", anyhow!("no room").context("no room")),
                "no room".to_string(),
            ),
            // What is said of two things is said of both.
            (
                anyhow!("a: missing").context("b: missing"),
                "b: missing: a: missing".to_string(),
            ),
        ];
        for (error, expected) in cases {
            assert_eq!(in_words(&error), expected, "{error:#}");
        }
    }

    #[test]
    fn words_of_others_do_not_control_the_terminal() {
        let said = "a\u{1b}[2J\u{9b}1m\r\u{202e}b\tc\nd \u{e9}";
        assert_eq!(printable(said), "a?[2J?1m??b\tc\nd \u{e9}");
    }

    #[test]
    fn one_is_singular() {
        let all = [0, 1, 2].map(|count| counted(count, "stage"));
        assert_eq!(all, ["0 stages", "1 stage", "2 stages"]);
    }

    #[test]
    fn an_end_by_a_signal_has_the_status_of_the_signal() {
        assert_eq!(StoppedBySignal::new("Ctrl-C", String::new()).code(), 130);
        assert_eq!(StoppedBySignal::new("SIGTERM", String::new()).code(), 143);
    }
}
