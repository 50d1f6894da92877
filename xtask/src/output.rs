//! The output of tests, passed on except for what passing tests have written: of that, only the
//! lines about something skipped are counted.

use std::collections::BTreeMap;

/// How a test that leaves something out begins the line that says what, and why.
const SKIPPED: &str = "skipped: ";

/// Reads the output of test binaries, run with `--show-output`.
#[derive(Default)]
pub struct Reader {
    /// Whether the next lines are those of tests that passed.
    in_successes: bool,
    /// The test whose lines follow.
    test: Option<String>,
    skipped: BTreeMap<String, Vec<String>>,
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Reader {
    /// Takes the next line in; returns whether it is to be shown.
    pub fn shows(&mut self, line: &str) -> bool {
        if let Some(name) = named(line) {
            self.test = Some(name.to_string());
        }
        if let Some(reason) = line.strip_prefix(SKIPPED) {
            let tests = self.skipped.entry(reason.trim().to_string()).or_default();
            tests.push(self.test.clone().unwrap_or_else(|| "a test".to_string()));
        }
        if line.starts_with("test result: ") {
            self.count(line);
        }
        match line {
            "successes:" => self.in_successes = true,
            "failures:" => self.in_successes = false,
            _ if line.starts_with("test result: ") || line.starts_with("running ") => {
                self.in_successes = false;
                self.test = None;
            }
            _ => {}
        }
        !self.in_successes
    }

    /// Notes something skipped that no test can report, because it was not built or not set up.
    pub fn skip(&mut self, reason: &str) {
        self.skipped.entry(reason.to_string()).or_default();
    }

    fn count(&mut self, line: &str) {
        let number = |word: &str| {
            let before = line.split(&[' ', ';'][..]).collect::<Vec<_>>();
            let at = before.iter().position(|other| *other == word)?;
            before.get(at.checked_sub(1)?)?.parse::<u64>().ok()
        };
        self.passed += number("passed").unwrap_or(0);
        self.failed += number("failed").unwrap_or(0);
        self.ignored += number("ignored").unwrap_or(0);
    }

    /// What was skipped and why, each reason once; the last line has the counts.
    pub fn summary(&self) -> String {
        let mut lines = String::new();
        for (reason, tests) in &self.skipped {
            let named = match &tests[..] {
                [] => String::new(),
                [one] => format!(" ({one})"),
                [first, more @ ..] => format!(" ({first} and {} more)", more.len()),
            };
            lines.push_str(&format!("skipped: {reason}{named}\n"));
        }
        let times: usize = self.skipped.values().map(|tests| tests.len().max(1)).sum();
        let skipped = match times {
            0 => "nothing skipped".to_string(),
            1 => "1 thing skipped, for the reason above".to_string(),
            many => format!("{many} things skipped, for the reasons above"),
        };
        let (passed, failed) = (self.passed, self.failed);
        let ignored = self.ignored;
        format!("{lines}tests: {passed} passed, {failed} failed, {ignored} ignored; {skipped}")
    }
}

/// The test of a heading `---- name stdout ----`.
fn named(line: &str) -> Option<&str> {
    line.strip_prefix("---- ")?.strip_suffix(" stdout ----")
}

#[cfg(test)]
mod tests {
    use super::Reader;

    const OUTPUT: &str = "\
     Running tests/some.rs (target/release/deps/some-1)

running 4 tests
test one ... ok
test two ... ok
test three ... FAILED
test four ... ignored

successes:

---- one stdout ----
skipped: no browser
a line that nobody needs

---- two stdout ----
skipped: this machine lacks avx512
skipped: no browser


successes:
    one
    two

failures:

---- three stdout ----
what went wrong


failures:
    three

test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1.00s

error: test failed, to rerun pass `--test some`";

    fn read(output: &str) -> (Reader, Vec<&str>) {
        let mut reader = Reader::default();
        let shown = output.lines().filter(|line| reader.shows(line)).collect();
        (reader, shown)
    }

    #[test]
    fn failures_are_shown_and_successes_are_not() {
        let (_, shown) = read(OUTPUT);
        for line in ["test one ... ok", "what went wrong"] {
            assert!(shown.contains(&line), "{line}");
        }
        for line in ["skipped: no browser", "a line that nobody needs", "    one"] {
            assert!(!shown.contains(&line), "{line}");
        }
        assert!(
            shown
                .last()
                .is_some_and(|line| line.starts_with("error: test failed"))
        );
    }

    #[test]
    fn what_is_skipped_is_counted_with_its_reason() {
        let (mut reader, _) = read(OUTPUT);
        reader.skip("emulated GPUs: there is no C++ compiler");
        assert_eq!(
            reader.summary(),
            "skipped: emulated GPUs: there is no C++ compiler\n\
             skipped: no browser (one and 1 more)\n\
             skipped: this machine lacks avx512 (two)\n\
             tests: 2 passed, 1 failed, 1 ignored; 4 things skipped, for the reasons above"
        );
    }

    #[test]
    fn results_of_all_binaries_add_up() {
        let line = "test result: ok. 7 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out";
        let twice = format!("{line}\n{line}");
        let (reader, _) = read(&twice);
        let expected = "tests: 14 passed, 0 failed, 0 ignored; nothing skipped";
        assert_eq!(reader.summary(), expected);
    }
}
