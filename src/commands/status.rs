//! `concord status`: who is in a pool, and what they do.

use anyhow::bail;
use concord_proto::client::{ClientRequest, ClientResponse, MemberStatus, PoolStatus};
use concord_proto::session::Role;
use serde_json::{Value, json};

use crate::support::bytes::size;
use crate::support::client::Client;
use crate::support::job_list;
use crate::support::output::Output;
use crate::support::pool::role_name;
use crate::support::table::table;

/// Options of `concord status`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  concord status
  concord status --coordinator concord://KEY@10.0.0.1:7700 --json")]
pub struct StatusArgs {
    /// The coordinator.
    #[arg(long, default_value = "concord://127.0.0.1:7700", value_name = "URL")]
    coordinator: String,
}

/// Shows the pool.
///
/// # Errors
/// Where the coordinator cannot be reached.
#[tokio::main]
pub async fn run(args: &StatusArgs, output: &Output) -> anyhow::Result<()> {
    let client = Client::connect(&args.coordinator).await?;
    match client.call(&ClientRequest::Status).await? {
        ClientResponse::Status(status) => {
            output.result(&text(&status), &object(&status));
            Ok(())
        }
        other => bail!("the coordinator answers {other:?}"),
    }
}

fn text(status: &PoolStatus) -> String {
    let mut text = format!("coordinator {}\n\n", status.coordinator);
    if status.members.is_empty() {
        text += "nobody has joined: start workers with `concord worker`";
    } else {
        let headings = [
            "member", "role", "device", "speed", "memory", "audits", "doing",
        ];
        text += &table(
            headings,
            &status.members.iter().map(row).collect::<Vec<_>>(),
        );
    }
    for convicted in &status.convicted {
        text += &format!("\nconvicted {convicted}");
    }
    text + "\n\n" + &job_list::as_text(&status.jobs)
}

fn row(member: &MemberStatus) -> [String; 7] {
    [
        member.id.short(),
        role_name(member.role).to_string(),
        member.device.name.clone(),
        format!("{:.1} GMAC/s", member.device.macs_per_second as f64 / 1e9),
        size(member.device.memory_bytes),
        of_worker(member, member.audits_passed.to_string()),
        member.doing.clone(),
    ]
}

/// A cell that is shown only for workers, because the work of a checker is not audited.
fn of_worker(member: &MemberStatus, text: String) -> String {
    match member.role {
        Role::Worker => text,
        Role::Checker | Role::Auditor => "-".to_string(),
    }
}

fn object(status: &PoolStatus) -> Value {
    let member = |member: &MemberStatus| {
        let is_audited = member.role == Role::Worker;
        json!({
            "id": member.id.to_string(), "role": role_name(member.role),
            "device": member.device.name,
            "macs_per_second": member.device.macs_per_second,
            "memory_bytes": member.device.memory_bytes, "doing": member.doing,
            "audits_passed": is_audited.then_some(member.audits_passed),
        })
    };
    json!({
        "event": "status", "coordinator": status.coordinator.to_string(),
        "members": status.members.iter().map(member).collect::<Vec<_>>(),
        "convicted": status.convicted.iter().map(|id| id.to_string()).collect::<Vec<_>>(),
        "jobs": status.jobs.iter().map(job_list::as_json).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use concord_proto::PublicKey;
    use concord_proto::session::DeviceInfo;

    use super::*;

    #[test]
    fn audits_are_those_of_workers() {
        let member = |role| MemberStatus {
            id: PublicKey([7; 32]),
            role,
            device: DeviceInfo {
                name: "cpu".to_string(),
                macs_per_second: 1,
                memory_bytes: 1,
            },
            doing: "waits".to_string(),
            audits_passed: 3,
        };
        let (worker, checker) = (row(&member(Role::Worker)), row(&member(Role::Checker)));
        assert_eq!((&*worker[5], &*checker[5]), ("3", "-"));
    }
}
