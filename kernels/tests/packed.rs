//! Products with matrices that stay packed: the bits of products with the codes of their values, on
//! every instruction set and thread count, for every format.

use concord_kernels::coded::{Coded, Precision};
use concord_kernels::cpu::Cpu;
use concord_kernels::isa::Isa;
use concord_kernels::packed::{BlockFormat, PackedRows, SharedBytes};
use concord_kernels::{Device, KernelError, Tensor};

/// A seeded generator (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn float(&mut self, spread: u64) -> f32 {
        let exponent = (127 - spread / 2 + self.next() % spread) as u32;
        f32::from_bits(self.next() as u32 & 0x807f_ffff | exponent << 23)
    }

    fn floats(&mut self, len: usize, spread: u64) -> Vec<f32> {
        (0..len).map(|_| self.float(spread)).collect()
    }
}

/// The byte with the exponent of each scale of a block.
fn exponents_of(format: BlockFormat) -> &'static [usize] {
    match format {
        BlockFormat::F32 | BlockFormat::Nf4 => &[3],
        BlockFormat::U4x32 | BlockFormat::U4x64 | BlockFormat::U4x128 => &[3],
        BlockFormat::U8x64 | BlockFormat::E4m3x64 | BlockFormat::Int8x64 => &[3],
        BlockFormat::F16 | BlockFormat::Bf16 => &[1],
        BlockFormat::Q8_0 | BlockFormat::Q4_0 | BlockFormat::Q5_0 | BlockFormat::Iq4Nl => &[1],
        BlockFormat::Iq4Xs => &[1],
        BlockFormat::Q4_1 | BlockFormat::Q5_1 | BlockFormat::Q4K | BlockFormat::Q5K => &[1, 3],
        BlockFormat::Q2K => &[81, 83],
        BlockFormat::Q3K => &[109],
        BlockFormat::Q6K => &[209],
        BlockFormat::Mxfp4 => &[],
    }
}

/// Rows of random codes: with scales of any size, of like sizes, and a row of zeros.
fn random_rows(random: &mut Random, format: BlockFormat, rows: usize, cols: usize) -> Vec<u8> {
    let width = format.row_bytes(cols).unwrap();
    let mut bytes: Vec<u8> = (0..rows * width).map(|_| random.next() as u8).collect();
    for (row, bytes) in bytes.chunks_exact_mut(width).enumerate() {
        for block in bytes.chunks_exact_mut(format.bytes()) {
            for &at in exponents_of(format) {
                // No exponent is that of infinity.
                block[at] &= 0xbf;
                if row % 3 == 1 {
                    block[at] = block[at] & 0x83 | 0x2c;
                }
            }
            if format == BlockFormat::Mxfp4 {
                block[0] = if row % 3 == 1 {
                    120 + block[0] % 4
                } else {
                    block[0] % 250
                };
            }
        }
        if format == BlockFormat::E4m3x64 {
            // No code is that of NaN.
            let blocks = bytes.chunks_exact_mut(format.bytes());
            let codes = blocks.flat_map(|block| &mut block[4..]);
            codes
                .filter(|code| **code & 127 == 127)
                .for_each(|code| *code = 1);
        }
        if row % 7 == 3 {
            bytes.fill(0);
        }
    }
    bytes
}

fn devices() -> Vec<Device> {
    let isas = Isa::ALL.into_iter().filter(|isa| isa.is_available());
    let cpus = isas.flat_map(|isa| [1, 3].map(|threads| Device::Cpu(Cpu::new(isa, threads))));
    std::iter::once(Device::Reference).chain(cpus).collect()
}

/// The matrix as a device makes it, and the codes of its values.
fn both(
    device: &Device,
    format: BlockFormat,
    [rows, cols]: [usize; 2],
    bytes: &[u8],
    precision: Precision,
) -> (PackedRows, Coded) {
    let shared = SharedBytes::from(bytes.to_vec());
    let packed = device
        .packed_rows(format, [rows, cols], shared, precision)
        .unwrap();
    let mut values = vec![0.0; rows * cols];
    format.decode(bytes, &mut values);
    let values = Tensor::new(&[rows, cols], values).unwrap();
    (
        packed,
        Device::Reference.code(&values, cols, precision).unwrap(),
    )
}

#[track_caller]
fn assert_same(what: &str, found: &Tensor, expected: &Tensor) {
    assert_eq!(found.shape(), expected.shape(), "{what}");
    for (i, (f, e)) in found.data().iter().zip(expected.data()).enumerate() {
        let same = f.to_bits() == e.to_bits() || f.is_nan() && e.is_nan();
        assert!(same, "{what}: element {i} is {f:e}, the codes give {e:e}");
    }
}

