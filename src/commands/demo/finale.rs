//! The end of the demo: checks the proof, shows what the model has learnt, and compares the hashes.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::act::Outcome;
use super::job::HASH;
use super::screen::{Screen, Tone, printable};
use super::script::LIAR;
use super::{corpus, program};

const COMPLETION_TOKENS: &str = "56";

/// Checks the proof of an act, and the weights with it.
///
/// # Errors
/// Where they do not hold.
pub async fn prove(last: &Outcome, screen: &Screen) -> anyhow::Result<Value> {
    let title = "The proof, now that all of them are gone";
    screen.heading(4, title);
    screen.object(&json!({ "event": "act", "act": 4, "title": title }));
    let model = last.output.display().to_string();
    let proof = last.output.join("proof").display().to_string();
    let named = ["verify", &proof, "--model", &model, "--coordinator"];
    let mut args: Vec<String> = named.map(str::to_string).to_vec();
    args.push(last.coordinator.clone());
    // The reader knows coordinator and checkers: they are of this machine.
    for key in &last.checkers {
        args.extend(["--checker".to_string(), key.clone()]);
    }
    let mut verified = program::run(&args, "verified").await?;
    let count = |key: &str| verified[key].to_string();
    screen.good(&format!(
        "{} pieces of work in {} steps: chain, signatures and coverage hold",
        count("leaves"),
        count("steps")
    ));
    screen.good(&format!(
        "{} of them, drawn once they were signed, were re-run: {} agree",
        count("audits_drawn"),
        count("audits_agreed")
    ));
    screen.good(&format!(
        "the {} tensors of the model are those of the last step",
        count("tensors_checked")
    ));
    verified["act"] = json!(4);
    screen.object(&verified);
    Ok(verified)
}

/// How the model in a folder continues the prompt. With its seed it is the same on every machine.
///
/// # Errors
/// Where it cannot be computed.
pub async fn complete(model: &Path) -> anyhow::Result<String> {
    let model = model.display().to_string();
    let args = [
        "generate",
        "--model",
        &model,
        "--prompt",
        corpus::PROMPT,
        "--raw",
    ];
    let sampling = ["--temperature", "0.5", "--seed", "7", "--ignore-eos"];
    let length = ["--max-tokens", COMPLETION_TOKENS];
    let completion = program::run(&[&args[..], &length, &sampling].concat(), "completion").await?;
    let text = completion["text"]
        .as_str()
        .context("a completion without a text")?;
    Ok(format!("{}{text}", corpus::PROMPT))
}

/// The outcomes of all acts.
pub struct Finale {
    pub outcomes: Vec<Outcome>,
    /// What `concord verify` printed.
    pub proof: Value,
    /// A completion of the model before the training.
    pub before: String,
    pub after: String,
    /// Duration of the whole demo.
    pub took: Duration,
}

impl Finale {
    /// Shows the result.
    ///
    /// # Errors
    /// Where hashes differ, or not exactly the liar was convicted.
    pub fn show(&self, screen: &Screen) -> anyhow::Result<()> {
        let hashes: Vec<&str> = self.outcomes.iter().map(|outcome| &*outcome.hash).collect();
        let convicted: Vec<&str> = self
            .outcomes
            .iter()
            .flat_map(|outcome| &outcome.convicted)
            .map(|n| &**n)
            .collect();
        let (hash, seconds) = (*hashes.first().context("no act was played")?, self.took);
        let is_proven = self.proof["record_digest"] == hash;
        screen.line("");
        screen.fact("before", &format!("\"{}\"", printable(&self.before)));
        screen.fact(
            "after",
            &format!("\"{}\"", printable(sentences(&self.after))),
        );
        screen.line("");
        for (number, found) in (1..).zip(&hashes) {
            screen.fact(&format!("act {number}"), &screen.hash(found));
        }
        screen.object(&json!({
            "event": "result", "record_digest": hash, "hashes": hashes, "convicted": convicted,
            "verified": is_proven, "completion_before": self.before, "completion": self.after,
            "sentences": corpus::sentences(&self.after), "seconds": seconds.as_secs_f64(),
        }));
        if hashes.iter().any(|found| *found != hash) {
            bail!("the hashes of the acts differ");
        }
        if hash != HASH {
            bail!(
                "this machine comes to the hash {hash}, and all others to {HASH}: that is a bug of \
                 Concord, or a processor that computes wrongly; please report it"
            );
        }
        if convicted != [LIAR] {
            bail!(
                "{LIAR} alone lied, but convicted were: {}",
                convicted.join(", ")
            );
        }
        if !is_proven {
            bail!("the proof is that of another hash");
        }
        screen.line("");
        let told = format!(
            "one job, three pools, one hash, in {:.0} s",
            seconds.as_secs_f64()
        );
        screen.line(&format!("  {}", screen.paint(Tone::Strong, &told)));
        screen.line("");
        Ok(())
    }
}

/// A text up to its last full stop. The rest is an incomplete sentence, cut off by the limit on
/// tokens.
fn sentences(text: &str) -> &str {
    text.rfind('.').map_or(text, |stop| &text[..=stop])
}
