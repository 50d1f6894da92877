//! The members of a pool on this machine: looked after, and told about.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::member::{Member, Start};

/// How often members are looked after.
const TICK: Duration = Duration::from_millis(100);

/// The members of a pool on this machine. Their processes end when this is dropped.
pub struct Crew {
    inner: Arc<Inner>,
    task: JoinHandle<()>,
}

/// What is wrong with a crew, for whoever asks. It keeps nobody alive.
#[derive(Clone)]
pub struct Troubles {
    inner: Arc<Inner>,
}

struct Inner {
    members: Mutex<Vec<Member>>,
    /// Why no worker is left, once none is.
    hopeless: watch::Sender<Option<String>>,
}

impl Crew {
    /// Nobody yet. To be called within a tokio runtime.
    pub fn new() -> Self {
        let inner = Arc::new(Inner {
            members: Mutex::default(),
            hopeless: watch::Sender::new(None),
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
        let member = Member::start(start)?;
        lock(&self.inner.members).push(member);
        Ok(())
    }

    /// What is wrong with them, now and later.
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
        // All at once: each is waited for when it is dropped.
        members.iter_mut().for_each(Member::kill);
    }
}

impl Troubles {
    /// What is wrong with members, and what is done about it, in words.
    pub fn now(&self) -> Option<String> {
        let troubles: Vec<String> = lock(&self.inner.members)
            .iter()
            .filter_map(Member::trouble)
            .collect();
        (!troubles.is_empty()).then(|| troubles.join("; "))
    }

    /// Waits until there were workers and none of them is started again; why. Cancel safe.
    pub async fn hopeless(&self) -> String {
        let mut told = self.inner.hopeless.subscribe();
        // The sender lives as long as this.
        let reason = told.wait_for(Option::is_some).await;
        reason.ok().and_then(|r| r.clone()).unwrap_or_default()
    }
}

impl Inner {
    fn look(&self) {
        let mut members = lock(&self.members);
        for member in &mut *members {
            if let Some(news) = member.look() {
                eprintln!("{news}");
            }
        }
        let workers = || members.iter().filter(|member| member.is_worker());
        if workers().count() > 0 && workers().all(Member::is_given_up) {
            let why: Vec<String> = workers().filter_map(Member::trouble).collect();
            let why = format!("no worker of this machine is left: {}", why.join("; "));
            self.hopeless.send_if_modified(|told| {
                let is_news = told.is_none();
                told.get_or_insert(why);
                is_news
            });
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
