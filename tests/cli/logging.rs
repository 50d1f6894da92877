//! What is logged on stderr, and how.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use crate::program::concord;

#[test]
fn a_filter_that_says_nothing_is_refused() {
    for wrong in ["inof", "verbose", "info,lod", "concord_runtime=loud", ""] {
        let ran = concord(["--log", wrong, "key", "ann"]);
        ran.refused(&[&format!("--log {wrong}")]);
    }
    for right in ["info", "WARN", "concord_runtime=debug,warn", "off"] {
        concord(["--log", right, "key", "ann"]).good();
    }
}

/// What a coordinator logs until it is there, when stderr is no terminal.
fn logged(more: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_concord"))
        .args(["--log", "trace"])
        .args(more)
        .args(["coordinator", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Read on a thread of its own, so that the coordinator never waits for us.
    let mut stderr = child.stderr.take().unwrap();
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).unwrap();
        text
    });
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let text = reading.join().unwrap();
    // The last line may be cut off.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    assert!(!whole.is_empty(), "nothing is logged");
    whole.to_string()
}

#[test]
fn a_file_of_logs_has_no_colours_and_json_where_asked() {
    let plain = logged(&[]);
    assert!(!plain.contains('\u{1b}'), "{plain}");
    let json = logged(&["--json"]);
    for line in json.lines() {
        let object: serde_json::Value = serde_json::from_str(line).expect(line);
        assert!(
            object["level"].is_string() && object["target"].is_string(),
            "{line}"
        );
    }
}
