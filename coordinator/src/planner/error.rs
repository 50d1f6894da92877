//! Why there is no plan, and what would help.

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The pool is empty.
    #[error("there is no worker to plan for: start at least one `concord worker`")]
    NoDevices,
    /// The job has no layer or no microbatch.
    #[error("a job of {layers} layers and {microbatches} microbatches has nothing to plan")]
    EmptyJob {
        /// Its layers.
        layers: u32,
        /// Its microbatches.
        microbatches: u32,
    },
    /// A fixed plan without a stage or without a replica.
    #[error("the plan {stages}x{replicas} is empty: give at least 1x1, or choose auto")]
    EmptyPlan {
        /// Stages asked for.
        stages: u32,
        /// Replicas asked for.
        replicas: u32,
    },
    /// Fewer workers than slots.
    #[error(
        "the plan {stages}x{replicas} needs {} workers, and {workers} are there: \
         start more, or choose auto", u64::from(*stages) * u64::from(*replicas)
    )]
    TooFewWorkers {
        /// Stages asked for.
        stages: u32,
        /// Replicas asked for.
        replicas: u32,
        /// Workers there.
        workers: u32,
    },
    /// A stage would be empty.
    #[error("{stages} stages for {layers} layers: a stage has at least one layer")]
    TooManyStages {
        /// Stages asked for.
        stages: u32,
        /// Layers of the model.
        layers: u32,
    },
    /// A replica would be idle.
    #[error("{replicas} replicas for {microbatches} microbatches: a replica has at least one")]
    TooManyReplicas {
        /// Replicas asked for.
        replicas: u32,
        /// Microbatches of a step.
        microbatches: u32,
    },
    /// The shares do not fit the replicas or the microbatches.
    #[error(
        "the shares {shares:?} do not deal {microbatches} microbatches to {replicas} replicas: \
         give each replica at least one, {microbatches} in all"
    )]
    Shares {
        /// Shares asked for.
        shares: Vec<u32>,
        /// Replicas asked for.
        replicas: u32,
        /// Microbatches of a step.
        microbatches: u32,
    },
    /// No plan fits into the memory of the workers.
    #[error(
        "no plan fits into the memory of {workers} workers: it would with {} more on each{}",
        bytes(*more_bytes), workers_remedy(*more_workers)
    )]
    Memory {
        /// Workers there.
        workers: u32,
        /// How many more bytes on each worker would do.
        more_bytes: u64,
        /// How many more workers like the largest would do, where any number would.
        more_workers: Option<u32>,
    },
}

fn bytes(count: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.iter().find(|(unit, _)| count >= *unit) {
        Some((unit, name)) => {
            let tenths = (u128::from(count) * 10).div_ceil(u128::from(*unit));
            format!("{}.{} {name} ({count} bytes)", tenths / 10, tenths % 10)
        }
        None => format!("{count} bytes"),
    }
}

fn workers_remedy(more: Option<u32>) -> String {
    match more {
        Some(1) => ", or with one more worker like the largest".to_string(),
        Some(count) => format!(", or with {count} more workers like the largest"),
        None => ", and no number of workers like the largest would do".to_string(),
    }
}
