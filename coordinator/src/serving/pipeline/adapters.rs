//! Adapters on their way into the stages of a plan, and out of them.

use std::collections::BTreeSet;

use concord_proto::Digest;
use tokio::sync::oneshot;

use super::fault::StageFault;

/// Adapters that stages are loading, and those that they are to drop.
#[derive(Default)]
pub(super) struct AdapterLoads {
    loading: Vec<Loading>,
    /// Adapters that are unloaded, and the first pass that is sure not to use them.
    removing: Vec<(Digest, u64)>,
}

/// An adapter that stages are loading.
struct Loading {
    adapter: Digest,
    /// Stages that have it.
    have: BTreeSet<usize>,
    /// Told once all have it. Nobody waits where the stages of a new plan catch up.
    done: Option<oneshot::Sender<Result<(), String>>>,
}

impl AdapterLoads {
    /// An adapter is to be loaded.
    pub(super) fn add(&mut self, adapter: Digest, done: oneshot::Sender<Result<(), String>>) {
        self.removing.retain(|(removed, _)| *removed != adapter);
        self.loading.push(Loading {
            adapter,
            have: BTreeSet::new(),
            done: Some(done),
        });
    }

    /// An adapter is not to be loaded any more.
    pub(super) fn cancel(&mut self, adapter: &Digest) {
        self.loading.retain(|loading| loading.adapter != *adapter);
    }

    /// Stages are to drop an adapter that no pass from number `next` on uses.
    pub(super) fn remove(&mut self, adapter: Digest, next: u64) {
        self.removing.push((adapter, next));
    }

    /// The adapters to drop that no pass uses from number `oldest` on.
    pub(super) fn free(&mut self, oldest: u64) -> Vec<Digest> {
        let is_free = |(_, next): &mut (Digest, u64)| *next <= oldest;
        let free = self.removing.extract_if(.., is_free);
        free.map(|(adapter, _)| adapter).collect()
    }

    /// The plan is over: the next one is made without the adapters that are to be dropped.
    pub(super) fn forget_removed(&mut self) {
        self.removing.clear();
    }

    /// A plan is up whose stages lack `wanted`. Gives all that they have to load.
    pub(super) fn catch_up(&mut self, mut wanted: BTreeSet<Digest>) -> Vec<Digest> {
        self.loading.retain(|loading| loading.done.is_some());
        for loading in &mut self.loading {
            loading.have.clear();
            wanted.remove(&loading.adapter);
        }
        let more = wanted.into_iter().map(|adapter| Loading {
            adapter,
            have: BTreeSet::new(),
            done: None,
        });
        self.loading.extend(more);
        self.loading.iter().map(|loading| loading.adapter).collect()
    }

    /// A stage, of so many, has loaded an adapter or cannot.
    pub(super) fn on_adapter(
        &mut self,
        stage: usize,
        stages: usize,
        adapter: Digest,
        outcome: Result<(), String>,
    ) -> Result<(), StageFault> {
        let mut all = self.loading.iter_mut();
        let Some(at) = all.position(|loading| loading.adapter == adapter) else {
            return Ok(());
        };
        let loading = &mut self.loading[at];
        match outcome {
            Ok(()) => {
                loading.have.insert(stage);
                if loading.have.len() == stages {
                    self.loading.swap_remove(at).tell(Ok(()));
                }
            }
            Err(why) => {
                let failed = self.loading.swap_remove(at);
                if failed.done.is_none() {
                    // Answers use it already: the stage is of no use without it.
                    let reason = format!("it cannot load an adapter: {why}");
                    return Err(StageFault::Lost(reason));
                }
                failed.tell(Err(why));
            }
        }
        Ok(())
    }
}

impl Loading {
    fn tell(self, outcome: Result<(), String>) {
        if let Some(done) = self.done {
            // The client may have given up.
            let _ = done.send(outcome);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADAPTER: Digest = Digest([1; 32]);

    #[test]
    fn an_adapter_is_loaded_once_all_stages_have_it() {
        let mut loads = AdapterLoads::default();
        let (done, mut loaded) = oneshot::channel();
        loads.add(ADAPTER, done);
        assert_eq!(loads.on_adapter(0, 2, ADAPTER, Ok(())), Ok(()));
        assert_eq!(loads.on_adapter(0, 2, ADAPTER, Ok(())), Ok(()));
        assert!(loaded.try_recv().is_err(), "one stage lacks it");
        // A plan that takes over in between has all stages load it again.
        assert_eq!(loads.catch_up(BTreeSet::from([ADAPTER])), [ADAPTER]);
        assert_eq!(loads.on_adapter(1, 2, ADAPTER, Ok(())), Ok(()));
        assert!(loaded.try_recv().is_err());
        assert_eq!(loads.on_adapter(0, 2, ADAPTER, Ok(())), Ok(()));
        assert_eq!(loaded.try_recv(), Ok(Ok(())));
    }

    #[test]
    fn a_stage_that_cannot_load_what_others_use_is_lost() {
        let mut loads = AdapterLoads::default();
        let (done, mut loaded) = oneshot::channel();
        loads.add(ADAPTER, done);
        let why = || Err("no room".to_string());
        assert_eq!(loads.on_adapter(0, 1, ADAPTER, why()), Ok(()));
        assert_eq!(loaded.try_recv(), Ok(why()));
        assert_eq!(loads.catch_up(BTreeSet::from([ADAPTER])), [ADAPTER]);
        let fault = loads.on_adapter(0, 1, ADAPTER, why()).unwrap_err();
        assert_eq!(
            fault,
            StageFault::lost("it cannot load an adapter: no room")
        );
    }

    #[test]
    fn an_adapter_goes_once_no_pass_can_use_it() {
        let mut loads = AdapterLoads::default();
        loads.remove(ADAPTER, 7);
        assert_eq!(loads.free(6), []);
        assert_eq!(loads.free(7), [ADAPTER]);
        assert_eq!(loads.free(u64::MAX), []);
    }
}
