//! Plans that can be checked by hand, and small ones compared with all possible ones.

use concord_proto::ExpertCuts;
use concord_proto::serving::ServingProfile;
use concord_proto::{Layers, PublicKey};
use proptest::prelude::*;

use super::cost::Costs;
use super::cut::StageCut;
use super::search;
use super::{PAGES_WANTED, ServingPlan, plan_serving, stage_bytes};
use crate::planner::grain::Grain;
use crate::planner::{PlanError, PlannerDevice};

const MIB: u64 = 1 << 20;

/// A layer and a page of it take a MiB each, embedding and head four.
const PROFILE: ServingProfile = ServingProfile {
    layer_macs: MIB / 4,
    head_macs: MIB,
    layer_bytes: MIB,
    embed_bytes: 4 * MIB,
    head_bytes: 4 * MIB,
    shared_bytes: 0,
    page_layer_bytes: MIB / 256,
    row_bytes: 64,
    cuts: ExpertCuts {
        experts: 0,
        expert_bytes: 0,
        expert_state_bytes: 0,
        boundary_bytes: 0,
    },
};

/// Memory beside weights and pages: 512 rows of 32 states of 64 bytes.
const WORK: u64 = MIB;

fn device(number: u8, speed: u64, memory: u64) -> PlannerDevice {
    PlannerDevice {
        id: PublicKey([number; 32]),
        name: format!("device {number}"),
        macs_per_second: speed,
        memory_bytes: memory,
    }
}

fn pool(devices: &[(u64, u64)]) -> Vec<PlannerDevice> {
    let numbered = (0..).zip(devices);
    numbered
        .map(|(number, (speed, memory))| device(number, *speed, *memory))
        .collect()
}

fn auto(devices: &[PlannerDevice], layers: u32) -> Result<ServingPlan, PlanError> {
    plan_serving(devices, &PROFILE, layers, 0, 0, 0)
}

fn layers(start: u32, end: u32) -> Layers {
    Layers::new(start, end)
}

#[test]
fn a_model_that_fits_is_not_cut() {
    let plan = auto(&pool(&[(1_000 * MIB, 1_024 * MIB)]), 8).expect("a plan");
    let pipeline = &plan.pipelines[0];
    assert_eq!(pipeline.stages, [layers(0, 8)]);
    // 1,024 - 1 - 4 - 4 - 8 MiB are free; a page of 8 layers takes 1/32 MiB. Nobody stands by.
    assert_eq!(pipeline.pages, 4_096);
    let small = auto(&pool(&[(1_000 * MIB, 27 * MIB)]), 8).expect("a plan");
    assert_eq!(small.pipelines[0].pages, 10 * 32 / 2);
    // One token: 12 MiB of weights at 250 MiB/s, and two hops.
    let seconds = 12.0 / 250.0 + 400e-6;
    assert!((plan.tokens_per_second_one * seconds - 1.0).abs() < 1e-9);
    // 512 tokens: 3 MiB of products each at 1,000 MiB/s.
    let micros = (512.0 * 3.0 / 1_000.0 + 400e-6) * 1e6;
    assert_eq!(plan.first_token_micros, micros as u64);
    assert!(plan.tokens_per_second_all > plan.tokens_per_second_one);
}

#[test]
fn what_is_left_makes_more_pipelines_but_slow_devices_stand_by() {
    let (fast, slow) = ((1_000 * MIB, 64 * MIB), (100 * MIB, 64 * MIB));
    let plan = auto(&pool(&[slow, fast, fast]), 8).expect("a plan");
    let devices: Vec<_> = plan.pipelines.iter().map(|p| p.devices.clone()).collect();
    assert_eq!(devices, [[1], [2]]);
    assert_eq!(plan.spare, [0]);
    // Both pipelines have the same layers: it loads them once.
    let standby: Vec<_> = plan.pipelines.iter().map(|p| p.standby.clone()).collect();
    let whole = vec![(0, vec![layers(0, 8)])];
    assert_eq!(standby, [whole.clone(), whole]);
    let two = plan_serving(&pool(&[slow, fast, fast]), &PROFILE, 8, 0, 3, 0).expect("a plan");
    assert_eq!(two.pipelines.len(), 3);
}

