//! The jobs of a coordinator as a table of text, and as JSON objects.

use concord_proto::client::{JobState, JobSummary};
use serde_json::{Value, json};

use crate::support::table::table;

/// A table of jobs as text.
pub fn as_text(jobs: &[JobSummary]) -> String {
    if jobs.is_empty() {
        return "no jobs".to_string();
    }
    let row = |job: &JobSummary| {
        let loss = job
            .loss
            .map_or(String::new(), |loss| format!("{:.4}", loss.get()));
        let steps = format!("{}/{}", job.step, job.steps);
        [
            job.job.0.short(),
            job.name.clone(),
            steps,
            loss,
            state(&job.state),
        ]
    };
    table(
        ["job", "name", "steps", "loss", "state"],
        &jobs.iter().map(row).collect::<Vec<_>>(),
    )
}

fn state(state: &JobState) -> String {
    match state {
        JobState::Waiting(what) => format!("waiting: {what}"),
        JobState::Running => "running".to_string(),
        JobState::Auditing => "auditing".to_string(),
        JobState::Completed { record, .. } => format!("completed, hash {}", record.short()),
        JobState::Failed(reason) => format!("failed: {reason}"),
        JobState::Cancelled => "cancelled".to_string(),
    }
}

/// A job as a JSON object.
pub fn as_json(job: &JobSummary) -> Value {
    let (state, reason, record) = match &job.state {
        JobState::Waiting(what) => ("waiting", Some(what), None),
        JobState::Running => ("running", None, None),
        JobState::Auditing => ("auditing", None, None),
        JobState::Completed { record, .. } => ("completed", None, Some(record.to_string())),
        JobState::Failed(reason) => ("failed", Some(reason), None),
        JobState::Cancelled => ("cancelled", None, None),
    };
    json!({
        "event": "job", "job": job.job.to_string(), "name": job.name, "state": state,
        "reason": reason, "record_digest": record, "step": job.step, "steps": job.steps,
        "loss": job.loss.map(|loss| loss.get()),
    })
}

#[cfg(test)]
mod tests {
    use concord_proto::{Digest, JobId};

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
    fn the_table_has_a_line_for_each_job() {
        let mut done = job(1);
        done.state = JobState::Completed {
            record: Digest([9; 32]),
            state: Digest([8; 32]),
        };
        done.loss = Some(2.5_f32.into());
        let text = as_text(&[job(0xa1), done]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "job       name  steps  loss    state");
        assert_eq!(lines[1], "a1000000  a     1/2            running");
        assert_eq!(
            lines[2],
            "01000000  a     1/2    2.5000  completed, hash 09090909"
        );
        assert_eq!(as_text(&[]), "no jobs");
    }
}
