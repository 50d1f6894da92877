//! What the conformance suite does not test about the choice of experts: the order, and the sums.

use concord_kernels::ops::{RouterKind, Routing};
use concord_kernels::{Device, Tensor};

fn routed(
    logits: &[f32],
    correction: Option<&[f32]>,
    routing: &Routing,
) -> (Vec<Vec<usize>>, Vec<f32>) {
    let device = Device::cpu(1);
    let tensor = |x: &[f32]| Tensor::new(&[1, x.len()], x.to_vec()).unwrap();
    let (logits, correction) = (tensor(logits), correction.map(tensor));
    let routes = device.route(&logits, correction.as_ref(), routing).unwrap();
    let experts = logits.len();
    let rows = device.expert_rows(&routes, experts).unwrap();
    let chosen = (0..experts).filter(|&expert| !rows.of(expert).is_empty());
    (
        vec![chosen.collect()],
        routes.weights.into_values().unwrap(),
    )
}

fn routing(kind: RouterKind, chosen: usize, normalised: bool) -> Routing {
    Routing {
        kind,
        chosen,
        normalised,
        factor: 1.0,
    }
}

#[test]
fn equal_scores_go_to_the_lowest_index() {
    for kind in [
        RouterKind::Softmax,
        RouterKind::Sigmoid,
        RouterKind::SoftmaxOfChosen,
    ] {
        let (chosen, weights) = routed(&[1.0, 2.0, 1.0, 2.0, 1.0], None, &routing(kind, 3, true));
        assert_eq!(chosen, [[0, 1, 3]], "{kind:?}");
        let sum: f32 = weights.iter().sum();
        assert!((sum - 1.0).abs() < 1e-6, "{kind:?}: {weights:?}");
        assert!(weights[1] == weights[2] && weights[0] < weights[1]);
    }
}

#[test]
fn a_correction_changes_the_choice_and_no_weight() {
    let logits = [0.0, 3.0, 1.0, -2.0];
    let kind = routing(RouterKind::Sigmoid, 1, false);
    let (chosen, weights) = routed(&logits, Some(&[0.0, 0.0, 0.0, 5.0]), &kind);
    assert_eq!(chosen, [[3]]);
    assert!((weights[0] - 1.0 / (1.0 + 2f64.exp()) as f32).abs() < 1e-7);
}

#[test]
fn a_logit_that_is_no_number_shows_in_the_weights() {
    let kind = routing(RouterKind::SoftmaxOfChosen, 2, true);
    let (chosen, _) = routed(&[1.0, f32::NAN, 2.0], None, &kind);
    assert_eq!(chosen, [[0, 2]], "there are enough others");
    let (_, weights) = routed(&[f32::NAN, f32::NAN, 2.0], None, &kind);
    assert!(weights.iter().any(|w| w.is_nan()));
    let (_, weights) = routed(
        &[1.0, f32::NAN, 2.0],
        None,
        &routing(RouterKind::Softmax, 2, true),
    );
    assert!(weights.iter().all(|w| w.is_nan()));
}

/// The slope against differences in f64 of the same formula.
#[test]
fn gradients_are_those_of_the_formula() {
    let logits = [0.3f32, -1.2, 0.9, 0.1, 1.4, -0.4];
    let d = [0.7f32, -0.2, 0.5];
    for (kind, normalised) in [
        (RouterKind::Softmax, false),
        (RouterKind::Softmax, true),
        (RouterKind::Sigmoid, false),
        (RouterKind::Sigmoid, true),
        (RouterKind::SoftmaxOfChosen, false),
    ] {
        let routing = Routing {
            factor: 1.5,
            ..routing(kind, 3, normalised)
        };
        let device = Device::cpu(1);
        let x = Tensor::new(&[1, 6], logits.to_vec()).unwrap();
        let routes = device.route(&x, None, &routing).unwrap();
        let chosen: Vec<usize> = vec![0, 2, 4];
        let d_weights = Tensor::new(&[1, 3], d.to_vec()).unwrap();
        let got = device.route_backward(&x, &routes, &d_weights, &routing);
        let got = got.unwrap().into_values().unwrap();
        let loss = |x: &[f64]| -> f64 {
            let score = |e: usize| match kind {
                RouterKind::Softmax => x[e].exp() / x.iter().map(|v| v.exp()).sum::<f64>(),
                RouterKind::Sigmoid => 1.0 / (1.0 + (-x[e]).exp()),
                RouterKind::SoftmaxOfChosen => x[e].exp(),
            };
            let normalised = normalised || kind == RouterKind::SoftmaxOfChosen;
            let sum: f64 = match normalised {
                true => chosen.iter().map(|&e| score(e)).sum(),
                false => 1.0,
            };
            let terms = chosen.iter().zip(d);
            terms
                .map(|(&e, d)| 1.5 * score(e) / sum * f64::from(d))
                .sum()
        };
        for expert in 0..6 {
            let at = |step: f64| {
                let mut x = logits.map(f64::from);
                x[expert] += step;
                loss(&x)
            };
            let slope = (at(1e-5) - at(-1e-5)) / 2e-5;
            let error = (f64::from(got[expert]) - slope).abs();
            assert!(error < 1e-6, "{kind:?}, expert {expert}: {error}");
        }
    }
}
