//! Every operation on random and hostile input, against the scalar reference, by bits. The tests of
//! this crate run it on every instruction set and on the emulated GPU, `concord gpu-suite` on a
//! GPU.

mod activation;
mod adamw;
mod adamw_8bit;
mod attention;
mod blake3;
mod code;
mod columns;
mod cross_entropy;
mod elementwise;
mod embedding;
mod experts;
mod input;
mod keys;
mod layernorm;
mod lengths;
mod lion;
mod lion_8bit;
mod logprobs;
mod matmul;
mod noise;
mod pages;
mod reduce;
mod rmsnorm;
mod rope;
mod route;
mod sample;
mod sgd;
mod soft_cap;

pub use input::{CaseInput, InputKind};

use crate::{Device, KernelError, Tensor};

/// How large the inputs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CaseSize {
    /// Every edge of every operation, in shapes that an emulated GPU gets through.
    Small,
    /// Shapes of real models, too.
    Full,
}

/// What an operation gave, output by output.
pub type Outputs = Vec<Vec<f32>>;

type RunCase = Box<dyn Fn(&Device, &CaseInput) -> Result<Outputs, KernelError> + Send + Sync>;

/// An operation in one shape.
pub struct OperationCase {
    /// Operation and shape.
    pub name: String,
    run: RunCase,
}

/// Where a device and the reference differ.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Which output of the operation.
    pub output: usize,
    /// Which element of it.
    pub index: usize,
    /// What the device gave, or `None` where it gave fewer elements.
    pub got: Option<f32>,
    /// What the reference gave.
    pub expected: Option<f32>,
    /// How many elements of all outputs differ.
    pub count: usize,
}

impl OperationCase {
    fn new(
        name: impl Into<String>,
        run: impl Fn(&Device, &CaseInput) -> Result<Outputs, KernelError> + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            run: Box::new(run),
        }
    }

    /// The outputs of `device` for `input`.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn run(&self, device: &Device, input: &CaseInput) -> Result<Outputs, KernelError> {
        (self.run)(device, input)
    }
}

/// All cases.
pub fn cases(size: CaseSize) -> Vec<OperationCase> {
    let of_operations = [
        code::cases(size),
        matmul::cases(size),
        attention::cases(size),
        keys::cases(),
        lengths::cases(size),
        pages::cases(size),
        rmsnorm::cases(size),
        layernorm::cases(size),
        rope::cases(),
        activation::cases(),
        columns::cases(),
        soft_cap::cases(),
        cross_entropy::cases(size),
        embedding::cases(),
        route::cases(),
        experts::cases(),
        adamw::cases(size),
        adamw_8bit::cases(size),
        lion::cases(size),
        lion_8bit::cases(size),
        sgd::cases(size),
        elementwise::cases(),
        noise::cases(),
        reduce::cases(),
        blake3::cases(size),
        sample::cases(size),
        logprobs::cases(),
    ];
    of_operations.into_iter().flatten().collect()
}

/// The first difference, if there is one. A NaN equals every NaN: its payload is not part of the
/// contract, and it never leaves a device.
pub fn difference(got: &Outputs, expected: &Outputs) -> Option<Difference> {
    let mut first = None;
    let mut count = 0;
    for output in 0..got.len().max(expected.len()) {
        let (got, expected) = (got.get(output), expected.get(output));
        let len = |x: Option<&Vec<f32>>| x.map_or(0, Vec::len);
        for index in 0..len(got).max(len(expected)) {
            let at = |x: Option<&Vec<f32>>| x.and_then(|x| x.get(index)).copied();
            let (got, expected) = (at(got), at(expected));
            if !same(got, expected) {
                count += 1;
                first.get_or_insert((output, index, got, expected));
            }
        }
    }
    first.map(|(output, index, got, expected)| Difference {
        output,
        index,
        got,
        expected,
        count,
    })
}

fn same(got: Option<f32>, expected: Option<f32>) -> bool {
    match (got, expected) {
        (Some(got), Some(expected)) => {
            got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan()
        }
        (None, None) => true,
        _ => false,
    }
}

/// The elements of several tensors.
fn values(tensors: impl IntoIterator<Item = Tensor>) -> Result<Outputs, KernelError> {
    tensors.into_iter().map(Tensor::into_values).collect()
}
