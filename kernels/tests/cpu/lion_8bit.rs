//! Lion with its momentum in 8 bits, against its definition written in another way.

use concord_kernels::ops::LionStep;
use concord_kernels::reference::lion::step_one;
use concord_kernels::{MomentKind, PackedMoment, Tensor};

use crate::hosts;

/// Decoded, updated as with a momentum of f32, and coded as the numbers that come out.
#[test]
fn a_step_is_the_step_of_f32_between_decoding_and_coding() {
    let step = LionStep {
        gradient_scale: 0.5,
        learning_rate: 1e-2,
        beta1: 0.9,
        beta2: 0.99,
        weight_decay: 0.1,
    };
    let len = 256 * 2 + 77;
    let number = |i: usize, k: usize| ((i * k) % 1_009) as f32 / 504.5 - 1.0;
    let numbers = |k| Tensor::new(&[len], (0..len).map(|i| number(i, k)).collect::<Vec<_>>());
    let (gradient, value) = (numbers(7).unwrap(), numbers(11).unwrap());
    let first = PackedMoment::nearest(MomentKind::First, "m", &numbers(13).unwrap()).unwrap();
    let old = first.decoded().unwrap();
    let (mut values, mut moments) = (Vec::new(), Vec::new());
    for i in 0..len {
        let (v, m) = step_one(&step, gradient.data()[i], value.data()[i], old.data()[i]);
        values.push(v.to_bits());
        moments.push(m);
    }
    let moments = Tensor::new(&[len], moments).unwrap();
    let expected = PackedMoment::nearest(MomentKind::First, "m", &moments).unwrap();
    for device in hosts() {
        let (mut new, mut momentum) = (value.clone(), first.clone());
        device
            .lion_8bit(&step, &gradient, &mut new, &mut momentum)
            .unwrap();
        let new: Vec<u32> = new.data().iter().map(|v| v.to_bits()).collect();
        assert_eq!(new, values);
        assert_eq!(momentum.words().unwrap(), expected.words().unwrap());
    }
}
