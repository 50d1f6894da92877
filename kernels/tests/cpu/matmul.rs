//! Integer products: the CPU back-end against the reference, bit for bit.

use std::ops::Range;

use concord_kernels::coded::{Coded, Operand, Precision};
use concord_kernels::cpu::{Cpu, matmul as by_cpu};
use concord_kernels::isa::Isa;
use concord_kernels::reference::code::POISON;
use concord_kernels::reference::matmul::matmul;

use crate::random::Random;

const SEED: u64 = 0x9e33_0000_0000_0002;
const PRECISIONS: [Precision; 3] = [Precision::I8, Precision::I14, Precision::I16];

fn cpus() -> Vec<Cpu> {
    let isas = Isa::ALL.into_iter().filter(|isa| isa.is_available());
    isas.flat_map(|isa| [1, 2, 3].map(|threads| Cpu::new(isa, threads)))
        .collect()
}

fn pairs() -> impl Iterator<Item = (Precision, Precision)> {
    PRECISIONS
        .into_iter()
        .flat_map(|a| PRECISIONS.map(|b| (a, b)))
}

fn random_coded(random: &mut Random, rows: usize, cols: usize, precision: Precision) -> Coded {
    Coded {
        rows,
        cols,
        precision,
        q: (0..rows * cols)
            .map(|_| random.within(precision.limit()) as i16)
            .collect(),
        exp: (0..rows).map(|_| random.within(30) - 20).collect(),
    }
}

/// The same rows by depth, stored depth by rows: its `by_cols` is the operand.
fn transposed(coded: &Coded) -> Coded {
    let (rows, cols) = (coded.rows, coded.cols);
    let q = (0..rows * cols)
        .map(|i| coded.q.data()[i % rows * cols + i / rows])
        .collect::<Vec<_>>();
    Coded {
        rows: cols,
        cols: rows,
        precision: coded.precision,
        q: q.into(),
        exp: vec![0; cols].into(),
    }
}

#[track_caller]
fn check(cpus: &[Cpu], what: &str, a: Operand<'_>, b: Operand<'_>) {
    let want = matmul(a, b);
    for cpu in cpus {
        let isa = cpu.isa();
        let mut got = vec![f32::NAN; want.len()];
        by_cpu::matmul(cpu, a, b, &mut got);
        assert_same(
            &format!("{what}, {isa} with {} threads", cpu.threads()),
            b.rows,
            &got,
            &want,
        );
        let own = by_cpu::product(cpu, a, b);
        assert_same(&format!("{what}, {isa}, own memory"), b.rows, &own, &want);
        if cpu.threads() == 1 {
            got.fill(f32::NAN);
            by_cpu::matmul_serial(isa, a, b, &mut got);
            assert_same(&format!("{what}, {isa} serial"), b.rows, &got, &want);
        }
        check_added(cpu, what, (a, b), &want);
    }
}

/// A product that is multiplied and added is that of two steps.
#[track_caller]
fn check_added(cpu: &Cpu, what: &str, (a, b): (Operand<'_>, Operand<'_>), product: &[f32]) {
    for factor in [1.0, -0.3] {
        let before = (0..product.len()).map(|i| (i % 7) as f32 * 0.37 - 1.0);
        let mut got: Vec<f32> = before.collect();
        let both = got.iter().zip(product);
        let want: Vec<f32> = both.map(|(g, p)| f32::mul_add(factor, *p, *g)).collect();
        by_cpu::scaled_add_product(cpu, a, b, factor, &mut got);
        let what = format!("{what}, {} added {factor} times", cpu.isa());
        assert_same(&what, b.rows, &got, &want);
    }
}

#[track_caller]
fn assert_same(what: &str, cols: usize, got: &[f32], want: &[f32]) {
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        // A NaN is an error that is found later: its payload is not part of the contract.
        let same = g.to_bits() == w.to_bits() || g.is_nan() && w.is_nan();
        let (row, col) = (i / cols, i % cols);
        assert!(
            same,
            "{what}: [{row}, {col}] is {g:e}, the reference has {w:e}; seed {SEED:#x}"
        );
    }
}

