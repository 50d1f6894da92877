//! The acts: three pools, three cuts of the model, a kill in the second and a liar in the third.

use super::pool::{Actor, ActorRole, unlike};

/// How many steps are done when a worker is killed.
const KILLED_AFTER: u32 = 20;
/// The first false step, from 0.
const LIES_FROM: u32 = 12;

/// The name of the worker that lies.
pub const LIAR: &str = "mallory";

/// What happens with one pool.
pub struct Act {
    /// Its number, from 1.
    pub number: u32,
    /// Its title on the screen.
    pub title: &'static str,
    /// Stages x replicas.
    pub plan: &'static str,
    /// The members at the start.
    pub actors: Vec<Actor>,
    /// The kill, if there is one.
    pub kill: Option<Kill>,
}

/// A worker is killed after some steps, in the middle of the next one; another one comes.
#[derive(Clone, Copy, Debug)]
pub struct Kill {
    /// The worker that is killed.
    pub victim: &'static str,
    /// Steps that are committed by then.
    pub after: u32,
    /// The worker that joins then.
    pub heir: Actor,
}

/// The acts, in order.
pub fn acts() -> [Act; 3] {
    let ways = unlike(3);
    let actor = |name, role, way: usize| {
        let (isa, threads) = ways[way];
        Actor {
            name,
            role,
            isa,
            threads,
        }
    };
    let worker = |name, way| actor(name, ActorRole::Worker, way);
    let honest = || {
        let checker = actor("trent", ActorRole::Checker, 1);
        vec![
            worker("alice", 0),
            worker("bob", 1),
            worker("carol", 2),
            checker,
        ]
    };
    let mut with_liar = honest();
    with_liar.push(actor(
        LIAR,
        ActorRole::Liar {
            from_step: LIES_FROM,
        },
        0,
    ));
    [
        Act {
            number: 1,
            title: "Three unlike machines, one pipeline of three stages",
            plan: "3x1",
            actors: honest(),
            kill: None,
        },
        Act {
            number: 2,
            title: "Another cut: three replicas, one of which is killed",
            plan: "1x3",
            actors: honest(),
            kill: Some(Kill {
                victim: "bob",
                after: KILLED_AFTER,
                heir: worker("dave", 0),
            }),
        },
        Act {
            number: 3,
            title: "A third cut: two replicas of two stages, and one machine lies",
            plan: "2x2",
            actors: with_liar,
            kill: None,
        },
    ]
}
