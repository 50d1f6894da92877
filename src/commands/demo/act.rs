//! An act: one pool, one run of the job, and what happens to the pool meanwhile.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::job::{DemoJob, STEPS};
use super::pool::{ActorRole, DemoPool};
use super::program::Program;
use super::screen::{Screen, list};
use super::script::{Act, Kill};
use super::testimony::Testimony;

/// The outcome of an act.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The digest of the last step record.
    pub hash: String,
    /// Who was convicted.
    pub convicted: Vec<String>,
    /// The key of the coordinator.
    pub coordinator: String,
    /// The keys of the checkers.
    pub checkers: Vec<String>,
    /// Where weights and proof are.
    pub output: PathBuf,
}

/// Plays an act in the folder `dir`.
///
/// # Errors
/// Where a process cannot be started or the job fails.
pub async fn play(
    act: &Act,
    job: &DemoJob,
    dir: &Path,
    screen: &Screen,
) -> anyhow::Result<Outcome> {
    screen.heading(act.number, act.title);
    screen.object(&json!({ "event": "act", "act": act.number, "title": act.title }));
    let pool = DemoPool::start(dir, &act.actors).await?;
    let mut play = Play {
        act,
        screen,
        train: start_training(act, &job.file(act.number)?, &pool)?,
        pool,
        started: Instant::now(),
        kill: act.kill,
        killed: None,
        committed: 0,
        losses: None,
        has_plan: false,
        next_plan: None,
        convicted: Vec::new(),
    };
    screen.start_bar(STEPS);
    let outcome = play.watch().await;
    screen.end_bar();
    let stopped = play.pool.stop().await;
    let outcome = outcome?;
    stopped?;
    Ok(outcome)
}

fn start_training(act: &Act, file: &Path, pool: &DemoPool) -> anyhow::Result<Program> {
    let workers = act
        .actors
        .iter()
        .filter(|actor| actor.role != ActorRole::Checker)
        .count();
    let workers = workers.to_string();
    let (file, url) = (file.display().to_string(), pool.url());
    let job = ["train", &file, "--coordinator", &url, "--plan", act.plan];
    let wait = ["--min-workers", &workers, "--min-checkers", "1"];
    let audits = ["--audit-rate", "0.2"];
    Program::start(&[&job[..], &wait, &audits].concat())
}

/// A running act.
struct Play<'a> {
    act: &'a Act,
    screen: &'a Screen,
    pool: DemoPool,
    train: Program,
    started: Instant,
    /// The kill that has not happened yet.
    kill: Option<Kill>,
    /// When a worker was killed, until the next step is committed.
    killed: Option<Instant>,
    /// Committed steps.
    committed: u32,
    /// The losses of the first and of the last committed step.
    losses: Option<(f64, f64)>,
    has_plan: bool,
    /// A line on the newest plan, printed once that plan has committed a step: plans may be
    /// replaced before that.
    next_plan: Option<String>,
    convicted: Vec<String>,
}

