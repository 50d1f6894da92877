//! Fine-tunes of models whose weights come from a counter: no file, no network, the same bits
//! everywhere.
//!
//! [`GOLDENS`] are some of them with the digests that every device must reproduce. Others can be
//! made to compare two devices.

mod fit;
mod model;

pub use fit::{FineTune, FineTuneKind, FineTuneRun};
pub use model::{MadeModel, tiny_experts, tiny_llama};

use concord_kernels::Device;

use crate::ModelError;

/// A fine-tune and its digests under arithmetic version 1. They may change only together with
/// `ARITHMETIC_VERSION` (NUMERICS.md).
#[derive(Clone, Copy, Debug)]
pub struct Golden {
    /// What is trained.
    pub kind: FineTuneKind,
    /// Numbers of steps with the digest after each. The earlier one tells a plain bug from a drift
    /// that shows only later.
    pub digests: [(u32, &'static str); 2],
}

/// The golden fine-tunes.
pub const GOLDENS: [Golden; 3] = [
    Golden {
        kind: FineTuneKind::Lora,
        digests: [
            (
                4,
                "e33409c75ba6b13186cb322c48f250f9758a25d01cef96d030290743e5640985",
            ),
            (
                50,
                "1a569b1787620fc26f7bf3eb6f8c3f91692fb5d66512ffb36f21e30b26740d6f",
            ),
        ],
    },
    Golden {
        kind: FineTuneKind::Full,
        digests: [
            (
                4,
                "2b3ec1fa26256a4ced181ad66af58c3a02970781e8a6c27d85b47457851d4d00",
            ),
            (
                50,
                "8ecfa8e239f17591bbf9d56fa08e5956726df1a261fd031b23e7d8adeaf4c97a",
            ),
        ],
    },
    Golden {
        kind: FineTuneKind::FullBits8,
        digests: [
            (
                4,
                "5d5f007f292fe2f6315787c27b9d94718bfd87be6c2f8dce8d2dfb5253758cec",
            ),
            (
                50,
                "902f92119857f24c14f57aa11c12593372dd23e75fb7dca0912f25a9506bf7c6",
            ),
        ],
    },
];

impl Golden {
    /// The digests of `device` at those step counts of `self.digests` that are at most `steps_max`.
    ///
    /// # Errors
    /// [`ModelError::Kernel`] where the device fails.
    pub fn digests_on(&self, device: &Device, steps_max: u32) -> Result<Vec<String>, ModelError> {
        let fit = FineTune::golden(self.kind);
        let mut run = fit.start(device)?;
        let mut digests = Vec::new();
        for (steps, _) in self.digests.iter().filter(|(steps, _)| *steps <= steps_max) {
            while run.steps() < *steps {
                run.step()?;
            }
            digests.push(run.digest()?);
        }
        Ok(digests)
    }
}
