//! Products by a library of bytes, for which a stand-in multiplies on the host.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::cuda::matmul::library;
use crate::gpu::ByteProducts;

/// Stands in for a library: multiplies on the host.
#[derive(Debug)]
struct OnTheHost {
    cuda: Cuda,
    /// What it adds to the first sum.
    error: i32,
    calls: Arc<AtomicUsize>,
}

impl ByteProducts for OnTheHost {
    fn multiply(
        &self,
        shape: ProductShape,
        a: &Slice<i8>,
        b: &Slice<i8>,
        sums: &Slice<i32>,
        adds: bool,
    ) -> std::result::Result<(), CudaError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let (a, b) = (self.cuda.download(a)?, self.cuda.download(b)?);
        let before = match adds {
            true => self.cuda.download(sums)?,
            false => vec![0; sums.len()],
        };
        let row = |side: &[i8], row: usize| side[row * shape.depth..][..shape.depth].to_vec();
        let dot = |(i, before): (usize, i32)| {
            let (x, y) = (row(&a, i / shape.cols), row(&b, i % shape.cols));
            let products = x.iter().zip(y).map(|(&x, y)| i32::from(x) * i32::from(y));
            products.fold(before, |sum, product| {
                sum.checked_add(product).expect("in range")
            })
        };
        let mut after: Vec<i32> = before.into_iter().enumerate().map(dot).collect();
        after[0] += self.error;
        self.cuda.copy(&self.cuda.upload(&after)?, sums)
    }
}

fn stand_in(cuda: &Cuda, error: i32) -> (OnTheHost, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let library = OnTheHost {
        cuda: cuda.clone(),
        error,
        calls: Arc::clone(&calls),
    };
    (library, calls)
}

#[test]
fn a_library_multiplies_planes_of_digits() {
    let cuda = &gpus()[3];
    let (library, _) = stand_in(cuda, 0);
    for (rows, cols, depth) in [(1, 1, 1), (33, 65, 70), (5, 4, 65_537)] {
        for (pa, pb) in PAIRS {
            let (x, w) = match depth {
                65_537 => (loudest(rows, depth, pa), loudest(cols, depth, pb)),
                _ => (random(1, rows, depth, pa), random(2, cols, depth, pb)),
            };
            let want = reference::matmul::matmul(x.by_rows(), w.by_rows());
            let (a, b) = (on(cuda, &x.by_rows()), on(cuda, &w.by_rows()));
            let out = cuda.alloc(rows * cols).expect("room");
            let (into, left) = (&out, &[][..]);
            let into = Results::Rounded { out: into, left };
            library::multiply(cuda, &library, &a, &b, into).expect("it runs");
            compare(
                &format!("{rows}x{cols}x{depth} {pa:?} {pb:?}"),
                cuda,
                &out,
                &want,
            );
        }
    }
}

#[test]
fn a_library_is_used_once_it_has_passed_and_never_where_it_errs() {
    let open = || {
        Cuda::emulated(EmulatorOptions {
            arch: Arch(90),
            ..EmulatorOptions::default()
        })
    };
    let cuda = open();
    assert!(!offer_library(&cuda).expect("the emulated GPU has none"));
    let (library, calls) = stand_in(&cuda, 0);
    assert!(library::offer(&cuda, Box::new(library)).expect("it is right"));
    let by_vectors = calls.load(Ordering::Relaxed);
    let (x, w) = (
        random(3, 512, 2_048, Precision::I8),
        random(4, 512, 2_048, Precision::I8),
    );
    let large = forward(&cuda, &x, &w).expect("it runs");
    assert_eq!(
        calls.load(Ordering::Relaxed),
        by_vectors + 1,
        "a large product"
    );
    let some = [0, 1, 511 * 512, 512 * 512 - 1];
    let got = cuda.download(&large).expect("done");
    for at in some {
        let row = |coded: &Coded, row| coded.part(row, 1);
        let (x, w) = (row(&x, at / 512), row(&w, at % 512));
        let want = reference::matmul::matmul(x.by_rows(), w.by_rows())[0];
        assert_eq!(got[at].to_bits(), want.to_bits(), "element {at}");
    }
    forward(&cuda, &x.part(0, 4), &w).expect("it runs");
    assert_eq!(
        calls.load(Ordering::Relaxed),
        by_vectors + 1,
        "a small product"
    );

    let cuda = open();
    let (library, _) = stand_in(&cuda, 1);
    let error = library::offer(&cuda, Box::new(library)).expect_err("it is wrong");
    assert!(error.to_string().contains("OnTheHost"), "{error}");
    assert!(cuda.library().is_none(), "a wrong library is not used");
}
