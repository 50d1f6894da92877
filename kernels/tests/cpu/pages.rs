//! Pages: what does not fit is refused, and names the reason.

use concord_kernels::coded::{Coded, Precision};
use concord_kernels::conformance::{CaseInput, InputKind};
use concord_kernels::ops::{AttentionShape, CodedKv, PagedRun};
use concord_kernels::{Device, Tensor};

use crate::{hosts, reason};

const SHAPE: AttentionShape = AttentionShape {
    heads: 2,
    kv_heads: 1,
    head_dim: 4,
    window: None,
    scale: 0.5,
    soft_cap: None,
};

fn coded(device: &Device, rows: usize) -> Coded {
    let x = Tensor::new(&[rows, 4], vec![0.5; rows * 4]).unwrap();
    device.code(&x, 4, Precision::I16).unwrap()
}

#[test]
fn runs_that_do_not_fit_their_pages_are_refused() {
    for device in hosts() {
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
            device.attention_paged(&queries, &pages, 0, &[run], &SHAPE, None, Precision::I16)
        };
        assert_eq!(attend(run(&[1, 2], 129, 1)).unwrap().shape(), [1, 8]);
        let got = reason(attend(run(&[1, 0], 129, 1)));
        assert!(got.contains("page 0 is read before it is written"), "{got}");
    }
}

/// The reference that conformance compares with computes sequences as wholes; its own pages give
/// the same.
#[test]
fn the_reference_gives_the_same_by_pages_and_as_a_whole() {
    let (device, tokens, p) = (Device::Reference, 140, Precision::I16);
    for kind in InputKind::ALL {
        let input = CaseInput::new(8, kind);
        let x = |stream, heads: usize| input.tensor(stream, &[tokens, heads * 4]).unwrap();
        let (q, k, v) = (x(1, 2), x(2, 1), x(3, 1));
        let codes = device.attention_codes(&q, &k, &v, &SHAPE, p, p).unwrap();
        let whole = device
            .attention(&codes, &codes.as_one(&SHAPE), &SHAPE, None, p)
            .unwrap();
        let mut pages = device.kv_pages(2, &SHAPE, p, 2).unwrap();
        let mut got = Vec::new();
        for (first, count) in [(0, 130), (130, 1), (131, 9)] {
            let runs = [PagedRun {
                pages: &[1, 0],
                first,
                count,
            }];
            let new = CodedKv {
                k: codes.kv.k.part(first, count),
                v: codes.kv.v.part(first, count),
            };
            device.write_pages(&mut pages, 1, &new, &runs).unwrap();
            let queries = codes.queries.part(first * 2, count * 2);
            let out = device.attention_paged(&queries, &pages, 1, &runs, &SHAPE, None, p);
            got.extend(out.unwrap().into_values().unwrap());
        }
        let bits = |x: &[f32]| x.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&got), bits(whole.out.data()), "{kind:?} input");
    }
}

#[test]
fn pages_of_another_device_are_refused() {
    let [reference, cpu] = hosts();
    for (own, other) in [(&reference, &cpu), (&cpu, &reference)] {
        let pages = own.kv_pages(1, &SHAPE, Precision::I16, 1).unwrap();
        let run = PagedRun {
            pages: &[0],
            first: 0,
            count: 1,
        };
        let queries = coded(own, 2);
        let got = other.attention_paged(&queries, &pages, 0, &[run], &SHAPE, None, Precision::I16);
        let got = reason(got);
        assert!(got.contains(&format!("read by {}", other.name())), "{got}");
    }
}
