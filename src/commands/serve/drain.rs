//! The end of a server: answers under way are finished first.

use std::time::{Duration, Instant};

use anyhow::bail;
use serde_json::json;

use super::engine::PoolEngine;
use super::stand::Stand;
use crate::support::output::Output;
use crate::support::signals::EndSignals;

/// Between two looks at what is under way. A request that was let in just before may show at the
/// second only.
const LOOK: Duration = Duration::from_millis(50);

/// How long the last words of answers that are done may take to reach whoever asked.
const LAST_WORDS_MAX: Duration = Duration::from_secs(5);

/// Takes on nothing new, lets answers under way end within `patience`, and ends. The next signal
/// ends it at once.
///
/// # Errors
/// Where answers were cut; how many.
pub async fn end(
    stand: Stand,
    signal: &str,
    mut signals: EndSignals,
    patience: Duration,
    output: Output,
) -> anyhow::Result<()> {
    let engine = stand.engine.clone();
    engine.end();
    let (under_way, seconds) = (engine.under_way(), patience.as_secs());
    eprintln!(
        "{signal}: draining: {} under way, for {seconds} s at most; again to end at once",
        answers(under_way)
    );
    output.result(
        "",
        &json!({ "event": "draining", "answers": under_way, "seconds": seconds }),
    );
    let drained = async {
        let left = idle(&engine, patience).await;
        let patience = match left {
            0 => LAST_WORDS_MAX,
            _ => Duration::ZERO,
        };
        stand.stop(patience).await?;
        anyhow::Ok(left)
    };
    tokio::select! {
        left = drained => match left? {
            0 => Ok(()),
            left => bail!("{} cut after --drain-seconds {seconds}", answers(left)),
        },
        signal = signals.next() => {
            bail!("{signal} again: ended at once, {} cut", answers(engine.under_way()))
        }
    }
}

fn answers(count: u32) -> String {
    match count {
        1 => "1 answer".to_string(),
        _ => format!("{count} answers"),
    }
}

/// Waits until nothing is under way, but not for longer than `patience`; how many answers are left.
async fn idle(engine: &PoolEngine, patience: Duration) -> u32 {
    let (start, mut was_idle) = (Instant::now(), false);
    loop {
        let left = engine.under_way();
        if left == 0 && was_idle || start.elapsed() >= patience {
            return left;
        }
        was_idle = left == 0;
        tokio::time::sleep(LOOK).await;
    }
}
