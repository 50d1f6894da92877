//! Draws from ties, edges and NaN.

use concord_kernels::KernelError;
use concord_kernels::conformance::{CaseInput, InputKind};
use concord_kernels::ops::sample::Sampling;
use concord_kernels::rng::Philox;

use crate::gpus::{placed, same_bits};

#[test]
fn tokens_are_drawn_as_the_host_draws_them() {
    let draw = CaseInput::new(9, InputKind::Ordinary);
    for vocab in [1, 2, 31, 33, 1_023, 1_025, 5_003] {
        let spread: Vec<f32> = draw.numbers(1, vocab).iter().map(|v| v * 6.0).collect();
        // Few values, so that most are tied; and all of them tied.
        let tied = spread.iter().map(|v| v.round_ties_even()).collect();
        let equal = vec![-2.5; vocab];
        let small = spread.iter().map(|v| v * 1e-4).collect();
        for logits in [spread.clone(), tied, equal, small] {
            same_bits(&format!("sampling from {vocab}"), |device| {
                let logits = placed(device, &logits, &[1, vocab])?;
                let mut tokens = Vec::new();
                for (temperature, top_k, top_p) in [
                    (0.0, 0, 1.0),
                    (1.0, 0, 1.0),
                    (0.8, 40, 0.95),
                    (1.5, 1_024, 1e-9),
                    (0.1, 1, 1.0),
                    (2.0, usize::MAX, 0.5),
                ] {
                    for seed in [1, u64::MAX] {
                        let sampling = Sampling {
                            temperature,
                            top_k,
                            top_p,
                            seed,
                        };
                        tokens.push(device.sample(&logits, &sampling, seed / 3)? as f32);
                    }
                }
                Ok(vec![tokens])
            });
        }
    }
}

/// Tickets that meet the sum of some candidates exactly: the next one is drawn.
#[test]
fn a_ticket_on_the_edge_of_two_candidates_draws_the_second() {
    let sampling = Sampling {
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        seed: 3,
    };
    let stream = Philox::new(sampling.seed, 0);
    let on_edge = |&position: &u64| (stream.unit(position) * 4_096.0).fract() == 0.0;
    let positions: Vec<u64> = (0..).filter(on_edge).take(3).collect();
    same_bits("tickets on an edge", |device| {
        let logits = placed(device, &[0.0; 4_096], &[1, 4_096])?;
        let tokens = positions
            .iter()
            .map(|&position| Ok(device.sample(&logits, &sampling, position)? as f32))
            .collect::<Result<Vec<f32>, KernelError>>()?;
        Ok(vec![tokens])
    });
}

#[test]
fn the_most_probable_token_among_numbers_that_are_none() {
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    let rows = [
        vec![nan, 3.0, 5.0],
        vec![1.0, nan, 5.0, nan, 5.0],
        vec![-inf; 40],
        vec![0.0, -0.0, 0.0],
        vec![-inf, -1.0, inf, inf],
    ];
    let greedy = Sampling {
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        seed: 0,
    };
    for row in rows {
        same_bits("the most probable token", |device| {
            let logits = placed(device, &row, &[1, row.len()])?;
            Ok(vec![vec![device.sample(&logits, &greedy, 0)? as f32]])
        });
    }
}
