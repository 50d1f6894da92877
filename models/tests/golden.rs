//! Tiny fine-tunes have the golden digests of arithmetic version 1 on every device, instruction
//! set and number of threads.

use concord_kernels::Device;
use concord_kernels::cpu::Cpu;
use concord_kernels::isa::Isa;
use concord_models::golden::{GOLDENS, Golden};

fn assert_golden(device: &Device, golden: &Golden) {
    let got = golden.digests_on(device, u32::MAX).unwrap();
    assert_eq!(
        got,
        golden.digests.map(|(_, digest)| digest),
        "{:?} training on {}: the bits after some steps are not those of the golden digests \
         {:?}. Either this is a bug, or the arithmetic has changed: then it needs a new \
         ARITHMETIC_VERSION, a line in NUMERICS.md, and these digests in the same commit",
        golden.kind,
        device.name(),
        golden.digests,
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
