//! `log.jsonl`: the results of each step, one JSON object per line, kept over interruptions.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use concord_models::export;
use concord_proto::client::JobEvent;
use serde_json::{Value, json};

use crate::support::job_events::as_json;
use crate::support::job_mark::Mark;

/// Identifies the line of a step: the number of steps including it, whether it is the evaluation
/// after them, and the digest of its record.
type Key = (u64, bool, String);

/// The log of the steps of one job. A job that goes on repeats its events from the first one:
/// existing lines of the same steps stay as they are, and steps with another record replace them.
#[derive(Debug)]
pub struct StepLog {
    path: PathBuf,
    /// The lines that the file should have, each with its key.
    lines: Vec<(Key, String)>,
    /// Lines that the file had at the start and that were not repeated yet.
    earlier: BTreeMap<Key, String>,
    /// Lines that the file has, as far as that is known.
    written: Vec<String>,
    /// How many of them, from the first on, are right.
    agreed: usize,
    /// Whether the whole file must be written again, because its end is unknown.
    is_torn: bool,
    /// Whether a failed write was already reported.
    complained: bool,
}

impl StepLog {
    /// Name of the file.
    pub const FILE: &str = Mark::LOG_FILE;

    /// Opens the log of a folder with the lines that it has. An incomplete last line is dropped.
    ///
    /// # Errors
    /// Where there is a log that cannot be read.
    pub fn open(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join(Self::FILE);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                let place = path.display();
                return Err(error).with_context(|| format!("output_dir: cannot read {place}"));
            }
        };
        let text = String::from_utf8_lossy(&bytes);
        let mut earlier = BTreeMap::new();
        let written: Vec<String> = text.lines().map(str::to_string).collect();
        for line in &written {
            if let Some(key) = key_of(line) {
                earlier.insert(key, line.clone());
            }
        }
        Ok(Self {
            path,
            lines: Vec::new(),
            earlier,
            agreed: 0,
            // A line that is appended to half a line would be broken, too.
            is_torn: !text.is_empty() && !text.ends_with('\n'),
            written,
            complained: false,
        })
    }

    /// How many steps it had when it was opened.
    pub fn steps(&self) -> usize {
        self.earlier.len()
    }

    /// To be called where the coordinator does not have the job: all steps are done again, and
    /// replace the lines of the earlier run.
    pub fn begin_anew(&mut self) {
        self.earlier.clear();
        // Written as a whole: a repeated step may give an identical line, and the lines after it
        // would stay.
        self.is_torn = true;
    }

    /// Takes in an event. Returns whether it is new, and not repeated from an earlier run.
    pub fn take(&mut self, event: &JobEvent) -> bool {
        let key = match event {
            JobEvent::Step { step, record, .. } => (u64::from(*step) + 1, false, record),
            JobEvent::Evaluated { step, record, .. } => (u64::from(*step), true, record),
            _ => return self.earlier.is_empty(),
        };
        let key = (key.0, key.1, key.2.to_string());
        let place = (key.0, key.1);
        while self
            .lines
            .pop_if(|((done, evaluates, _), _)| (*done, *evaluates) >= place)
            .is_some()
        {}
        self.agreed = self.agreed.min(self.lines.len());
        let earlier = self.earlier.remove(&key);
        let is_news = earlier.is_none();
        let line = earlier.unwrap_or_else(|| {
            let mut object = as_json(event);
            // Counted from 1, as on the screen and in transformers' trainer.
            object["step"] = json!(key.0);
            object["time"] = json!(now());
            object.to_string()
        });
        self.lines.push((key, line));
        let written = self.write_step();
        self.complain(written);
        is_news
    }

    /// The lines of the first `steps` steps, as far as they are known.
    pub fn history(&self, steps: u32) -> Vec<Value> {
        let lines = self.lines.iter();
        let first = lines.take_while(|((done, ..), _)| *done <= u64::from(steps));
        first
            .filter_map(|(_, line)| serde_json::from_str(line).ok())
            .collect()
    }

    /// Whether it has the evaluation after so many steps.
    pub fn has_evaluation(&self, steps: u32) -> bool {
        let mut lines = self.lines.iter().rev();
        lines.any(|((done, evaluates, _), _)| *evaluates && *done == u64::from(steps))
    }

    /// Ends the log with the result of the job.
    pub fn finish(&mut self, result: &Value) {
        let mut object = result.clone();
        object["time"] = json!(now());
        let is_behind = self.agreed < self.lines.len() || self.agreed < self.written.len();
        let written = if is_behind || self.is_torn {
            self.write_all(Some(&object.to_string()))
        } else {
            append(&self.path, &format!("{object}\n")).map_err(|why| why.to_string())
        };
        self.complain(written);
    }

    /// Reports a failed write once; the training goes on without its log.
    fn complain(&mut self, written: Result<(), String>) {
        let Err(why) = written else {
            return;
        };
        // The content of the file is now unknown: the next successful write is of the whole file.
        self.is_torn = true;
        if !self.complained {
            self.complained = true;
            let place = self.path.display();
            eprintln!("cannot write {place}: {why}; the training goes on without");
        }
    }

    /// Writes the last line to the file.
    fn write_step(&mut self) -> Result<(), String> {
        let Some((_, line)) = self.lines.last() else {
            return Ok(());
        };
        if self.is_torn || self.agreed + 1 != self.lines.len() {
            return self.write_all(None);
        }
        match self.written.get(self.agreed) {
            // An earlier run has written this line; the lines after it are repeated or replaced.
            Some(standing) if standing == line => {}
            Some(_) => return self.write_all(None),
            None => {
                append(&self.path, &format!("{line}\n")).map_err(|why| why.to_string())?;
                self.written.push(line.clone());
            }
        }
        self.agreed += 1;
        Ok(())
    }

    fn write_all(&mut self, last: Option<&str>) -> Result<(), String> {
        let lines = || self.lines.iter().map(|(_, line)| line.as_str()).chain(last);
        let whole = |out: &mut dyn Write| lines().try_for_each(|line| writeln!(out, "{line}"));
        export::replace_file(&self.path, whole).map_err(|why| why.to_string())?;
        self.written = self.lines.iter().map(|(_, line)| line.clone()).collect();
        self.agreed = self.lines.len();
        self.is_torn = false;
        Ok(())
    }
}

