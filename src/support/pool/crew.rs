//! The members of a pool on this machine: watched, started again, and reported on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use concord_proto::session::Role;
use tokio::task::JoinHandle;

use super::member::{LocalMember, Start, role_name};

/// How often members are checked.
const TICK: Duration = Duration::from_millis(100);

/// The members of a pool on this machine. Their processes end when this is dropped.
pub struct Crew {
    inner: Arc<Inner>,
    task: JoinHandle<()>,
}

/// What is wrong with a crew. Holding it does not keep the members running.
#[derive(Clone)]
pub struct Troubles {
    inner: Arc<Inner>,
}

struct Inner {
    members: Mutex<Vec<LocalMember>>,
    /// Whether they have been asked to leave, so that their end is expected.
    is_leaving: AtomicBool,
}

impl Crew {
    /// An empty crew. Must be called within a tokio runtime.
    pub fn new() -> Self {
        let inner = Arc::new(Inner {
            members: Mutex::default(),
            is_leaving: AtomicBool::new(false),
        });
        let looked_after = inner.clone();
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(TICK);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                looked_after.look();
            }
        });
        Self { inner, task }
    }

    /// Starts a member, and keeps it running from now on.
    ///
    /// # Errors
    /// Where its process cannot be started.
    pub fn join(&self, start: Start) -> anyhow::Result<()> {
        let member = LocalMember::start(start)?;
        lock(&self.inner.members).push(member);
        Ok(())
    }

    /// Asks the workers to leave, which they do once their state is stored, and waits for that, at
    /// most for `patience`. No member is started again.
    pub async fn leave(&self, patience: Duration) {
        self.inner.is_leaving.store(true, Ordering::Relaxed);
        self.inner.each_worker(LocalMember::ask_to_leave);
        let since = Instant::now();
        while since.elapsed() < patience {
            let mut runs = false;
            self.inner.each_worker(|worker| runs |= worker.runs());
            if !runs {
                return;
            }
            tokio::time::sleep(TICK).await;
        }
    }

    /// A view on what is wrong with the members.
    pub fn troubles(&self) -> Troubles {
        Troubles {
            inner: self.inner.clone(),
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.task.abort();
        let mut members = std::mem::take(&mut *lock(&self.inner.members));
        // All are killed first; dropping a member waits for it.
        members.iter_mut().for_each(LocalMember::kill);
    }
}

impl Troubles {
    /// What is wrong with members, and what is done about it, as text.
    pub fn now(&self) -> Option<String> {
        let troubles: Vec<String> = lock(&self.inner.members)
            .iter()
            .filter_map(LocalMember::trouble)
            .collect();
        (!troubles.is_empty()).then(|| troubles.join("; "))
    }

    /// Waits until fewer than `needed` members of a role are left, where there were some. Returns
    /// the reason. Cancel safe.
    pub async fn too_few(&self, role: Role, needed: usize) -> String {
        loop {
            if let Some(reason) = lack(&lock(&self.inner.members), role, needed) {
                return reason;
            }
            tokio::time::sleep(TICK).await;
        }
    }
}

impl Inner {
    fn each_worker(&self, act: impl FnMut(&mut LocalMember)) {
        let mut members = lock(&self.members);
        let workers = members.iter_mut();
        workers
            .filter(|member| member.role() == Role::Worker)
            .for_each(act);
    }

    fn look(&self) {
        if self.is_leaving.load(Ordering::Relaxed) {
            return;
        }
        for member in &mut *lock(&self.members) {
            if let Some(news) = member.look() {
                eprintln!("{news}");
            }
        }
    }
}

/// Why fewer than `needed` members of a role are left; `None` if enough are left, or there were
/// none.
fn lack(members: &[LocalMember], role: Role, needed: usize) -> Option<String> {
    let all = || members.iter().filter(|member| member.role() == role);
    let left = all().filter(|member| !member.is_given_up()).count();
    if all().count() == 0 || left >= needed {
        return None;
    }
    let given_up = all().filter(|member| member.is_given_up());
    let why: Vec<String> = given_up.filter_map(LocalMember::trouble).collect();
    let (name, why) = (role_name(role), why.join("; "));
    Some(match left {
        0 => format!("no {name} of this machine is left: {why}"),
        _ => format!("{left} of {needed} {name}s of this machine are left: {why}"),
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
