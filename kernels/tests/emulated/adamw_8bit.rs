//! Steps of the optimizer with moments in 8 bits.

use concord_kernels::ops::AdamStep;
use concord_kernels::{KernelError, MomentKind, PackedMoment, Tensor};

use crate::gpus::{devices, placed};

const STEP: AdamStep = AdamStep {
    gradient_scale: 0.125,
    learning_rate: 3e-4,
    beta1: 0.9,
    beta2: 0.95,
    bias1: 0.19,
    bias2: 0.0975,
    epsilon: 1e-8,
    weight_decay: 0.1,
};

/// A state that is held must not change with the one that is computed from it.
#[test]
fn what_shares_its_memory_with_another_moment_is_copied_first() {
    for device in devices() {
        let zeros = |kind| {
            device
                .place_moment(PackedMoment::zeros(kind, &[700]))
                .unwrap()
        };
        let (mut m, mut v) = (zeros(MomentKind::First), zeros(MomentKind::Second));
        let held = (m.clone(), v.clone());
        let before = (
            m.clone().into_host().unwrap(),
            v.clone().into_host().unwrap(),
        );
        let gradient = placed(&device, &[0.5; 700], &[700]).unwrap();
        let mut value = placed(&device, &[1.0; 700], &[700]).unwrap();
        device
            .adamw_8bit(&STEP, &gradient, &mut value, &mut m, &mut v)
            .unwrap();
        assert!(!m.is_on_host(), "it was fetched");
        assert_ne!(m.clone().into_host().unwrap(), before.0);
        let held = (held.0.into_host().unwrap(), held.1.into_host().unwrap());
        assert_eq!(held, before);
    }
}

#[test]
fn a_moment_that_overflows_is_refused_by_its_block() {
    for device in devices() {
        let zeros = |kind| {
            device
                .place_moment(PackedMoment::zeros(kind, &[2, 300]))
                .unwrap()
        };
        let (mut m, mut v) = (zeros(MomentKind::First), zeros(MomentKind::Second));
        let mut gradient = vec![1.0; 600];
        gradient[520] = 3e38;
        let gradient = placed(&device, &gradient, &[2, 300]).unwrap();
        let mut value = device.place(Tensor::zeros(&[2, 300])).unwrap();
        device
            .adamw_8bit(&STEP, &gradient, &mut value, &mut m, &mut v)
            .unwrap();
        let done = device.check_moments(&[("first", &m), ("second", &v)]);
        let Err(KernelError::NotFinite {
            tensor,
            index,
            value,
        }) = done
        else {
            panic!("{done:?}");
        };
        assert_eq!((&*tensor, index, value), ("second", 512, f32::INFINITY));
    }
}
