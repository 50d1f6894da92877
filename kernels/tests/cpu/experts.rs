//! What the conformance suite does not test about the rows of experts: their order, and that tokens
//! do not depend on the rest of the batch.

use concord_kernels::coded::Precision;
use concord_kernels::conformance::{CaseInput, InputKind};
use concord_kernels::ops::{ExpertRows, RouterKind, Routing};
use concord_kernels::{Device, Tensor};

const EXPERTS: usize = 5;

fn rows_of(device: &Device, logits: &Tensor) -> (ExpertRows, Tensor) {
    let routing = Routing {
        kind: RouterKind::Softmax,
        chosen: 2,
        normalised: true,
        factor: 1.0,
    };
    let routes = device.route(logits, None, &routing).unwrap();
    let rows = device.expert_rows(&routes, EXPERTS).unwrap();
    (rows, routes.weights)
}

#[test]
fn rows_lie_by_expert_then_token_and_sequences_are_runs_of_them() {
    let device = Device::cpu(1);
    let logits = [
        [9.0, 0.0, 8.0, 0.0, 0.0],
        [0.0, 0.0, 9.0, 0.0, 8.0],
        [9.0, 0.0, 8.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 9.0, 8.0],
    ];
    let logits = Tensor::new(&[4, EXPERTS], logits.concat()).unwrap();
    let (rows, _) = rows_of(&device, &logits);
    let x = Tensor::new(&[4, 1], vec![1.0, 2.0, 4.0, 8.0]).unwrap();
    let x = device.code(&x, 1, Precision::I16).unwrap();
    let gathered = device.gather(&x, &rows.tokens).unwrap().decode();
    assert_eq!(gathered, [1.0, 4.0, 1.0, 2.0, 4.0, 8.0, 2.0, 8.0]);
    assert_eq!(rows.counts().collect::<Vec<_>>(), [2, 0, 3, 1, 2]);
    // Two sequences of two tokens.
    assert_eq!((rows.within(2, 0, 2), rows.within(2, 2, 2)), (2..4, 4..5));
    assert_eq!((rows.within(1, 0, 2), rows.within(3, 0, 2)), (2..2, 5..5));
}

/// A token's sum is the same alone.
#[test]
fn tokens_do_not_see_each_other() {
    let device = Device::cpu(2);
    let draw = CaseInput::new(11, InputKind::Ordinary);
    let logits = draw.tensor(1, &[40, EXPERTS]).unwrap();
    // An expert that adds its number to a row of its token.
    let sums = |logits: &Tensor, first: usize| {
        let (rows, weights) = rows_of(&device, logits);
        let tokens = logits.rows_cols().0;
        let mut results = Vec::new();
        for expert in 0..EXPERTS {
            for token in 0..tokens {
                let count = rows.within(expert, token, 1).len();
                let value = ((token + first) * EXPERTS + expert) as f32 * 0.1;
                results.extend(std::iter::repeat_n(value, count));
            }
        }
        let results = Tensor::new(&[results.len(), 1], results).unwrap();
        let mut y = Tensor::zeros(&[tokens, 1]);
        let slots = &rows.slots;
        device
            .combine(&mut y, &results, slots, Some(&weights))
            .unwrap();
        y.into_values().unwrap()
    };
    let together = sums(&logits, 0);
    assert_eq!(together.len(), 40);
    for (token, sum) in together.iter().enumerate() {
        let alone = sums(&logits.rows(token, 1), token);
        assert_eq!(alone[0].to_bits(), sum.to_bits(), "token {token}");
    }
}
