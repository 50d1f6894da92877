//! Digests after prefixes of several lengths.

use super::{CaseInput, CaseSize, OperationCase, Outputs};
use crate::{Device, KernelError};

pub(super) fn cases(size: CaseSize) -> Vec<OperationCase> {
    let mut lengths = vec![0, 1, 31, 4_095, 4_096, 4_097, 12_301];
    if size == CaseSize::Full {
        lengths.push(1_000_003);
    }
    let case = |len| {
        OperationCase::new(format!("digest of {len}"), move |device, input| {
            digest(device, input, len)
        })
    };
    lengths.into_iter().map(case).collect()
}

fn digest(device: &Device, input: &CaseInput, len: usize) -> Result<Outputs, KernelError> {
    let x = device.place(input.tensor(63, &[len])?)?;
    let mut digests = Vec::new();
    for prefix in [0, 1, 21, 64, 100] {
        let digest = x.derived_digest(&[7; 32], &vec![0xa5; prefix])?;
        digests.push(digest.iter().map(|&byte| f32::from(byte)).collect());
    }
    Ok(digests)
}
