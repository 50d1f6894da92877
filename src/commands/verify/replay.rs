//! A part of a job computed again on this machine: segments between kept states, drawn by chance
//! once the proof is there.

use std::ops::Range;
use std::time::Instant;

use anyhow::{Context, anyhow, bail};
use concord_models::train::TrainState;
use concord_proto::manifest::{StateEntry, state_roots};
use concord_proto::{Digest, StepRecord};
use concord_runtime::RuntimeError;
use concord_runtime::training::replay::{ChunkReader, Replay, StateFault, read_state};
use concord_verify::training::bundle::Bundle;
use concord_verify::training::segments::{Segments, least_seen, unseen};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::percent::percent_below;
use super::replay_case::{Case, job_seconds, needs};
use super::verdict::Refuted;

use super::{ReplayCount, VerifyArgs};
use crate::support::kept_states::KeptStates;
use crate::support::output::{Output, counted};

/// The share of draws that the report asks for when it says how many false segments are seen.
const SURE: f64 = 0.99;

/// The probability with which one false segment has to be seen, where not all are computed.
const SEEN_MIN: f64 = 0.1;

/// What a replay has shown. One that found a false record is an error instead.
pub struct ReplayReport {
    /// Segments of the job, steps of its chain, and of the longest segment.
    segments: u32,
    chain: u32,
    longest: u32,
    /// How many of them were drawn.
    pub drawn: u32,
    /// Those that could not be computed, for want of the state before them.
    pub missing: Vec<MissingSegment>,
    /// Steps of the chain that came out as signed.
    steps: u32,
    seed: Digest,
    seconds: f64,
    /// Seconds of the steps of the job itself, where its log is beside the proof.
    job_seconds: Option<f64>,
}

/// A segment that could not be computed.
pub struct MissingSegment {
    /// Its steps.
    pub words: String,
    pub why: String,
}

/// Computes the segments that are drawn, if that is asked for.
///
/// # Errors
/// [`Refuted`], naming the first step that comes out otherwise, or the tensor of a kept state that
/// is not the one that was signed; others where model or data are missing, or not those of the job.
pub fn run(
    args: &VerifyArgs,
    bundle: &Bundle,
    output: &Output,
) -> anyhow::Result<Option<ReplayReport>> {
    let Some(count) = args.replay else {
        return Ok(None);
    };
    let Some(job) = &args.job else {
        bail!("{}; give it with --job FILE", needs(bundle));
    };
    let kept = KeptStates::of(&args.path, &bundle.spec)?;
    let segments = Segments::new(kept.steps.keys().copied(), bundle.records.len() as u32);
    let all = segments.all();
    let seed = match args.replay_seed {
        Some(seed) => seed,
        None => fresh()?,
    };
    let drawn = match count {
        ReplayCount::All => (0..all.len()).collect(),
        ReplayCount::Some(count) => segments.draw(count as usize, &seed.0),
    };
    let case = Case::open(args, job, bundle, output)?;
    let run = Run {
        bundle,
        kept: &kept,
        case: &case,
        output,
        bar: bar(
            bundle,
            drawn.iter().map(|&index| all[index].clone()),
            output,
        )?,
    };
    let start = Instant::now();
    let mut report = ReplayReport {
        segments: all.len() as u32,
        chain: bundle.records.len() as u32,
        longest: all
            .iter()
            .map(|steps| steps.len() as u32)
            .max()
            .unwrap_or(0),
        drawn: drawn.len() as u32,
        missing: Vec::new(),
        steps: 0,
        seed,
        seconds: 0.0,
        job_seconds: job_seconds(&args.path),
    };
    run.segments(&drawn, &all, &mut report)?;
    run.bar.finish_and_clear();
    report.seconds = start.elapsed().as_secs_f64();
    Ok(Some(report))
}

/// Randomness of this machine, which nobody could have known when the job was done.
fn fresh() -> anyhow::Result<Digest> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)
        .map_err(|why| anyhow!("the system gives no randomness ({why}): give --replay-seed"))?;
    Ok(Digest(seed))
}

