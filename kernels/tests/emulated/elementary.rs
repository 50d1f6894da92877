//! The elementary functions on GPUs.

use concord_kernels::cuda::elementwise::{Elementary, elementary};
use concord_kernels::math;

use crate::gpus::gpus;

#[test]
fn elementary_functions_are_those_of_the_host_over_all_of_f32() {
    let gpu = &gpus()[0];
    let inputs: Vec<f32> = (0..=u32::MAX).step_by(1_009).map(f32::from_bits).collect();
    let edges = [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 1.0];
    let inputs = [
        &inputs[..],
        &edges,
        &[128.0, -150.0, 89.0, -104.0, 1_048_576.5, 4.0, -10.0],
    ]
    .concat();
    let ceil = |x| math::ceil_to_int(x) as f32;
    type Function = fn(f32) -> f32;
    let functions: [(Elementary, Function); 6] = [
        (Elementary::Exp2, math::exp2),
        (Elementary::Exp, math::exp),
        (Elementary::Ln, math::ln),
        (Elementary::Tanh, math::tanh),
        (Elementary::Erf, math::erf),
        (Elementary::Ceil, ceil),
    ];
    for (name, function) in functions {
        let got = elementary(gpu, name, &inputs).unwrap();
        for (&x, got) in inputs.iter().zip(got) {
            let expected = function(x);
            let same = got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan();
            assert!(same, "{name:?} of {x:e}: {got:e} not {expected:e}");
        }
    }
}
