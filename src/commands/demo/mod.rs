//! `concord demo`: training, failure, conviction and proof on one machine, with a model and data
//! that it makes itself.

mod act;
mod corpus;
mod finale;
mod job;
mod model;
mod pool;
mod program;
mod screen;
mod script;
mod testimony;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::json;

use crate::support::output::Output;
use crate::support::scratch::Scratch;
use finale::Finale;
use job::DemoJob;
use screen::{Screen, Tone};

/// Options of `concord demo`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  concord demo
  concord demo --keep demo        # then: concord verify demo/tuned-3/proof --model demo/tuned-3")]
pub struct DemoArgs {
    /// Keep model, data, job files, tuned models and proofs in this new folder.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// How long hanging threads may delay the end.
const SHUTDOWN_MAX: Duration = Duration::from_secs(5);

/// Plays the acts and checks the proof.
///
/// # Errors
/// Where a part of it does not work: hashes differ, the wrong party or nobody is convicted, or the
/// proof does not hold.
pub fn run(args: &DemoArgs, output: &Output) -> anyhow::Result<()> {
    let scratch = Scratch::make()?;
    let home = match &args.keep {
        Some(dir) => new_folder(dir)?,
        None => scratch.path().join("demo"),
    };
    let (pools, screen) = (scratch.path().join("pools"), Screen::new(*output));
    let runtime = tokio::runtime::Runtime::new().context("cannot start the demo's threads")?;
    let result = runtime.block_on(async {
        tokio::select! {
            result = play(&home, &pools, &screen) => result,
            () = interrupted() => Err(anyhow::anyhow!("interrupted")),
        }
    });
    screen.end_bar();
    // Running tasks may write into the folder, so they end before it is removed.
    runtime.shutdown_timeout(SHUTDOWN_MAX);
    if let (Ok(()), Some(dir)) = (&result, &args.keep) {
        let dir = dir.display();
        screen.line(&format!("  kept in {dir}; go on with"));
        screen.line(&format!(
            "    concord verify {dir}/tuned-3/proof --model {dir}/tuned-3"
        ));
        screen.line(&format!(
            "    concord generate --model {dir}/tuned-3 --prompt \"Two\" --raw"
        ));
        screen.line("");
    }
    result
}

/// Waits for Ctrl-C or SIGTERM.
async fn interrupted() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminated) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminated.recv() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}

fn new_folder(dir: &Path) -> anyhow::Result<PathBuf> {
    let place = dir.display();
    std::fs::create_dir_all(dir).with_context(|| format!("--keep: cannot make {place}"))?;
    let mut entries = std::fs::read_dir(dir).with_context(|| format!("--keep {place}"))?;
    if entries.next().is_some() {
        bail!("--keep {place}: the folder is not empty; name a new one");
    }
    Ok(dir.to_path_buf())
}

async fn play(home: &Path, pools: &Path, screen: &Screen) -> anyhow::Result<()> {
    let started = Instant::now();
    let job = DemoJob::make(home)?;
    introduce(&job, screen);
    let before = finale::complete(&job.base()).await?;
    let mut outcomes: Vec<act::Outcome> = Vec::new();
    for act in script::acts() {
        let dir = pools.join(act.number.to_string());
        outcomes.push(act::play(&act, &job, &dir, screen).await?);
        // The state of a pool is no longer needed; removing it takes a while.
        tokio::task::spawn_blocking(|| std::fs::remove_dir_all(dir));
    }
    let last = outcomes.last().context("no act was played")?;
    let proof = finale::prove(last, screen).await?;
    let after = finale::complete(&last.output).await?;
    Finale {
        outcomes,
        proof,
        before,
        after,
        took: started.elapsed(),
    }
    .show(screen)
}

fn introduce(job: &DemoJob, screen: &Screen) {
    let (weights, bytes) = (job.weights, job.text.len());
    let sample = job.text.split_inclusive('.').next().unwrap_or_default();
    screen.line("");
    let title = screen.paint(Tone::Strong, "concord demo");
    screen.line(&format!(
        "  {title}  one job, one hash, whatever machines do the work"
    ));
    screen.line("");
    screen.fact(
        "model",
        &format!(
            "a Llama of {} layers, {} random weights",
            model::LAYERS,
            thousands(weights)
        ),
    );
    screen.fact(
        "data",
        &format!("{} bytes of sentences like \"{sample}\"", thousands(bytes)),
    );
    screen.fact(
        "job",
        &format!(
            "train every weight, {} steps of {} microbatches",
            job::STEPS,
            job::MICROBATCHES
        ),
    );
    screen.fact(
        "where",
        "a coordinator and a process for each machine, all on this computer",
    );
    screen.object(&json!({
        "event": "made", "layers": model::LAYERS, "hidden": model::HIDDEN, "weights": weights,
        "data_bytes": bytes, "steps": job::STEPS, "microbatches": job::MICROBATCHES,
    }));
}

/// A number with a comma after each group of three digits.
fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev();
    groups
        .filter_map(|group| std::str::from_utf8(group).ok())
        .collect::<Vec<_>>()
        .join(",")
}

#[cfg(test)]
mod tests {
    #[test]
    fn thousands_are_told_apart() {
        assert_eq!(
            ["7", "205,632", "1,000,000"],
            [7, 205_632, 1_000_000].map(super::thousands)
        );
    }
}
