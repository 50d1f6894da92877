//! Adapters on their way into the stages of a plan.

use std::collections::BTreeSet;

use concord_proto::Digest;
use concord_proto::serving::ToStage;
use concord_scheduler::SchedulerEvent as Event;
use tokio::sync::oneshot;

use super::Pipeline;
use super::answers::UNLOADED;

/// An adapter that stages are loading.
pub(super) struct Loading {
    adapter: Digest,
    /// Seats that have it.
    have: BTreeSet<usize>,
    /// Told once all have it; nobody waits where a plan catches up.
    done: Option<oneshot::Sender<Result<(), String>>>,
}

impl Pipeline {
    pub(super) fn add_adapter(
        &mut self,
        adapter: Digest,
        done: oneshot::Sender<Result<(), String>>,
    ) {
        self.removing.retain(|(removed, _)| *removed != adapter);
        self.loading.push(Loading {
            adapter,
            have: BTreeSet::new(),
            done: Some(done),
        });
        // A pipeline that is not there loads it when it is.
        if self.is_up() {
            self.send_all(&ToStage::AddAdapter(adapter));
        }
    }

    pub(super) fn remove_adapter(&mut self, adapter: Digest) {
        self.loading.retain(|loading| loading.adapter != adapter);
        let all = self.answers.iter();
        let users = all.filter(|(_, answer)| answer.uses(&adapter));
        for sequence in users.map(|(sequence, _)| *sequence).collect::<Vec<_>>() {
            self.fail_for_good(sequence, UNLOADED);
            self.events.push_back(Event::Cancel { sequence });
        }
        self.work_off();
        // No pass from here on uses it; those in flight may.
        let next = self.epoch.as_ref().map_or(0, |epoch| {
            let last = epoch.passes.keys().next_back();
            last.map_or(0, |last| last + 1)
        });
        self.removing.push((adapter, next));
        self.let_adapters_go();
    }

    /// Has stages drop adapters that no pass in flight uses any more.
    pub(super) fn let_adapters_go(&mut self) {
        let Some(epoch) = self.epoch.as_ref().filter(|epoch| epoch.is_up) else {
            // A plan that comes up is made without them.
            return self.removing.clear();
        };
        let oldest = epoch.passes.keys().next().copied().unwrap_or(u64::MAX);
        let is_free = |(_, next): &mut (Digest, u64)| *next <= oldest;
        let free: Vec<(Digest, u64)> = self.removing.extract_if(.., is_free).collect();
        for (adapter, _) in free {
            self.send_all(&ToStage::RemoveAdapter(adapter));
        }
    }

    /// A plan is up: its stages load what was added since it was made.
    pub(super) fn load_adapters(&mut self) {
        let Some(epoch) = &self.epoch else {
            return;
        };
        let mut wanted: BTreeSet<Digest> = self.hub.state().adapters.clone();
        wanted.retain(|adapter| !epoch.adapters.contains(adapter));
        self.loading.retain(|loading| loading.done.is_some());
        for loading in &mut self.loading {
            loading.have.clear();
            wanted.remove(&loading.adapter);
        }
        self.loading
            .extend(wanted.into_iter().map(|adapter| Loading {
                adapter,
                have: BTreeSet::new(),
                done: None,
            }));
        let all: Vec<Digest> = self.loading.iter().map(|loading| loading.adapter).collect();
        for adapter in all {
            self.send_all(&ToStage::AddAdapter(adapter));
        }
    }

    pub(super) fn on_adapter(&mut self, seat: usize, adapter: Digest, outcome: Result<(), String>) {
        let stages = self.epoch.as_ref().map_or(0, |epoch| epoch.seats.len());
        let mut all = self.loading.iter_mut();
        let Some(at) = all.position(|loading| loading.adapter == adapter) else {
            return;
        };
        let loading = &mut self.loading[at];
        match outcome {
            Ok(()) => {
                loading.have.insert(seat);
                if loading.have.len() == stages {
                    let loaded = self.loading.swap_remove(at);
                    loaded.tell(Ok(()));
                }
            }
            Err(why) => {
                let failed = self.loading.swap_remove(at);
                if failed.done.is_none() {
                    // Others use it already: the stage is of no use without it.
                    return self.lose(seat, &format!("it cannot load an adapter: {why}"));
                }
                failed.tell(Err(why));
            }
        }
    }
}

impl Loading {
    fn tell(self, outcome: Result<(), String>) {
        if let Some(done) = self.done {
            // Whoever asked may have given up.
            let _ = done.send(outcome);
        }
    }
}
