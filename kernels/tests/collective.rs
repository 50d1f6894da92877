//! Products that several ranks share have the bits of one device, on whatever devices the ranks
//! are.

use concord_kernels::collective::{Collective, group, verify};
use concord_kernels::{Buffer, Device, KernelError};

#[test]
fn ranks_on_cpus_give_the_bits_of_one() {
    for ranks in [1, 2, 3, 5] {
        let devices = vec![Device::cpu(1); ranks];
        assert_eq!(verify(&devices, 77).unwrap(), 4 * ranks);
    }
}

#[cfg(feature = "emulator")]
#[test]
fn gpus_and_cpus_share_a_product() {
    use concord_kernels::cuda::emulator::EmulatorOptions;
    use concord_kernels::cuda::{Arch, Cuda};
    let gpu = |arch| {
        Device::Cuda(Cuda::emulated(EmulatorOptions {
            arch: Arch(arch),
            ..EmulatorOptions::default()
        }))
    };
    let devices = [gpu(80), Device::cpu(1), gpu(61), Device::Reference];
    assert_eq!(verify(&devices, 78).unwrap(), 16);
    assert_eq!(verify(&devices[..1], 79).unwrap(), 4);
}

/// A rank that leaves is named to those who wait for it.
#[test]
fn a_rank_that_leaves_is_an_error() {
    let mut ranks = group(2);
    let (gone, left) = (ranks.pop(), ranks.pop().unwrap());
    let waiting = std::thread::spawn(move || {
        let mut x: Buffer<i64> = vec![1, 2].into();
        left.sum(&mut x)
    });
    drop(gone);
    let error = waiting.join().unwrap().unwrap_err();
    assert!(
        matches!(&error, KernelError::Collective(why) if why.contains("rank 1")),
        "{error}"
    );
}

#[test]
fn unlike_lengths_are_an_error_on_every_rank() {
    let ranks = group(2);
    let errors: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = ranks
            .into_iter()
            .enumerate()
            .map(|(rank, own)| {
                scope.spawn(move || {
                    let mut x: Buffer<i32> = vec![7; rank + 1].into();
                    own.max(&mut x)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(errors.iter().all(Result::is_err), "{errors:?}");
}