fn check(random: &mut Random, format: BlockFormat, shape: [usize; 2], counts: &[usize]) {
    let [rows, cols] = shape;
    let bytes = random_rows(random, format, rows, cols);
    for &count in counts {
        let x = Tensor::new(&[count, cols], random.floats(count * cols, 20)).unwrap();
        let dy = Tensor::new(&[count, rows], random.floats(count * rows, 20)).unwrap();
        let (weights, activations) = match count % 3 {
            0 => (Precision::I8, Precision::I16),
            1 => (Precision::I16, Precision::I16),
            _ => (Precision::I14, Precision::I8),
        };
        let x = Device::Reference.code(&x, cols, activations).unwrap();
        let mut expected = None;
        for device in devices() {
            let what = format!("{} {count} x {shape:?} {}", format.name(), device.name());
            let (packed, codes) = both(&device, format, shape, &bytes, weights);
            assert_eq!(packed.exp(), codes.exp.data(), "{what}");
            let (y, dx) = expected.get_or_insert_with(|| {
                (
                    Device::Reference.matmul(&x, &codes).unwrap(),
                    Device::Reference
                        .matmul_dx(&dy, &codes, activations)
                        .unwrap(),
                )
            });
            assert_same(&what, &device.matmul(&x, &packed).unwrap(), y);
            let found = device.matmul_dx(&dy, &packed, activations).unwrap();
            assert_same(&format!("{what}, dx"), &found, dx);
        }
    }
}

#[test]
fn products_are_those_of_the_codes() {
    let mut random = Random(1);
    for format in BlockFormat::ALL {
        let block = format.elements();
        check(&mut random, format, [1, block], &[1]);
        check(&mut random, format, [7, 3 * block], &[1, 2, 5, 8, 16]);
        check(
            &mut random,
            format,
            [37, block.max(320) / block * block],
            &[1, 3, 9, 17, 31],
        );
    }
}

#[test]
fn rows_that_are_deeper_than_a_block_of_sums_match() {
    let mut random = Random(2);
    for format in BlockFormat::ALL {
        let cols = (8_192 + 2 * 256 + 96) / format.elements() * format.elements();
        check(&mut random, format, [5, cols], &[1, 8]);
    }
}

#[test]
fn matrices_that_are_cut_over_threads_match() {
    let mut random = Random(3);
    for format in [
        BlockFormat::F16,
        BlockFormat::Q8_0,
        BlockFormat::Q4K,
        BlockFormat::Q5K,
    ] {
        check(&mut random, format, [1_030, 512], &[1, 6, 40]);
    }
}

/// Sums as large as they can be: every code at its limit, for few rows and for several.
#[test]
fn sums_at_their_limit_match() {
    for (cols, count) in [8_160, 8_192, 16_416]
        .into_iter()
        .flat_map(|c| [(c, 2), (c, 8)])
    {
        // 1.9922, whose code is 32,639 or near it, in every place; activations likewise, and their
        // opposite.
        let half = 0x3ff8_u16.to_le_bytes();
        let bytes: Vec<u8> = (0..2 * cols).flat_map(|_| half).collect();
        let x = [1.992_187_5, -1.992_187_5].into_iter().cycle();
        let x = x.flat_map(|x| std::iter::repeat_n(x, cols));
        let x = Tensor::new(&[count, cols], x.take(count * cols).collect::<Vec<f32>>()).unwrap();
        let x = Device::Reference.code(&x, cols, Precision::I16).unwrap();
        for device in devices() {
            let (packed, codes) =
                both(&device, BlockFormat::F16, [2, cols], &bytes, Precision::I16);
            let expected = Device::Reference.matmul(&x, &codes).unwrap();
            let found = device.matmul(&x, &packed).unwrap();
            let what = format!("{count} x {cols} {}", device.name());
            assert_same(&what, &found, &expected);
        }
    }
}

#[test]
fn numbers_that_are_not_finite_poison_their_row_and_are_named() {
    let mut bytes: Vec<u8> = 1.0_f32.to_le_bytes()[2..].repeat(3 * 40);
    bytes[2 * (40 + 7)..][..2].copy_from_slice(&[0x80, 0x7f]);
    let x = Tensor::new(&[1, 40], vec![1.0; 40]).unwrap();
    for device in devices() {
        let shared = SharedBytes::from(bytes.clone());
        let shape = [3, 40];
        let packed = device
            .packed_rows(BlockFormat::Bf16, shape, shared, Precision::I16)
            .unwrap();
        let error = packed.check_finite("w").unwrap_err().to_string();
        assert_eq!(error, "w: element 47 is inf: not a finite number");
        let x = device.code(&x, 40, Precision::I16).unwrap();
        let y = device.matmul(&x, &packed).unwrap();
        assert_eq!(y.data()[0], 40.0);
        assert!(y.data()[1].is_nan());
        assert_eq!(y.data()[2], 40.0);
    }
}

#[test]
fn bytes_that_do_not_fill_the_shape_are_refused() {
    let device = Device::cpu(1);
    for (format, shape, len) in [
        (BlockFormat::Q4K, [2, 256], 287),
        (BlockFormat::Q4K, [2, 128], 144),
        (BlockFormat::F16, [usize::MAX, 4], 8),
        (BlockFormat::F16, [3, usize::MAX], 8),
        (BlockFormat::Q8_0, [1, 0], 34),
    ] {
        let bytes = SharedBytes::from(vec![0; len]);
        let error = device
            .packed_rows(format, shape, bytes, Precision::I16)
            .unwrap_err();
        assert!(
            matches!(error, KernelError::ShapeMismatch { .. }),
            "{error}"
        );
    }
    let none = SharedBytes::from(Vec::new());
    let empty = device
        .packed_rows(BlockFormat::Q8_0, [0, 64], none, Precision::I16)
        .unwrap();
    let x = device
        .code(&Tensor::zeros(&[2, 64]), 64, Precision::I16)
        .unwrap();
    assert_eq!(device.matmul(&x, &empty).unwrap().shape(), [2, 0]);
}
