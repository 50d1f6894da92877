//! What a worker holds of a final step for checkers, and what it forgets.

use concord_proto::session::Opening;
use concord_proto::{LeafKey, LeafPhase};

use super::EngineEvent;
use super::openings::addresses;
use super::tests::Driven;
use crate::faults::Faults;

impl Driven {
    /// Whether the worker gives out all blobs that an opening names.
    fn gives_out(&self, opening: &Opening) -> bool {
        let openings = self.shared.openings.lock().unwrap();
        let mut named = addresses(opening).into_iter();
        named.all(|address| openings.blob(&address).is_some())
    }
}

/// Of a final step a worker holds what opens the leaves that are audited, and no more: least of all
/// the moments of every step that waits for its audits.
#[tokio::test]
async fn what_is_not_audited_is_forgotten_with_the_commit() {
    let [forward, reduce, update] = [
        (LeafPhase::Forward, 1),
        (LeafPhase::Reduce, 0),
        (LeafPhase::Update, 0),
    ]
    .map(|(phase, microbatch)| LeafKey { phase, microbatch });
    let mut engine = Driven::start(Faults::default()).await;
    engine.step_with(0, None).await;
    let all = [forward, reduce, update].map(|leaf| engine.open(0, leaf));
    assert!(all.iter().all(|opening| engine.gives_out(opening)));
    engine.tell(EngineEvent::Abort { job: engine.job });
    engine.step_audited(0, vec![forward, reduce]).await;
    assert_eq!(engine.committed().await.0, 1);
    assert_eq!(engine.open(0, forward), all[0]);
    assert_eq!(engine.open(0, reduce), all[1]);
    assert_eq!(engine.open(0, update), Opening::Gone);
    assert!(engine.gives_out(&all[0]) && engine.gives_out(&all[1]));
    let Opening::Inputs(ports) = &all[2] else {
        panic!("an update is opened by its inputs");
    };
    let moments = Opening::Inputs(vec![ports[1].clone()]);
    assert!(!engine.gives_out(&moments), "moments are still held");
}
