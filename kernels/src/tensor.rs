//! A dense row-major f32 tensor, and the error of every operation on it.

use std::fmt;

/// What an operation refuses, by name, with the values that it refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// A NaN or an infinity stands where a finite number is needed.
    #[error("{tensor}: element {index} is {value}: not a finite number")]
    NotFinite {
        /// Name of the tensor, as the caller knows it.
        tensor: String,
        /// Flat row-major index of the first such element.
        index: usize,
        /// The value found.
        value: f32,
    },
    /// The data does not fill the shape.
    #[error("a tensor of shape {shape:?} needs {expected} elements, got {got}")]
    ShapeMismatch {
        /// The shape asked for.
        shape: Vec<usize>,
        /// Product of the shape.
        expected: usize,
        /// Elements given.
        got: usize,
    },
}

/// A dense row-major tensor of f32.
///
/// Activations are `[tokens, features]`; weights are `[out, in]`, as Hugging Face stores them.
#[derive(Clone, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    data: Vec<f32>,
}

impl Tensor {
    /// A tensor of zeros.
    pub fn zeros(shape: &[usize]) -> Self {
        Self {
            shape: shape.to_vec(),
            data: vec![0.0; shape.iter().product()],
        }
    }

    /// A tensor over `data`, row-major.
    ///
    /// # Errors
    /// [`KernelError::ShapeMismatch`] where `data` does not fill `shape`.
    pub fn new(shape: &[usize], data: Vec<f32>) -> Result<Self, KernelError> {
        let expected = shape.iter().product();
        if expected == data.len() {
            Ok(Self {
                shape: shape.to_vec(),
                data,
            })
        } else {
            Err(KernelError::ShapeMismatch {
                shape: shape.to_vec(),
                expected,
                got: data.len(),
            })
        }
    }

    /// The shape, outermost axis first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Rows and columns, all axes but the last folded into the rows.
    pub fn rows_cols(&self) -> (usize, usize) {
        let cols = self.shape.last().copied().unwrap_or(1);
        (self.data.len().checked_div(cols).unwrap_or(0), cols)
    }

    /// The elements, row-major.
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// The elements, row-major, to be changed in place.
    pub fn data_mut(&mut self) -> &mut [f32] {
        &mut self.data
    }

    /// The elements, without the shape.
    pub fn into_data(self) -> Vec<f32> {
        self.data
    }

    /// The bytes that are hashed and sent: row-major, little-endian, unpadded.
    pub fn to_le_bytes(&self) -> Vec<u8> {
        self.data.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    /// Turns every -0 into +0, and refuses NaN and infinity, as must be done before hashing.
    ///
    /// # Errors
    /// [`KernelError::NotFinite`], naming `name` and the first bad element.
    pub fn canonicalise(&mut self, name: &str) -> Result<(), KernelError> {
        let mut all_finite = true;
        for value in &mut self.data {
            all_finite &= value.is_finite();
            *value += 0.0;
        }
        if all_finite {
            Ok(())
        } else {
            Err(self.first_not_finite(name))
        }
    }

    /// Refuses NaN and infinity.
    ///
    /// # Errors
    /// [`KernelError::NotFinite`], naming `name` and the first bad element.
    pub fn check_finite(&self, name: &str) -> Result<(), KernelError> {
        let all_finite = self.data.iter().fold(true, |all, v| all & v.is_finite());
        if all_finite {
            Ok(())
        } else {
            Err(self.first_not_finite(name))
        }
    }

    fn first_not_finite(&self, name: &str) -> KernelError {
        let index = self.data.iter().position(|v| !v.is_finite()).unwrap_or(0);
        KernelError::NotFinite {
            tensor: name.to_string(),
            index,
            value: self.data[index],
        }
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor{:?}", self.shape)
    }
}
