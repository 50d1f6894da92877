//! The planner against brute force, and the properties that every plan has.

use concord_proto::ExpertCuts;
use concord_proto::client::{ModelProfile, PlanChoice};
use concord_proto::{Digest, JobId, PublicKey};
use proptest::prelude::*;

use super::brute_force::{brute_force, stage_bytes};
use super::{PlanError, PlanRequest, PlannerDevice, TrainingPlan, plan};

fn profile() -> ModelProfile {
    ModelProfile {
        layer_macs: 40_000,
        head_macs: 90_000,
        layer_bytes: 1_000,
        embed_bytes: 1_500,
        head_bytes: 700,
        shared_bytes: 0,
        layer_state_bytes: 400,
        layer_gradient_bytes: 100,
        layer_activation_bytes: 50,
        workspace_bytes: 30,
        boundary_bytes: 8,
        microbatch_tokens: 256,
        backward_percent: 200,
        cuts: ExpertCuts::default(),
    }
}

fn device(index: u8, macs_per_second: u64, memory_bytes: u64) -> PlannerDevice {
    let mut id = [0; 32];
    id[0] = index;
    PlannerDevice {
        id: PublicKey(id),
        name: format!("device {index}"),
        macs_per_second,
        memory_bytes,
    }
}

/// Devices by (speed, memory), with the index as the key.
pub(super) fn pool(devices: &[(u64, u64)]) -> Vec<PlannerDevice> {
    let numbered = devices.iter().enumerate();
    numbered
        .map(|(index, &(speed, memory))| device(index as u8, speed, memory))
        .collect()
}

pub(super) struct Case {
    pub(super) layers: u32,
    pub(super) microbatches: u32,
    pub(super) evaluation: u32,
    pub(super) profile: ModelProfile,
    pub(super) choice: PlanChoice,
}

impl Case {
    pub(super) fn new(layers: u32, microbatches: u32) -> Self {
        Self {
            layers,
            microbatches,
            evaluation: 0,
            profile: profile(),
            choice: PlanChoice::Auto,
        }
    }

    fn plan(&self, devices: &[PlannerDevice]) -> Result<TrainingPlan, PlanError> {
        let planned = self.plan_of(devices)?;
        self.check_memory(&planned, devices);
        Ok(planned)
    }

    pub(super) fn plan_of(&self, devices: &[PlannerDevice]) -> Result<TrainingPlan, PlanError> {
        let planned = plan(&PlanRequest {
            job: JobId(Digest([7; 32])),
            epoch: 3,
            layers: self.layers,
            microbatches: self.microbatches,
            evaluation_microbatches: self.evaluation,
            profile: &self.profile,
            choice: &self.choice,
            devices,
        })?;
        planned
            .plan
            .validate(self.layers, self.microbatches)
            .unwrap();
        assert!(planned.depth as usize > planned.plan.stages.len());
        Ok(planned)
    }

    fn check_memory(&self, planned: &TrainingPlan, devices: &[PlannerDevice]) {
        let in_flight = u64::from(planned.depth.min(self.microbatches));
        for (slot, worker) in planned.plan.workers() {
            let stage = planned.plan.stages[slot.stage];
            let (start, end) = (stage.start.layer, stage.end.layer);
            let lengths = (end - start, start, end);
            let need = stage_bytes(
                &self.profile,
                lengths,
                self.layers,
                (in_flight, self.microbatches),
            );
            assert_eq!(need, planned.stage_bytes[slot.stage]);
            let device = devices.iter().find(|d| d.id == worker).unwrap();
            assert!(
                need <= device.memory_bytes,
                "{need} bytes on {}",
                device.name
            );
        }
    }
}

fn agrees_with_brute_force(case: &Case, devices: &[PlannerDevice]) {
    match (case.plan(devices), brute_force(case, devices)) {
        (Ok(planned), Some(seconds)) => {
            let exact = (seconds * 1e6).ceil() as u64;
            let found = planned.step_micros;
            assert!(
                found.abs_diff(exact) <= 1,
                "{found} us, brute force {exact} us: {planned:?}"
            );
        }
        (Err(PlanError::Memory { .. }), None) => {}
        (found, exact) => panic!("{found:?}, brute force {exact:?}"),
    }
}

