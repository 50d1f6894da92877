//! What serving asks of kernels: what does not fit is refused, and names the reason.

use concord_kernels::coded::{Coded, Precision};
use concord_kernels::ops::sample::{Candidates, RowSample, Sampling};
use concord_kernels::ops::{AttentionShape, CodedKv, PagedRun};
use concord_kernels::{Device, KernelError, Tensor};

const SHAPE: AttentionShape = AttentionShape {
    heads: 2,
    kv_heads: 1,
    head_dim: 4,
    window: None,
    scale: 0.5,
};

fn devices() -> [Device; 2] {
    [Device::Reference, Device::cpu(2)]
}

fn reason<T: std::fmt::Debug>(result: Result<T, KernelError>) -> String {
    match result {
        Err(KernelError::DoesNotFit(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

fn coded(device: &Device, rows: usize) -> Coded {
    let x = Tensor::new(&[rows, 4], vec![0.5; rows * 4]).unwrap();
    device.code(&x, 4, Precision::I16).unwrap()
}

#[test]
fn runs_that_do_not_fit_their_pages_are_refused() {
    for device in devices() {
        let mut pages = device.kv_pages(1, &SHAPE, Precision::I16, 3).unwrap();
        let kv = |tokens| CodedKv {
            k: coded(&device, tokens),
            v: coded(&device, tokens),
        };
        let run = |pages, first, count| PagedRun {
            pages,
            first,
            count,
        };
        let cases = [
            (run(&[3], 0, 2), 2, "page 3 of a pool of 3"),
            (run(&[0], 127, 2), 2, "129 tokens need 2 pages, got 1"),
            (run(&[0], usize::MAX, 2), 2, "more than"),
            (run(&[0], 0, 0), 0, "no tokens"),
            (
                run(&[0], 0, 2),
                3,
                "the runs have 2 tokens, the rows are of 3",
            ),
        ];
        for (run, rows, expected) in cases {
            let got = reason(device.write_pages(&mut pages, 0, &kv(rows), &[run]));
            assert!(got.contains(expected), "{got:?} lacks {expected:?}");
        }
        let fits = run(&[1, 2], 0, 130);
        device
            .write_pages(&mut pages, 0, &kv(130), &[fits])
            .unwrap();
        let attend = |run| {
            let queries = coded(&device, 2);
            device.attention_paged(&queries, &pages, 0, &[run], &SHAPE, Precision::I16)
        };
        assert_eq!(attend(run(&[1, 2], 129, 1)).unwrap().shape(), [1, 8]);
        let got = reason(attend(run(&[1, 0], 129, 1)));
        assert!(got.contains("page 0 is read before it is written"), "{got}");
    }
}

#[test]
fn draws_that_cannot_be_are_refused() {
    let sampling = Sampling {
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        seed: 1,
    };
    let logits = Tensor::new(&[2, 10], (0..20).map(|i| i as f32).collect::<Vec<_>>()).unwrap();
    for device in devices() {
        let draw = |row, bias: &[(u32, f32)], allowed: Option<&[u8]>| {
            let candidates = Candidates { bias, allowed };
            let one = RowSample {
                row,
                sampling,
                candidates,
                position: 7,
            };
            device.sample_rows(&logits, &[one])
        };
        assert_eq!(draw(0, &[], None).unwrap(), [9]);
        assert_eq!(draw(1, &[(3, 50.0), (9, 40.0)], None).unwrap(), [3]);
        // Tokens 8 and 9 are beyond the last byte; those beyond the vocabulary are passed over.
        assert_eq!(draw(1, &[], Some(&[0b0110_0001])).unwrap(), [6]);
        assert_eq!(draw(1, &[], Some(&[0, 0xff, 0xff])).unwrap(), [9]);
        for nothing in [&[][..], &[0, 0], &[0, 0b1111_1100]] {
            let got = reason(draw(0, &[], Some(nothing)));
            assert!(got.contains("no token is allowed at position 7"), "{got}");
        }
        assert!(reason(draw(2, &[], None)).contains("row 2 of 2"));
        assert!(reason(draw(0, &[(10, 1.0)], None)).contains("token 10 of 10"));
        assert_eq!(device.sample_rows(&logits, &[]).unwrap(), [0; 0]);
    }
}

#[test]
fn logprobs_are_ordered_and_sum_to_one() {
    let logits = [0.0, 3.0, 1.0, 3.0, -2.0];
    let logits = Tensor::new(&[1, 5], logits.to_vec()).unwrap();
    for device in devices() {
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
