//! How many files and connections this program may have open.

/// What a worker, a checker, a coordinator or a server needs to work at all: its own files and
/// sockets, and some connections.
const NEEDED: u64 = 128;

/// Raises the limit as far as the system lets a program do that itself.
///
/// # Errors
/// Where even then it is too low: connections would hang and files fail to open later on, in places
/// that do not say why.
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
        // Some systems have a bound of their own below the one that they tell.
        Err(_) => limit.current,
    };
    check(may_open)
}

/// Other systems have no such limit.
#[cfg(not(unix))]
pub fn raise_limit() -> anyhow::Result<()> {
    Ok(())
}

/// `None` is no limit.
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