fn speed() -> impl Strategy<Value = u64> {
    prop_oneof![Just(1_000_000_000), 100_000_000..20_000_000_000_u64]
}

fn memory() -> impl Strategy<Value = u64> {
    prop_oneof![Just(1 << 30), 1_000..12_000_u64]
}

fn devices(count: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = Vec<PlannerDevice>> {
    prop::collection::vec((speed(), memory()), count).prop_map(|devices| pool(&devices))
}

/// Profiles in which compute, links and gradients each may bind.
fn any_profile() -> impl Strategy<Value = ModelProfile> {
    (
        1_000..200_000_u64,
        0..300_000_u64,
        0..2_000_000_u64,
        0..40_000_u64,
    )
        .prop_map(
            |(layer_macs, head_macs, boundary_bytes, state)| ModelProfile {
                layer_macs,
                head_macs,
                boundary_bytes,
                layer_state_bytes: state % 400,
                layer_gradient_bytes: state % 100,
                ..profile()
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn equals_brute_force(
        devices in devices(1..=5), layers in 1_u32..7, microbatches in 1_u32..6,
        profile in any_profile(),
    ) {
        let case = Case { profile, ..Case::new(layers, microbatches) };
        agrees_with_brute_force(&case, &devices);
    }

    #[test]
    fn a_fixed_plan_equals_brute_force(
        devices in devices(4..=5), layers in 2_u32..7, microbatches in 2_u32..6,
        profile in any_profile(), first_share in prop::option::of(1_u32..5),
    ) {
        let shares = first_share.map(|first| first.min(microbatches - 1));
        let shares = shares.map(|first| vec![first, microbatches - first]);
        let choice = PlanChoice::Fixed {
            stages: 2,
            replicas: 2,
            shares: shares.unwrap_or_default(),
        };
        let case = Case { profile, choice, ..Case::new(layers, microbatches) };
        agrees_with_brute_force(&case, &devices);
    }

    #[test]
    fn one_more_device_never_makes_it_slower(
        mut devices in devices(2..=8), layers in 1_u32..40, microbatches in 1_u32..40,
        profile in any_profile(),
    ) {
        let case = Case { profile, ..Case::new(layers, microbatches) };
        let all = case.plan(&devices);
        devices.pop();
        if let Ok(fewer) = case.plan(&devices) {
            let all = all.expect("what fits on fewer devices fits on more");
            prop_assert!(all.step_micros <= fewer.step_micros + 1, "{all:?} {fewer:?}");
        }
    }

    #[test]
    fn the_order_of_the_devices_changes_nothing(
        devices in devices(1..=12), seed in any::<u64>(), layers in 1_u32..30,
        microbatches in 1_u32..30,
    ) {
        let case = Case::new(layers, microbatches);
        let mut permuted = devices.clone();
        permuted.sort_by_key(|d| (seed ^ u64::from(d.id.0[0])).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        prop_assert_eq!(case.plan(&devices), case.plan(&permuted));
    }

    #[test]
    fn a_large_pool_is_planned_within_a_fifth_of_a_bound(
        speeds in prop::collection::vec(1_000_000_000..8_000_000_000_u64, 9..40),
        layers in 16_u32..80,
    ) {
        let sized: Vec<_> = speeds.iter().map(|&speed| (speed, 1 << 40)).collect();
        let profile = ModelProfile { layer_macs: 20_000_000, ..profile() };
        let case = Case { profile, ..Case::new(layers, 256) };
        let planned = case.plan(&pool(&sized)).unwrap();
        let speed: f64 = speeds.iter().map(|&s| s as f64).sum();
        let macs = (u64::from(layers) * 20_000_000 + 90_000) as f64 * 256.0 * 3.0 * 256.0;
        let bound = macs / speed * 1e6;
        prop_assert!((planned.step_micros as f64) < 1.2 * bound, "{} {bound}", planned.step_micros);
    }

    #[test]
    fn extreme_numbers_never_panic(
        devices in prop::collection::vec((any::<u64>(), any::<u64>()), 1..6),
        numbers in prop::array::uniform10(any::<u64>()), percent in any::<u32>(),
        layers in 1_u32..200, microbatches in 1_u32..4_096,
    ) {
        let [layer_macs, head_macs, layer_bytes, embed_bytes, head_bytes, state, activation,
            boundary_bytes, microbatch_tokens, workspace_bytes] = numbers;
        let profile = ModelProfile {
            layer_macs, head_macs, layer_bytes, embed_bytes, head_bytes, layer_state_bytes: state,
            layer_gradient_bytes: state,
            layer_activation_bytes: activation, workspace_bytes, boundary_bytes, microbatch_tokens,
            shared_bytes: activation,
            backward_percent: percent,
            cuts: ExpertCuts {
                experts: percent,
                expert_bytes: layer_bytes / u64::from(percent % 64 + 1),
                expert_state_bytes: state,
                boundary_bytes,
            },
        };
        let choice = PlanChoice::Auto;
        let _ = plan(&PlanRequest {
            job: JobId(Digest([7; 32])), epoch: 0, layers, microbatches, profile: &profile,
            evaluation_microbatches: percent, choice: &choice, devices: &pool(&devices),
        });
    }
}

#[test]
fn equals_brute_force_on_six_devices() {
    let devices = pool(&[
        (9_000_000_000, 1 << 30),
        (4_000_000_000, 6_000),
        (4_000_000_000, 1 << 30),
        (2_500_000_000, 1 << 30),
        (1_000_000_000, 5_000),
        (700_000_000, 1 << 30),
    ]);
    agrees_with_brute_force(&Case::new(5, 4), &devices);
}

#[test]
fn eight_unlike_devices_and_a_deep_model_are_planned_at_once() {
    // Room for all 80 layers, for half of them, for a quarter: plans of 1, of 2 and of 4 stages.
    for memory in [1 << 40, 70_000, 40_000] {
        let speeds = [9, 8, 7, 5, 4, 3, 2, 1].map(|speed| (speed * 1_000_000_000_u64, memory));
        let case = Case::new(80, 64);
        let started = std::time::Instant::now();
        let planned = case.plan(&pool(&speeds)).unwrap();
        let took = started.elapsed();
        println!(
            "{took:?} for {} us in {} stages",
            planned.step_micros,
            planned.plan.stages.len()
        );
        assert!(took.as_secs() < 60, "{took:?}");
    }
}

#[test]
fn alike_devices_get_alike_shares() {
    let four = pool(&[(1_000_000_000, 1 << 30); 4]);
    let fixed = |stages, replicas| PlanChoice::Fixed {
        stages,
        replicas,
        shares: Vec::new(),
    };
    let mut case = Case::new(8, 8);
    case.profile.head_macs = 0;
    case.choice = fixed(2, 2);
    let plan = case.plan(&four).unwrap().plan;
    assert_eq!(
        plan.stages.iter().map(|s| s.end).collect::<Vec<_>>(),
        [4, 8]
    );
    assert_eq!(
        plan.replicas.iter().map(|r| r.end).collect::<Vec<_>>(),
        [4, 8]
    );
}

#[test]
fn a_device_three_times_as_fast_gets_three_times_the_microbatches() {
    let case = Case {
        choice: PlanChoice::Fixed {
            stages: 1,
            replicas: 2,
            shares: Vec::new(),
        },
        ..Case::new(8, 16)
    };
    let plan = case
        .plan(&pool(&[(1_000_000_000, 1 << 30), (3_000_000_000, 1 << 30)]))
        .unwrap()
        .plan;
    let shares: Vec<u32> = plan.replicas.iter().map(|r| r.end - r.start).collect();
    assert_eq!(shares, [12, 4]);
    assert_eq!(plan.replicas[0].workers[0].0[0], 1);
}

#[test]
fn a_device_that_would_only_slow_the_others_stays_idle() {
    let case = Case::new(4, 2);
    let planned = case
        .plan(&pool(&[(20_000_000_000, 1 << 30), (1_000, 1 << 30)]))
        .unwrap();
    assert_eq!(planned.plan.workers().count(), 1);
}

#[test]
fn what_cannot_be_planned_says_what_would_help() {
    let two = pool(&[(1_000_000_000, 1 << 30); 2]);
    let error = |case: &Case, devices: &[PlannerDevice]| case.plan(devices).unwrap_err();
    let fixed = |stages, replicas, shares: &[u32]| Case {
        choice: PlanChoice::Fixed {
            stages,
            replicas,
            shares: shares.to_vec(),
        },
        ..Case::new(4, 6)
    };
    assert_eq!(error(&Case::new(4, 6), &[]), PlanError::NoDevices);
    assert!(matches!(
        error(&Case::new(0, 6), &two),
        PlanError::EmptyJob { .. }
    ));
    assert!(matches!(
        error(&fixed(0, 1, &[]), &two),
        PlanError::EmptyPlan { .. }
    ));
    assert!(matches!(
        error(&fixed(5, 1, &[]), &two),
        PlanError::TooManyStages { .. }
    ));
    assert!(matches!(
        error(&fixed(1, 7, &[]), &two),
        PlanError::TooManyReplicas { .. }
    ));
    for shares in [&[6][..], &[0, 6], &[3, 2], &[u32::MAX, 7], &[2, 2, 2]] {
        assert!(matches!(
            error(&fixed(1, 2, shares), &two),
            PlanError::Shares { .. }
        ));
    }
    let too_few = error(&fixed(2, 2, &[]), &two);
    assert_eq!(
        too_few.to_string(),
        "the plan 2x2 needs 4 workers, and 2 are there: start more, or choose auto"
    );
}

#[test]
fn the_remedy_for_too_little_memory_is_exact() {
    let case = Case::new(8, 6);
    let small = pool(&[(1_000_000_000, 5_000), (2_000_000_000, 6_000)]);
    let PlanError::Memory {
        workers: 2,
        more_bytes,
        more_workers: Some(more),
    } = case.plan(&small).unwrap_err()
    else {
        panic!("two small devices hold eight layers");
    };
    let grown = |bytes: u64| {
        let devices = small.iter().cloned().map(|mut device| {
            device.memory_bytes += bytes;
            device
        });
        case.plan(&devices.collect::<Vec<_>>()).is_ok()
    };
    assert!(grown(more_bytes) && !grown(more_bytes - 1));
    let joined = |count: u32| {
        let mut devices = small.clone();
        devices.extend((0..count).map(|i| device(10 + i as u8, 1_000_000_000, 6_000)));
        case.plan(&devices).is_ok()
    };
    assert!(joined(more) && !joined(more - 1));
    let tiny = pool(&[(1_000_000_000, 10)]);
    assert!(matches!(
        case.plan(&tiny).unwrap_err(),
        PlanError::Memory {
            more_workers: None,
            ..
        }
    ));
}

/// Eight experts of 100 bytes a layer, of which training one takes 40 more: where two workers have
/// no room for a whole layer each, each gets halves.
#[test]
fn layers_that_do_not_fit_are_cut_between_their_experts() {
    let mut case = Case::new(2, 4);
    case.profile.head_macs = 0;
    case.profile.boundary_bytes = 0;
    case.profile.cuts = ExpertCuts {
        experts: 8,
        expert_bytes: 100,
        expert_state_bytes: 40,
        boundary_bytes: 0,
    };
    let stages = |case: &Case, count: usize, memory: u64| {
        let planned = case.plan_of(&pool(&vec![(1_000_000_000, memory); count]));
        let stages = planned.map(|planned| planned.plan.stages);
        stages.map(|stages| stages.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let whole = stages(&case, 4, 1 << 30).unwrap();
    assert!(whole.iter().all(|stage| !stage.contains('+')), "{whole:?}");
    let in_halves = ["0..0+4", "0+4..1", "1..1+4", "1+4..2"];
    assert_eq!(stages(&case, 4, 2_800).unwrap(), in_halves);
    assert!(matches!(
        stages(&case, 4, 1_000),
        Err(PlanError::Memory { .. })
    ));
    case.choice = PlanChoice::Fixed {
        stages: 3,
        replicas: 1,
        shares: Vec::new(),
    };
    let fixed = stages(&case, 3, 1 << 30).unwrap();
    assert!(
        fixed.len() == 3 && fixed.iter().any(|stage| stage.contains('+')),
        "{fixed:?}"
    );
    case.profile.cuts = ExpertCuts::default();
    let refused = stages(&case, 3, 1 << 30);
    assert!(matches!(
        refused,
        Err(PlanError::TooManyStages {
            stages: 3,
            layers: 2
        })
    ));
}
