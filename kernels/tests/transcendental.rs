//! The elementary functions over all 2^32 inputs: the same bits from every instruction set, and
//! errors of at most 2 ulp against f64.
//!
//! AVX2 is compared with AVX-512 on every input. The portable build calls a function for each
//! fused multiply-add, which is too slow for that: it is compared with AVX2 on every
//! [`PORTABLE_STRIDE`]th input, and every [`ACCURACY_STRIDE`]th is compared with f64. Both strides
//! are odd, so that each visits every exponent and all low bits of the mantissa.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use concord_kernels::cpu::elementwise::{
    erf_assign, exp_assign, exp2_assign, ln_assign, tanh_assign,
};
use concord_kernels::isa::Isa;

const INPUTS: u64 = 1 << 32;
/// Inputs that fit in the first-level cache, twice.
const BLOCK: u64 = 1 << 11;
const PORTABLE_STRIDE: u64 = 61;
const ACCURACY_STRIDE: u64 = 7;
const ULP_MAX: f64 = 2.0;

struct Function {
    name: &'static str,
    assign: fn(Isa, &mut [f32]),
    exact: fn(f64) -> f64,
}

const FUNCTIONS: [Function; 5] = [
    Function {
        name: "exp2",
        assign: exp2_assign,
        exact: f64::exp2,
    },
    Function {
        name: "exp",
        assign: exp_assign,
        exact: f64::exp,
    },
    Function {
        name: "ln",
        assign: ln_assign,
        exact: f64::ln,
    },
    Function {
        name: "tanh",
        assign: tanh_assign,
        exact: f64::tanh,
    },
    Function {
        name: "erf",
        assign: erf_assign,
        exact: erf_f64,
    },
];

/// `erf(x)` by the series without alternating signs,
/// `2 / sqrt(pi) * exp(-x^2) * sum of 2^k x^(2k+1) / (1 * 3 * ... (2k+1))`.
fn erf_f64(x: f64) -> f64 {
    if x.abs() > 6.0 {
        return x.signum();
    }
    let (mut term, mut sum, mut odd) = (x, x, 1.0);
    while term.abs() > 1e-17 * sum.abs() {
        odd += 2.0;
        term *= 2.0 * x * x / odd;
        sum += term;
    }
    std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum
}

/// Hands every `stride`th input to `check`, in blocks, on two threads.
fn for_all_inputs(stride: u64, check: impl Fn(&[f32]) + Sync) {
    let count = INPUTS.div_ceil(stride);
    let next = AtomicU64::new(0);
    let work = || {
        let mut inputs = vec![0.0; BLOCK as usize];
        loop {
            let start = next.fetch_add(BLOCK, Ordering::Relaxed);
            let len = count.saturating_sub(start).min(BLOCK) as usize;
            if len == 0 {
                return;
            }
            for (index, input) in (start..).zip(&mut inputs[..len]) {
                *input = f32::from_bits((index * stride) as u32);
            }
            check(&inputs[..len]);
        }
    };
    thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
}

/// Asserts that two instruction sets give the same bits on every `stride`th input.
fn assert_same_bits(function: &Function, [a, b]: [Isa; 2], stride: u64) {
    if !a.is_available() || !b.is_available() {
        println!(
            "skipped: {} on {a} against {b}: this machine lacks one",
            function.name
        );
        return;
    }
    for_all_inputs(stride, |inputs| {
        let (mut from_a, mut from_b) = (inputs.to_vec(), inputs.to_vec());
        (function.assign)(a, &mut from_a);
        (function.assign)(b, &mut from_b);
        let differ = |(a, b): (&f32, &f32)| a.to_bits() != b.to_bits();
        if let Some(at) = from_a.iter().zip(&from_b).position(differ) {
            let [x, got_a, got_b] = [inputs[at], from_a[at], from_b[at]].map(f32::to_bits);
            panic!(
                "{} of {x:#010x} is {got_a:#010x} on {a}, {got_b:#010x} on {b}",
                function.name
            );
        }
    });
}

/// Distance from `got` to `exact`, in units of the last place of an f32 near it.
fn ulps(got: f32, exact: f64) -> f64 {
    let near = exact as f32;
    if got.to_bits() == near.to_bits() || got.is_nan() && exact.is_nan() {
        return 0.0;
    }
    let exponent = (near.abs().to_bits() >> 23).max(1);
    let unit = f64::from_bits(u64::from(exponent + 1023 - 127 - 23) << 52);
    (f64::from(got) - exact).abs() / unit
}

#[test]
fn all_inputs_have_the_same_bits_on_avx2_and_avx512() {
    for function in &FUNCTIONS {
        assert_same_bits(function, [Isa::Avx2, Isa::Avx512], 1);
    }
}

#[test]
fn a_stride_of_inputs_has_the_same_bits_on_portable_code_and_avx2() {
    for function in &FUNCTIONS {
        assert_same_bits(function, [Isa::Portable, Isa::Avx2], PORTABLE_STRIDE);
    }
}

#[test]
fn errors_against_f64_are_at_most_two_ulps() {
    for function in &FUNCTIONS {
        // Errors are positive or zero, and the bits of such floats have the order of their values.
        let worst = AtomicU64::new(0);
        for_all_inputs(ACCURACY_STRIDE, |inputs| {
            let mut outputs = inputs.to_vec();
            (function.assign)(Isa::best(), &mut outputs);
            for (&input, &output) in inputs.iter().zip(&outputs) {
                let error = ulps(output, (function.exact)(f64::from(input)));
                assert!(
                    error <= ULP_MAX,
                    "{} of {:#010x} is {output:e}: {error} ulp",
                    function.name,
                    input.to_bits()
                );
                worst.fetch_max(error.to_bits(), Ordering::Relaxed);
            }
        });
        let worst = f64::from_bits(worst.into_inner());
        println!("{}: worst error {worst:.3} ulp", function.name);
    }
}
