//! `concord train FILE --dry-run`: what a job would do, and what it takes.

use concord_models::config::Span;
use concord_models::memory::TrainingBytes;
use serde_json::json;

use super::room;
use crate::support::bytes::size;
use crate::support::ingest::Ingested;
use crate::support::kept_states;
use crate::support::output::{Output, counted};
use crate::support::profile::KeptFormats;

/// Prints steps, tokens, memory and disk of a job that keeps so many folders of checkpoints, and a
/// state for replay after every `replay_every` steps.
///
/// # Errors
/// Where the formats of the model's weights cannot be read.
pub fn print(
    ingested: &Ingested,
    save_total_limit: u32,
    replay_every: u32,
    output: &Output,
) -> anyhow::Result<()> {
    let told = ingested.told.iter();
    told.for_each(|told| told.tell(output));
    let (spec, run, steps) = (&ingested.spec, &ingested.run, &ingested.steps);
    let kept = KeptFormats::of(&ingested.folder)?;
    let config = ingested.folder.config();
    let bytes = TrainingBytes::of(config, run, &|name| kept.get(name));
    let memory = bytes.stage(Span::from(0..spec.layers), 1).total();
    let sequences = spec.sequences_per_step();
    let tokens = ingested.step_tokens;
    let needs = room::Needs::of(spec, steps, save_total_limit, replay_every);
    let replay = match kept_states::count(spec, replay_every) {
        0 => "no states (replay_steps)".to_string(),
        count => format!(
            "{} for {}, one every {}",
            size(needs.replay),
            counted(count.into(), "state"),
            counted(replay_every.into(), "step")
        ),
    };
    let text = format!(
        "job         {}\nsteps       {}, {} of them warm-up, a checkpoint every {}\nstep        {} \
         of at most {} tokens, on average {tokens} in all\ntokens      {} in all steps\n\
         memory      {} on one worker; \
         `concord plan --job` cuts it\ndisk        {} for the result, {} for checkpoints\n\
         replay      {replay}",
        spec.id(),
        steps.steps,
        steps.warmup,
        steps.save,
        counted(sequences, "sequence"),
        run.sequence_len,
        tokens * u64::from(steps.steps),
        size(memory),
        size(needs.result),
        size(needs.checkpoints),
    );
    let object = json!({
        "event": "dry_run", "job": spec.id().to_string(), "steps": steps.steps,
        "warmup_steps": steps.warmup, "save_steps": steps.save,
        "sequences_per_step": sequences, "tokens_per_step": tokens,
        "tokens": tokens * u64::from(steps.steps), "memory_bytes": memory,
        "result_bytes": needs.result, "checkpoint_bytes": needs.checkpoints,
        "replay_steps": replay_every, "replay_bytes": needs.replay,
    });
    output.result(&text, &object);
    Ok(())
}
