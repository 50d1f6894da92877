//! The error on a machine without an NVIDIA driver when it is asked for a GPU.

use concord_kernels::cuda::{Cuda, CudaError, CudaOptions};

#[test]
fn a_machine_without_a_driver_is_told_what_it_needs() {
    let error = match Cuda::count() {
        Err(error @ CudaError::NoDriver) => error,
        other => {
            println!("skipped: this machine has a driver ({other:?})");
            return;
        }
    };
    let opened = Cuda::open(0, &CudaOptions::default()).expect_err("there is no driver");
    assert_eq!(opened.to_string(), error.to_string());
    for part in ["no NVIDIA driver", "libcuda", "525", "cpu"] {
        assert!(error.to_string().contains(part), "{error}: lacks {part}");
    }
}
