//! Every operation on emulated GPUs against the scalar reference, by bits: the kernels' own source,
//! compiled for the host, behind the launches, tiles and pools that a real GPU is driven by.

use std::time::{Duration, Instant};

use concord_kernels::Device;
use concord_kernels::conformance::{
    CaseInput, CaseSize, InputKind, OperationCase, cases, difference,
};
use concord_kernels::cuda::emulator::{EmulatorOptions, Turns};
use concord_kernels::cuda::{Arch, Cuda};

const SEED: u64 = 0x6e0;

/// One GPU for each back-end of the products, each with an order of threads of its own.
fn gpus() -> Vec<Device> {
    let orders = [
        (61, Turns::Forward),
        (70, Turns::Reverse),
        (75, Turns::Shuffled(1)),
        (80, Turns::Shuffled(2)),
    ];
    let gpu = |(arch, turns)| {
        Device::Cuda(Cuda::emulated(EmulatorOptions {
            arch: Arch(arch),
            turns,
            multiprocessors: arch % 7 + 1,
            ..EmulatorOptions::default()
        }))
    };
    orders.map(gpu).into()
}

/// The cases whose name holds CONCORD_CASES, or all.
fn chosen() -> Vec<OperationCase> {
    let wanted = std::env::var("CONCORD_CASES").unwrap_or_default();
    let mut cases = cases(CaseSize::Small);
    cases.retain(|case| case.name.contains(&wanted));
    cases
}

fn conforms(kind: InputKind) {
    let draw = CaseInput::new(SEED, kind);
    let mut failures = Vec::new();
    let mut slowest = (Duration::ZERO, String::new());
    for case in chosen() {
        let expected = case.run(&Device::Reference, &draw).unwrap();
        for gpu in gpus() {
            let start = Instant::now();
            let place = format!("{} on {}", case.name, gpu.name());
            match case.run(&gpu, &draw) {
                Err(error) => failures.push(format!("{place}: {error}")),
                Ok(got) => failures.extend(
                    difference(&got, &expected)
                        .map(|difference| format!("{place}: {difference:?}")),
                ),
            }
            slowest = slowest.max((start.elapsed(), place));
        }
    }
    println!("slowest: {slowest:?}");
    let count = failures.len();
    failures.truncate(20);
    assert!(
        count == 0,
        "{count} differ on {kind:?} input of seed {SEED}:\n{}",
        failures.join("\n")
    );
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