#[test]
fn layers_are_dealt_by_speed_within_memory() {
    // 24 layers take 24 MiB: not even the large one holds them.
    let speeds = [(3_000 * MIB, 25 * MIB), (1_000 * MIB, 27 * MIB)];
    let profile = ServingProfile {
        page_layer_bytes: MIB >> 16,
        ..PROFILE
    };
    let auto = |devices: &[PlannerDevice]| plan_serving(devices, &profile, 24, 0, 0, 0);
    let plan = auto(&pool(&speeds)).expect("a plan");
    let stages = &plan.pipelines[0].stages;
    assert_eq!(stages.len(), 2);
    // At 16 rows a layer takes 4 MiB of products, the head 16. The fast one takes the head and n
    // layers, (4 n + 16) / 3,000 seconds; 4 (24 - n) / 1,000 is as long for n = 17.
    // It lacks the memory for the 21 that would be as good at the other end.
    assert_eq!(plan.pipelines[0].devices, [1, 0]);
    assert_eq!(*stages, [layers(0, 7), layers(7, 24)]);
    // With less memory on the fast one, it takes what fits beside the head and some pages.
    let tight = [(3_000 * MIB, WORK + 14 * MIB), (1_000 * MIB, 27 * MIB)];
    let plan = auto(&pool(&tight)).expect("a plan");
    let held = plan.pipelines[0].stages[1];
    assert_eq!((plan.pipelines[0].devices[1], held.touched().len()), (0, 9));
}

#[test]
fn a_spare_device_stands_by_for_as_many_stages_as_fit() {
    let even = (1_000 * MIB, 20 * MIB);
    let plan = plan_serving(&pool(&[even, even, (1, 100 * MIB)]), &PROFILE, 20, 2, 1, 16);
    let plan = plan.expect("a plan");
    let pipeline = &plan.pipelines[0];
    assert_eq!(plan.spare, [2]);
    assert_eq!(pipeline.standby, [(2, pipeline.stages.clone())]);
    // One that has room for one of them.
    let plan = plan_serving(&pool(&[even, even, (1, 20 * MIB)]), &PROFILE, 20, 2, 1, 16);
    let plan = plan.expect("a plan");
    assert_eq!(plan.pipelines[0].standby[0].1.len(), 1);
}

#[test]
fn members_stand_by_for_what_they_would_have_without_one_of_them() {
    let even = (1_000 * MIB, 64 * MIB);
    let plan = plan_serving(&pool(&[even, even]), &PROFILE, 8, 2, 1, 0).expect("a plan");
    let whole = vec![layers(0, 8)];
    assert_eq!(plan.pipelines[0].standby, [(0, whole.clone()), (1, whole)]);
}

#[test]
fn a_fixed_number_of_pipelines_is_reached_by_dealing_memory_out() {
    // The two large ones together would leave two that cannot hold the model.
    let (large, small) = ((1_000 * MIB, 24 * MIB), (1_000 * MIB, 13 * MIB));
    let devices = pool(&[large, large, small, small]);
    let plan = plan_serving(&devices, &PROFILE, 20, 2, 2, 16).expect("a plan");
    assert_eq!(plan.pipelines.len(), 2);
    let memory = |device: &usize| devices[*device].memory_bytes;
    for pipeline in &plan.pipelines {
        assert_eq!(pipeline.devices.iter().map(memory).sum::<u64>(), 37 * MIB);
    }
}

#[test]
fn what_cannot_be_is_refused_with_what_helps() {
    let one = pool(&[(1_000, 64 * MIB)]);
    let refused = |stages, pipelines| {
        plan_serving(&one, &PROFILE, 4, stages, pipelines, 0).expect_err("no plan")
    };
    assert_eq!(auto(&[], 4), Err(PlanError::NoDevices));
    assert!(matches!(refused(5, 1), PlanError::TooManyStages { .. }));
    assert!(matches!(refused(2, 1), PlanError::TooFewWorkers { .. }));
    assert!(matches!(refused(0, 2), PlanError::TooFewWorkers { .. }));
    assert!(matches!(auto(&one, 0), Err(PlanError::EmptyJob { .. })));

    let small = (1_000 * MIB, 20 * MIB);
    let mut devices = pool(&[small, small, (1_000, MIB)]);
    let Err(PlanError::Memory {
        more_bytes,
        more_workers,
        ..
    }) = auto(&devices, 60)
    else {
        panic!("60 layers do not fit");
    };
    // The ends hold (20 - 1 - 4) / (1 + 1/16) = 14 layers, those between 17: four are needed.
    assert_eq!(more_workers, Some(2));
    for device in &mut devices {
        device.memory_bytes += more_bytes - 1;
    }
    assert!(auto(&devices, 60).is_err());
    for device in &mut devices {
        device.memory_bytes += 1;
    }
    assert!(auto(&devices, 60).is_ok());
}

#[test]
fn a_device_without_room_for_a_layer_is_named() {
    let devices = pool(&[(1_000 * MIB, 64 * MIB), (1_000 * MIB, MIB)]);
    let plan = auto(&devices, 8).expect("a plan");
    assert!(plan.spare.is_empty());
    let (device, why) = &plan.rejected[0];
    assert!(*device == 1 && why.contains("it has 1048576"), "{why}");
}

#[test]
fn as_many_pages_as_fit_where_more_are_asked_for() {
    let devices = pool(&[(1_000 * MIB, 27 * MIB)]);
    let pages = |asked| {
        let plan = plan_serving(&devices, &PROFILE, 8, 0, 0, asked).expect("a plan");
        plan.pipelines[0].pages
    };
    assert_eq!((pages(100), pages(320), pages(1_000)), (100, 320, 320));
}

