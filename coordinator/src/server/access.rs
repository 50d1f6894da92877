//! Which keys may do what at a coordinator: a file, read again whenever it changes.
//!
//! Each line has a role, a key, and a note for people; `*` in place of the key lets everybody in:
//!
//! ```text
//! # role   key                                                               note
//! worker   *
//! checker  3f2a6c...                                                         ann's machine
//! client   77ab01...
//! admin    98ef4d...
//! revoked  aa0133...
//! ```
//!
//! A role without a line lets nobody in. A revoked key is out of all of them, and its session ends.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use concord_proto::PublicKey;
use concord_proto::session::Role;
use tokio::sync::watch;

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Who is let in, in one role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Every key.
    Open,
    /// These keys alone.
    Listed(BTreeSet<PublicKey>),
}

impl Admission {
    fn takes(&self, key: &PublicKey) -> bool {
        match self {
            Self::Open => true,
            Self::Listed(keys) => keys.contains(key),
        }
    }

    fn add(&mut self, key: Option<PublicKey>) {
        match (&mut *self, key) {
            (Self::Listed(keys), Some(key)) => {
                keys.insert(key);
            }
            (_, None) => *self = Self::Open,
            (Self::Open, Some(_)) => {}
        }
    }
}

/// Who may do what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolAccess {
    /// Who may hold stages.
    pub workers: Admission,
    /// Who may re-run leaves.
    pub checkers: Admission,
    /// Who may submit jobs.
    pub clients: Admission,
    /// Clients that see and stop the jobs of all.
    pub admins: BTreeSet<PublicKey>,
    /// Who is let in nowhere.
    pub revoked: BTreeSet<PublicKey>,
}

/// Why a file of keys is not taken.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// It cannot be read.
    #[error("{path}: {why}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        why: std::io::Error,
    },
    /// A line means nothing.
    #[error(
        "{path}:{line}: {what}: a line has a role (worker, checker, client, admin, revoked), and a \
         key of 64 hexadecimal digits or * for everybody"
    )]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
}

impl PoolAccess {
    /// Everybody may join and submit; the jobs of others are seen by `admins` alone.
    pub fn open(admins: impl IntoIterator<Item = PublicKey>) -> Self {
        Self {
            workers: Admission::Open,
            checkers: Admission::Open,
            clients: Admission::Open,
            admins: admins.into_iter().collect(),
            revoked: BTreeSet::new(),
        }
    }

    /// Everybody may join; only `admins` may ask for anything.
    pub fn of_one_process(admins: impl IntoIterator<Item = PublicKey>) -> Self {
        Self {
            clients: Admission::Listed(BTreeSet::new()),
            ..Self::open(admins)
        }
    }

    /// For a coordinator at which it does not change.
    pub fn fixed(self) -> watch::Receiver<Self> {
        watch::channel(self).1
    }

    /// Reads a file of keys.
    ///
    /// # Errors
    /// [`AccessError`], naming the line.
    pub fn read(path: &Path) -> Result<Self, AccessError> {
        let text = std::fs::read_to_string(path).map_err(|why| AccessError::Io {
            path: path.to_path_buf(),
            why,
        })?;
        Self::of(&text).map_err(|(line, what)| AccessError::Line {
            path: path.to_path_buf(),
            line,
            what,
        })
    }

