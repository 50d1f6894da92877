//! The learning rate over the updates of a job.

mod messages;

use concord_proto::{
    CurveFromZero, EvaluationSpec, F32Bits, HeldOut, JobSpec, ModelPlace, RateSchedule,
    ScheduleKind, TrainedTensor,
};
use messages::Source;

const CURVES: [ScheduleKind; 3] = [
    ScheduleKind::Cosine,
    ScheduleKind::Linear,
    ScheduleKind::Constant,
];

fn schedule(kind: ScheduleKind, learning_rate: f32, warmup_steps: u32) -> RateSchedule {
    RateSchedule {
        b_ratio: None,
        kind,
        learning_rate: learning_rate.into(),
        warmup_steps,
    }
}

#[test]
fn warm_up_peak_and_end_of_every_curve() {
    let rate = |kind, update| schedule(kind, 1e-3, 5).rate(update, 25);
    let near = |got: f32, expected: f32| assert!((got / expected - 1.0).abs() < 1e-6, "{got}");
    for curve in CURVES {
        near(rate(curve, 0), 2e-4);
        near(rate(curve, 4), 1e-3);
        near(rate(curve, 5), 1e-3);
    }
    near(rate(ScheduleKind::Linear, 15), 5e-4);
    assert!((rate(ScheduleKind::Cosine, 15) - 5e-4).abs() < 1e-9);
    assert!(rate(ScheduleKind::Cosine, 24) < 1e-5);
    assert_eq!(rate(ScheduleKind::Constant, 24), 1e-3);
}

/// Rates enter the record of every step: another bit is another hash of the job.
#[test]
fn no_bit_of_a_rate_changes() {
    let floor = 0.1.into();
    let from_zero = ScheduleKind::FromZero;
    for (kind, expected) in [
        (ScheduleKind::Cosine, 0x4da7_05e2_5558_444d),
        (ScheduleKind::Linear, 0x8c56_4972_1ac8_0674),
        (ScheduleKind::Constant, 0xf744_385b_1a9d_0e3e),
        (
            from_zero(CurveFromZero::Cosine { floor }),
            0xb42e_f8a5_0ae8_5a2f,
        ),
        (from_zero(CurveFromZero::Linear), 0x6d03_500e_d454_5057),
        (from_zero(CurveFromZero::Constant), 0x86dc_a360_13f5_4bc5),
        (from_zero(CurveFromZero::InverseSqrt), 0x761f_e95d_a77c_f3d9),
        (ScheduleKind::Rex { floor }, 0x3749_958c_3c98_5799),
    ] {
        assert_eq!(digest(kind), expected, "{kind:?}");
    }
}

/// FNV-1a over the bits of all rates of a few jobs.
fn digest(kind: ScheduleKind) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for warmup_steps in [0, 7, 400] {
        let schedule = schedule(kind, 3e-4, warmup_steps);
        for update in 0..300 {
            for byte in schedule.rate(update, 300).to_bits().to_le_bytes() {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
            }
        }
    }
    hash
}

/// Rates of transformers 5.24.0 (`get_cosine_schedule_with_warmup` and its like), peak 1e-3,
/// warm-up 4, 20 steps, at steps 0, 1, 3, 4, 12 and 19.
#[test]
fn curves_from_zero_are_those_of_hugging_face() {
    const STEPS: [u32; 6] = [0, 1, 3, 4, 12, 19];
    let floor = |share: f32| CurveFromZero::Cosine {
        floor: share.into(),
    };
    let expected = [
        (floor(0.0), COSINE),
        (floor(0.1), COSINE_FLOOR),
        (CurveFromZero::Linear, LINEAR),
        (CurveFromZero::Constant, CONSTANT),
        (CurveFromZero::InverseSqrt, INVERSE_SQRT),
    ];
    for (curve, rates) in expected {
        let schedule = schedule(ScheduleKind::FromZero(curve), 1e-3, 4);
        for (step, expected) in STEPS.into_iter().zip(rates) {
            let got = f64::from(schedule.rate(step, 20));
            assert!(
                (got - expected).abs() < 1e-10,
                "{curve:?} at {step}: {got} {expected}"
            );
        }
    }
    let bare = schedule(ScheduleKind::FromZero(CurveFromZero::InverseSqrt), 1e-3, 0);
    assert_eq!(bare.rate(0, 20), 1e-3);
    assert!((f64::from(bare.rate(19, 20)) - INVERSE_SQRT_BARE).abs() < 1e-10);
}