impl Play<'_> {
    /// Shows the events of the job until it is done.
    async fn watch(&mut self) -> anyhow::Result<Outcome> {
        self.object(json!({ "event": "members", "members": self.members() }));
        while let Some(event) = self.train.next().await? {
            if event["event"] == "result" {
                return self.finish(&event);
            }
            self.object(event.clone());
            match event["event"].as_str() {
                Some("planned") => self.planned(&event),
                Some("step") => self.step(&event).await?,
                Some("lost") => self.lost(&event),
                Some("convicted") => self.conviction(&event),
                Some("voided") => self.voided(&event),
                Some("failed") => bail!("the job failed: {}", text(&event, "reason")),
                _ => {}
            }
        }
        bail!("the training ended without a result")
    }

    /// Who is in the pool, with the keys by which events name them.
    fn members(&self) -> Vec<Value> {
        let mut members = Vec::new();
        for (actor, key) in self.pool.actors() {
            let device = actor.device();
            members.push(json!({ "name": actor.name, "key": key, "device": device }));
        }
        members
    }

    fn object(&self, mut object: Value) {
        object["act"] = json!(self.act.number);
        self.screen.object(&object);
    }

    fn planned(&mut self, event: &Value) {
        let workers = event["workers"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        if !self.has_plan {
            self.has_plan = true;
            self.introduce(workers);
            return;
        }
        let mut names: Vec<String> = workers
            .iter()
            .map(|worker| self.name(worker, "worker"))
            .collect();
        names.sort();
        let verb = if names.len() == 1 { "goes" } else { "go" };
        let step = number(event, "step") + 1;
        self.next_plan = Some(format!("{} {verb} on from step {step}", list(&names)));
    }

    /// Prints the role of each member.
    fn introduce(&self, workers: &[Value]) {
        for worker in workers {
            let Some(actor) = self.pool.actor(text(worker, "worker")) else {
                continue;
            };
            let run = |key: &str| format!("{}..{}", worker[key][0], worker[key][1]);
            let (layers, microbatches) = (run("layers"), run("microbatches"));
            let device = actor.device();
            let facts = format!("{device:<11}layers {layers:<7}microbatches {microbatches}");
            self.screen.fact(actor.name, &facts);
        }
        for (actor, _) in self.pool.actors() {
            let device = actor.device();
            match actor.role {
                ActorRole::Worker => {}
                ActorRole::Checker => {
                    self.screen
                        .fact(actor.name, &format!("{device:<11}re-runs what others did"));
                }
                ActorRole::Liar { from_step } => self.screen.bad(&format!(
                    "from step {} on, {} computes on other data than it signs for",
                    from_step + 1,
                    actor.name
                )),
            }
        }
    }

    async fn step(&mut self, event: &Value) -> anyhow::Result<()> {
        self.committed = number(event, "step") + 1;
        let loss = event["loss"].as_f64().unwrap_or(f64::NAN);
        self.losses = Some((self.losses.map_or(loss, |(first, _)| first), loss));
        self.screen.move_bar(self.committed, loss);
        if let Some(plan) = self.next_plan.take() {
            self.screen.good(&plan);
        }
        if let Some(killed) = self.killed.take() {
            let (step, seconds) = (self.committed, killed.elapsed().as_secs_f64());
            self.screen.good(&format!(
                "step {step} is committed {seconds:.2} s after the kill"
            ));
        }
        let committed = self.committed;
        let Some(kill) = self.kill.take_if(|kill| kill.after == committed) else {
            return Ok(());
        };
        let micros = event["micros"].as_u64().unwrap_or_default();
        tokio::time::sleep(Duration::from_micros(micros / 2)).await;
        self.kill(kill.victim).await?;
        self.pool.join(kill.heir)?;
        self.screen
            .note(&format!("{} comes instead", kill.heir.name));
        self.object(json!({ "event": "joined", "name": kill.heir.name }));
        Ok(())
    }

    async fn kill(&mut self, victim: &str) -> anyhow::Result<()> {
        let step = self.committed + 1;
        self.pool.kill(victim).await?;
        self.killed = Some(Instant::now());
        self.screen.bad(&format!(
            "{victim} is killed (kill -9) in the middle of step {step}"
        ));
        self.object(json!({ "event": "killed", "name": victim, "in_step": step - 1 }));
        Ok(())
    }

    fn lost(&self, event: &Value) {
        let name = self.name(event, "worker");
        match self.killed {
            Some(killed) => {
                let millis = killed.elapsed().as_millis();
                self.screen
                    .good(&format!("the coordinator misses {name} after {millis} ms"));
            }
            None => self
                .screen
                .bad(&format!("{name} is lost: {}", text(event, "reason"))),
        }
    }

    fn conviction(&mut self, event: &Value) {
        let name = self.name(event, "culprit");
        let evidence = text(event, "evidence");
        match Testimony::of(evidence, &|short| self.pool.name_of_short(short)) {
            Some(testimony) => {
                let checkers = list(&testimony.checkers);
                self.screen
                    .note(&format!("{checkers} re-run {}", testimony.piece));
                let (claimed, found) = (testimony.claimed, testimony.found);
                self.screen
                    .note(&format!("{name} signed {claimed}, and it is {found}"));
            }
            None => self.screen.note(evidence),
        }
        self.screen
            .good(&format!("{name} is convicted: {}", text(event, "offence")));
        self.convicted.push(name);
    }

    fn voided(&mut self, event: &Value) {
        let (first, last) = (number(event, "from_step") + 1, self.committed);
        let culprits = list(&self.convicted);
        self.screen.note(&format!(
            "steps {first} to {last} are void: {culprits} had a part in them"
        ));
        self.committed = first - 1;
    }

    fn finish(&self, result: &Value) -> anyhow::Result<Outcome> {
        let hash = text(result, "record_digest").to_string();
        let seconds = self.started.elapsed().as_secs_f64();
        let (first, last) = self.losses.unwrap_or((f64::NAN, f64::NAN));
        let audits = &result["audits"];
        self.screen.good(&format!(
            "{STEPS} steps in {seconds:.1} s, loss {first:.2} to {last:.2}, {audits} audits agree"
        ));
        self.screen.fact("hash", &self.screen.hash(&hash));
        let output = result["output_dir"]
            .as_str()
            .context("the result names no folder")?;
        self.object(json!({
            "event": "act_done", "record_digest": hash, "convicted": self.convicted,
            "loss": last, "audits": audits, "seconds": seconds, "output_dir": output,
        }));
        Ok(Outcome {
            hash,
            convicted: self.convicted.clone(),
            coordinator: self.pool.coordinator(),
            checkers: self.checkers(),
            output: PathBuf::from(output),
        })
    }

    fn checkers(&self) -> Vec<String> {
        let actors = self.pool.actors();
        let checkers = actors.filter(|(actor, _)| matches!(actor.role, ActorRole::Checker));
        checkers.map(|(_, key)| key.to_string()).collect()
    }

    fn name(&self, object: &Value, key: &str) -> String {
        self.pool.name(text(object, key))
    }
}

fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    object[key].as_str().unwrap_or_default()
}

fn number(object: &Value, key: &str) -> u32 {
    object[key]
        .as_u64()
        .and_then(|number| u32::try_from(number).ok())
        .unwrap_or_default()
}