    /// The same of its text; else the number of the line, and what is wrong with it.
    fn of(text: &str) -> Result<Self, (usize, String)> {
        let nobody = || Admission::Listed(BTreeSet::new());
        let mut access = Self {
            workers: nobody(),
            checkers: nobody(),
            clients: nobody(),
            admins: BTreeSet::new(),
            revoked: BTreeSet::new(),
        };
        let mut is_empty = true;
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_whitespace();
            let Some(role) = words.next() else {
                continue;
            };
            let at = |what: String| (number, what);
            let key = words
                .next()
                .ok_or_else(|| at(format!("{role:?} has no key")))?;
            access.add(role, key).map_err(at)?;
            is_empty = false;
        }
        // An editor may empty a file before it writes it.
        match is_empty {
            true => Err((1, "it lets nobody in".to_string())),
            false => Ok(access),
        }
    }

    fn add(&mut self, role: &str, key: &str) -> Result<(), String> {
        let of_one = || key.parse::<PublicKey>();
        let of_all = || match key {
            "*" => Ok(None),
            _ => of_one().map(Some),
        };
        match role {
            "worker" => self.workers.add(of_all()?),
            "checker" => self.checkers.add(of_all()?),
            "client" => self.clients.add(of_all()?),
            "admin" => {
                self.admins.insert(of_one()?);
            }
            "revoked" => {
                self.revoked.insert(of_one()?);
            }
            _ => return Err(format!("{role:?} is no role")),
        }
        Ok(())
    }

    /// Whether a key may have a session in a role.
    pub(super) fn takes_member(&self, role: Role, key: &PublicKey) -> bool {
        let is_taken = match role {
            Role::Worker => self.workers.takes(key),
            Role::Checker => self.checkers.takes(key),
            // It audits jobs whose submitter has named it, and nothing else.
            Role::Auditor => self.checkers.takes(key) || self.clients.takes(key),
        };
        is_taken && !self.revoked.contains(key)
    }

    /// Whether a key may submit jobs and ask for its own.
    pub(super) fn takes_client(&self, key: &PublicKey) -> bool {
        (self.clients.takes(key) || self.admins.contains(key)) && !self.revoked.contains(key)
    }

    /// Whether a key sees and stops the jobs of all.
    pub(super) fn is_admin(&self, key: &PublicKey) -> bool {
        self.admins.contains(key) && !self.revoked.contains(key)
    }

    /// Whether a key has any business here: it may read and store blobs.
    pub(super) fn takes(&self, key: &PublicKey) -> bool {
        self.takes_client(key)
            || self.takes_member(Role::Worker, key)
            || self.takes_member(Role::Checker, key)
    }
}

/// What a file of keys says, from now on, with one more admin: it is read again when it changes.
/// Where it cannot be read then, what it said before holds, and the log says why. Ends with what it
/// gives.
///
/// # Errors
/// [`AccessError`] where it cannot be read now.
pub fn follow(path: PathBuf, admin: PublicKey) -> Result<watch::Receiver<PoolAccess>, AccessError> {
    let read = move |path: &Path| {
        let mut access = PoolAccess::read(path)?;
        access.admins.insert(admin);
        Ok::<_, AccessError>(access)
    };
    let mut seen = changed(&path);
    let (told, access) = watch::channel(read(&path)?);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = told.closed() => return,
            }
            let now = changed(&path);
            if now == seen {
                continue;
            }
            seen = now;
            match read(&path) {
                Ok(access) => {
                    tracing::info!("{} is read again", path.display());
                    told.send_replace(access);
                }
                Err(why) => tracing::error!("{why}; what it said before holds"),
            }
        }
    });
    Ok(access)
}

/// When a file was changed, and its length: two changes may share a time.
fn changed(path: &Path) -> Option<(SystemTime, u64)> {
    let about = std::fs::metadata(path).ok()?;
    Some((about.modified().ok()?, about.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> PublicKey {
        PublicKey([byte; 32])
    }

    fn line(role: &str, byte: u8) -> String {
        format!("{role} {} a note\n", key(byte))
    }

    #[test]
    fn a_file_says_who_may_do_what() {
        let text = "# a pool\n\nworker *\n".to_string()
            + &line("checker", 1)
            + &line("client", 2)
            + &line("admin", 3)
            + &line("revoked", 4)
            + "client *   # all, after all\n";
        let access = PoolAccess::of(&text).unwrap();
        assert!(access.takes_member(Role::Worker, &key(9)));
        assert!(access.takes_member(Role::Checker, &key(1)));
        assert!(!access.takes_member(Role::Checker, &key(9)));
        assert!(access.takes_client(&key(9)) && !access.is_admin(&key(9)));
        assert!(access.is_admin(&key(3)) && access.takes_client(&key(3)));
        assert!(!access.takes(&key(4)), "revoked");
        let nobody = PoolAccess::of(&line("revoked", 1)).unwrap();
        assert!(!nobody.takes(&key(2)));
    }

    #[test]
    fn a_line_that_means_nothing_is_named() {
        for (text, number, words) in [
            ("worker", 1, "has no key"),
            ("\nowner *", 2, "is no role"),
            ("worker *\nadmin *", 2, "is not a key"),
            ("client abc", 1, "is not a key"),
            ("revoked *", 1, "is not a key"),
            ("# nothing\n", 1, "nobody"),
        ] {
            let (line, what) = PoolAccess::of(text).expect_err(text);
            assert!(
                line == number && what.contains(words),
                "{text}: {line}: {what}"
            );
        }
    }
}