/// Every layout of both sides.
fn check_layouts(cpus: &[Cpu], what: &str, a: &Coded, b: &Coded) {
    let (at, bt) = (transposed(a), transposed(b));
    check(
        cpus,
        &format!("{what}, rows x rows"),
        a.by_rows(),
        b.by_rows(),
    );
    let a_cols = Operand {
        exp: a.exp.data(),
        ..at.by_cols(0, at.rows)
    };
    check(
        cpus,
        &format!("{what}, columns x rows"),
        a_cols,
        b.by_rows(),
    );
    check(
        cpus,
        &format!("{what}, rows x columns"),
        a.by_rows(),
        bt.by_cols(0, bt.rows),
    );
    check(
        cpus,
        &format!("{what}, columns x columns"),
        a_cols,
        bt.by_cols(0, bt.rows),
    );
}

#[test]
fn random_shapes_match() {
    println!("seed {SEED:#x}");
    let cpus = cpus();
    let mut random = Random::new(SEED);
    for round in 0..40 {
        let (pa, pb) = pairs().nth(round % 9).expect("nine pairs");
        let rows = [1, 2, 5, 8, 9, 15, 30, 61][round % 8] + random.below(4);
        let (cols, depth) = (1 + random.below(80), 1 + random.below(300));
        let a = random_coded(&mut random, rows, depth, pa);
        let b = random_coded(&mut random, cols, depth, pb);
        check_layouts(
            &cpus,
            &format!("{rows}x{cols}x{depth} {pa:?} {pb:?}"),
            &a,
            &b,
        );
    }
}

#[test]
fn shapes_large_enough_for_threads_match() {
    let cpus = cpus();
    let mut random = Random::new(SEED ^ 1);
    // Those of 200 rows and more are packed beforehand; of these, 300 go over several parts of the
    // depth, and 1300 over several rows at once.
    for (rows, cols, depth) in [
        (200, 150, 300),
        (3, 700, 1025),
        (517, 17, 700),
        (20, 1030, 300),
        (27, 130, 4_160),
        (200, 40, 1025),
        (300, 300, 2_500),
        (1_300, 33, 2_500),
    ] {
        for (pa, pb) in [
            (Precision::I16, Precision::I16),
            (Precision::I16, Precision::I8),
            (Precision::I8, Precision::I8),
            (Precision::I14, Precision::I14),
        ] {
            let a = random_coded(&mut random, rows, depth, pa);
            let b = random_coded(&mut random, cols, depth, pb);
            check(
                &cpus,
                &format!("{rows}x{cols}x{depth} {pa:?}"),
                a.by_rows(),
                b.by_rows(),
            );
        }
    }
}

/// Rows around those from which B is packed, and panels of B that are read ahead: whole ones, a
/// last one that is not, and windows, which are not read ahead.
#[test]
fn rows_around_the_choice_of_a_path_match() {
    let cpus = cpus();
    let mut random = Random::new(SEED ^ 7);
    let shapes = [7, 8, 13, 14, 15, 16, 24, 25, 28, 29, 32, 33, 57, 64, 129]
        .map(|rows| (rows, 203, 768))
        .into_iter()
        .chain([7, 8, 10, 11, 29].map(|rows| (rows, 130, 2_080)))
        .chain([28, 29].map(|rows| (rows, 63, 520)));
    for (rows, cols, depth) in shapes {
        for (pa, pb) in [
            (Precision::I16, Precision::I16),
            (Precision::I16, Precision::I8),
            (Precision::I8, Precision::I8),
        ] {
            let a = random_coded(&mut random, rows, depth, pa);
            let b = random_coded(&mut random, cols, depth, pb);
            let what = format!("{rows}x{cols}x{depth} {pa:?} {pb:?}");
            check(&cpus, &what, a.by_rows(), b.by_rows());
            let [a, b] = [&a, &b].map(|coded| Operand {
                depth: depth - 3,
                ..coded.by_rows()
            });
            check(&cpus, &format!("{what}, windows"), a, b);
        }
    }
}

