//! Logprobs: their order, their sum, and what is refused.

use concord_kernels::Tensor;

use crate::{hosts, reason};

#[test]
fn logprobs_are_ordered_and_sum_to_one() {
    let logits = [0.0, 3.0, 1.0, 3.0, -2.0];
    let logits = Tensor::new(&[1, 5], logits.to_vec()).unwrap();
    for device in hosts() {
        let got = device.logprobs(&logits, &[(0, 2, 9), (0, 2, 0)]).unwrap();
        let order: Vec<u32> = got[0].top.iter().map(|(token, _)| *token).collect();
        assert_eq!(order, [1, 3, 2, 0, 4]);
        assert_eq!(
            (got[0].target, got[0].top[2].1),
            (got[1].target, got[1].target)
        );
        assert!(got[1].top.is_empty());
        let sum: f64 = got[0].top.iter().map(|(_, p)| f64::from(*p).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-6, "{sum}");
        // One token is certain: its logprob is 0, and not -0.
        let certain = Tensor::new(&[1, 1], vec![0.0]).unwrap();
        let got = device.logprobs(&certain, &[(0, 0, 1)]).unwrap();
        assert_eq!(got[0].target.to_bits(), 0);
        for (row, token) in [(1, 0), (0, 5)] {
            let got = reason(device.logprobs(&logits, &[(row, token, 0)]));
            assert!(
                got.contains(&format!("token {token} by row {row}")),
                "{got}"
            );
        }
    }
}