/// A bar over the microbatches of all drawn segments; drawn only on a terminal.
fn bar(
    bundle: &Bundle,
    drawn: impl Iterator<Item = Range<u32>>,
    output: &Output,
) -> anyhow::Result<ProgressBar> {
    let microbatches = drawn
        .flatten()
        .map(|step| bundle.spec.microbatches_of(step));
    let total = microbatches.map(u64::from).sum();
    let bar = match output.is_json() {
        true => ProgressBar::hidden(),
        false => ProgressBar::new(total),
    };
    let style = "{bar:20} {pos}/{len} microbatches  {per_sec}  eta {eta}  {msg}";
    bar.set_style(ProgressStyle::with_template(style)?);
    Ok(bar)
}

struct Run<'a> {
    bundle: &'a Bundle,
    kept: &'a KeptStates,
    case: &'a Case,
    output: &'a Output,
    bar: ProgressBar,
}

impl Run<'_> {
    fn segments(
        &self,
        drawn: &[usize],
        all: &[Range<u32>],
        report: &mut ReplayReport,
    ) -> anyhow::Result<()> {
        let mut chunk = self.case.chunks();
        let mut chunk = |address| chunk.get(address);
        // Taken by the first segment that can be computed: model and data are loaded once.
        let mut waiting: Option<&mut ChunkReader> = Some(&mut chunk);
        let mut replay: Option<Replay> = None;
        for &index in drawn {
            let segment = all[index].clone();
            let words = self.words(&segment);
            self.bar.set_message(words.clone());
            let start = Instant::now();
            let state = match self.state(segment.start)? {
                Ok(state) => state,
                Err(why @ StateFault::Missing { .. }) => {
                    self.tell(
                        index,
                        all.len(),
                        &words,
                        &json!({ "missing": why.to_string() }),
                    );
                    let why = why.to_string();
                    report.missing.push(MissingSegment { words, why });
                    continue;
                }
                Err(why @ StateFault::Wrong { .. }) => {
                    let place = self.place(segment.start);
                    return Err(Refuted(format!("the state {place}: {why}")).into());
                }
            };
            match &mut replay {
                Some(replay) => replay.go_to(state, segment.start)?,
                none => {
                    let chunk = waiting.take().context("the data are in use")?;
                    let case = self.case.replay(self.bundle, chunk);
                    *none = Some(Replay::new(case, state, segment.start)?);
                }
            }
            if let Some(replay) = &mut replay {
                self.steps(replay, segment.clone())?;
            }
            report.steps += segment.len() as u32;
            let seconds = start.elapsed().as_secs_f64();
            self.tell(index, all.len(), &words, &json!({ "seconds": seconds }));
        }
        Ok(())
    }

    /// The state after so many steps, each tensor checked against what was signed.
    fn state(&self, steps: u32) -> anyhow::Result<Result<TrainState, StateFault>> {
        let entries = self.bundle.state_after(steps);
        let entries = entries.context("the claims have no entry for a tensor")?;
        let mut read = |address| match steps {
            // The job file gives it.
            0 => self.case.first(address),
            _ => self.kept.read(address),
        };
        Ok(read_state(&self.bundle.spec, &entries, &mut read))
    }

    /// Computes the steps of a segment, and compares each record.
    fn steps(&self, replay: &mut Replay, segment: Range<u32>) -> anyhow::Result<()> {
        let records = &self.bundle.records;
        let before = segment
            .start
            .checked_sub(1)
            .map(|last| &records[last as usize]);
        if let Some(before) = before {
            // What the claims name is what the chain of records binds.
            let roots = (before.state_root, before.optimizer_root);
            if state_roots(&replay.entries()) != roots {
                let place = self.place(segment.start);
                let why = format!("the state {place} is not the one that its record binds");
                return Err(Refuted(why).into());
            }
        }
        let mut previous = before.map_or(self.bundle.spec.id().0, StepRecord::digest);
        for step in segment {
            let found = match replay.step(previous, &mut || self.bar.inc(1)) {
                Err(why @ RuntimeError::Diverged { .. }) => {
                    return Err(Refuted(format!("computed here, {why}")).into());
                }
                found => found?,
            };
            let signed = &records[step as usize];
            if let Some(differs) = differs(&found.record, signed) {
                let tensor = self.tensor(step, &found.entries);
                let step = self.bundle.spec.words(step);
                let why = format!("{step}, computed here, has {differs}{tensor}");
                return Err(Refuted(why).into());
            }
            previous = signed.digest();
        }
        Ok(())
    }

    /// The first tensor whose state after a step is another than was signed, in words.
    fn tensor(&self, step: u32, found: &[StateEntry]) -> String {
        let signed = self.bundle.state_after(step + 1).unwrap_or_default();
        let mut pairs = self
            .bundle
            .spec
            .trainable
            .iter()
            .zip(found.iter().zip(&signed));
        let differs = pairs.find(|(_, (found, signed))| found != signed);
        differs.map_or(String::new(), |(tensor, (found, signed))| {
            let part = match found.value == signed.value {
                true => "the moments",
                false => "the value",
            };
            format!(
                "; the first tensor that differs is `{}`: {part}",
                tensor.name
            )
        })
    }

    /// A state, for people.
    fn place(&self, steps: u32) -> String {
        match steps {
            0 => "before the first step".to_string(),
            _ => format!("after step {}", self.bundle.spec.updates_before(steps)),
        }
    }

    /// The steps of a segment, for people: updates are counted from 1.
    fn words(&self, segment: &Range<u32>) -> String {
        let spec = &self.bundle.spec;
        let (before, done) = (
            spec.updates_before(segment.start),
            spec.updates_before(segment.end),
        );
        match done.saturating_sub(before) {
            0 => spec.words(segment.start),
            1 => format!("step {done}"),
            _ => format!("steps {} to {done}", before + 1),
        }
    }

    /// Tells what became of a segment: in the terminal above the bar, as a line elsewhere.
    fn tell(&self, index: usize, count: usize, words: &str, what: &Value) {
        let mut object = json!({
            "event": "segment", "segment": index + 1, "segments": count, "steps": words,
            "agrees": what["missing"].is_null(),
        });
        object["missing"] = what["missing"].clone();
        object["seconds"] = what["seconds"].clone();
        if self.output.is_json() {
            return self.output.result("", &object);
        }
        let outcome = match (what["missing"].as_str(), what["seconds"].as_f64()) {
            (Some(why), _) => format!("not shown: {why}"),
            (None, seconds) => format!("agrees, {:.1} s", seconds.unwrap_or_default()),
        };
        let line = format!("segment {} of {count}, {words}: {outcome}", index + 1);
        match self.bar.is_hidden() {
            true => eprintln!("{line}"),
            false => self.bar.println(line),
        }
    }
}

