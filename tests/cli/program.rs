//! Running the binary, and the reference data where they are.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a run left.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// The objects of stdout.
    pub fn objects(&self) -> Vec<serde_json::Value> {
        self.stdout
            .lines()
            .map(|line| serde_json::from_str(line).expect(line))
            .collect()
    }

    /// Asserts that the run succeeded, and gives it.
    #[track_caller]
    pub fn good(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self
    }

    /// Asserts that a proof is complete and, as nobody is named who has checked it, not proven.
    #[track_caller]
    pub fn unproven(self) -> Self {
        assert_eq!(self.code, Some(2), "{self:#?}");
        assert!(self.stderr.contains("complete, not proven"), "{self:#?}");
        self
    }

    /// Asserts that something could not be shown, nor refuted, for a reason with all of `words`.
    #[track_caller]
    pub fn unshown(&self, words: &[&str]) {
        self.ended(2, words);
    }

    /// Asserts the exit status, and an error with all of `words`.
    #[track_caller]
    fn ended(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:#?}");
        assert!(self.stderr.starts_with("error: "), "{self:#?}");
        for word in words {
            assert!(
                self.stderr.contains(word),
                "no {word:?} in\n{}",
                self.stderr
            );
        }
    }

    /// Asserts that the program refused, in a message with all of `words`, and did not panic.
    #[track_caller]
    pub fn refused(&self, words: &[&str]) {
        self.ended(1, words);
        // With --json the error is an object as well.
        let is_error = self.stdout.starts_with("{\"event\":\"error\"");
        let is_alone = self.stdout.lines().count() == 1;
        assert!(
            self.stdout.is_empty() || is_error && is_alone,
            "a refusal leaves nothing else on stdout: {self:#?}"
        );
    }
}

/// Runs the binary.
pub fn concord<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_concord"))
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs");
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("stdout is UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("stderr is UTF-8"),
    }
}

/// The reference data; nothing, with a line that says so, where they are not.
pub fn shared() -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let shared = std::env::var_os("CONCORD_SHARED").map_or(default, PathBuf::from);
    if shared.join("models").is_dir() {
        return Some(shared);
    }
    println!(
        "skipped: no reference data at {} (set CONCORD_SHARED)",
        shared.display()
    );
    None
}

/// A path as an argument.
pub fn arg(path: &Path) -> &str {
    path.to_str().expect("the paths of the tests are UTF-8")
}
