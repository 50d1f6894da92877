//! Rotary frequencies of every scaling against those of transformers: `make_rope_frequencies.py`
//! wrote `rope_frequencies.txt`. transformers computes in f32, which a relative 1e-6 allows for.

use std::collections::BTreeMap;

use concord_kernels::tables::{FrequencyScaling, RopeTable};

const WRITTEN: &str = include_str!("rope_frequencies.txt");
const HEAD_DIM: usize = 64;
const TOLERANCE: f64 = 1e-6;

/// Attention factor and frequencies by name.
fn written() -> BTreeMap<&'static str, Vec<f64>> {
    let line = |line: &'static str| {
        let (name, numbers) = line.split_once(' ').expect("a name and numbers");
        let numbers = numbers.split(' ').map(|n| n.parse().expect(line));
        (name, numbers.collect())
    };
    WRITTEN.lines().map(line).collect()
}

fn yarn(factor: f64, beta: (f64, f64), truncate: bool, attention_factor: f64) -> FrequencyScaling {
    FrequencyScaling::Yarn {
        factor,
        original_max_positions: 4_096.0,
        beta_fast: beta.0,
        beta_slow: beta.1,
        truncate,
        attention_factor,
    }
}

fn long_rope(factor: impl Fn(f64) -> f64) -> FrequencyScaling {
    FrequencyScaling::LongRope {
        factors: (0..32).map(|i| factor(f64::from(i))).collect(),
        attention_factor: (1.0 + 32f64.ln() / 4_096f64.ln()).sqrt(),
    }
}

fn dynamic(longest: f64) -> FrequencyScaling {
    FrequencyScaling::Dynamic {
        factor: 2.0,
        original_max_positions: 2_048.0,
        longest,
    }
}

/// The scalings of the script, with their bases.
fn scalings() -> Vec<(&'static str, f64, FrequencyScaling)> {
    let llama3 = FrequencyScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_positions: 8_192.0,
    };
    let proportional = FrequencyScaling::Proportional {
        factor: 2.0,
        rotated: 8,
    };
    let usual = 0.1 * 4f64.ln() + 1.0;
    let (plain, ends) = ((32.0, 1.0), (24.0, 2.0));
    let wide = yarn(32.0, plain, false, 0.1 * 32f64.ln() + 1.0);
    vec![
        ("linear", 1e4, FrequencyScaling::Linear { factor: 2.5 }),
        ("llama3", 5e5, llama3),
        ("yarn", 1e4, yarn(4.0, plain, true, usual)),
        ("yarn-ends", 1e6, yarn(4.0, ends, true, usual)),
        ("yarn-no-truncation", 1.5e5, wide),
        ("yarn-factor", 1e4, yarn(4.0, plain, true, 0.75)),
        ("longrope-short", 1e4, long_rope(|i| 1.0 + i / 16.0)),
        ("longrope-long", 1e4, long_rope(|i| 1.0 + i * i / 8.0)),
        ("dynamic-short", 1e4, dynamic(100.0)),
        ("dynamic-long", 1e4, dynamic(5_000.0)),
        ("proportional", 1e6, proportional),
    ]
}

#[test]
fn frequencies_are_those_of_transformers() {
    let mut written = written();
    for (name, theta, scaling) in scalings() {
        let expected = written.remove(name).expect(name);
        let mut got = vec![scaling.attention_factor()];
        got.extend(scaling.frequencies(HEAD_DIM, theta));
        assert_eq!(got.len(), expected.len(), "{name}");
        for (index, (got, expected)) in got.iter().zip(&expected).enumerate() {
            assert!(
                (got - expected).abs() <= TOLERANCE * expected.abs(),
                "{name}, number {index}: {got:e} not {expected:e}"
            );
        }
    }
    assert!(written.is_empty(), "no scaling for {:?}", written.keys());
}

#[test]
fn the_attention_factor_multiplies_cosines_and_sines() {
    let position = 7;
    let scaling = yarn(4.0, (32.0, 1.0), true, 1.25);
    let frequencies = scaling.frequencies(HEAD_DIM, 1e4);
    let table = RopeTable::new(HEAD_DIM, 1e4, scaling, position + 1);
    let (cosines, sines) = (table.cos.data(), table.sin.data());
    for (pair, frequency) in frequencies.iter().enumerate() {
        let (sin, cos) = (frequency * position as f64).sin_cos();
        let at = position * table.half + pair;
        let close = |got: f32, exact: f64| (f64::from(got) - 1.25 * exact).abs() < 1e-7;
        assert!(close(cosines[at], cos) && close(sines[at], sin), "{pair}");
    }
}

/// The tables of version 1 of the arithmetic: a digest of a whole rotation and of a stretched one.
#[test]
fn tables_keep_their_bits() {
    let llama3 = FrequencyScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_positions: 8_192.0,
    };
    let digest = |scaling| {
        let table = RopeTable::new(HEAD_DIM, 5e5, scaling, 3_000);
        let mut hasher = blake3::Hasher::new();
        for value in table.cos.data().iter().chain(table.sin.data()) {
            hasher.update(&value.to_bits().to_le_bytes());
        }
        hasher.finalize().to_hex()[..16].to_string()
    };
    assert_eq!(digest(FrequencyScaling::None), "24d62c9afe54f616");
    assert_eq!(
        digest(FrequencyScaling::Linear { factor: 4.0 }),
        "84d68edc4222777d"
    );
    assert_eq!(digest(llama3), "dbc33bca98bd901d");
}