/// The first field of a record in which it differs from the signed one, in words.
fn differs(found: &StepRecord, signed: &StepRecord) -> Option<String> {
    let numbers = |name: &str, found: f32, signed: f32| {
        format!("another {name} than was signed ({found}, and not {signed})")
    };
    let root = |name: &str, found: Digest, signed: Digest| {
        let (found, signed) = (found.short(), signed.short());
        format!("another {name} than was signed ({found}, and not {signed})")
    };
    let fields = [
        (
            found.batch_root != signed.batch_root,
            root("choice of data", found.batch_root, signed.batch_root),
        ),
        (
            found.loss != signed.loss,
            numbers("loss", found.loss.get(), signed.loss.get()),
        ),
        (
            found.grad_norm != signed.grad_norm,
            numbers(
                "gradient norm",
                found.grad_norm.get(),
                signed.grad_norm.get(),
            ),
        ),
        (
            found.learning_rate != signed.learning_rate,
            numbers(
                "learning rate",
                found.learning_rate.get(),
                signed.learning_rate.get(),
            ),
        ),
        (
            found.state_root != signed.state_root,
            root("state", found.state_root, signed.state_root),
        ),
        (
            found.optimizer_root != signed.optimizer_root,
            root(
                "state of the optimizer",
                found.optimizer_root,
                signed.optimizer_root,
            ),
        ),
        (
            found != signed,
            "another record than was signed".to_string(),
        ),
    ];
    let mut fields = fields.into_iter();
    fields.find_map(|(differs, words)| differs.then_some(words))
}

