//! Codes of the emulated GPU against the reference: every class of numbers, every kind of fold.

use super::*;
use crate::Tensor;
use crate::cuda::emulator::{EmulatorOptions, Turns};
use crate::reference;
use crate::reference::code::{EMPTY, POISON};
use crate::rng::Philox;

const PRECISIONS: [Precision; 3] = [Precision::I8, Precision::I14, Precision::I16];

/// A row of atoms has at most so many tokens; the tests use sequences that end in the middle of
/// one.
const TOKENS: usize = Atoms::TOKENS;

fn gpus() -> [Cuda; 2] {
    [Turns::Reverse, Turns::Shuffled(3)].map(|turns| {
        Cuda::emulated(EmulatorOptions {
            turns,
            ..EmulatorOptions::default()
        })
    })
}

/// Rows of `x` by columns of folds, then columns of `x` in atoms by folds of the tokens.
fn check(what: &str, x: &[f32], cols: usize, by_col: Option<&[i32]>, by_row: &[i32]) {
    for cuda in gpus() {
        let on = cuda.upload(x).expect("room");
        let fold = by_col.map(|fold| cuda.upload(fold).expect("room"));
        for precision in PRECISIONS {
            let place = format!("{what}, {precision:?}");
            let got = rows(&cuda, &on, cols, fold.as_ref(), precision).expect("it runs");
            let want = reference::code::code_rows(x, cols, by_col, precision);
            let got = got.on_host().expect("done");
            assert_eq!(got.exp.data(), want.exp.data(), "{place}: exponents");
            assert_eq!(got.q.data(), want.q.data(), "{place}: codes");
            check_atoms(&cuda, &place, x, cols, by_row, precision);
        }
    }
}

fn check_atoms(cuda: &Cuda, what: &str, x: &[f32], cols: usize, fold: &[i32], p: Precision) {
    let tokens = fold.len();
    let sequences = if tokens.is_multiple_of(3) { 3 } else { 1 };
    let cut = Atoms::new(sequences, tokens / sequences);
    let place = |host: &[i32]| cuda.upload(host).expect("room");
    let x_on = cuda.upload(x).expect("room");
    let coded = atoms(cuda, &x_on, cols, &place(fold), &cut, p).expect("it runs");
    for index in 0..cut.count() {
        let (start, count) = cut.range(index);
        let (x, fold) = (
            &x[start * cols..(start + count) * cols],
            &fold[start..start + count],
        );
        let want = reference::code::code_cols(x, cols, Some(fold), p);
        let (q, exp) = coded.atom(index);
        let exp = cuda.download(&exp).expect("done");
        assert_eq!(exp, want.exp.data(), "{what}: exponents of atom {index}");
        let q = cuda.download(&q).expect("done");
        let used = q.chunks(coded.stride).flat_map(|row| &row[..count]);
        let used: Vec<i16> = used.copied().collect();
        assert_eq!(used, want.q.data(), "{what}: codes of atom {index}");
    }
}

/// Whole numbers of `[-limit, limit]`.
fn folds(seed: u64, len: usize, limit: i32) -> Vec<i32> {
    let words = Philox::new(seed, 1);
    let fold = |i| (words.words(i)[0] % (2 * limit as u32 + 1)) as i32 - limit;
    (0..len as u64).map(fold).collect()
}

#[test]
fn any_bits_match() {
    let shapes = [
        (1, 1),
        (3, 31),
        (9, 33),
        (2, 513),
        (66, 64),
        (TOKENS + 7, 5),
        (3 * TOKENS, 2),
    ];
    for (seed, (rows, cols)) in shapes.into_iter().enumerate() {
        let seed = seed as u64;
        let words = Philox::new(seed, 0);
        let any = |i| f32::from_bits(words.words(i)[0]);
        let x: Vec<f32> = (0..(rows * cols) as u64).map(any).collect();
        // Most rows of any bits hold a NaN: once as they are, twice without.
        let finite: Vec<f32> = x
            .iter()
            .map(|v| if v.is_finite() { *v } else { -0.0 })
            .collect();
        let narrow: Vec<f32> = finite
            .iter()
            .map(|v| f32::from_bits(v.to_bits() & 0x87ff_ffff | 0x3800_0000))
            .collect();
        let (by_col, by_row) = (folds(seed, cols, 150), folds(seed + 9, rows, 150));
        for (name, x) in [("any", &x), ("finite", &finite), ("narrow", &narrow)] {
            check(
                &format!("{name} {rows}x{cols}"),
                x,
                cols,
                None,
                &vec![0; rows],
            );
            check(
                &format!("{name} {rows}x{cols} folded"),
                x,
                cols,
                Some(&by_col),
                &by_row,
            );
        }
    }
}

