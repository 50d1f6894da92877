//! Checks of products: every engine of the GPU, NVIDIA's library, and devices that share a product.

use concord_kernels::coded::{Coded, Precision};
use concord_kernels::collective;
use concord_kernels::conformance::{CaseInput, InputKind, difference};
use concord_kernels::cuda::{CudaError, ProductEngine, matmul};
use concord_kernels::{Device, KernelError, Tensor};

use super::SuiteSize;
use super::check::{Check, Found, Subjects};
use super::find::Mismatch;

const ENGINES: &str = "engines of products";
const RANKS: &str = "ranks";

/// A check of every engine, also of those that would not be chosen for these sizes.
pub fn engines(size: SuiteSize, seed: u64) -> Vec<Check> {
    let mut shapes = vec![(1, 70, 33), (3, 64, 256), (65, 130, 96)];
    if size == SuiteSize::Full {
        shapes.extend([(129, 257, 1_025), (16, 1_024, 4_096), (512, 512, 65_600)]);
    }
    let known = Check::new(ENGINES, "engines on known products", |subjects| {
        known_products(matmul::verify(&subjects.cuda))
    });
    let mut checks = vec![known];
    for (shape, kind) in each_kind(&shapes) {
        let (m, n, k) = shape;
        let name = format!("engines on {m}x{n}x{k}, {kind:?} numbers");
        checks.push(Check::new(ENGINES, name, move |subjects| {
            let cuda = &subjects.cuda;
            let by_each = |x: &Coded, w: &Coded| {
                let product = |&engine: &ProductEngine| {
                    let product = matmul::product_by(cuda, engine, x, w)?;
                    Ok((engine.to_string(), product))
                };
                ProductEngine::of(cuda.arch()).iter().map(product).collect()
            };
            products_on(subjects, &CaseInput::new(seed, kind), shape, &by_each)
        }));
    }
    checks
}

/// cuBLASLt, where the machine has it: products that are large enough for it.
pub fn library(size: SuiteSize, seed: u64) -> Vec<Check> {
    let mut shapes = vec![(300, 310, 290)];
    if size == SuiteSize::Full {
        shapes.extend([(1_025, 2_047, 1_023), (512, 512, 131_200)]);
    }
    let known = Check::new(
        ENGINES,
        "cuBLASLt on known products",
        |subjects| match &subjects.with_library {
            Some(cuda) => known_products(matmul::offer_library(cuda).map(drop)),
            None => Ok(None),
        },
    );
    let mut checks = vec![known];
    for (shape, kind) in each_kind(&shapes) {
        let (m, n, k) = shape;
        let name = format!("cuBLASLt on {m}x{n}x{k}, {kind:?} numbers");
        checks.push(Check::new(ENGINES, name, move |subjects| {
            let Some(cuda) = &subjects.with_library else {
                return Ok(None);
            };
            let gpu = Device::Cuda(cuda.clone());
            let by_library =
                |x: &Coded, w: &Coded| Ok(vec![("cuBLASLt".to_string(), gpu.matmul(x, w)?)]);
            products_on(subjects, &CaseInput::new(seed, kind), shape, &by_library)
        }));
    }
    checks
}

/// Devices that share a product along its summed axis, each a rank.
pub fn ranks(seed: u64) -> Vec<Check> {
    let shared = move |devices: &[Device]| {
        collective::verify(devices, seed)?;
        Ok(None)
    };
    vec![
        Check::new(RANKS, "ranks: the GPU alone", move |subjects| {
            shared(std::slice::from_ref(&subjects.gpu))
        }),
        Check::new(RANKS, "ranks: GPU, CPU and GPU", move |subjects| {
            let (gpu, cpu) = (&subjects.gpu, &subjects.cpu);
            shared(&[gpu.clone(), cpu.clone(), gpu.clone()])
        }),
    ]
}

type Shape = (usize, usize, usize);

fn each_kind(shapes: &[Shape]) -> impl Iterator<Item = (Shape, InputKind)> {
    let of_shape = |&shape: &Shape| InputKind::ALL.map(|kind| (shape, kind));
    shapes.iter().flat_map(of_shape)
}

/// The mismatch of a wrong product among those on which a GPU is tried.
fn known_products(tried: Result<(), KernelError>) -> Found {
    match tried {
        Ok(()) => Ok(None),
        Err(KernelError::Cuda(error @ CudaError::WrongProducts { .. })) => Ok(Some(Mismatch {
            place: "known products".to_string(),
            got: error.to_string(),
            expected: "the exact sums".to_string(),
            count: 1,
        })),
        Err(error) => Err(error.into()),
    }
}

/// Products of the same codes, each with the name of what computed it.
type Products<'a> = dyn Fn(&Coded, &Coded) -> Result<Vec<(String, Tensor)>, KernelError> + 'a;

/// Compares the products that `products` computes from random codes with the CPU's.
fn products_on(
    subjects: &Subjects,
    draw: &CaseInput,
    (m, n, k): Shape,
    products: &Products<'_>,
) -> Found {
    let (x, w) = (draw.tensor(1, &[m, k])?, draw.tensor(2, &[n, k])?);
    let cpu = &subjects.cpu;
    for a in [Precision::I8, Precision::I16] {
        for b in [Precision::I8, Precision::I16] {
            let (x, w) = (cpu.code(&x, k, a)?, cpu.code(&w, k, b)?);
            let expected = vec![cpu.matmul(&x, &w)?.into_values()?];
            for (maker, got) in products(&x, &w)? {
                if let Some(difference) = difference(&vec![got.into_values()?], &expected) {
                    let finding = Mismatch::from(difference);
                    let place = format!("{maker}, {a:?} by {b:?}, {}", finding.place);
                    return Ok(Some(Mismatch { place, ..finding }));
                }
            }
        }
    }
    Ok(None)
}

#[cfg(all(test, feature = "emulator"))]
mod tests {
    use super::*;
    use crate::commands::gpu_suite::hardware;

    #[test]
    fn a_wrong_engine_is_named() {
        let cuda = hardware::open("emulated").unwrap();
        let subjects = Subjects {
            gpu: Device::Cuda(cuda.clone()),
            cpu: Device::cpu(1),
            with_library: None,
            cuda,
        };
        let draw = CaseInput::new(5, InputKind::Ordinary);
        // The second of two doubles its product.
        let two = |x: &Coded, w: &Coded| {
            let right = subjects.gpu.matmul(x, w)?;
            let wrong = subjects.gpu.scaled(&right, 2.0)?;
            Ok(vec![
                ("right".to_string(), right),
                ("wrong".to_string(), wrong),
            ])
        };
        let found = products_on(&subjects, &draw, (2, 3, 40), &two).unwrap();
        let place = found.unwrap().place;
        assert!(
            place.starts_with("wrong, I8 by I8, output 0, element"),
            "{place}"
        );
    }
}
