//! Row coding: the CPU back-end against the reference, bit for bit.

use concord_kernels::coded::{Coded, Precision};
use concord_kernels::cpu::code::quantize::quantize;
use concord_kernels::cpu::{Cpu, code};
use concord_kernels::isa::Isa;
use concord_kernels::packed::QuantFormat;
use concord_kernels::reference;
use concord_kernels::reference::code::POISON;

use crate::random::Random;

const SEED: u64 = 0x00c0_de5e_ed00_0001;
const PRECISIONS: [Precision; 3] = [Precision::I8, Precision::I14, Precision::I16];

fn cpus() -> Vec<Cpu> {
    let isas = Isa::ALL.into_iter().filter(|isa| isa.is_available());
    isas.flat_map(|isa| [1, 2, 3].map(|threads| Cpu::new(isa, threads)))
        .collect()
}

#[track_caller]
fn assert_same(what: &str, cpu: &Cpu, got: &Coded, want: &Coded) {
    let place = format!(
        "{what}, {} with {} threads, seed {SEED:#x}",
        cpu.isa(),
        cpu.threads()
    );
    assert_eq!(
        (got.rows, got.cols),
        (want.rows, want.cols),
        "{place}: shape"
    );
    assert_eq!(
        (got.exp.len(), got.q.len()),
        (want.exp.len(), want.q.len()),
        "{place}: lengths"
    );
    for (row, (got, want)) in got.exp.data().iter().zip(want.exp.data()).enumerate() {
        assert_eq!(got, want, "{place}: exponent of row {row}");
    }
    for (i, (g, w)) in got.q.data().iter().zip(want.q.data()).enumerate() {
        assert_eq!(
            g,
            w,
            "{place}: code at row {} column {}",
            i / want.cols,
            i % want.cols
        );
    }
}

fn check(cpus: &[Cpu], what: &str, x: &[f32], cols: usize, fold: Option<(&[i32], &[i32])>) {
    let rows = x.len() / cols;
    let transposed: Vec<f32> = (0..x.len())
        .map(|i| x[i % rows * cols + i / rows])
        .collect();
    for precision in PRECISIONS {
        let (by_col, by_row) = (fold.map(|f| f.0), fold.map(|f| f.1));
        let want_rows = reference::code::code_rows(x, cols, by_col, precision);
        let want_cols = reference::code::code_cols(x, cols, by_row, precision);
        assert_eq!(
            want_cols,
            reference::code::code_rows(&transposed, rows, by_row, precision),
            "the reference's columns are the rows of the transpose"
        );
        for cpu in cpus {
            let got = code::code_rows(cpu, x, cols, by_col, precision);
            assert_same(
                &format!("{what}, rows {precision:?}"),
                cpu,
                &got,
                &want_rows,
            );
            let got = code::code_cols(cpu, x, cols, by_row, precision);
            assert_same(
                &format!("{what}, columns {precision:?}"),
                cpu,
                &got,
                &want_cols,
            );
        }
    }
}

#[test]
fn random_rows_and_columns_match() {
    println!("seed {SEED:#x}");
    let cpus = cpus();
    let mut random = Random::new(SEED);
    for round in 0..24 {
        let (rows, cols) = (1 + random.below(90), 1 + random.below(150));
        let spread = [0, 8, 40, 120][round % 4];
        let x: Vec<f32> = (0..rows * cols).map(|_| random.float(spread)).collect();
        check(
            &cpus,
            &format!("{rows}x{cols} spread {spread}"),
            &x,
            cols,
            None,
        );
        let by_col: Vec<i32> = (0..cols).map(|_| random.within(20 + spread)).collect();
        let by_row: Vec<i32> = (0..rows).map(|_| random.within(20 + spread)).collect();
        check(
            &cpus,
            &format!("{rows}x{cols} folded"),
            &x,
            cols,
            Some((&by_col, &by_row)),
        );
    }
}

#[test]
fn threads_do_not_change_large_codes() {
    let cpus = cpus();
    let mut random = Random::new(SEED ^ 1);
    let (rows, cols) = (333, 257);
    let x: Vec<f32> = (0..rows * cols).map(|_| random.float(6)).collect();
    check(&cpus, "333x257", &x, cols, None);
}

