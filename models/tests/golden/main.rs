//! Golden digests: what arithmetic version 1 makes of two tiny fine-tunes, bit for bit.
//!
//! A model is made from a counter, trained for 50 steps, and everything that came out is hashed.
//! The digests below must come out on every device, instruction set and number of threads, and on
//! every later day. They may change only together with `ARITHMETIC_VERSION` (NUMERICS.md).

mod model;
mod train;

use concord_kernels::Device;
use concord_kernels::cpu::Cpu;
use concord_kernels::isa::Isa;

use train::{Kind, digests};

/// Steps after which the state is hashed: the earlier one tells a slow drift from a plain bug.
const STEPS: [u32; 2] = [4, 50];

struct Golden {
    kind: Kind,
    /// Digests after [`STEPS`].
    digests: [&'static str; 2],
}

const GOLDENS: [Golden; 2] = [
    Golden {
        kind: Kind::Lora,
        digests: [
            "e33409c75ba6b13186cb322c48f250f9758a25d01cef96d030290743e5640985",
            "1a569b1787620fc26f7bf3eb6f8c3f91692fb5d66512ffb36f21e30b26740d6f",
        ],
    },
    Golden {
        kind: Kind::Full,
        digests: [
            "2b3ec1fa26256a4ced181ad66af58c3a02970781e8a6c27d85b47457851d4d00",
            "8ecfa8e239f17591bbf9d56fa08e5956726df1a261fd031b23e7d8adeaf4c97a",
        ],
    },
];

fn assert_golden(device: &Device, golden: &Golden) {
    let got = digests(device, golden.kind, &STEPS);
    assert_eq!(
        got,
        golden.digests,
        "{:?} training on {}: the bits after steps {:?} are not those of the golden digests. Either \
         this is a bug, or the arithmetic has changed: then it needs a new ARITHMETIC_VERSION, a \
         line in NUMERICS.md, and these digests in the same commit",
        golden.kind,
        device.name(),
        STEPS,
    );
}

#[test]
fn the_reference_has_the_golden_bits() {
    for golden in &GOLDENS {
        assert_golden(&Device::Reference, golden);
    }
}

#[test]
fn every_instruction_set_and_thread_count_has_the_golden_bits() {
    for isa in Isa::ALL {
        if !isa.is_available() {
            println!("skipped: this machine lacks {isa}");
            continue;
        }
        for threads in [1, 2] {
            let device = Device::Cpu(Cpu::new(isa, threads));
            for golden in &GOLDENS {
                assert_golden(&device, golden);
            }
        }
    }
}