#[test]
fn extreme_rows_and_folds_match() {
    let cols = 37;
    let tiny = f32::from_bits(1);
    let rows: [&dyn Fn(usize) -> f32; 10] = [
        &|_| 0.0,
        &|j| if j % 2 == 0 { -0.0 } else { 0.0 },
        &|j| tiny * (j + 1) as f32,
        &|j| f32::MIN_POSITIVE * (j as f32 - 3.0),
        &|j| if j == 20 { f32::MAX } else { tiny },
        &|j| if j == 36 { f32::NAN } else { 1.0 },
        &|j| if j == 0 { f32::NEG_INFINITY } else { 1.0 },
        // The largest just below a power of two: rounding bumps the exponent.
        &|j| if j == 3 { -1.999_999_9 } else { 0.5 },
        // Each limit and a half: the tie goes up, and the exponent with it.
        &|j| [32_639.5, 8_127.5, 127.5, 32_639.0][j % 4],
        &|j| (j as f32 - 18.0) * 32_639.0 / 18.0,
    ];
    let x: Vec<f32> = rows.iter().flat_map(|row| (0..cols).map(row)).collect();
    let all = [
        0, 1, -1, 30, -130, 127, -126, 128, 500, -500, 1_023, 1_024, -1_022, -1_023, -1_100, EMPTY,
        POISON,
    ];
    // Down to where products are subnormal in f64, or vanish; and up to where they overflow.
    let edges = (-1_030..-990)
        .step_by(3)
        .chain(885..905)
        .chain(1_000..1_020);
    for fold in all.into_iter().chain(edges) {
        let some = |i: usize, place: usize, step: usize| if i % step == place { fold } else { 0 };
        let by_col: Vec<i32> = (0..cols).map(|j| some(j, 2, 5)).collect();
        let by_row: Vec<i32> = (0..rows.len()).map(|i| some(i, 1, 3)).collect();
        check(
            &format!("some folds {fold}"),
            &x,
            cols,
            Some(&by_col),
            &by_row,
        );
        let (by_col, by_row) = (vec![fold; cols], vec![fold; rows.len()]);
        check(
            &format!("all folds {fold}"),
            &x,
            cols,
            Some(&by_col),
            &by_row,
        );
    }
    // Powers of two that f64 has beside one that it has not, which counts as 0.
    for value in [1.0f32, 8_192.0, 3e38] {
        let x = [value; 4];
        check(
            &format!("edge of powers {value}"),
            &x,
            2,
            Some(&[-1_022, -1_023]),
            &[-1_023, -1_022],
        );
    }
}

/// A single element: the row's exponent is its own.
#[test]
fn single_elements_match() {
    for fold in [-1_022, -1_000, -990, -900, -874, 0, 895, 1_000, 1_023] {
        for bits in [
            1,
            3,
            // 2^-53: by 2^-1022 it is half the least f64, which rounds to 0, and the next does not.
            0x2500_0000,
            0x2500_0001,
            0x7f_ffff,
            0x80_0000,
            0xff_ffff,
            0x3f7f_0000,
            0x3f7f_0001,
            0x7f7f_ffff,
        ] {
            check(
                &format!("{bits:x} by {fold}"),
                &[f32::from_bits(bits)],
                1,
                Some(&[fold]),
                &[fold],
            );
        }
    }
}

#[test]
fn nothing_is_coded_as_nothing() {
    let cuda = &gpus()[0];
    let none = cuda.upload::<f32>(&[]).expect("no bytes");
    for cols in [0, 7] {
        let coded = rows(cuda, &none, cols, None, Precision::I16).expect("no launch");
        assert_eq!((coded.rows, coded.q.len()), (0, 0));
    }
    let device = crate::Device::Cuda(cuda.clone());
    let x = Tensor::new(&[0, 7], Vec::new()).expect("no elements");
    assert_eq!(
        device.code(&x, 7, Precision::I8).expect("no launch").rows,
        0
    );
}
