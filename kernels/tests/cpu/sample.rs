//! Draws: what cannot be drawn is refused, and names the reason.

use concord_kernels::Tensor;
use concord_kernels::ops::sample::{Candidates, RowSample, Sampling};

use crate::{hosts, reason};

#[test]
fn draws_that_cannot_be_are_refused() {
    let sampling = Sampling {
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        seed: 1,
    };
    let logits = Tensor::new(&[2, 10], (0..20).map(|i| i as f32).collect::<Vec<_>>()).unwrap();
    for device in hosts() {
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
        // Tokens 8 and 9 are beyond the last byte; those beyond the vocabulary are ignored.
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
