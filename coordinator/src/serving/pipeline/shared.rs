//! What others see of a pipeline.

use std::collections::VecDeque;
use std::sync::Mutex;

use concord_proto::serving::{Passed, PipelineView, StageView};
use concord_scheduler::Scheduler;

use super::input::Planned;

/// Over how many microseconds the rate of tokens is taken.
const RATE_US: u64 = 5_000_000;

/// Whether a pipeline takes generations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) enum Standing {
    /// It computes.
    Running,
    /// It did, and will again once a stage is replaced: generations may wait for it.
    Recovering,
    /// It does not.
    Down,
}

/// What others see of a pipeline. The lock is never held over an await.
pub(in super::super) struct Shared(pub(in super::super) Mutex<Inner>);

pub(in super::super) struct Inner {
    pub(in super::super) scheduler: Scheduler,
    pub(in super::super) standing: Standing,
    /// Generations on their way to the task.
    pub(in super::super) coming: u32,
    epoch: u32,
    stages: Vec<StageView>,
    /// Microseconds and tokens drawn until then.
    counts: VecDeque<(u64, u64)>,
}

impl Shared {
    pub(super) fn new(scheduler: Scheduler) -> Self {
        Self(Mutex::new(Inner {
            scheduler,
            standing: Standing::Down,
            coming: 0,
            epoch: 0,
            stages: Vec::new(),
            counts: VecDeque::new(),
        }))
    }

    pub(in super::super) fn view(&self) -> PipelineView {
        let inner = self.lock();
        let mut view = PipelineView::default();
        inner.scheduler.view(&mut view);
        view.epoch = inner.epoch;
        view.running = inner.standing == Standing::Running;
        view.tokens_per_second = inner.rate();
        view.stages = inner.stages.clone();
        view
    }
}

impl Inner {
    /// The stages of a new plan. What a worker did in the same stage before still counts.
    pub(super) fn plan(&mut self, planned: &Planned) {
        let before = std::mem::take(&mut self.stages);
        let stage = |seat: &crate::core::Seat| {
            let mut known = before.iter();
            let same = known.find(|s| s.worker == seat.worker && s.layers == seat.layers);
            same.cloned().unwrap_or_else(|| StageView {
                worker: seat.worker,
                device: seat.device.clone(),
                layers: seat.layers,
                passes: 0,
                rows: 0,
                queue_seconds: 0.0,
                compute_seconds: 0.0,
                wait_seconds: 0.0,
                link: concord_proto::serving::LinkView::default(),
            })
        };
        self.stages = planned.seats.iter().map(stage).collect();
        self.epoch = planned.epoch;
    }

    /// Takes in the times of a pass.
    pub(super) fn passed(&mut self, seat: usize, passed: &Passed) {
        let Some(stage) = self.stages.get_mut(seat) else {
            return;
        };
        let seconds = |micros: u32| f64::from(micros) / 1e6;
        stage.passes += 1;
        stage.rows += u64::from(passed.rows);
        stage.queue_seconds += seconds(passed.queue_us);
        stage.compute_seconds += seconds(passed.compute_us);
        stage.wait_seconds += seconds(passed.wait_us);
        stage.link.wire_seconds += seconds(passed.wire_us);
        stage.link.bytes = stage.link.bytes.saturating_add(passed.bytes);
    }

    /// Notes how many tokens have been drawn until now.
    pub(super) fn count(&mut self, now_us: u64, tokens: u64) {
        self.counts.push_back((now_us, tokens));
        let is_old = |(at, _): &(u64, u64)| now_us.saturating_sub(*at) > RATE_US;
        while self.counts.len() > 2 && self.counts.front().is_some_and(is_old) {
            self.counts.pop_front();
        }
    }

    fn rate(&self) -> f64 {
        let (Some((from, before)), Some((to, after))) = (self.counts.front(), self.counts.back())
        else {
            return 0.0;
        };
        let micros = to.saturating_sub(*from);
        if micros == 0 {
            return 0.0;
        }
        (after - before) as f64 * 1e6 / micros as f64
    }
}
