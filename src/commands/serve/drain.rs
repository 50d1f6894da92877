//! The end of a server: running answers are finished first.

use std::time::Duration;

use anyhow::bail;
use serde_json::json;

use super::stand::Stand;
use crate::support::output::Output;
use crate::support::signals::EndSignals;

/// Refuses new requests, lets running answers end within `patience`, and ends the server. The next
/// signal ends it at once.
///
/// # Errors
/// Where answers were cut; says how many.
pub async fn end(
    stand: Stand,
    signal: &str,
    mut signals: EndSignals,
    patience: Duration,
    output: Output,
) -> anyhow::Result<()> {
    let under_way = stand.gateway.under_way();
    let (running, seconds) = (under_way.answers(), patience.as_secs());
    eprintln!(
        "{signal}: draining: {} under way, for {seconds} s at most; again to end at once",
        answers(running)
    );
    output.result(
        "",
        &json!({ "event": "draining", "answers": running, "seconds": seconds }),
    );
    // Counted when the signal comes: dropping the stand cuts its answers.
    let again = async {
        let signal = signals.next().await;
        (signal, under_way.answers())
    };
    tokio::select! {
        cut = stand.stop(patience) => match cut? {
            0 => Ok(()),
            cut => bail!("{} cut after --drain-seconds {seconds}", answers(cut)),
        },
        (signal, cut) = again => {
            bail!("{signal} again: ended at once, {} cut", answers(cut))
        }
    }
}

fn answers(count: usize) -> String {
    match count {
        1 => "1 answer".to_string(),
        _ => format!("{count} answers"),
    }
}