/// Rates of Axolotl's `RexLR` (067b021), at the same steps. Torch's base class steps it once as it
/// is made, so that its first rate is that of `last_step` 1, and its last one the floor.
#[test]
fn rex_is_that_of_axolotl() {
    for (warmup_steps, floor, rates) in [(4, 0.0, REX), (4, 0.1, REX_FLOOR), (0, 0.0, REX_BARE)] {
        let kind = ScheduleKind::Rex {
            floor: floor.into(),
        };
        let schedule = schedule(kind, 1e-3, warmup_steps);
        for (step, expected) in [0, 1, 3, 4, 12, 19].into_iter().zip(rates) {
            let got = f64::from(schedule.rate(step, 20));
            assert!(
                (got - expected).abs() < 2e-10,
                "{warmup_steps}, {floor} at {step}: {got} {expected}"
            );
        }
    }
    let all_warm = schedule(ScheduleKind::Rex { floor: 0.0.into() }, 1e-3, 20);
    assert_eq!(all_warm.rate(19, 20), 1e-3);
    assert_eq!(all_warm.rate(20, 20), 0.0);
}

const REX: [f64; 6] = [
    0.00025,
    0.0005,
    0.001,
    0.000993377483444,
    0.000886075949367,
    0.0,
];
const REX_FLOOR: [f64; 6] = [
    0.00025,
    0.0005,
    0.001,
    0.000994039735099,
    0.00089746835443,
    0.0001,
];
const REX_BARE: [f64; 6] = [
    0.000994764397906,
    0.000989010989011,
    0.000975609756098,
    0.000967741935484,
    0.000843373493976,
    0.0,
];

/// What PEFT's `create_loraplus_optimizer` does: matrices B, and what has one dimension, have the
/// ratio times the rate; what it gives as a group's rate is the peak of the curve.
#[test]
fn matrices_b_have_a_rate_of_their_own() {
    let tensor = |name: &str, shape: &[u64]| TrainedTensor {
        name: format!("base_model.model.model.layers.0.self_attn.q_proj.{name}"),
        shape: shape.to_vec(),
        place: ModelPlace::Layer(0),
        decays: true,
    };
    let a = tensor("lora_A.weight", &[8, 64]);
    let b = tensor("lora_B.weight", &[64, 8]);
    let magnitudes = tensor("lora_magnitude_vector", &[64]);
    let mut spec = JobSpec {
        steps: 20,
        schedule: schedule(ScheduleKind::Linear, 1e-3, 4),
        evaluation: None,
        ..Source::new(1).spec()
    };
    for tensor in [&a, &b, &magnitudes] {
        assert_eq!(spec.own_learning_rate(3, tensor), None);
    }
    let rates: Vec<F32Bits> = (0..20).map(|step| spec.learning_rate(step)).collect();
    spec.schedule.b_ratio = Some(16.0.into());
    for step in 0..20 {
        assert_eq!(spec.learning_rate(step), rates[step as usize]);
        assert_eq!(spec.own_learning_rate(step, &a), None);
        let own = spec.own_learning_rate(step, &b).unwrap();
        assert_eq!(spec.own_learning_rate(step, &magnitudes), Some(own));
        // A power of two changes no other bit.
        assert_eq!(own.get(), 16.0 * rates[step as usize].get());
    }
    assert_eq!(
        spec.own_learning_rate(11, &b).unwrap().get(),
        16.0 * 1e-3 * 9.0 / 16.0
    );
    spec.evaluation = Some(EvaluationSpec {
        held_out: HeldOut::Last { sequences: 1 },
        micro_batch_size: 1,
        every: 5,
        at_start: true,
        patience: None,
        keep_best: false,
    });
    assert_eq!(spec.own_learning_rate(0, &b), Some(0.0.into()));
}

const COSINE: [f64; 6] = [0.0, 0.00025, 0.00075, 0.001, 0.0005, 9.60735979838e-06];
const COSINE_FLOOR: [f64; 6] = [0.0, 0.00025, 0.00075, 0.001, 0.00055, 0.000108646623819];
const LINEAR: [f64; 6] = [0.0, 0.00025, 0.00075, 0.001, 0.0005, 6.25e-05];
const CONSTANT: [f64; 6] = [0.0, 0.00025, 0.00075, 0.001, 0.001, 0.001];
const INVERSE_SQRT: [f64; 6] = [
    0.0,
    0.00025,
    0.00075,
    0.001,
    0.00057735026919,
    0.000458831467741,
];
const INVERSE_SQRT_BARE: f64 = 0.00099905135161;
