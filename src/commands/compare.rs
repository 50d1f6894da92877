//! `concord compare`: runs side by side, by what their output folders say.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::support::job_file::explain;
use crate::support::job_mark::Mark;
use crate::support::output::Output;
use crate::support::table::columns;

/// A setting that differs between any two runs, and heads their columns.
const FOLDER: &str = "output_dir";

/// Options of `concord compare`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  concord compare out/a out/b                # what differs between two fine-tunes
  concord compare out/* --all                # every setting")]
pub struct CompareArgs {
    /// Output folders of `concord train`, done or not.
    #[arg(required = true, num_args = 2.., value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// Show the settings in which they agree, too.
    #[arg(long)]
    all: bool,
}

/// A run, as its folder has it.
struct ComparedRun {
    dir: String,
    mark: Mark,
    /// The lines of its steps.
    steps: Vec<Value>,
    /// The lines of its evaluations.
    evaluations: Vec<Value>,
}

/// What a run found on held-out sequences.
struct Held {
    /// Of the result, or of the last evaluation of a run that is not done.
    loss: f64,
    /// The lowest after a step, and the steps before it.
    lowest: f64,
    best_step: u64,
    /// What early stopping decided; `None` of a run that is not done.
    stopped_early: Option<bool>,
}

/// Prints the settings in which runs differ, their losses and their hashes.
///
/// # Errors
/// Naming a folder that has no run.
pub fn run(args: &CompareArgs, output: &Output) -> anyhow::Result<()> {
    let runs = args.runs.iter().map(|dir| ComparedRun::read(dir));
    let runs: Vec<ComparedRun> = runs.collect::<anyhow::Result<_>>()?;
    let mut rows = vec![row("", &runs, |run| run.dir.clone())];
    rows.extend(settings(&runs, args.all));
    rows.push(row("steps done", &runs, |run| run.steps.len().to_string()));
    rows.push(row("first loss", &runs, |run| {
        shown(run.loss(run.steps.first()))
    }));
    rows.push(row("last loss", &runs, |run| {
        shown(run.loss(run.steps.last()))
    }));
    rows.push(row("mean loss of the last tenth", &runs, |run| {
        shown(run.late_loss())
    }));
    rows.extend(held_out(&runs));
    rows.push(row("tokens a second", &runs, |run| {
        run.rate()
            .map_or("-".to_string(), |rate| format!("{rate:.0}"))
    }));
    rows.push(row("job", &runs, |run| run.mark.job.clone()));
    rows.push(row("hash", &runs, ComparedRun::hash));
    let objects = runs.iter().map(ComparedRun::object);
    match output.is_json() {
        true => objects.for_each(|object| output.result("", &object)),
        false => output.result(&columns(&rows), &Value::Null),
    }
    Ok(())
}

impl ComparedRun {
    fn read(dir: &Path) -> anyhow::Result<Self> {
        let place = dir.display();
        let Some(mark) = Mark::read(dir)? else {
            bail!(
                "{place} is no output folder of `concord train`: it has no {}",
                Mark::FILE
            );
        };
        let log = dir.join(Mark::LOG_FILE);
        let text = match std::fs::read_to_string(&log) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            text => text.with_context(|| format!("cannot read {}", log.display()))?,
        };
        let lines = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        let lines: Vec<Value> = lines.collect();
        let of = |event: &str| {
            let found = lines.iter().filter(|line| line["event"] == event);
            found.cloned().collect()
        };
        let dir = place.to_string();
        let (steps, evaluations) = (of("step"), of("evaluation"));
        Ok(Self {
            dir,
            mark,
            steps,
            evaluations,
        })
    }

    /// A setting in one form for all ways to write it.
    fn setting(&self, key: &str) -> Option<String> {
        let mut settings = self.mark.settings.iter();
        let found = settings.find(|(name, _)| name == key);
        found.map(|(_, value)| explain::plain(value))
    }

    fn held(&self) -> Option<Held> {
        let loss = |line: &Value| line["eval_loss"].as_f64();
        let last = self.evaluations.last().and_then(loss);
        let result = self.mark.result.as_ref();
        let after_steps = self.evaluations.iter().filter_map(|line| {
            let step = line["step"].as_u64().filter(|step| *step > 0)?;
            Some((loss(line)?, step))
        });
        let best = after_steps.min_by(|a, b| a.0.total_cmp(&b.0));
        let (lowest, best_step) = best.or(last.map(|loss| (loss, 0)))?;
        Some(Held {
            loss: result.and_then(loss).or(last)?,
            lowest,
            best_step,
            stopped_early: result.and_then(|result| result["stopped_early"].as_bool()),
        })
    }

    fn loss(&self, line: Option<&Value>) -> Option<f64> {
        line?["loss"].as_f64()
    }

    fn late_loss(&self) -> Option<f64> {
        let count = self.steps.len().div_ceil(10);
        let late = &self.steps[self.steps.len() - count..];
        let losses: Vec<f64> = late
            .iter()
            .filter_map(|line| line["loss"].as_f64())
            .collect();
        let sum: f64 = losses.iter().sum();
        (!losses.is_empty()).then(|| sum / losses.len() as f64)
    }

    fn rate(&self) -> Option<f64> {
        let sum = |key: &str| -> f64 { self.steps.iter().filter_map(|l| l[key].as_f64()).sum() };
        let seconds = sum("micros") / 1e6;
        (seconds > 0.0).then(|| sum("tokens") / seconds)
    }

    fn hash(&self) -> String {
        let result = self.mark.result.as_ref();
        let hash = result.and_then(|result| result["record_digest"].as_str());
        hash.unwrap_or("(not done)").to_string()
    }

    fn object(&self) -> Value {
        let settings = self.mark.settings.iter();
        let settings: serde_json::Map<String, Value> = settings
            .map(|(key, value)| (key.clone(), json!(value)))
            .collect();
        let held = self.held();
        json!({
            "eval_loss": held.as_ref().map(|held| held.loss),
            "best_eval_loss": held.as_ref().map(|held| held.lowest),
            "best_step": held.as_ref().map(|held| held.best_step),
            "stopped_early": held.as_ref().and_then(|held| held.stopped_early),
            "event": "run", "dir": self.dir, "job": self.mark.job, "name": self.mark.name,
            "steps": self.steps.len(), "first_loss": self.loss(self.steps.first()),
            "last_loss": self.loss(self.steps.last()), "late_loss": self.late_loss(),
            "tokens_per_second": self.rate(), "settings": settings,
            "record_digest": self.mark.result.as_ref().map(|result| &result["record_digest"]),
        })
    }
}

/// The rows of settings, in the order of the first run that has them.
fn settings(runs: &[ComparedRun], all: bool) -> Vec<Vec<String>> {
    let mut keys: Vec<&str> = Vec::new();
    for (key, _) in runs.iter().flat_map(|run| &run.mark.settings) {
        if !keys.contains(&key.as_str()) && key != FOLDER {
            keys.push(key);
        }
    }
    let differs = |key: &&str| {
        let mut values = runs.iter().map(|run| run.setting(key));
        let first = values.next();
        all || values.any(|value| Some(value) != first)
    };
    let of = |key| row(key, runs, |run| run.setting(key).unwrap_or("-".to_string()));
    keys.into_iter().filter(differs).map(of).collect()
}

/// What they found on held-out sequences, where any of them has some.
fn held_out(runs: &[ComparedRun]) -> Vec<Vec<String>> {
    if runs.iter().all(|run| run.held().is_none()) {
        return Vec::new();
    }
    let of = |name: &str, cell: fn(Held) -> String| {
        row(name, runs, |run| run.held().map_or("-".to_string(), cell))
    };
    vec![
        of("eval_loss", |held| shown(Some(held.loss))),
        of("lowest eval_loss", |held| {
            format!("{:.4} (step {})", held.lowest, held.best_step)
        }),
        of("stopped early", |held| match held.stopped_early {
            Some(true) => "yes".to_string(),
            Some(false) => "no".to_string(),
            None => "-".to_string(),
        }),
    ]
}

fn row(name: &str, runs: &[ComparedRun], cell: impl Fn(&ComparedRun) -> String) -> Vec<String> {
    let cells = runs.iter().map(cell);
    std::iter::once(name.to_string()).chain(cells).collect()
}

fn shown(loss: Option<f64>) -> String {
    loss.map_or("-".to_string(), |loss| format!("{loss:.4}"))
}

#[cfg(test)]
mod tests {
    use concord_proto::{Digest, JobId};

    use super::*;
    use crate::support::job_mark::ResultKind;

    fn compared(settings: &[(&str, &str)], evaluations: &[(u64, f64)]) -> ComparedRun {
        let mut mark = Mark::new(JobId(Digest([1; 32])), "a", ResultKind::Lora);
        let settings = settings.iter();
        mark.settings = settings
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect();
        let evaluations = evaluations.iter();
        ComparedRun {
            dir: "out/a".to_string(),
            mark,
            steps: Vec::new(),
            evaluations: evaluations
                .map(|(step, loss)| json!({ "step": step, "eval_loss": loss }))
                .collect(),
        }
    }

    #[test]
    fn one_setting_written_in_two_ways_is_no_difference() {
        let one = compared(
            &[
                ("z_loss", "0.0"),
                ("lr_scheduler", "\"cosine\""),
                ("seed", "1"),
            ],
            &[],
        );
        let other = compared(
            &[("z_loss", "0"), ("lr_scheduler", "cosine"), ("seed", "2")],
            &[],
        );
        let told = settings(&[one, other], false);
        assert_eq!(told, [["seed", "1", "2"]]);
    }

    #[test]
    fn evaluations_are_compared() {
        let evaluated = compared(&[], &[(0, 1.0), (1, 2.0), (2, 3.0)]);
        let runs = [evaluated, compared(&[], &[])];
        let told = held_out(&runs);
        assert_eq!(told[0], ["eval_loss", "3.0000", "-"]);
        assert_eq!(told[1], ["lowest eval_loss", "2.0000 (step 1)", "-"]);
        assert_eq!(runs[0].object()["best_step"], 1);
        assert!(held_out(&runs[1..]).is_empty());
    }
}
