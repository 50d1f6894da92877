//! The list of checks.

use std::rc::Rc;

use concord_kernels::Device;
use concord_kernels::conformance::{self, CaseInput, InputKind, difference};
use concord_models::golden::GOLDENS;

use super::SuiteSize;
use super::check::{Check, Subjects};
use super::engines;
use super::find::{Mismatch, unlike};
use super::training;

/// All checks; with `patterns`, only those whose names contain one of them.
pub fn all(subjects: &Subjects, size: SuiteSize, seed: u64, patterns: &[String]) -> Vec<Check> {
    let mut checks = engines::engines(size, seed);
    if subjects.with_library.is_some() {
        checks.extend(engines::library(size, seed));
    }
    checks.extend(operations(size, seed));
    checks.extend(engines::ranks(seed));
    checks.extend(goldens(size));
    checks.extend(training::checks(size, seed));
    if !patterns.is_empty() {
        checks.retain(|check| patterns.iter().any(|pattern| check.name.contains(pattern)));
    }
    checks
}

/// Every case of the conformance suite, on numbers of every kind. Small cases are compared with the
/// reference itself, large ones with the CPU, which tests hold equal to the reference.
fn operations(size: SuiteSize, seed: u64) -> Vec<Check> {
    let small = conformance::cases(conformance::CaseSize::Small);
    let small: Vec<String> = small.into_iter().map(|case| case.name).collect();
    let mut checks = Vec::new();
    for case in conformance::cases(size.of_cases()) {
        let case = Rc::new(case);
        let by_reference = small.contains(&case.name);
        for kind in InputKind::ALL {
            let (name, draw) = (
                format!("{}, {kind:?} numbers", case.name),
                CaseInput::new(seed, kind),
            );
            let case = Rc::clone(&case);
            checks.push(Check::new("operations", name, move |subjects| {
                let expecting = if by_reference {
                    &Device::Reference
                } else {
                    &subjects.cpu
                };
                let got = case.run(&subjects.gpu, &draw)?;
                let expected = case.run(expecting, &draw)?;
                Ok(difference(&got, &expected).map(Mismatch::from))
            }));
        }
    }
    checks
}

/// Steps of a golden fine-tune in a quick run.
const GOLDEN_STEPS_SMALL: u32 = 4;

fn goldens(size: SuiteSize) -> Vec<Check> {
    let steps = if size == SuiteSize::Full {
        u32::MAX
    } else {
        GOLDEN_STEPS_SMALL
    };
    let check = |golden: concord_models::golden::Golden| {
        let name = format!("golden {:?} fine-tune", golden.kind);
        Check::new("golden digests", name, move |subjects| {
            let got = golden.digests_on(&subjects.gpu, steps)?;
            let expected = golden.digests.map(|(_, digest)| digest.to_string());
            Ok(unlike("digest", &got, &expected[..got.len()]))
        })
    };
    GOLDENS.into_iter().map(check).collect()
}
