//! Every operation on every instruction set and thread count against the scalar reference, by bits.

use concord_kernels::coded::Precision;
use concord_kernels::conformance::{CaseInput, CaseSize, InputKind, cases, difference};
use concord_kernels::cpu::Cpu;
use concord_kernels::isa::Isa;
use concord_kernels::{Device, Tensor};

const SEED: u64 = 0x5eed;

fn devices() -> Vec<Device> {
    let available = Isa::ALL.into_iter().filter(|isa| isa.is_available());
    available
        .flat_map(|isa| [1, 2, 3].map(|n| Device::Cpu(Cpu::new(isa, n))))
        .collect()
}

fn conforms(kind: InputKind) {
    let draw = CaseInput::new(SEED, kind);
    for case in cases(CaseSize::Small) {
        let expected = case.run(&Device::Reference, &draw).unwrap();
        for device in devices() {
            let got = case.run(&device, &draw).unwrap();
            if let Some(difference) = difference(&got, &expected) {
                let (case, device) = (&case.name, device.name());
                panic!("{case} on {device}, {kind:?} input of seed {SEED}: {difference:?}");
            }
        }
    }
}

#[test]
fn ordinary_numbers() {
    conforms(InputKind::Ordinary);
}

#[test]
fn numbers_of_all_magnitudes() {
    conforms(InputKind::Wide);
}

#[test]
fn subnormal_numbers() {
    conforms(InputKind::Tiny);
}

#[test]
fn numbers_that_overflow() {
    conforms(InputKind::Huge);
}

/// Proves that the comparison finds a single changed bit.
#[test]
fn a_changed_bit_is_a_difference() {
    let draw = CaseInput::new(SEED, InputKind::Ordinary);
    for case in cases(CaseSize::Small) {
        let expected = case.run(&Device::cpu(1), &draw).unwrap();
        let mut got = expected.clone();
        let Some(output) = got.iter().position(|output| !output.is_empty()) else {
            panic!("{} has no output", case.name);
        };
        let last = got[output].last_mut().unwrap();
        *last = f32::from_bits(last.to_bits() ^ 1);
        assert!(difference(&got, &expected).is_some(), "{}", case.name);
    }
}

/// A row of a batch is the row alone.
#[test]
fn rows_do_not_see_each_other() {
    let device = Device::cpu(2);
    let draw = CaseInput::new(SEED, InputKind::Ordinary);
    let x = draw.tensor(1, &[64, 100]).unwrap();
    let w = draw.tensor(2, &[70, 100]).unwrap();
    let code = |x: &Tensor| device.code(x, 100, Precision::I16).unwrap();
    let wc = code(&w);
    let batch = device.matmul(&code(&x), &wc).unwrap();
    for row in 0..64 {
        let alone = device.matmul(&code(&x.rows(row, 1)), &wc).unwrap();
        let expected = batch.rows(row, 1);
        let bits = |x: &Tensor| x.data().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&alone), bits(&expected), "row {row}");
    }
}
