//! Products of the emulated GPU against the reference: engines, strides, long sums, the rounding.

mod library;

use super::*;
use crate::conformance::{CaseInput, InputKind};
use crate::cuda::Arch;
use crate::cuda::emulator::{EmulatorOptions, Turns};
use crate::reference;
use crate::reference::code::{EMPTY, POISON};
use crate::reference::tree::Atoms;
use crate::rng::Philox;
use crate::{Device, coded};

const PAIRS: [(Precision, Precision); 5] = [
    (Precision::I16, Precision::I16),
    (Precision::I16, Precision::I8),
    (Precision::I8, Precision::I16),
    (Precision::I8, Precision::I8),
    (Precision::I14, Precision::I14),
];

/// One GPU for each generation of engines, each with another order of threads.
fn gpus() -> [Cuda; 4] {
    let turns = [
        Turns::Shuffled(1),
        Turns::Reverse,
        Turns::Forward,
        Turns::Shuffled(2),
    ];
    let arches = [61, 70, 75, 80];
    [0, 1, 2, 3].map(|i| {
        Cuda::emulated(EmulatorOptions {
            arch: Arch(arches[i]),
            turns: turns[i],
            multiprocessors: 1 + 2 * i as u32,
            ..EmulatorOptions::default()
        })
    })
}

fn random(seed: u64, rows: usize, cols: usize, precision: Precision) -> Coded {
    let words = Philox::new(seed, 0);
    let range = 2 * precision.limit() as u32 + 1;
    let code = |i| ((words.words(i)[0] % range) as i32 - precision.limit()) as i16;
    let q: Vec<i16> = (0..(rows * cols) as u64).map(code).collect();
    let exp: Vec<i32> = (0..rows).map(|row| row as i32 % 23 - 30).collect();
    Coded {
        rows,
        cols,
        precision,
        q: q.into(),
        exp: exp.into(),
    }
}

/// The same operand on the GPU.
fn on(cuda: &Cuda, host: &coded::Operand<'_>) -> GpuOperand {
    GpuOperand {
        q: cuda.upload(host.q).expect("room"),
        rows: host.rows,
        depth: host.depth,
        row_stride: host.row_stride,
        depth_stride: host.depth_stride,
        exp: (!host.exp.is_empty()).then(|| cuda.upload(host.exp).expect("room")),
        precision: host.precision,
    }
}

/// Checks the product by the engine that each GPU chooses, and by every engine of `engines_of`.
fn check(what: &str, a: coded::Operand<'_>, b: coded::Operand<'_>, engines_of: &[Cuda]) {
    let want = reference::matmul::matmul(a, b);
    for cuda in &gpus() {
        let got = product(cuda, &on(cuda, &a), &on(cuda, &b)).expect("it runs");
        compare(&format!("{what} on {}", cuda.name()), cuda, &got, &want);
    }
    for cuda in engines_of {
        for &engine in ProductEngine::of(cuda.arch()) {
            let out = cuda.alloc(want.len()).expect("room");
            multiply(cuda, engine, &on(cuda, &a), &on(cuda, &b), &out, &[]).expect("it runs");
            compare(
                &format!("{what} on {} by {engine}", cuda.name()),
                cuda,
                &out,
                &want,
            );
        }
    }
}

fn compare(what: &str, cuda: &Cuda, got: &Slice<f32>, want: &[f32]) {
    let got = cuda.download(got).expect("done");
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let same = got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan();
        assert!(same, "{what}: element {i} is {got:e}, not {want:e}");
    }
}

#[test]
fn odd_sizes_and_every_layout_match() {
    let shapes = [
        (1, 1, 1),
        (1, 130, 40),
        (5, 9, 64),
        (17, 129, 33),
        (65, 66, 100),
        (70, 136, 96),
    ];
    for (index, (rows, cols, depth)) in shapes.into_iter().enumerate() {
        // Every pair of precisions in one shape, two of them in the others.
        let pairs = if rows == 17 {
            0..5
        } else {
            index % 4..index % 4 + 2
        };
        for (pa, pb) in PAIRS[pairs].iter().copied() {
            let seed = index as u64;
            let (a, b) = (
                random(seed, rows, depth, pa),
                random(seed + 99, cols, depth, pb),
            );
            let (turned_a, turned_b) =
                (random(seed, depth, rows, pa), random(seed, depth, cols, pb));
            let what = format!("{rows}x{cols}x{depth} {pa:?} {pb:?}");
            check(&format!("{what}, rows"), a.by_rows(), b.by_rows(), &gpus());
            let columns = turned_b.by_cols(0, depth);
            check(
                &format!("{what}, columns of B"),
                a.by_rows(),
                columns,
                &gpus(),
            );
            let columns = turned_a.by_cols(0, depth);
            check(
                &format!("{what}, columns of A"),
                columns,
                b.by_rows(),
                &gpus(),
            );
        }
    }
}