fn append(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    let before = file.metadata()?.len();
    // On a full disk half a line may have been written, which is removed again.
    file.write_all(text.as_bytes()).inspect_err(|_| {
        let _ = file.set_len(before);
    })
}

fn key_of(line: &str) -> Option<Key> {
    let object: Value = serde_json::from_str(line).ok()?;
    let record = object["record_digest"].as_str()?.to_string();
    let evaluates = object["event"] == "evaluation";
    let is_known = evaluates || object["event"] == "step";
    is_known.then_some((object["step"].as_u64()?, evaluates, record))
}

/// Seconds since 1970, with milliseconds.
pub fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| (since.as_millis() as f64) / 1e3)
}

#[cfg(test)]
mod tests {
    use concord_proto::Digest;

    use super::*;

    fn step(step: u32, record: u8) -> JobEvent {
        JobEvent::Step {
            step,
            loss: 1.0.into(),
            grad_norm: 1.0.into(),
            learning_rate: 1.0.into(),
            tokens: 1,
            micros: 1,
            record: Digest([record; 32]),
        }
    }

    /// Steps and first digits of the records in the file.
    fn stands(dir: &Path) -> Vec<(u64, String)> {
        let text = std::fs::read_to_string(dir.join(StepLog::FILE)).unwrap();
        assert!(text.ends_with('\n'), "{text}");
        let keys = text.lines().filter_map(key_of);
        keys.map(|(step, _, record)| (step, record[..2].to_string()))
            .collect()
    }

    fn expected(steps: &[(u64, &str)]) -> Vec<(u64, String)> {
        let owned = |(step, record): &(u64, &str)| (*step, (*record).to_string());
        steps.iter().map(owned).collect()
    }

    #[test]
    fn a_job_that_goes_on_has_every_step_once() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        let mut log = StepLog::open(dir).unwrap();
        assert!((0..3).all(|index| log.take(&step(index, 1))));
        let first = std::fs::read_to_string(dir.join(StepLog::FILE)).unwrap();
        // The same command again: two steps are repeated, one is done again, one is new.
        let mut log = StepLog::open(dir).unwrap();
        assert_eq!(log.steps(), 3);
        assert!(!log.take(&JobEvent::Waiting("a worker".to_string())));
        assert!(!log.take(&step(0, 1)) && !log.take(&step(1, 1)) && !log.take(&step(2, 1)));
        assert!(log.take(&JobEvent::Voided { from_step: 2 }));
        assert!(log.take(&step(2, 1)) && log.take(&step(3, 1)));
        let all = expected(&[(1, "01"), (2, "01"), (3, "01"), (4, "01")]);
        assert_eq!(stands(dir), all);
        let text = std::fs::read_to_string(dir.join(StepLog::FILE)).unwrap();
        let kept: Vec<&str> = first.lines().take(2).collect();
        assert_eq!(text.lines().take(2).collect::<Vec<_>>(), kept);
        log.finish(&json!({ "event": "result", "loss": 1.0 }));
        let text = std::fs::read_to_string(dir.join(StepLog::FILE)).unwrap();
        assert!(
            text.lines().last().unwrap().contains("\"result\""),
            "{text}"
        );
        assert_eq!(text.lines().count(), 5);
    }

    #[test]
    fn a_job_whose_state_is_lost_tells_all_its_steps_again() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        let mut log = StepLog::open(dir).unwrap();
        assert!((0..3).all(|index| log.take(&step(index, 1))));
        let mut log = StepLog::open(dir).unwrap();
        log.begin_anew();
        assert!(log.take(&JobEvent::Waiting("a worker".to_string())));
        assert!((0..2).all(|index| log.take(&step(index, 1))));
        assert_eq!(stands(dir), expected(&[(1, "01"), (2, "01")]));
    }

    #[test]
    fn steps_that_came_to_something_else_are_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        let mut log = StepLog::open(dir).unwrap();
        for event in [step(0, 1), step(1, 1), step(2, 1), step(1, 9)] {
            log.take(&event);
        }
        assert_eq!(stands(dir), expected(&[(1, "01"), (2, "09")]));
        // Repeated, including steps that became void in between.
        let mut log = StepLog::open(dir).unwrap();
        for event in [step(0, 1), step(1, 1), step(2, 1), step(1, 9), step(2, 9)] {
            log.take(&event);
        }
        assert_eq!(stands(dir), expected(&[(1, "01"), (2, "09"), (3, "09")]));
    }

    #[test]
    fn half_a_line_is_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        let mut log = StepLog::open(dir).unwrap();
        log.take(&step(0, 1));
        log.take(&step(1, 1));
        let path = dir.join(StepLog::FILE);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, &text[..text.len() - 20]).unwrap();
        let mut log = StepLog::open(dir).unwrap();
        assert_eq!(log.steps(), 1);
        log.take(&step(0, 1));
        log.take(&step(1, 1));
        assert_eq!(stands(dir), expected(&[(1, "01"), (2, "01")]));
    }
}