#[test]
fn every_bit_pattern_class_matches() {
    let cpus = cpus();
    let mut random = Random::new(SEED ^ 2);
    // Any bits at all: NaN, infinities, subnormals and signed zeros come up by themselves.
    for finite in [true, false] {
        let (rows, cols) = (65, 64);
        let mut x: Vec<f32> = (0..rows * cols)
            .map(|_| f32::from_bits(random.next() as u32))
            .collect();
        if finite {
            x.iter_mut()
                .filter(|v| !v.is_finite())
                .for_each(|v| *v = -0.0);
        }
        check(&cpus, &format!("any bits, finite {finite}"), &x, cols, None);
    }
}

#[test]
fn extreme_rows_match() {
    let cpus = cpus();
    let cols = 37;
    let tiny = f32::from_bits(1);
    let rows: [&dyn Fn(usize) -> f32; 9] = [
        &|_| 0.0,
        &|j| if j % 2 == 0 { -0.0 } else { 0.0 },
        &|j| tiny * (j + 1) as f32,
        &|j| f32::MIN_POSITIVE * (j as f32 - 3.0),
        &|j| if j == 20 { f32::MAX } else { tiny },
        &|j| if j == 36 { f32::NAN } else { 1.0 },
        &|j| if j == 0 { f32::NEG_INFINITY } else { 1.0 },
        // The largest just below a power of two: rounding bumps the exponent.
        &|j| if j == 3 { -1.999_999_9 } else { 0.5 },
        &|j| (j as f32 - 18.0) * 32_639.0 / 18.0,
    ];
    let x: Vec<f32> = rows.iter().flat_map(|row| (0..cols).map(row)).collect();
    check(&cpus, "extreme rows", &x, cols, None);
    let folds = [
        0, 1, -1, 30, -130, 127, -126, 128, 500, -500, 1023, -1022, -1100, 1024, POISON,
    ];
    for fold in folds {
        let by_col: Vec<i32> = (0..cols)
            .map(|j| if j % 5 == 2 { fold } else { 0 })
            .collect();
        let by_row: Vec<i32> = (0..rows.len())
            .map(|i| if i % 3 == 1 { fold } else { 0 })
            .collect();
        check(
            &cpus,
            &format!("extreme rows, fold {fold}"),
            &x,
            cols,
            Some((&by_col, &by_row)),
        );
        let (by_col, by_row) = (vec![fold; cols], vec![fold; rows.len()]);
        check(
            &cpus,
            &format!("extreme rows, all fold {fold}"),
            &x,
            cols,
            Some((&by_col, &by_row)),
        );
    }
}

#[test]
fn ties_round_to_even() {
    let x: Vec<f32> = (0..64).map(|i| i as f32 - 31.5).chain([32_639.0]).collect();
    let cols = x.len();
    for cpu in cpus() {
        let coded = code::code_rows(&cpu, &x, cols, None, Precision::I16);
        assert_eq!(coded.exp.data(), [0]);
        assert_eq!(&coded.q.data()[30..34], [-2, 0, 0, 2]);
    }
}

#[test]
fn empty_inputs_have_no_rows() {
    for cpu in cpus() {
        assert_eq!(code::code_rows(&cpu, &[], 7, None, Precision::I16).rows, 0);
        assert_eq!(code::code_rows(&cpu, &[], 0, None, Precision::I16).rows, 0);
        let want = reference::code::code_cols(&[], 7, None, Precision::I16);
        assert_eq!(code::code_cols(&cpu, &[], 7, None, Precision::I16), want);
    }
}

#[test]
fn quantised_blocks_are_those_of_the_scalar_code() {
    let mut random = Random::new(9);
    // More blocks than a thread takes at a time.
    let values: Vec<f32> = (0..256 * 300).map(|_| random.float(20)).collect();
    for format in QuantFormat::ALL {
        let blocks = format.blocks();
        let mut expected = vec![0; blocks.row_bytes(values.len()).unwrap()];
        format.quantize(&values, &mut expected).unwrap();
        let mut numbers = vec![0.0; values.len()];
        blocks.decode(&expected, &mut numbers);
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            let (mut near, mut bytes) = (values.clone(), vec![0; expected.len()]);
            quantize(isa, format, &mut near, &mut bytes).unwrap();
            assert!(bytes == expected, "{format:?} {}", isa.name());
            let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert!(bits(&near) == bits(&numbers), "{format:?} {}", isa.name());
        }
    }
}
