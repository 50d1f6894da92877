//! The order of the data: every sequence once in a round, the same at each call.

mod messages;

use concord_proto::manifest::DataManifest;
use concord_proto::{BatchPlan, JobSpec, Order, TrainingSequence, merkle, microbatch_digest};
use messages::Source;
use proptest::prelude::*;

fn spec(order: Order, micro_batch_size: u32, microbatches: u32) -> JobSpec {
    JobSpec {
        order,
        micro_batch_size,
        microbatches,
        evaluation: None,
        ..Source::new(1).spec()
    }
}

/// The sequences of the first steps, one after another.
fn run(spec: &JobSpec, count: u64, steps: u32) -> Vec<u64> {
    let mut plan = BatchPlan::new(spec, count);
    let places = (0..steps).flat_map(|step| (0..spec.microbatches).map(move |m| (step, m)));
    places
        .flat_map(|(step, microbatch)| plan.sequences(step, microbatch))
        .collect()
}

#[test]
fn as_given_is_over_and_over() {
    let spec = spec(Order::AsGiven, 2, 2);
    assert_eq!(run(&spec, 3, 2), [0, 1, 2, 0, 1, 2, 0, 1]);
}

#[test]
fn a_shuffle_is_known_by_its_seed() {
    let shuffled = |seed| run(&spec(Order::Shuffled { seed }, 1, 1), 8, 16);
    assert_eq!(shuffled(7), GOLDEN_ORDER);
    assert_ne!(shuffled(7), shuffled(8));
}

const GOLDEN_ORDER: [u64; 16] = [7, 5, 3, 1, 6, 2, 0, 4, 4, 7, 6, 3, 1, 2, 5, 0];

#[test]
fn all_orders_of_a_small_set_come_up_alike() {
    let mut counts = std::collections::BTreeMap::new();
    for seed in 0..6_000 {
        let order = run(&spec(Order::Shuffled { seed }, 3, 1), 3, 1);
        *counts.entry(order).or_insert(0_u32) += 1;
    }
    // 1,000 expected for each of the six, a standard deviation of 28.9.
    assert_eq!(counts.len(), 6);
    assert!(
        counts.values().all(|count| count.abs_diff(1_000) < 150),
        "{counts:?}"
    );
}

proptest! {
    #[test]
    fn each_round_has_every_sequence_once(
        seed in any::<u64>(), count in 1_u64..40, size in 1_u32..5, microbatches in 1_u32..5,
    ) {
        let spec = spec(Order::Shuffled { seed }, size, microbatches);
        let steps = (count * 3).div_ceil(spec.sequences_per_step()) as u32;
        let sequences = run(&spec, count, steps);
        for round in sequences.chunks_exact(count as usize) {
            let mut sorted = round.to_vec();
            sorted.sort_unstable();
            prop_assert_eq!(sorted, (0..count).collect::<Vec<_>>());
        }
        let mut rounds = sequences.chunks_exact(count as usize);
        if count >= 20 {
            prop_assert_ne!(rounds.next(), rounds.next());
        }
    }

    #[test]
    fn it_does_not_matter_in_which_order_microbatches_are_asked_for(
        seed in any::<u64>(), count in 1_u64..40,
        asked in prop::collection::vec((0_u32..9, 0_u32..3), 1..20),
    ) {
        let spec = spec(Order::Shuffled { seed }, 2, 3);
        let mut used = BatchPlan::new(&spec, count);
        for (step, microbatch) in asked {
            let fresh = BatchPlan::new(&spec, count).sequences(step, microbatch);
            prop_assert_eq!(used.sequences(step, microbatch), fresh);
        }
    }
}

#[test]
fn the_root_of_a_step_is_over_its_microbatches() {
    let spec = spec(Order::Shuffled { seed: 5 }, 2, 3);
    let sequence =
        |i: u32| TrainingSequence::whole(vec![i, i + 1, i + 2], vec![0, 1, (i % 2) as u8]).entry();
    let data = DataManifest {
        sequence_len: 3,
        chunk_sequences: 8,
        chunks: Vec::new(),
        sequences: (0..7).map(sequence).collect(),
    };
    let count = data.sequences.len() as u64;
    let mut plan = BatchPlan::new(&spec, count);
    for step in 0..5 {
        let (root, targets) = plan.step_root(&spec, &data, step);
        let microbatches: Vec<Vec<u64>> = (0..spec.microbatches)
            .map(|m| BatchPlan::new(&spec, count).sequences(step, m))
            .collect();
        let digests: Vec<_> = microbatches
            .iter()
            .map(|m| microbatch_digest(&data, m))
            .collect();
        assert_eq!(root, merkle::root(&digests));
        let of = |&index: &u64| u64::from(data.sequences[index as usize].targets);
        assert_eq!(targets, microbatches.iter().flatten().map(of).sum::<u64>());
    }
}