#[test]
fn windows_and_strides_match() {
    for (pa, pb) in PAIRS {
        let (a, b) = (random(1, 50, 90, pa), random(2, 64, 90, pb));
        let a_part = coded::Operand {
            q: &a.q.data()[13..],
            rows: 25,
            depth: 64,
            row_stride: 180,
            exp: &a.exp.data()[..25],
            ..a.by_rows()
        };
        let b_part = coded::Operand {
            q: &b.q.data()[7..],
            rows: 63,
            depth: 64,
            ..b.by_rows()
        };
        check(&format!("windows {pa:?} {pb:?}"), a_part, b_part, &gpus());
        let strided = |operand, depth_stride| coded::Operand {
            depth: 30,
            depth_stride,
            ..operand
        };
        let (a_strided, b_strided) = (strided(a_part, 3), strided(b_part, 2));
        check(
            &format!("strided {pa:?} {pb:?}"),
            a_strided,
            b_strided,
            &gpus(),
        );
        let columns = b.by_cols(11, 30);
        check(
            &format!("columns {pa:?} {pb:?}"),
            strided(a_part, 1),
            columns,
            &gpus(),
        );
    }
}

/// Codes at the limit everywhere: the largest sums there are.
fn loudest(rows: usize, depth: usize, precision: Precision) -> Coded {
    let limit = precision.limit() as i16;
    let loud = if limit == 32_639 {
        127 * 256 - 128
    } else {
        limit
    };
    let row = |row: usize| [limit, -loud, loud, -limit][row % 4];
    let q: Vec<i16> = (0..rows * depth).map(|i| row(i / depth)).collect();
    Coded {
        rows,
        cols: depth,
        precision,
        q: q.into(),
        exp: vec![-14; rows].into(),
    }
}

#[test]
fn sums_at_the_limit_match() {
    for depth in [511, 512, 513, 1_023, 1_024, 1_025, 2_100] {
        for (pa, pb) in PAIRS {
            let (a, b) = (loudest(4, depth, pa), loudest(5, depth, pb));
            let what = format!("limits {pa:?} {pb:?} x{depth}");
            check(
                &what,
                a.by_rows(),
                b.by_rows(),
                &gpus()[if depth == 1_025 { 2..4 } else { 0..0 }],
            );
        }
    }
}

#[test]
fn sums_beyond_32_bits_match() {
    for depth in [65_536, 65_537] {
        let p = Precision::I16;
        let (a, b) = (loudest(5, depth, p), loudest(4, depth, p));
        check(
            &format!("deep x{depth}"),
            a.by_rows(),
            b.by_rows(),
            &gpus()[if depth == 65_537 { 2..3 } else { 0..0 }],
        );
    }
}

#[test]
fn extreme_exponents_round_once() {
    let exps = [
        0, -60, -75, -130, -163, 90, 114, 500, -500, 900, -900, 901, -901, 1_023, -1_022, 2_000,
        EMPTY, POISON,
    ];
    for (rows, cols) in [(4, 40), (30, 33)] {
        let mut a = random(3, rows, 70, Precision::I16);
        let mut b = random(4, cols, 70, Precision::I8);
        a.exp = (0..rows)
            .map(|i| exps[i % exps.len()])
            .collect::<Vec<_>>()
            .into();
        b.exp = (0..cols)
            .map(|i| exps[i * 7 % exps.len()])
            .collect::<Vec<_>>()
            .into();
        check("extreme exponents", a.by_rows(), b.by_rows(), &[]);
        // Results around the smallest subnormal numbers and the largest finite ones.
        for exp in [-90, -86, -83, -80, -78, -74, -70, 40, 46, 48, 49, 50] {
            a.exp = vec![exp; rows].into();
            b.exp = (0..cols)
                .map(|i| exp + i as i32 % 3)
                .collect::<Vec<_>>()
                .into();
            check(&format!("exponents {exp}"), a.by_rows(), b.by_rows(), &[]);
        }
    }
}

