//! How many files and connections this program may have open.

/// The least that a worker, a checker, a coordinator or a server needs: its own files and sockets,
/// and some connections.
const NEEDED: u64 = 128;

/// Raises the limit as far as the system allows a program to do so.
///
/// # Errors
/// Where it is still too low. Otherwise connections would hang and files fail to open later,
/// without a clear reason.
#[cfg(unix)]
pub fn raise_limit() -> anyhow::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let may_open = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        // Some systems have a lower limit than the one that they report.
        Err(_) => limit.current,
    };
    check(may_open)
}

/// Other systems have no such limit.
#[cfg(not(unix))]
pub fn raise_limit() -> anyhow::Result<()> {
    Ok(())
}

/// Refuses a limit that is too low; `None` means that there is no limit.
fn check(may_open: Option<u64>) -> anyhow::Result<()> {
    match may_open {
        Some(files) if files < NEEDED => anyhow::bail!(
            "this program may have {files} files open, and needs {NEEDED}: raise the limit, such \
             as with `ulimit -n 4096`, LimitNOFILE= of systemd, or --ulimit nofile=4096 of docker"
        ),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_few_files_are_refused_with_the_number() {
        for few in [0, 32, NEEDED - 1] {
            let refused = check(Some(few)).unwrap_err().to_string();
            assert!(refused.contains(&format!("{few} files")), "{refused}");
            assert!(refused.contains("ulimit -n"), "{refused}");
        }
        for enough in [Some(NEEDED), Some(u64::MAX), None] {
            check(enough).unwrap();
        }
    }
}
