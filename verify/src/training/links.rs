//! The rules between two claims: what one received is what the other made.

use concord_proto::ledger::Offence;
use concord_proto::{ClaimInput, ClaimedLeaf, Conviction, Leaf, LeafPhase, PortKind};

use super::{Breach, ClaimedLeaves, StepRules, leaf_position, leaf_words};

/// Compares every input that came from another worker with that worker's claim. Each first half
/// must have passed [`super::check_first_half`]: then the receiver has the sender's signature on
/// what it used, and a sender whose claim says otherwise has signed two different things.
///
/// # Errors
/// [`Breach`] of the sender.
pub fn check_links(rules: &StepRules, claims: &[ClaimedLeaves]) -> Result<(), Breach> {
    for receiver in claims {
        for leaf in receiver.leaves {
            for input in &leaf.inputs {
                check_input(rules, claims, receiver, leaf, input)?;
            }
        }
    }
    Ok(())
}

fn check_input(
    rules: &StepRules,
    claims: &[ClaimedLeaves],
    receiver: &ClaimedLeaves,
    leaf: &Leaf,
    input: &ClaimInput,
) -> Result<(), Breach> {
    let Some(origin) = &input.origin else {
        return Ok(());
    };
    let sender = claims.iter().find(|claim| claim.worker == origin.worker);
    let (Some(sender), Some(slot)) = (sender, rules.plan.slot(&origin.worker)) else {
        return Ok(());
    };
    let kind = input.port.kind;
    let (phase, microbatch) = match kind {
        PortKind::Activation(_) => (LeafPhase::Forward, leaf.microbatch),
        PortKind::Partial { node, .. } => (LeafPhase::Reduce, node.start),
        _ => (LeafPhase::Backward, leaf.microbatch),
    };
    let of_step = (rules.spec, rules.step);
    let position = leaf_position(of_step, rules.plan, slot.replica, phase, microbatch);
    let gives = position.and_then(|position| sender.leaves.get(position));
    let made = gives.and_then(|leaf| leaf.output(kind));
    if made == Some(input.port.digest) {
        return Ok(());
    }
    let claimed =
        gives.and_then(|leaf| ClaimedLeaf::of(sender.signed, sender.leaves, &leaf.digest()));
    let conviction = claimed.map(|claimed| {
        Box::new(Conviction::Equivocation {
            claimed,
            sent: input.port,
            signature: origin.signature,
        })
    });
    Err(Breach {
        culprit: sender.worker,
        offence: Offence::Equivocation,
        evidence: format!(
            "in {}, it signed {} as {kind:?} to worker {} for the {}, and claims {}",
            rules.words(),
            input.port.digest.short(),
            receiver.worker.short(),
            leaf_words(leaf),
            made.map_or("nothing".to_string(), |digest| digest.short()),
        ),
        conviction,
    })
}
