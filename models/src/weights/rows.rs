//! Reading some rows of a tensor at a time.

use std::ops::Range;

use concord_kernels::{KernelError, Tensor};

use crate::error::ModelError;

/// Takes the number of rows of a whole matrix, and some of its rows as f32.
pub type TakeRows<'a> = dyn FnMut(usize, Tensor) -> Result<(), ModelError> + 'a;

/// Reads rows of a matrix.
pub(super) trait RowReader {
    /// Writes the numbers of `rows` to `out`, which has exactly their length.
    fn read(&self, rows: Range<usize>, out: &mut [f32]);
}

/// Elements that are read at a time, unless a row is longer: 4 MiB as f32, enough to code with all
/// threads, and little compared with a model.
const ELEMENTS: usize = 1 << 20;

/// The ranges of rows in which a matrix of `rows` by `cols` is read.
pub fn runs_of_rows(rows: usize, cols: usize) -> impl Iterator<Item = Range<usize>> {
    let at_once = (ELEMENTS / cols.max(1)).max(1);
    (0..rows)
        .step_by(at_once)
        .map(move |start| start..rows.min(start + at_once))
}

/// Refuses NaN and infinity in rows that begin at element `start` of the tensor `name`.
///
/// # Errors
/// [`KernelError::NotFinite`] with the element's place in the whole tensor.
pub fn check_rows(name: &str, start: usize, rows: &Tensor) -> Result<(), KernelError> {
    rows.check_finite(name).map_err(|error| match error {
        KernelError::NotFinite {
            tensor,
            index,
            value,
        } => KernelError::NotFinite {
            tensor,
            index: start + index,
            value,
        },
        other => other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_cover_every_row_once_and_are_bounded() {
        for (rows, cols) in [
            (1, 1),
            (3, 7),
            (5, ELEMENTS),
            (4, ELEMENTS + 1),
            (2_500, 1_024),
        ] {
            let runs: Vec<_> = runs_of_rows(rows, cols).collect();
            let all: Vec<usize> = runs.iter().cloned().flatten().collect();
            assert_eq!(all, (0..rows).collect::<Vec<_>>(), "{rows} x {cols}");
            assert!(
                runs.iter()
                    .all(|run| run.len() == 1 || run.len() * cols <= ELEMENTS)
            );
        }
        assert_eq!(runs_of_rows(0, 8).count(), 0);
        assert_eq!(runs_of_rows(2_500, 1_024).count(), 3);
    }

    #[test]
    fn what_is_not_finite_is_named_by_its_place_in_the_whole() {
        let rows = Tensor::new(&[1, 3], vec![1.0, f32::NAN, 0.0]).unwrap();
        let error = check_rows("w", 300, &rows).unwrap_err().to_string();
        assert!(error.contains("element 301"), "{error}");
    }
}
