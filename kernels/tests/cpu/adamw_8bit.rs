//! AdamW with moments in 8 bits, against its definition written in another way.

use concord_kernels::ops::AdamStep;
use concord_kernels::reference::adamw::step_one;
use concord_kernels::{KernelError, MomentKind, PackedMoment, Tensor};

use crate::hosts;

const KINDS: [MomentKind; 2] = [MomentKind::First, MomentKind::Second];

/// The levels as the paper describes them: the middles of equal parts of the range from 0.1 to 1,
/// more of them in each decade, with 0 and 1. In f64, by sums instead of whole numbers.
fn levels(kind: MomentKind) -> Vec<f64> {
    let mut levels = vec![0.0, 1.0];
    for decade in 0..7 {
        let parts = match kind {
            MomentKind::First => 1 << decade,
            MomentKind::Second => 2 << decade,
        };
        let width = 0.9 / f64::from(parts);
        for part in 0..parts {
            let middle = (0.1 + width * (f64::from(part) + 0.5)) * 10f64.powi(decade - 6);
            levels.push(middle);
            if kind == MomentKind::First {
                levels.push(-middle);
            }
        }
    }
    levels.sort_by(f64::total_cmp);
    levels
}

#[test]
fn the_levels_are_those_of_the_paper() {
    for kind in KINDS {
        let (levels, ours) = (levels(kind), kind.levels().levels);
        assert_eq!(levels.len(), 256);
        for (code, (&level, ours)) in levels.iter().zip(ours).enumerate() {
            let error = (level - f64::from(ours)).abs();
            assert!(
                error <= level.abs() * 6e-8,
                "code {code}: {level} and {ours}"
            );
        }
        assert_eq!(ours[usize::from(kind.zero())].to_bits(), 0);
        assert!(ours.is_sorted());
    }
}

/// The nearest level by a search through all of them; the first of two is the lower one.
fn nearest(kind: MomentKind, x: f32) -> usize {
    let distance = |level: f32| (f64::from(level) - f64::from(x)).abs();
    let levels = kind.levels().levels;
    let codes = 0..256;
    let best = codes.min_by(|&a, &b| distance(levels[a]).total_cmp(&distance(levels[b])));
    best.unwrap_or(0)
}

#[test]
fn a_number_has_the_code_of_the_nearest_level() {
    for kind in KINDS {
        let table = kind.levels();
        let low = match kind {
            MomentKind::First => -1.0,
            MomentKind::Second => 0.0,
        };
        let even = (0..=20_000).map(|i| low + (1.0 - low) * i as f32 / 20_000.0);
        // Both sides of every border, and the border.
        let borders = table.borders[..255].iter();
        let near = borders.flat_map(|b| [b.next_down(), *b, b.next_up()]);
        let tiny = [f32::MIN_POSITIVE, 1e-45, -0.0, 1e-7, 2.5e-7];
        for x in even.chain(near).chain(tiny) {
            assert_eq!(
                usize::from(table.nearest(x)),
                nearest(kind, x),
                "{x:e} of {kind:?}"
            );
        }
    }
}

fn step() -> AdamStep {
    AdamStep {
        gradient_scale: 0.5,
        learning_rate: 1e-2,
        beta1: 0.9,
        beta2: 0.999,
        bias1: 0.1,
        bias2: 0.001,
        epsilon: 1e-8,
        weight_decay: 0.0,
    }
}

/// Decoded, updated as with moments of f32, and each block coded by its largest magnitude.
#[test]
fn a_step_is_the_step_of_f32_between_decoding_and_coding() {
    let len = 256 * 2 + 77;
    let number = |i: usize, k: usize| ((i * k) % 1_009) as f32 / 504.5 - 1.0;
    let numbers = |k| Tensor::new(&[len], (0..len).map(|i| number(i, k)).collect::<Vec<_>>());
    let (gradient, value) = (numbers(7).unwrap(), numbers(11).unwrap());
    let m = numbers(13).unwrap();
    let v: Vec<f32> = m.data().iter().map(|m| m * m).collect();
    let v = Tensor::new(&[len], v).unwrap();
    for device in hosts() {
        let mut first = PackedMoment::nearest(MomentKind::First, "m", &m).unwrap();
        let mut second = PackedMoment::nearest(MomentKind::Second, "v", &v).unwrap();
        let mut new = value.clone();
        let old = [first.decoded().unwrap(), second.decoded().unwrap()];
        device
            .adamw_8bit(&step(), &gradient, &mut new, &mut first, &mut second)
            .unwrap();
        let stepped: Vec<[f32; 3]> = (0..len)
            .map(|i| {
                let (m, v) = (old[0].data()[i], old[1].data()[i]);
                step_one(&step(), gradient.data()[i], value.data()[i], m, v).into()
            })
            .collect();
        let got = [first.decoded().unwrap(), second.decoded().unwrap()];
        for (block, stepped) in stepped.chunks(256).enumerate() {
            for (moment, kind) in KINDS.into_iter().enumerate() {
                let of = |i: usize| stepped[i][1 + moment];
                let largest = (0..stepped.len()).map(|i| of(i).abs()).fold(0.0, f32::max);
                for (i, [stepped, ..]) in stepped.iter().enumerate() {
                    let at = 256 * block + i;
                    assert_eq!(new.data()[at].to_bits(), stepped.to_bits());
                    let code = nearest(kind, of(i) / largest);
                    let expected = largest * kind.levels().levels[code];
                    assert_eq!(got[moment].data()[at].to_bits(), expected.to_bits(), "{at}");
                }
            }
        }
    }
}

/// With a second moment of 0 under a first one that is not, a step would be as large as
/// `learning_rate * m / epsilon`.
#[test]
fn a_second_moment_above_0_is_never_coded_as_0() {
    let mut squares = vec![1e-20; 300];
    (squares[0], squares[7]) = (1.0, 0.0);
    let squares = Tensor::new(&[300], squares).unwrap();
    let coded = PackedMoment::nearest(MomentKind::Second, "v", &squares).unwrap();
    let decoded = coded.decoded().unwrap();
    let smallest = MomentKind::Second.levels().levels[1];
    assert_eq!(decoded.data()[..2], [1.0, smallest]);
    assert_eq!(decoded.data()[7], 0.0);
    assert_eq!(decoded.data()[299], 1e-20, "its block has another scale");
}

#[test]
fn words_that_no_step_gives_are_refused() {
    let refused = |len: usize, change: &dyn Fn(&mut Vec<u32>)| {
        let mut words = PackedMoment::zeros(MomentKind::First, &[len])
            .words()
            .unwrap()
            .into_owned();
        change(&mut words);
        match PackedMoment::new(MomentKind::First, &[len], words) {
            Err(KernelError::DoesNotFit(why)) => why,
            other => panic!("{other:?}"),
        }
    };
    assert!(refused(300, &|words| words.truncate(3)).contains("3 words are no moment"));
    let nan = refused(300, &|words| words[65] = f32::NAN.to_bits());
    assert!(
        nan.contains("block 1 of a moment has the scale NaN"),
        "{nan}"
    );
    let negative = refused(300, &|words| words[0] = (-0.0f32).to_bits());
    assert!(negative.contains("the scale -0"), "{negative}");
    let after = refused(2, &|words| words[1] |= 1 << 24);
    assert!(after.contains("bytes after its codes"), "{after}");
}