/// Rows and columns do not see each other, whatever pieces the work is cut into.
#[test]
fn parts_equal_the_whole() {
    let mut random = Random::new(SEED ^ 6);
    let a = random_coded(&mut random, 200, 1025, Precision::I16);
    let b = random_coded(&mut random, 5_600, 1025, Precision::I16);
    for cpu in cpus().iter().filter(|cpu| cpu.isa() != Isa::Portable) {
        let mut whole = vec![f32::NAN; a.rows * b.rows];
        by_cpu::matmul(cpu, a.by_rows(), b.by_rows(), &mut whole);
        for (rows, cols) in [
            (0..1, 0..5_600),
            (7..12, 5_000..5_555),
            (60..200, 5_290..5_330),
        ] {
            let (a_part, b_part) = (rows_of(&a, &rows), rows_of(&b, &cols));
            let mut part = vec![f32::NAN; rows.len() * cols.len()];
            by_cpu::matmul(cpu, a_part, b_part, &mut part);
            let row = |r: usize| whole[r * b.rows..][cols.clone()].iter().copied();
            let cut: Vec<f32> = rows.clone().flat_map(row).collect();
            let what = format!("rows {rows:?} columns {cols:?}, {}", cpu.isa());
            assert_same(&what, cols.len(), &part, &cut);
        }
    }
}

/// Some rows of a coded matrix.
fn rows_of<'a>(coded: &'a Coded, rows: &Range<usize>) -> Operand<'a> {
    Operand {
        q: &coded.q.data()[rows.start * coded.cols..],
        rows: rows.len(),
        exp: &coded.exp.data()[rows.clone()],
        ..coded.by_rows()
    }
}

#[test]
fn digits_at_their_limit_match() {
    let cpus = cpus();
    for depth in [
        1, 2, 31, 255, 256, 257, 511, 512, 513, 514, 1024, 4096, 8200,
    ] {
        for (pa, pb) in pairs() {
            let (la, lb) = (pa.limit() as i16, pb.limit() as i16);
            // Signs that agree, that disagree, and the digit pair (127, -128) that splits worst.
            let worst = |limit: i16| {
                if limit == 32_639 {
                    127 * 256 - 128
                } else {
                    limit
                }
            };
            for (rows, cols) in [(3, 5), (15, 33)] {
                let fill = |n: usize, choices: [i16; 4], precision| Coded {
                    rows: n,
                    cols: depth,
                    precision,
                    q: (0..n * depth).map(|i| choices[i / depth % 4]).collect(),
                    exp: vec![0; n].into(),
                };
                let a = fill(rows, [la, -la, worst(la), -worst(la)], pa);
                let b = fill(cols, [lb, worst(lb), -lb, -worst(lb)], pb);
                check(
                    &cpus,
                    &format!("limits {pa:?} {pb:?} x{depth}"),
                    a.by_rows(),
                    b.by_rows(),
                );
            }
        }
    }
}

#[test]
fn depths_beyond_the_blocks_match() {
    let cpus = cpus();
    let mut random = Random::new(SEED ^ 3);
    for depth in [65_536, 65_537, 140_000] {
        for (pa, pb) in [
            (Precision::I16, Precision::I16),
            (Precision::I8, Precision::I8),
        ] {
            let fill = |rows: usize, limit: i32| Coded {
                rows,
                cols: depth,
                precision: if limit == 127 {
                    Precision::I8
                } else {
                    Precision::I16
                },
                q: vec![limit as i16; rows * depth].into(),
                exp: vec![-14; rows].into(),
            };
            let (a, b) = (fill(9, pa.limit()), fill(2, pb.limit()));
            check(
                &cpus,
                &format!("limits {pa:?} x{depth}"),
                a.by_rows(),
                b.by_rows(),
            );
            let rows = if depth == 140_000 { 90 } else { 2 };
            let a = random_coded(&mut random, rows, depth, pa);
            let b = random_coded(&mut random, 3, depth, pb);
            check(
                &cpus,
                &format!("deep {pa:?} x{depth}"),
                a.by_rows(),
                b.by_rows(),
            );
        }
    }
}

