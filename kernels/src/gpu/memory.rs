//! What device memory is held for.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;

/// What device memory is held for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MemoryPurpose {
    /// Parameters, coded or not.
    Weights,
    /// What the forward pass keeps for the backward pass.
    Activations,
    /// Gradients of parameters.
    Gradients,
    /// Moments of the optimizer.
    Optimizer,
    /// Keys and values of generation.
    KeyValues,
    /// What operations need while they run: where no purpose is named.
    Workspace,
    /// Buffers for copies to and from the host.
    Staging,
}

impl MemoryPurpose {
    /// Every purpose, in the order of reports.
    pub const ALL: [Self; 7] = [
        Self::Weights,
        Self::Activations,
        Self::Gradients,
        Self::Optimizer,
        Self::KeyValues,
        Self::Workspace,
        Self::Staging,
    ];
}

impl fmt::Display for MemoryPurpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Weights => "weights",
            Self::Activations => "activations",
            Self::Gradients => "gradients",
            Self::Optimizer => "optimizer",
            Self::KeyValues => "keys and values",
            Self::Workspace => "workspace",
            Self::Staging => "staging",
        })
    }
}

thread_local! {
    /// What the thread allocates for. A scope of the thread, not of the GPU: several threads work
    /// on one GPU, each for something else.
    static PURPOSE: Cell<MemoryPurpose> = const { Cell::new(MemoryPurpose::Workspace) };
}

/// Until it is dropped, what its thread allocates is accounted under its purpose.
#[must_use = "the account ends when the guard is dropped"]
pub struct PurposeScope {
    before: MemoryPurpose,
    /// The account belongs to its thread.
    not_send: PhantomData<*const ()>,
}

impl PurposeScope {
    /// What this thread allocates for now.
    pub(super) fn now() -> MemoryPurpose {
        PURPOSE.get()
    }

    pub(super) fn open(purpose: MemoryPurpose) -> Self {
        Self {
            before: PURPOSE.replace(purpose),
            not_send: PhantomData,
        }
    }
}

impl Drop for PurposeScope {
    fn drop(&mut self) {
        PURPOSE.set(self.before);
    }
}

/// Bytes of device memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceMemory {
    /// Free for any process.
    pub free: u64,
    /// All there is.
    pub total: u64,
}

/// What a pool holds, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryReport {
    /// In use, by [`MemoryPurpose::ALL`].
    pub held: [u64; MemoryPurpose::ALL.len()],
    /// Free, but kept for the next allocation.
    pub cached: u64,
    /// The most that was ever in use at once.
    pub peak: u64,
    /// The most that the pool may hold, in use or kept.
    pub limit: u64,
    /// Memory of the card, all processes counted; `None` where the card does not answer any more.
    pub device: Option<DeviceMemory>,
}

impl MemoryReport {
    /// Bytes in use, whatever for.
    pub fn in_use(&self) -> u64 {
        self.held.iter().sum()
    }
}

impl fmt::Display for MemoryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        write!(f, "{} MiB in use (", mib(self.in_use()))?;
        let mut separator = "";
        for (purpose, &bytes) in MemoryPurpose::ALL.iter().zip(&self.held) {
            if bytes > 0 {
                write!(f, "{separator}{purpose} {} MiB", mib(bytes))?;
                separator = ", ";
            }
        }
        if separator.is_empty() {
            f.write_str("nothing")?;
        }
        write!(f, "), {} MiB kept", mib(self.cached))?;
        write!(
            f,
            ", peak {} MiB, limit {} MiB",
            mib(self.peak),
            mib(self.limit)
        )?;
        match self.device {
            Some(device) => write!(
                f,
                "; the card has {} MiB free of {} MiB",
                mib(device.free),
                mib(device.total)
            ),
            None => Ok(()),
        }
    }
}
