//! The settings of the core. Times are in microseconds.

/// Timeouts, bounds and rates of the core.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Workers send a heartbeat this often, in milliseconds.
    pub heartbeat_ms: u32,
    /// A worker not heard of for this long is lost.
    pub lost_after_us: u64,
    /// After a restart, how long to wait for workers to come back with the state that they hold.
    pub return_grace_us: u64,
    /// How long a drawn leaf waits for its worker to come back.
    pub opening_grace_us: u64,
    /// Loading a stage, or a phase of a step, has stalled after this time, or after 20 times the
    /// predicted time of a step if that is longer; storing a state after this time and what the
    /// state takes at 64 Mbit/s.
    pub stall_us: u64,
    /// An audit not answered for this long goes to another checker; that of a sum for this long for
    /// each of its microbatches, which may have to be computed again.
    pub audit_timeout_us: u64,
    /// How long a step waits where fewer checkers are there than the job asks for, and an answer
    /// for somebody to judge it.
    pub checker_grace_us: u64,
    /// How long a dispute waits for a third party to be there.
    pub third_party_grace_us: u64,
    /// A stage that does not answer a pass for this long, while it serves, is lost.
    pub serving_stall_us: u64,
    /// How long answers wait for a pipeline that no workers can hold; then they end with an error.
    pub serving_patience_us: u64,
    /// Audits in flight at one checker.
    pub audits_in_flight: usize,
    /// Steps from the oldest open audit on that may be done before it is closed, at most: a plan
    /// whose workers have less memory lets fewer be done (`TrainingPlan::open_steps`).
    pub audit_window: u32,
    /// The same of a full fine-tune, where each of them keeps a state and a gradient of the size of
    /// the model at every worker: every plan has memory for so many.
    pub audit_window_full: u32,
    /// Whether the driver re-runs leaves itself ([`super::CoreEffect::Referee`]). Without a referee
    /// nobody is convicted on what checkers say: who is outvoted is left out of the job.
    pub referee: bool,
}

impl Default for Config {
    fn default() -> Self {
        const SECOND: u64 = 1_000_000;
        Self {
            heartbeat_ms: 500,
            lost_after_us: 4 * SECOND,
            return_grace_us: 5 * SECOND,
            opening_grace_us: 3 * SECOND / 2,
            stall_us: 600 * SECOND,
            audit_timeout_us: 60 * SECOND,
            checker_grace_us: 10 * SECOND,
            third_party_grace_us: 10 * SECOND,
            serving_stall_us: 30 * SECOND,
            serving_patience_us: 120 * SECOND,
            audits_in_flight: 4,
            audit_window: 8,
            audit_window_full: 2,
            referee: false,
        }
    }
}
