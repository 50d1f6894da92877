//! What others see of a pipeline: its scheduler, whether it runs, and its figures.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use concord_proto::serving::{Passed, PipelineView, StageView};
use concord_scheduler::Scheduler;

use super::arrival::Arrivals;
use super::input::PipelinePlan;
use crate::core::StageHolder;

/// Over how many microseconds the rate of tokens is taken.
const RATE_US: u64 = 5_000_000;

/// Whether a pipeline takes generations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::serving) enum Standing {
    /// It computes.
    Running,
    /// It did, and will again once a stage is replaced: generations may wait for it.
    Recovering,
    /// It does not.
    Down,
}

/// What others see of a pipeline. The lock is never held over an await.
pub(in crate::serving) struct PipelineState {
    figures: Mutex<PipelineFigures>,
    arrivals: Arrivals,
}

pub(in crate::serving) struct PipelineFigures {
    pub(in crate::serving) scheduler: Scheduler,
    pub(in crate::serving) standing: Standing,
    epoch: u32,
    stages: Vec<StageView>,
    /// Microseconds and tokens drawn until then.
    counts: VecDeque<(u64, u64)>,
}

impl PipelineState {
    pub(in crate::serving) fn new(scheduler: Scheduler) -> Self {
        let figures = PipelineFigures {
            scheduler,
            standing: Standing::Down,
            epoch: 0,
            stages: Vec::new(),
            counts: VecDeque::new(),
        };
        Self {
            figures: Mutex::new(figures),
            arrivals: Arrivals::default(),
        }
    }

    pub(in crate::serving) fn lock(&self) -> MutexGuard<'_, PipelineFigures> {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The generations on their way to the pipeline.
    pub(in crate::serving) fn arrivals(&self) -> &Arrivals {
        &self.arrivals
    }

    /// Whether it takes generations, and how many it has, with those on their way.
    pub(super) fn load(&self) -> (Standing, u32) {
        let figures = self.lock();
        let mut view = PipelineView::default();
        figures.scheduler.view(&mut view);
        let generations = view.active + view.waiting + self.arrivals.count();
        (figures.standing, generations)
    }

    pub(in crate::serving) fn view(&self) -> PipelineView {
        let figures = self.lock();
        let mut view = PipelineView::default();
        figures.scheduler.view(&mut view);
        view.epoch = figures.epoch;
        view.running = figures.standing == Standing::Running;
        view.tokens_per_second = figures.rate();
        view.stages = figures.stages.clone();
        view
    }
}

impl PipelineFigures {
    /// The stages of a new plan. What a worker did in the same stage before still counts.
    pub(in crate::serving) fn plan(&mut self, planned: &PipelinePlan) {
        let before = std::mem::take(&mut self.stages);
        let stage = |holder: &StageHolder| {
            let mut known = before.iter();
            let same = known.find(|s| s.worker == holder.worker && s.layers == holder.layers);
            same.cloned().unwrap_or_else(|| StageView {
                worker: holder.worker,
                device: holder.device.clone(),
                layers: holder.layers,
                passes: 0,
                rows: 0,
                queue_seconds: 0.0,
                compute_seconds: 0.0,
                wait_seconds: 0.0,
                link: concord_proto::serving::LinkView::default(),
            })
        };
        self.stages = planned.holders.iter().map(stage).collect();
        self.epoch = planned.epoch;
    }

    /// Takes in the times of a pass.
    pub(in crate::serving) fn passed(&mut self, stage: usize, passed: &Passed) {
        let Some(stage) = self.stages.get_mut(stage) else {
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
    pub(in crate::serving) fn count(&mut self, now_us: u64, tokens: u64) {
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
