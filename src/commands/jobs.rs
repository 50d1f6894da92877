//! `concord jobs`: the jobs of a coordinator.

use anyhow::bail;
use concord_proto::JobId;
use concord_proto::client::{ClientRequest, ClientResponse, JobEvent, JobSummary};
use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::output::Output;
use crate::support::{job_events, job_list};

/// Options of `concord jobs`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  concord jobs                                      # of the coordinator on this machine
  concord jobs watch 3f2a                           # an id may be cut short
  concord jobs cancel 3f2a --coordinator concord://KEY@10.0.0.1:7700")]
pub struct JobsArgs {
    /// The coordinator.
    #[arg(
        long,
        global = true,
        default_value = "concord://127.0.0.1:7700",
        value_name = "URL"
    )]
    coordinator: String,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(clap::Subcommand)]
enum Command {
    /// List the jobs; this is also done without a command.
    List,
    /// Show the events of a job from its beginning, until it ends.
    Watch {
        /// The job, or the first digits of its id.
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Stop a job; its checkpoints stay, and the job goes on from them when it is submitted again.
    Cancel {
        /// The job, or the first digits of its id.
        #[arg(value_name = "ID")]
        id: String,
    },
}

/// Lists, watches or cancels jobs.
///
/// # Errors
/// Where the coordinator cannot be reached, not exactly one job has the id, or a watched job fails.
#[tokio::main]
pub async fn run(args: &JobsArgs, output: &Output) -> anyhow::Result<()> {
    let client = Client::connect(&args.coordinator).await?;
    let jobs = match client.call(&ClientRequest::Jobs).await? {
        ClientResponse::Jobs(jobs) => jobs,
        other => bail!("the coordinator answers {other:?}"),
    };
    match &args.command {
        None | Some(Command::List) => {
            list(&jobs, output);
            Ok(())
        }
        Some(Command::Watch { id }) => watch(&client, find(&jobs, id)?, output).await,
        Some(Command::Cancel { id }) => cancel(&client, find(&jobs, id)?.job, output).await,
    }
}

fn list(jobs: &[JobSummary], output: &Output) {
    if output.is_json() {
        jobs.iter()
            .for_each(|job| output.result("", &job_list::as_json(job)));
    } else {
        output.result(&job_list::as_text(jobs), &Value::Null);
    }
}

/// The one job whose id begins with `prefix`.
fn find<'a>(jobs: &'a [JobSummary], prefix: &str) -> anyhow::Result<&'a JobSummary> {
    let prefix = prefix.to_lowercase();
    let begins = |job: &&JobSummary| job.job.to_string().starts_with(&prefix);
    let found: Vec<&JobSummary> = jobs.iter().filter(begins).collect();
    let names = |jobs: &[&JobSummary]| {
        let names: Vec<String> = jobs.iter().map(|job| job.job.0.short()).collect();
        names.join(", ")
    };
    match found.as_slice() {
        [job] => Ok(job),
        [] if jobs.is_empty() => bail!("no job '{prefix}': the coordinator has no jobs"),
        [] => bail!(
            "no job '{prefix}': there are {}",
            names(&jobs.iter().collect::<Vec<_>>())
        ),
        several => bail!(
            "'{prefix}' could be any of {}: give more digits",
            names(several)
        ),
    }
}

async fn cancel(client: &Client, job: JobId, output: &Output) -> anyhow::Result<()> {
    match client.call(&ClientRequest::Cancel(job)).await? {
        ClientResponse::Cancelled => {
            let object = json!({ "event": "cancelled", "job": job.to_string() });
            output.result(&format!("cancelled {job}"), &object);
            Ok(())
        }
        other => bail!("the coordinator answers {other:?}"),
    }
}

async fn watch(client: &Client, job: &JobSummary, output: &Output) -> anyhow::Result<()> {
    let mut events = client.watch(job.job, 0).await?;
    let mut next = events.next().await?;
    let mut base = None;
    while let Some(event) = next {
        let is_end = matches!(event, JobEvent::Failed(_) | JobEvent::Cancelled);
        // Only a job that was submitted again has events after its end.
        let after = match is_end {
            true => events.next().await.ok().flatten(),
            false => None,
        };
        if is_end && after.is_none() {
            output.result("", &job_events::as_json(&event));
            match event {
                JobEvent::Failed(reason) => bail!("the job failed: {reason}"),
                _ => bail!("the job was cancelled"),
            }
        }
        base = job_events::base_loss(&event).or(base);
        let text = line(&event, job.steps).or_else(|| job_events::describe(&event, base));
        output.result(&text.unwrap_or_default(), &job_events::as_json(&event));
        if matches!(event, JobEvent::Completed { .. }) {
            return Ok(());
        }
        next = match after {
            Some(after) => Some(after),
            None => events.next().await?,
        };
    }
    bail!("lost the coordinator before the job was done")
}

/// An event as a line, also those that `concord train` shows as a bar.
fn line(event: &JobEvent, steps: u32) -> Option<String> {
    match event {
        JobEvent::Step { .. } => Some(job_events::step_line(event, steps, None)),
        JobEvent::Audited {
            worker,
            checker,
            step,
            evaluation,
            leaf,
        } => Some(format!(
            "audited {leaf} of {} by {}: {} agrees",
            match evaluation {
                true => format!("the evaluation after step {step}"),
                false => format!("step {}", step + 1),
            },
            worker.short(),
            checker.short()
        )),
        JobEvent::Completed {
            record,
            audits,
            inconclusive,
            ..
        } => Some(format!(
            "completed: {audits} audits agreed, {inconclusive} could not be re-run\nhash {record}"
        )),
        JobEvent::Failed(reason) => Some(format!("failed: {reason}")),
        JobEvent::Cancelled => Some("cancelled".to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use concord_proto::Digest;
    use concord_proto::client::JobState;

    use super::*;

    fn job(first: u8) -> JobSummary {
        let mut digest = [0; 32];
        digest[0] = first;
        JobSummary {
            job: JobId(Digest(digest)),
            name: "a".to_string(),
            state: JobState::Running,
            step: 1,
            steps: 2,
            loss: None,
        }
    }

    #[test]
    fn a_prefix_finds_one_job_or_says_why_not() {
        let jobs = [job(0xa1), job(0xa2), job(0xb0)];
        assert_eq!(find(&jobs, "B").unwrap().job, jobs[2].job);
        assert_eq!(
            find(&jobs, &jobs[0].job.to_string()).unwrap().job,
            jobs[0].job
        );
        let error = |prefix| find(&jobs, prefix).unwrap_err().to_string();
        assert_eq!(
            error("a"),
            "'a' could be any of a1000000, a2000000: give more digits"
        );
        assert_eq!(
            error("c"),
            "no job 'c': there are a1000000, a2000000, b0000000"
        );
        assert!(
            find(&[], "c")
                .unwrap_err()
                .to_string()
                .ends_with("has no jobs")
        );
    }
}