#[test]
fn a_large_pool_is_planned_soon() {
    let of = |number: u64| {
        (
            MIB * (100 + number * 37 % 900),
            MIB * (20 + number * 13 % 40),
        )
    };
    let devices: Vec<(u64, u64)> = (0..64).map(of).collect();
    let start = std::time::Instant::now();
    let plan = auto(&pool(&devices), 160).expect("a plan");
    assert!(!plan.pipelines.is_empty());
    let took = start.elapsed();
    println!("64 devices, 160 layers: {took:?}");
    assert!(took.as_secs() < 10);
}

/// The slowest stage of the best cut of all with room for so many pages.
fn brute_force(costs: &Costs, stages: usize, pages: u32) -> Option<f64> {
    let mut best: Option<f64> = None;
    orders(costs.devices.len(), stages, &mut Vec::new(), &mut |order| {
        lengths(costs.layers, stages, &mut Vec::new(), &mut |lengths| {
            let fits = order
                .iter()
                .zip(lengths)
                .enumerate()
                .all(|(at, (device, count))| {
                    *count <= costs.layers_in(*device, at == 0, at + 1 == stages, pages)
                });
            let slowest = costs.typical(order, lengths).0;
            if fits && best.is_none_or(|best| slowest < best) {
                best = Some(slowest);
            }
        });
    });
    best
}

fn orders(devices: usize, count: usize, order: &mut Vec<usize>, with: &mut impl FnMut(&[usize])) {
    if count == 0 {
        return with(order);
    }
    for device in 0..devices {
        if !order.contains(&device) {
            order.push(device);
            orders(devices, count - 1, order, with);
            order.pop();
        }
    }
}

fn lengths(layers: u32, stages: usize, found: &mut Vec<u32>, with: &mut impl FnMut(&[u32])) {
    if stages == 1 {
        found.push(layers);
        with(found);
        found.pop();
        return;
    }
    for count in 1..layers {
        found.push(count);
        lengths(layers - count, stages - 1, found, with);
        found.pop();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_pipeline_is_the_best_of_all(
        devices in proptest::collection::vec((1..20_u64, 3..24_u64), 3..5),
        layers in 1..14_u32,
        stages in 1..4_usize,
    ) {
        let scaled = |&(speed, memory): &(u64, u64)| (speed * 100 * MIB, memory * MIB);
        let devices: Vec<(u64, u64)> = devices.iter().map(scaled).collect();
        let devices = pool(&devices);
        let costs = Costs::new(&devices, &PROFILE, Grain::whole(layers, &PROFILE.cuts));
        let every: Vec<usize> = (0..devices.len()).collect();
        let fits = search::fits(&costs, stages, 1);
        prop_assert_eq!(search::best(&costs, &every, stages, 0).is_some(), fits);
        for pages in PAGES_WANTED {
            let found: Option<StageCut> = search::with_room(&costs, &every, stages, pages);
            let slowest = found.map(|cut| costs.typical(&cut.devices, &cut.lengths).0);
            let all = brute_force(&costs, stages, pages);
            prop_assert_eq!(slowest.is_some(), all.is_some());
            if let (Some(slowest), Some(all)) = (slowest, all) {
                prop_assert!((slowest - all).abs() <= all * 1e-12, "{slowest} and {all}");
            }
        }
    }
}

/// Layers of a MiB, of which four experts take a fifth each: two workers without room for two whole
/// layers share them, and what a plan says they hold fits.
#[test]
fn layers_that_do_not_fit_are_cut_between_their_experts() {
    let profile = ServingProfile {
        layer_bytes: 20 * MIB,
        cuts: ExpertCuts {
            experts: 4,
            expert_bytes: 4 * MIB,
            expert_state_bytes: 0,
            boundary_bytes: 256,
        },
        ..PROFILE
    };
    let memory = 20 * MIB;
    let devices = pool(&[(1_000 * MIB, memory); 5]);
    let plan = plan_serving(&devices, &profile, 2, 0, 1, 0).expect("a plan");
    let pipeline = &plan.pipelines[0];
    let cut: Vec<String> = pipeline.stages.iter().map(ToString::to_string).collect();
    assert_eq!(cut, ["0..0+2", "0+2..1", "1..1+2", "1+2..2"]);
    for &stage in &pipeline.stages {
        assert!(
            stage_bytes(&profile, stage, 2, pipeline.pages) <= memory,
            "{stage}"
        );
    }
    // A worker that is left stands by for as many as it has room for.
    assert_eq!(plan.spare.len(), 1);
    let whole = ServingProfile {
        cuts: ExpertCuts::default(),
        ..profile
    };
    let refused = plan_serving(&devices, &whole, 2, 0, 1, 0);
    assert!(
        matches!(refused, Err(PlanError::Memory { .. })),
        "{refused:?}"
    );
}
