//! How products use a GPU: which kernels they start, on what grids, in how much memory. Their bits
//! are compared in the crate's own tests and by the conformance suite.

use concord_kernels::coded::Precision;
use concord_kernels::conformance::{CaseInput, InputKind};
use concord_kernels::cuda::emulator::{EmulatorOptions, Launched, Watch};
use concord_kernels::cuda::{Arch, Cuda, matmul};
use concord_kernels::ops::Atoms;
use concord_kernels::{Device, Tensor};

fn gpu(arch: u32) -> (Device, Watch) {
    let (cuda, watch) = Cuda::emulated_with_watch(EmulatorOptions {
        arch: Arch(arch),
        ..EmulatorOptions::default()
    });
    (Device::Cuda(cuda), watch)
}

fn placed(device: &Device, stream: u64, shape: &[usize]) -> Tensor {
    let host = CaseInput::new(3, InputKind::Ordinary).tensor(stream, shape);
    device.place(host.expect("it fills")).expect("room")
}

/// Names of the kernels.
fn names(launches: &[Launched]) -> Vec<&str> {
    launches.iter().map(|launch| launch.kernel.name).collect()
}

#[test]
fn each_generation_multiplies_on_its_best_engine() {
    use Precision::{I8, I14, I16};
    let table = [
        (61, 1, I16, I16, "matmul_few"),
        (61, 40, I16, I16, "matmul_dot_22"),
        (61, 40, I8, I16, "matmul_dot_12"),
        (70, 40, I16, I8, "matmul_half_21"),
        (75, 5, I16, I16, "matmul_int8_flat_22"),
        (75, 40, I14, I14, "matmul_int8_22"),
        (80, 4, I16, I8, "matmul_few"),
        (80, 16, I16, I8, "matmul_int8_flat_21"),
        (80, 17, I8, I8, "matmul_int8_11"),
    ];
    for (arch, rows, of_x, of_w, kernel) in table {
        let (device, watch) = gpu(arch);
        let (x, w) = (
            placed(&device, 1, &[rows, 48]),
            placed(&device, 2, &[70, 48]),
        );
        let x = device.code(&x, 48, of_x).expect("it runs");
        let w = device.code(&w, 48, of_w).expect("it runs");
        watch.launches();
        device.matmul(&x, &w).expect("it runs");
        assert_eq!(names(&watch.launches()), [kernel], "sm_{arch}, {rows} rows");
    }
}

#[test]
fn a_long_sum_of_few_tiles_is_cut_among_the_multiprocessors() {
    let (device, watch) = gpu(80);
    let (x, w) = (
        placed(&device, 1, &[20, 1_100]),
        placed(&device, 2, &[9, 1_100]),
    );
    let x = device.code(&x, 1_100, Precision::I16).expect("it runs");
    let w = device.code(&w, 1_100, Precision::I16).expect("it runs");
    watch.launches();
    device.matmul(&x, &w).expect("it runs");
    let launches = watch.launches();
    assert_eq!(names(&launches), ["matmul_int8_22", "matmul_finish"]);
    assert_eq!(launches[0].grid.blocks, [1, 2, 1]);
}

#[test]
fn gradients_of_weights_take_one_launch_an_atom_and_few_results() {
    let (cols, features, sequence, atoms) = (192, 512, 4 * Atoms::TOKENS, 16);
    let (device, watch) = gpu(80);
    let tokens = atoms * Atoms::TOKENS;
    let dy = placed(&device, 1, &[tokens, cols]);
    let x = placed(&device, 2, &[tokens, features]);
    let x = device.code(&x, features, Precision::I8).expect("it runs");
    let Device::Cuda(cuda) = &device else {
        unreachable!("it is a GPU");
    };
    watch.launches();
    let before = cuda.memory();
    let cut = Atoms::new(tokens / sequence, sequence);
    let dw = device.matmul_dw(&dy, &x, &cut, Precision::I8);
    drop(dw.expect("it runs"));
    let launches = watch.launches();
    let products = names(&launches)
        .iter()
        .filter(|name| name.starts_with("matmul_int8"))
        .count();
    // All atoms are coded at once; most sums of the tree are made by the products themselves.
    assert_eq!(names(&launches)[0], "code_cols");
    assert_eq!(
        (products, launches.len()),
        (atoms, atoms + 2),
        "{:?}",
        names(&launches)
    );
    // Sixteen atoms are a tree of height 4: five results at most, beside the codes of dy.
    let codes = (tokens * cols * size_of::<i16>() + atoms * cols * size_of::<i32>()) as u64;
    let result = (cols * features * size_of::<f32>()) as u64;
    let peak = cuda.memory().peak - before.in_use();
    assert!(
        peak <= codes * 9 / 8 + 5 * result,
        "{peak} bytes, a result has {result}"
    );
}

#[test]
fn every_generation_passes_the_vectors() {
    for arch in [61, 70, 75, 80] {
        let (Device::Cuda(cuda), _) = gpu(arch) else {
            unreachable!("it is a GPU");
        };
        matmul::verify(&cuda).expect("its products are right");
    }
}
