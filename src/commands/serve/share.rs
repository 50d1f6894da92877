//! Each worker's share of this machine, for the preview and for the workers that are started.

use anyhow::bail;
use concord_coordinator::planner::PlannerDevice;
use concord_proto::PublicKey;
use concord_runtime::measure;

use super::ServeArgs;
use crate::support::device::{DeviceArgs, memory_bytes};
use crate::support::gpu::GpuName;

/// A worker's share of this machine.
#[derive(Clone, Debug)]
pub struct MachineShare {
    /// Where it computes.
    pub device: DeviceArgs,
    /// Bytes that it may use; `None` for a single worker, which takes what is free when it starts.
    pub memory: Option<u64>,
}

impl ServeArgs {
    /// Whether the workers hold matrices as they lie in the model's files: those of this machine do
    /// on its CPU, of others it is not known.
    pub(super) fn keeps_packed(&self) -> bool {
        self.workers > 0 && ["cpu", "reference"].contains(&self.device.as_str())
    }

    /// The share of each worker. `--memory` is each one's; without it they divide what is free, on
    /// a GPU, too.
    ///
    /// # Errors
    /// Where the device is not there or unknown.
    pub(super) fn share(&self) -> anyhow::Result<MachineShare> {
        self.check_device()?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = self.workers.max(1);
        let device = DeviceArgs {
            device: self.device.clone(),
            threads: Some(self.threads.unwrap_or((cores / workers as usize).max(1))),
            isa: None,
        };
        let memory = match self.memory {
            None if workers > 1 => {
                let free = measure::device_memory(&device.device(None)?);
                Some(free / u64::from(workers))
            }
            asked => asked,
        };
        Ok(MachineShare { device, memory })
    }

    /// Refuses options that no worker could accept before any is started.
    fn check_device(&self) -> anyhow::Result<()> {
        if self.threads == Some(0) {
            bail!("--threads 0: at least one thread is needed");
        }
        let known = ["cpu", "cuda", "auto", "reference"];
        let device = self.device.as_str();
        if !known.contains(&device) && GpuName::parse(device)?.is_none() {
            bail!("unknown device '{device}': cpu, cuda, cuda:N, auto or reference");
        }
        Ok(())
    }
}

impl MachineShare {
    /// Options of a worker with this share, without its threads.
    pub fn worker_options(&self) -> Vec<String> {
        let mut options = vec!["--device".to_string(), self.device.device.clone()];
        if let Some(bytes) = self.memory {
            options.extend(["--memory".to_string(), bytes.to_string()]);
        }
        options
    }

    /// `count` workers with this share, in the form of the planner.
    ///
    /// # Errors
    /// Where the device is not there, or fails.
    pub fn devices(&self, count: u32) -> anyhow::Result<Vec<PlannerDevice>> {
        let device = self.device.device(self.memory)?;
        let memory = memory_bytes(&device, self.memory);
        let info = measure::device_info(&device, memory)?;
        let devices = (0..count).map(|index| PlannerDevice {
            id: PublicKey([index as u8; 32]),
            name: info.name.clone(),
            macs_per_second: info.macs_per_second,
            memory_bytes: info.memory_bytes,
        });
        Ok(devices.collect())
    }
}