impl ReplayReport {
    /// Whether every step was computed.
    pub fn is_all(&self) -> bool {
        self.agreed() == self.segments
    }

    /// Segments that came out as signed.
    pub fn agreed(&self) -> u32 {
        self.drawn - self.missing.len() as u32
    }

    /// The probability that `wrong` false segments go unseen. One whose state is missing shows
    /// nothing: it is as if it had not been drawn.
    fn unseen(&self, wrong: u32) -> f64 {
        unseen(self.segments, self.agreed(), wrong)
    }

    /// What was done, a line for each.
    pub fn lines(&self) -> Vec<String> {
        let beside = self.job_seconds.map_or(String::new(), |seconds| {
            format!("; the job took {seconds:.1} s")
        });
        let mut lines = vec![format!(
            "replay      {} of {} computed again, {} in {:.1} s{beside}",
            self.agreed(),
            counted(self.segments.into(), "segment"),
            counted(self.steps.into(), "step"),
            self.seconds
        )];
        lines.extend(
            self.missing
                .iter()
                .map(|missing| format!("missing     {}: {}", missing.words, missing.why)),
        );
        lines.push(format!("replay seed {}", self.seed));
        lines
    }

    /// What is shown, a sentence for each.
    pub fn shown(&self) -> Vec<String> {
        if self.agreed() == 0 {
            return Vec::new();
        }
        if self.is_all() {
            return vec![
                "every step of the job: this machine has computed it from the base model and the \
                 data, and all records came out"
                    .to_string(),
            ];
        }
        let sure = match least_seen(self.segments, self.agreed(), SURE) {
            Some(fewest) => format!("; from {fewest} on, at least one is seen with 99 %"),
            None => String::new(),
        };
        vec![format!(
            "{} of {} segments, drawn here, are what this machine computes: one false segment \
             would have been among them with {:.2} %{sure}",
            self.agreed(),
            self.segments,
            percent_below(1.0 - self.unseen(1))
        )]
    }

    /// Why it shows too little, where all that was drawn came out. Which states are kept is the
    /// job's choice: one long segment would seldom be drawn.
    pub fn weakness(&self) -> Option<String> {
        let Self {
            segments, longest, ..
        } = *self;
        if self.is_all() {
            return None;
        }
        if u64::from(longest) * u64::from(segments) > 2 * u64::from(self.chain) {
            return Some(format!(
                "the states that were kept cut the job unevenly, one segment has {longest} of {} \
                 steps, and a draw shows little: --replay all",
                self.chain
            ));
        }
        let seen = 1.0 - self.unseen(1);
        (seen < SEEN_MIN).then(|| {
            format!(
                "one false segment of {segments} is seen with {:.2} % only: give --replay {}",
                percent_below(seen),
                (f64::from(segments) * SEEN_MIN).ceil()
            )
        })
    }

    pub fn object(&self) -> Value {
        let missing = self.missing.iter();
        let missing: Vec<Value> = missing
            .map(|missing| json!({ "steps": missing.words, "why": missing.why }))
            .collect();
        json!({
            "segments": self.segments, "drawn": self.drawn, "agreed": self.agreed(),
            "missing": missing, "steps": self.steps, "seed": self.seed.to_string(),
            "seconds": self.seconds, "job_seconds": self.job_seconds,
            "unseen_one": self.unseen(1),
            "seen_99": least_seen(self.segments, self.agreed(), SURE),
        })
    }
}
