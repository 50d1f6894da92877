//! The referee of a coordinator in this process: the device that it computes with.

use std::path::Path;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;

use concord_coordinator::server::{OwnLink, Referee, Refereed};
use concord_kernels::Device;
use concord_kernels::cpu::Cpu;
use concord_kernels::isa::Isa;
use concord_proto::WorkerId;
use concord_proto::session::AuditOrder;
use concord_runtime::measure;
use concord_runtime::referee::{LeafReferee, RefereeOptions};

/// What decides where a checker contradicts a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefereeChoice {
    /// The CPU, with SIMD and threads.
    Cpu,
    /// Scalar code.
    Reference,
    /// Nothing: the coordinator has no memory for it.
    Off,
}

impl FromStr for RefereeChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "cpu" => Ok(Self::Cpu),
            "reference" => Ok(Self::Reference),
            "off" => Ok(Self::Off),
            _ => Err(format!("'{text}': cpu, reference or off")),
        }
    }
}

impl RefereeChoice {
    /// The referee of a coordinator with its state in `data_dir`. It uses at most `memory` bytes
    /// for a leaf, by default half of what this machine has available now.
    pub fn referee(
        self,
        data_dir: &Path,
        memory: Option<u64>,
        threads: usize,
    ) -> Option<Arc<dyn Referee>> {
        let device = match self {
            Self::Cpu => Device::Cpu(Cpu::new(Isa::best(), threads)),
            Self::Reference => Device::Reference,
            Self::Off => return None,
        };
        let options = RefereeOptions {
            device,
            memory_bytes: memory.unwrap_or_else(|| measure::machine_memory() / 2),
            dir: data_dir.join("referee"),
            store: data_dir.join("blobs"),
        };
        Some(Arc::new(InProcess(LeafReferee::new(options))))
    }
}

/// The re-runs of this process.
#[derive(Debug)]
struct InProcess(LeafReferee);

impl Referee for InProcess {
    fn rerun(
        &self,
        coordinator: OwnLink,
        order: AuditOrder,
        traced: WorkerId,
    ) -> Pin<Box<dyn Future<Output = Refereed> + Send>> {
        let referee = self.0.clone();
        Box::pin(async move {
            let found = referee
                .rerun(&coordinator.url, &coordinator.key, order, &traced)
                .await;
            Refereed {
                finding: found.finding,
                inputs: found.inputs,
                trace: found.trace,
                is_able: found.has_room,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_decides_has_a_name_and_others_are_refused() {
        for (text, choice) in [
            ("cpu", RefereeChoice::Cpu),
            ("reference", RefereeChoice::Reference),
            ("off", RefereeChoice::Off),
        ] {
            assert_eq!(text.parse(), Ok(choice));
        }
        for text in ["", "CPU", "cuda", "none"] {
            let why = text.parse::<RefereeChoice>().unwrap_err();
            assert!(why.contains("cpu, reference or off"), "{why}");
        }
    }
}
