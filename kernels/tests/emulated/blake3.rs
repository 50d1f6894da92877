//! Digests of every length, after prefixes of every length.

use concord_kernels::conformance::{CaseInput, InputKind};
use concord_kernels::{Device, Tensor};

use crate::gpus::{devices, gpus, placed};

/// The digest as the library gives it.
fn expected_digest(data: &[f32], key: &[u8; 32], prefix: &[u8]) -> [u8; 32] {
    let x = Tensor::new(&[data.len()], data.to_vec()).unwrap();
    x.derived_digest(key, prefix).unwrap()
}

fn check_digest(device: &Device, data: &[f32], prefix: usize) {
    let key = blake3::hazmat::hash_derive_key_context("a test of digests on a GPU");
    let prefix: Vec<u8> = (0..prefix).map(|i| (i * 31 + 7) as u8).collect();
    let x = placed(device, data, &[data.len()]).unwrap();
    let got = x.derived_digest(&key, &prefix).unwrap();
    let expected = expected_digest(data, &key, &prefix);
    let (len, bytes) = (data.len(), prefix.len());
    assert_eq!(got, expected, "{len} elements after {bytes} bytes");
}

#[test]
fn digests_of_every_length_up_to_5_000_bytes() {
    let data = CaseInput::new(11, InputKind::Wide).numbers(1, 1_250);
    let device = Device::Cuda(gpus()[0].clone());
    (0..=1_250).for_each(|len| check_digest(&device, &data[..len], len * 7 % 101));
}

#[test]
fn digests_after_every_prefix_up_to_100_bytes() {
    let data = CaseInput::new(12, InputKind::Wide).numbers(1, 1_250);
    let device = Device::Cuda(gpus()[0].clone());
    for prefix in 0..=100 {
        for len in [0, 1, 239, 240, 255, 256, 257, 495, 512, 768] {
            check_digest(&device, &data[..len], prefix);
        }
    }
    check_digest(&device, &data, 3_000);
}

/// A view of a tensor starts at any element; trees of one, two and three levels of blocks.
#[test]
fn digests_of_megabytes() {
    let data = CaseInput::new(13, InputKind::Wide).numbers(1, 1_300_000);
    for device in devices() {
        for (len, prefix) in [
            (65_535, 4),
            (65_536, 0),
            (65_536, 1),
            (131_072, 0),
            (300_001, 77),
        ] {
            check_digest(&device, &data[..len], prefix);
        }
        let x = placed(&device, &data[..4_000], &[4_000, 1]).unwrap();
        let part = x.rows(1_001, 2_100).derived_digest(&[9; 32], b"x").unwrap();
        assert_eq!(part, expected_digest(&data[1_001..3_101], &[9; 32], b"x"));
    }
    check_digest(&Device::Cuda(gpus()[0].clone()), &data, 50);
}
