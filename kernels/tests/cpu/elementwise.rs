//! Sums and scaled sums: the CPU back-end against the reference, bit for bit.

use concord_kernels::cpu::{Cpu, elementwise as by_cpu};
use concord_kernels::isa::Isa;
use concord_kernels::reference::elementwise as reference;

use crate::random::Random;

const SEED: u64 = 0x9e33_0000_0000_0041;

#[test]
fn threads_change_no_bit() {
    let mut random = Random::new(SEED);
    // The last is cut for threads, with a rest.
    for len in [0, 1, 100, 200_003] {
        let mut numbers = || -> Vec<f32> {
            (0..len)
                .map(|_| random.within(1 << 20) as f32 * 1.3e-5)
                .collect()
        };
        let (a, b) = (numbers(), numbers());
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            for cpu in [1, 3].map(|threads| Cpu::new(isa, threads)) {
                let (mut got, mut want) = (a.clone(), a.clone());
                by_cpu::add_assign(&cpu, &mut got, &b);
                reference::add_assign(&mut want, &b);
                assert_eq!(bits(&got), bits(&want), "a sum of {len}, {isa}");

                let (mut got, mut want) = (a.clone(), a.clone());
                by_cpu::scaled_add_assign(&cpu, &mut got, -0.7, &b);
                reference::scaled_add_assign(&mut want, -0.7, &b);
                assert_eq!(bits(&got), bits(&want), "a scaled sum of {len}, {isa}");

                let got = by_cpu::scaled(&cpu, &a, 1.7);
                let want = reference::scaled(&a, 1.7);
                assert_eq!(bits(&got), bits(&want), "a scaled vector of {len}, {isa}");
            }
        }
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}
