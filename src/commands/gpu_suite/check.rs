//! A check: a computation whose result on a GPU must equal the CPU's.

use concord_kernels::Device;
use concord_kernels::cuda::Cuda;
use concord_models::ModelError;

use super::find::Mismatch;

/// The devices that are compared.
pub struct Subjects {
    /// The GPU.
    pub cuda: Cuda,
    /// The same, as a device.
    pub gpu: Device,
    /// The same card, opened a second time with cuBLASLt; `None` where the machine lacks it.
    pub with_library: Option<Cuda>,
    /// The CPU, whose results count as right.
    pub cpu: Device,
}

/// The result of a check: the first difference, if there is one.
pub type Found = Result<Option<Mismatch>, ModelError>;

pub struct Check {
    /// The group with which it is reported.
    pub group: &'static str,
    /// Its name, which together with the seed determines its input.
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
