//! A check: something that a GPU must do as the CPU does.

use concord_kernels::Device;
use concord_kernels::cuda::Cuda;
use concord_models::ModelError;

use super::find::Mismatch;

/// What is compared.
pub struct Subjects {
    /// The GPU.
    pub cuda: Cuda,
    /// The same, as a device.
    pub gpu: Device,
    /// The same card opened once more, with cuBLASLt in use; none where the machine lacks it.
    pub with_library: Option<Cuda>,
    /// What it must equal.
    pub cpu: Device,
}

/// What a check gives: the first difference, if there is one.
pub type Found = Result<Option<Mismatch>, ModelError>;

pub struct Check {
    /// What is reported together.
    pub group: &'static str,
    /// Its name, which with the seed says all of its input.
    pub name: String,
    work: Box<dyn Fn(&Subjects) -> Found>,
}

impl Check {
    /// A check of `work`.
    pub fn new(
        group: &'static str,
        name: impl Into<String>,
        work: impl Fn(&Subjects) -> Found + 'static,
    ) -> Self {
        Self {
            group,
            name: name.into(),
            work: Box::new(work),
        }
    }

    /// Runs it.
    ///
    /// # Errors
    /// [`ModelError::Kernel`] where a device fails.
    pub fn run(&self, subjects: &Subjects) -> Found {
        (self.work)(subjects)
    }
}
