//! Rotary embedding.

use concord_kernels::tables::{FrequencyScaling, RopeTable};

use crate::gpus::{devices, placed};

#[test]
fn positions_from_outside_give_nan() {
    for device in devices() {
        let rope = RopeTable::new(4, 10_000.0, FrequencyScaling::None, 2);
        let rope = device.place_rope(rope).unwrap();
        let positions = device.ids(&[1, 2, u32::MAX]).unwrap();
        let mut x = placed(&device, &[1.0; 12], &[3, 4]).unwrap();
        device.rope(&mut x, &rope, &positions, false).unwrap();
        let x = x.into_values().unwrap();
        assert!(x[..4].iter().all(|v| v.is_finite()) && x[4..].iter().all(|v| v.is_nan()));
    }
}