#[test]
fn sums_of_every_length_round_as_the_reference_rounds() {
    // Sums of any number of bits, also those that f64 does not hold, with ties and near ties.
    let mut sums = vec![0i64, 1, -1, i64::MAX, i64::MIN + 1];
    for bits in 1..62u32 {
        for tail in [0i64, 1, -1] {
            sums.extend([(1i64 << bits) + tail, -(1 << bits) - tail]);
            if bits > 25 {
                // Half a unit in the last place of an f32, and next to it.
                let half = 1i64 << (bits - 24);
                sums.extend([(1 << bits) + half + tail, (1 << bits) + 3 * half + tail]);
            }
        }
    }
    let cuda = &gpus()[3];
    let exps = [
        0, -20, 60, 66, 74, 80, 100, -140, -149, -160, -170, -200, -901, 1_023,
    ];
    let blank = |rows: usize, exp: &[i32]| GpuOperand {
        q: cuda.zeros(1).expect("room"),
        rows,
        depth: 0,
        row_stride: 0,
        depth_stride: 1,
        exp: Some(cuda.upload(exp).expect("room")),
        precision: Precision::I16,
    };
    let (a, b) = (
        blank(sums.len(), &vec![0; sums.len()]),
        blank(exps.len(), &exps),
    );
    let spread: Vec<i64> = sums.iter().flat_map(|&sum| exps.map(|_| sum)).collect();
    let out = cuda.alloc(spread.len()).expect("room");
    finish(
        cuda,
        &cuda.upload(&spread).expect("room"),
        &a,
        &b,
        &out,
        &[],
    )
    .expect("it runs");
    let pow2 = crate::math::pow2_f64;
    let rounded = |(i, &sum): (usize, &i64)| (sum as f64 * pow2(exps[i % exps.len()])) as f32;
    let want: Vec<f32> = spread.iter().enumerate().map(rounded).collect();
    compare("rounding", cuda, &out, &want);
}

#[test]
fn a_depth_of_nothing_gives_zeros_and_sides_of_nothing_give_nothing() {
    for (rows, cols, depth) in [(0, 5, 3), (5, 0, 3), (5, 20, 0), (1, 1, 0)] {
        let (a, b) = (
            random(5, rows, depth, Precision::I16),
            random(6, cols, depth, Precision::I16),
        );
        check(
            &format!("{rows}x{cols}x{depth}"),
            a.by_rows(),
            b.by_rows(),
            &[],
        );
    }
}

#[test]
fn partial_sums_add_up_to_the_product() {
    let (x, w) = (
        random(7, 21, 300, Precision::I16),
        random(8, 35, 300, Precision::I16),
    );
    let want = reference::matmul::matmul(x.by_rows(), w.by_rows());
    let columns = |coded: &Coded, range: std::ops::Range<usize>| {
        let rows = coded.q.data().chunks(coded.cols);
        let q: Vec<i16> = rows.flat_map(|row| row[range.clone()].to_vec()).collect();
        Coded {
            cols: range.len(),
            q: q.into(),
            ..coded.clone()
        }
    };
    for cuda in gpus() {
        let part = |range: std::ops::Range<usize>| {
            let sums = partial(&cuda, &columns(&x, range.clone()), &columns(&w, range));
            cuda.download(&sums.expect("it runs")).expect("done")
        };
        let sums: Vec<i64> = part(0..110)
            .iter()
            .zip(part(110..300))
            .map(|(a, b)| a + b)
            .collect();
        let sums = cuda.upload(&sums).expect("room");
        compare(
            "partial sums",
            &cuda,
            &rounded(&cuda, &sums, &x, &w).expect("it runs"),
            &want,
        );
    }
}

#[test]
fn a_wrong_product_names_the_engine() {
    let cuda = &gpus()[2];
    let one_more = |a: &GpuOperand, b: &GpuOperand, into: Results<'_>| {
        let Results::Sums(sums) = into else {
            unreachable!("the sums are compared first");
        };
        launch(cuda, ProductEngine::Int8, a, b, into)?;
        let mut wrong = cuda.download(sums)?;
        wrong[71] += 1;
        Ok(cuda.copy(&cuda.upload(&wrong)?, sums)?)
    };
    let error = verify::verify_by(cuda, "crooked", &one_more).expect_err("a sum differs");
    let error = error.to_string();
    for word in [
        "emulated",
        "by its crooked engine",
        "sums of I8 by I8, row 1 column 2: ",
    ] {
        assert!(error.contains(word), "no {word:?} in: {error}");
    }
}

#[test]
fn atoms_are_added_by_the_tree_whatever_their_number() {
    let device = Device::Cuda(gpus()[3].clone());
    for tokens in [
        1,
        250,
        257,
        3 * 256,
        5 * 256 + 3,
        8 * 256,
        11 * 256,
        19 * 256 + 1,
    ] {
        let (cols, features) = (3, 5);
        let draw = CaseInput::new(tokens as u64, InputKind::Ordinary);
        let dy = draw.tensor(0, &[tokens, cols]).expect("it fills");
        let x = draw.tensor(1, &[tokens, features]).expect("it fills");
        let atoms = Atoms::new(1, tokens);
        let run = |device: &Device| {
            let x = device.code(&x, features, Precision::I16).expect("it runs");
            let dw = device
                .matmul_dw(&dy, &x, &atoms, Precision::I16)
                .expect("it runs");
            dw.into_values().expect("done")
        };
        let (got, want) = (run(&device), run(&Device::Reference));
        let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        assert_eq!(bits(got), bits(want), "{tokens} tokens");
    }
}
