//! The list of checks: everything that a GPU must do as the CPU does.

use std::rc::Rc;

use concord_kernels::Device;
use concord_kernels::conformance::{self, CaseInput, InputKind, difference};
use concord_kernels::cuda::Cuda;
use concord_models::ModelError;
use concord_models::golden::GOLDENS;

use super::SuiteSize;
use super::engines;
use super::find::{Mismatch, unlike};
use super::training;

/// What is compared.
pub struct Subjects {
    /// The GPU.
    pub cuda: Cuda,
    /// The same, as a device.
    pub gpu: Device,
    /// The same card opened once more, with cuBLASLt in use; none where the machine lacks it.
    pub with_library: Option<Cuda>,
    /// What it must equal.
    pub cpu: Device,
}

/// What a check gives: the first difference, if there is one.
pub type Found = Result<Option<Mismatch>, ModelError>;

pub struct Check {
    /// What is reported together.
    pub group: &'static str,
    /// Its name, which with the seed says all of its input.
    pub name: String,
    work: Box<dyn Fn(&Subjects) -> Found>,
}

impl Check {
    /// A check of `work`.
    pub fn new(
        group: &'static str,
        name: impl Into<String>,
        work: impl Fn(&Subjects) -> Found + 'static,
    ) -> Self {
        Self {
            group,
            name: name.into(),
            work: Box::new(work),
        }
    }

    /// Runs it.
    ///
    /// # Errors
    /// [`ModelError::Kernel`] where a device fails.
    pub fn run(&self, subjects: &Subjects) -> Found {
        (self.work)(subjects)
    }
}

/// All checks; where `patterns` are given, those that have one of them in their names.
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

/// Every case of the conformance suite, on numbers of every kind. Small ones are compared with the
/// reference itself, large ones by the CPU, which tests hold equal to it.
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

/// Steps of a golden fine-tune that a quick run takes.
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
