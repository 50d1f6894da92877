//! Memory for what checkers may ask for.

use concord_proto::client::PlanChoice;

use super::PlanError;
use super::tests::{Case, pool};

/// Nothing of an evaluation is in flight for long, but checkers may ask for all that came in.
#[test]
fn a_stage_has_room_for_what_comes_in_of_an_evaluation() {
    let mut case = Case::new(4, 2);
    case.choice = PlanChoice::Fixed {
        stages: 2,
        replicas: 1,
        shares: Vec::new(),
    };
    let devices = pool(&[(1_000_000_000, 1 << 30); 2]);
    let bytes = |case: &Case| case.plan_of(&devices).unwrap().stage_bytes;
    let without = bytes(&case);
    case.evaluation = 2;
    assert_eq!(bytes(&case), without, "as many as an update has");
    case.evaluation = 1_000;
    let more = 998 * case.profile.boundary_bytes;
    assert_eq!(bytes(&case), [without[0], without[1] + more]);
    let tight = pool(&[(1_000_000_000, without[1] + more - 1); 2]);
    assert!(matches!(
        case.plan_of(&tight),
        Err(PlanError::Memory { .. })
    ));
}

#[test]
fn audits_fall_behind_as_far_as_memory_has_room() {
    let mut case = Case::new(4, 2);
    case.profile.head_macs = 0;
    case.choice = PlanChoice::Fixed {
        stages: 2,
        replicas: 1,
        shares: Vec::new(),
    };
    let roomy = pool(&[(1_000_000_000, 1 << 30); 2]);
    let planned = case.plan_of(&roomy).unwrap();
    assert_eq!(planned.open_steps, 8);
    let most = *planned.stage_bytes.iter().max().unwrap();
    let steps = |memory: u64| case.plan_of(&pool(&[(1, memory); 2])).unwrap().open_steps;
    assert_eq!(steps(most), 2);
    // Half of what is counted of trained tensors, and what comes in of a step.
    let each = case.profile.layer_state_bytes + case.profile.embed_bytes / 2;
    let each = each + 2 * case.profile.boundary_bytes;
    let found = [0, 1, 5, 6, 7].map(|more| steps(most + more * each));
    assert_eq!(found, [2, 3, 7, 8, 8]);
}
