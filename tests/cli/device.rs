//! Where a command computes: what it says of GPUs that are not there.

use concord_kernels::cuda::Cuda;

use crate::program::{arg, concord};
use crate::tiny_model::TinyModel;

fn generate(model: &TinyModel, device: &str) -> crate::program::Ran {
    let model = ["generate", "--model", arg(model.dir())];
    let rest = ["--prompt", "w3", "--max-tokens", "2", "--device", device];
    concord([&model[..], &rest].concat())
}

#[test]
fn without_a_gpu_auto_takes_the_cpu_and_says_why() {
    let Err(why) = Cuda::count() else {
        println!("skipped: this machine has NVIDIA's driver");
        return;
    };
    let model = TinyModel::new();
    let ran = generate(&model, "auto").good();
    assert!(ran.stderr.contains("device: cpu "), "{ran:#?}");
    let why = why.to_string();
    let cause = why.split(". ").next().unwrap();
    assert!(ran.stderr.contains(cause), "no {cause:?} in {ran:#?}");
    generate(&model, "cuda").refused(&[&why]);
    generate(&model, "cuda:7").refused(&[&why]);
}

#[test]
fn names_that_are_no_gpu_are_refused() {
    let model = TinyModel::new();
    for device in ["cuda:first", "cuda:-1", "cuda:"] {
        let words = format!("--device {device}: cuda:0 is the first card");
        generate(&model, device).refused(&[&words]);
    }
    if !cfg!(feature = "emulator") {
        generate(&model, "emulated").refused(&["unknown device 'emulated'"]);
    }
}
