//! Sums over sequences of unlike lengths, and attention within the documents in them.

use super::attention::{self, variants};
use super::{CaseInput, CaseSize, OperationCase, Outputs, values};
use crate::coded::Precision;
use crate::reference::lengths::Lengths;
use crate::reference::tree::Atoms;
use crate::{Device, KernelError};

/// More than an atom, a part of one, neighbours of one length, and one token.
const SEQUENCES: [u32; 6] = [300, 7, 7, 1, 256, 40];
/// They fill the first two sequences.
const DOCUMENTS: [u32; 5] = [130, 37, 37, 1, 102];

pub(super) fn cases(_: CaseSize) -> Vec<OperationCase> {
    let mut cases = vec![OperationCase::new("sums over unlike sequences", sums)];
    let lengths = Lengths::new(DOCUMENTS.to_vec());
    let atoms = Lengths::new(SEQUENCES[..2].to_vec());
    for (shape, has_sinks) in variants() {
        let (documents, atoms) = (lengths.clone(), Atoms::of(atoms.clone()));
        cases.push(OperationCase::new(
            format!("attention within documents {shape:?} sinks {has_sinks}"),
            move |device, input| {
                let over = (&documents, &atoms);
                attention::run(device, input, over, (shape, has_sinks), Precision::I16)
            },
        ));
    }
    cases
}

fn sums(device: &Device, input: &CaseInput) -> Result<Outputs, KernelError> {
    const COLS: usize = 56;
    let atoms = Atoms::of(Lengths::new(SEQUENCES.to_vec()));
    let place = |stream| device.place(input.tensor(stream, &[atoms.tokens(), COLS])?);
    let (x, dy) = (place(4)?, place(5)?);
    let coded = device.code(&x, COLS, Precision::I16)?;
    let w = device.place(input.tensor(23, &[COLS])?)?;
    let (_, inverse) = device.rmsnorm(&x, &w, 1e-5)?;
    let (_, mean, deviation) = device.layernorm(&x, &w, None, 1e-5)?;
    let losses = device.place(input.tensor(28, &[atoms.tokens(), 1])?)?;
    let mut outputs = values([
        device.matmul_dw(&dy, &coded, &atoms, Precision::I16)?,
        device.bias_gradient(&dy, &atoms)?,
        device.rmsnorm_dw(&dy, &x, &inverse, COLS, &atoms)?,
        device.layernorm_dw(&dy, &x, &mean, &deviation, COLS, &atoms)?,
    ])?;
    outputs.push(vec![device.loss_sum(&losses, &atoms)?]);
    Ok(outputs)
}
