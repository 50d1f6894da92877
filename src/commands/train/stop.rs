//! What is printed, and what is saved, when a training is interrupted.

use std::path::Path;
use std::time::Duration;

use concord_coordinator::blobs::BlobStore;
use concord_coordinator::store::Store;
use concord_proto::JobId;

use crate::support::output::StoppedBySignal;
use crate::support::signals::EndSignals;

/// How many looks at a store that is still in use, and the time between two.
const LOOKS: u32 = 20;
const LOOK: Duration = Duration::from_millis(100);

/// How long an interrupted pool may take to end. One that waits for room on a full disk does not.
const STOP_MAX: Duration = Duration::from_secs(15);

/// Waits for what ends the command at once: a second signal, which is returned, or, after a first
/// one, a pool that takes too long to end. Nothing is lost by it, as by a `kill -9`.
pub async fn cut_short(signals: &mut EndSignals, is_interrupted: bool) -> Option<&'static str> {
    tokio::select! {
        signal = signals.next() => Some(signal),
        () = tokio::time::sleep(STOP_MAX), if is_interrupted => None,
    }
}

/// The message for a training that is stopped before a coordinator has the job.
pub fn early(signal: &'static str) -> anyhow::Error {
    let words = "stopped before a step was done; the same command begins again where it was";
    StoppedBySignal::new(signal, words.to_string()).into()
}

/// The message for a job of a running coordinator, where it goes on.
pub fn detached(signal: &'static str, url: &str, job: JobId, has_auditor: bool) -> anyhow::Error {
    let unaudited = match has_auditor {
        true => " without its auditor, which ends with this command",
        false => "",
    };
    let words = format!(
        "the job goes on{unaudited}; watch it with `concord jobs --coordinator {url} watch {job}`, \
         and fetch its result with the same command"
    );
    StoppedBySignal::new(signal, words).into()
}

/// The message for a job whose pool on this machine is stopped with it, after `committed` steps.
/// `saved` of these are in the newest checkpoint, if that is known.
pub fn interrupted(
    signal: &'static str,
    committed: u32,
    steps: u32,
    saved: Option<u32>,
) -> anyhow::Error {
    // A step may be committed and stored before this process hears of it.
    let committed = committed.max(saved.unwrap_or(0));
    if committed == 0 {
        return early(signal);
    }
    let goes_on = match saved {
        Some(saved) if saved >= steps => "writes the result".to_string(),
        Some(saved) if saved == committed => format!("goes on from there, with step {}", saved + 1),
        Some(saved) => format!(
            "goes on from the newest checkpoint, with step {}",
            saved + 1
        ),
        None => "goes on from the newest checkpoint".to_string(),
    };
    let words = format!("stopped after step {committed} of {steps}; the same command {goes_on}");
    StoppedBySignal::new(signal, words).into()
}

/// How many steps of a job are in the newest checkpoint that a coordinator has left in `data`.
/// `None` where its store cannot be read; the next start says why.
pub async fn saved_steps(data: &Path, job: JobId) -> Option<u32> {
    for _ in 0..LOOKS {
        if let Some(steps) = look(data, job).await {
            return Some(steps);
        }
        // The coordinator has ended, but an unfinished query may still hold its store.
        tokio::time::sleep(LOOK).await;
    }
    None
}

async fn look(data: &Path, job: JobId) -> Option<u32> {
    let store = Store::open(data).await.ok()?;
    let blobs = BlobStore::open(&data.join("blobs")).ok()?;
    let saved = store.load(&blobs).await.ok()?;
    store.close().await.ok()?;
    let mut jobs = saved.jobs.into_iter();
    let found = jobs.find(|saved| saved.new.submission.spec.id() == job)?;
    let newest = found.checkpoints.iter().map(|state| state.step).max()?;
    Some(found.new.submission.spec.updates_before(newest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_from_which_step_the_same_command_goes_on() {
        let words = |committed, saved| interrupted("Ctrl-C", committed, 30, saved).to_string();
        assert_eq!(
            words(12, Some(12)),
            "stopped after step 12 of 30; the same command goes on from there, with step 13"
        );
        assert!(words(12, Some(10)).ends_with("newest checkpoint, with step 11"));
        assert!(words(12, Some(15)).starts_with("stopped after step 15 of 30"));
        assert!(words(30, Some(30)).ends_with("the same command writes the result"));
        assert!(words(12, None).ends_with("goes on from the newest checkpoint"));
        assert!(words(0, Some(0)).contains("before a step was done"));
    }
}