#[test]
fn extreme_exponents_match() {
    let cpus = cpus();
    let mut random = Random::new(SEED ^ 4);
    let exps = [
        0, -60, -75, -130, -163, 90, 114, 500, -500, 900, -900, 1023, -1022, 2000, POISON,
    ];
    for (rows, cols) in [(4, 40), (30, 33)] {
        for (pa, pb) in pairs() {
            let mut a = random_coded(&mut random, rows, 70, pa);
            let mut b = random_coded(&mut random, cols, 70, pb);
            a.exp
                .values_mut()
                .unwrap()
                .iter_mut()
                .enumerate()
                .for_each(|(i, e)| *e = exps[i % exps.len()]);
            b.exp
                .values_mut()
                .unwrap()
                .iter_mut()
                .enumerate()
                .for_each(|(i, e)| *e = exps[i * 7 % exps.len()]);
            check(
                &cpus,
                &format!("extreme {pa:?} {pb:?}"),
                a.by_rows(),
                b.by_rows(),
            );
            // Outputs around the smallest subnormals and the largest finite numbers.
            for exp in [-83, -78, -74, -70, 40, 49, 50] {
                a.exp.values_mut().unwrap().fill(exp);
                b.exp.values_mut().unwrap().fill(exp);
                check(
                    &cpus,
                    &format!("exponents {exp} {pa:?} {pb:?}"),
                    a.by_rows(),
                    b.by_rows(),
                );
            }
        }
    }
}

#[test]
fn zero_rows_and_empty_sides_give_positive_zero() {
    let cpus = cpus();
    for (rows, cols, depth) in [
        (0, 5, 3),
        (5, 0, 3),
        (5, 20, 0),
        (0, 0, 0),
        (1, 1, 0),
        (20, 40, 9),
    ] {
        for (pa, pb) in pairs() {
            let zeros = |rows: usize, precision| Coded {
                rows,
                cols: depth,
                precision,
                q: vec![0; rows * depth].into(),
                exp: vec![-3; rows].into(),
            };
            let (a, b) = (zeros(rows, pa), zeros(cols, pb));
            check(
                &cpus,
                &format!("zeros {rows}x{cols}x{depth}"),
                a.by_rows(),
                b.by_rows(),
            );
        }
    }
}

#[test]
fn windows_of_larger_matrices_match() {
    let cpus = cpus();
    let mut random = Random::new(SEED ^ 5);
    for (pa, pb) in pairs() {
        let a = random_coded(&mut random, 50, 90, pa);
        let b = random_coded(&mut random, 64, 90, pb);
        // A head's columns of every row, as attention takes them; and strides of both axes.
        let window = |coded: &Coded, rows: usize, step: usize| (rows, coded.cols * step);
        let (rows, row_stride) = window(&a, 25, 2);
        let a_part = Operand {
            q: &a.q.data()[13..],
            rows,
            depth: 64,
            row_stride,
            exp: &a.exp.data()[..rows],
            ..a.by_rows()
        };
        let b_part = Operand {
            q: &b.q.data()[7..],
            depth: 64,
            ..b.by_rows()
        };
        check(&cpus, &format!("windows {pa:?} {pb:?}"), a_part, b_part);
        let a_strided = Operand {
            depth: 30,
            depth_stride: 3,
            ..a_part
        };
        let b_strided = Operand {
            depth: 30,
            depth_stride: 2,
            rows: 63,
            ..b_part
        };
        check(
            &cpus,
            &format!("strided {pa:?} {pb:?}"),
            a_strided,
            b_strided,
        );
        let b_cols = b.by_cols(11, 30);
        check(
            &cpus,
            &format!("columns {pa:?} {pb:?}"),
            Operand {
                depth: 30,
                ..a_part
            },
            b_cols,
        );
    }
}

#[test]
#[should_panic(expected = "leave the codes")]
fn strides_beyond_the_codes_are_refused() {
    let q = [1i16; 12];
    let operand = Operand {
        q: &q,
        rows: 3,
        depth: 4,
        row_stride: 5,
        depth_stride: 1,
        exp: &[],
        precision: Precision::I16,
    };
    by_cpu::matmul_serial(Isa::best(), operand, operand, &mut [0.0; 9]);
}
