//! The ways to all pipelines, and which of them takes a generation.
//!
//! Nothing here knows the task of a pipeline: it is reached by [`PipelineInput`]s, and it shows its
//! [`PipelineState`].

mod answer;
mod arrival;
mod input;
mod state;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use concord_proto::serving::{Generation, PAGE_TOKENS, PipelineView};
use concord_proto::{Digest, Domain};
use tokio::sync::mpsc;

pub(super) use answer::{AnswerUnderWay, CHATTER_MAX};
pub(super) use arrival::Arrival;
pub(super) use input::{
    PipelineInput, PipelinePlan, RoutedGeneration, StageItem, StageMessage, StagePlace, StreamEnd,
    StreamOpened,
};
pub(super) use state::{PipelineState, Standing};

/// The most beginnings of prompts for which the last pipeline is remembered.
const PREFIXES_MAX: usize = 4_096;

/// A pipeline that knows the prompt is preferred to the least busy one unless it has over this many
/// generations more.
const SLACK: u32 = 8;

/// The ways to all pipelines.
pub(super) struct Router {
    routes: Mutex<Routes>,
    /// The next number that is given to a sequence or an order.
    next: AtomicU64,
}

/// Its lock is never held over an await. A pipeline's state may be locked while it is held, never
/// the other way round.
#[derive(Default)]
struct Routes {
    all: Vec<Route>,
    /// The pipeline that last took a prompt with this beginning.
    prefixes: BTreeMap<Digest, u32>,
    /// The beginnings, oldest first.
    order: VecDeque<Digest>,
    is_stopped: bool,
}

/// The way to a pipeline.
#[derive(Clone)]
pub(super) struct Route {
    pub(super) inputs: mpsc::Sender<PipelineInput>,
    pub(super) state: Arc<PipelineState>,
}

/// The pipeline that was chosen for a generation. The generation counts as on its way there.
pub(super) struct Chosen {
    pub(super) index: u32,
    route: Route,
    arrival: Arrival,
}

impl Router {
    pub(super) fn new() -> Self {
        Self {
            routes: Mutex::default(),
            next: AtomicU64::new(1),
        }
    }

    /// A number that is never given again.
    pub(super) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn routes(&self) -> MutexGuard<'_, Routes> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The way to a pipeline. Those up to it that are not there yet are started. None once all are
    /// stopped.
    pub(super) fn started(
        &self,
        index: u32,
        start: impl Fn(u32) -> Route,
    ) -> Option<mpsc::Sender<PipelineInput>> {
        let mut routes = self.routes();
        if routes.is_stopped {
            return None;
        }
        for next in routes.all.len() as u32..=index {
            routes.all.push(start(next));
        }
        routes.inputs(index)
    }

    /// How many pipelines there are.
    pub(super) fn len(&self) -> u32 {
        self.routes().all.len() as u32
    }

    /// Sends to a pipeline. Does nothing if it is gone.
    pub(super) async fn send(&self, index: u32, input: PipelineInput) {
        let to = self.routes().inputs(index);
        if let Some(to) = to {
            let _ = to.send(input).await;
        }
    }

    /// Sends to a pipeline without waiting; gives the input back if that is not possible.
    pub(super) fn try_send(&self, index: u32, input: PipelineInput) -> Result<(), PipelineInput> {
        let Some(to) = self.routes().inputs(index) else {
            return Err(input);
        };
        to.try_send(input).map_err(|error| error.into_inner())
    }

    pub(super) fn views(&self) -> Vec<PipelineView> {
        let routes = self.routes();
        routes.all.iter().map(|route| route.state.view()).collect()
    }

    /// Ends the routing, and gives the ways to all pipelines.
    pub(super) fn stop(&self) -> Vec<mpsc::Sender<PipelineInput>> {
        let mut routes = self.routes();
        routes.is_stopped = true;
        let all = std::mem::take(&mut routes.all);
        all.into_iter().map(|route| route.inputs).collect()
    }

    /// The pipeline for a generation, other than `but`: one that runs before one that recovers;
    /// among these the one that knows the prompt, unless it has much more to do than others.
    pub(super) fn choose(&self, generation: &Generation, but: Option<u32>) -> Option<Chosen> {
        self.routes().choose(generation, but)
    }
}

impl Routes {
    fn inputs(&self, index: u32) -> Option<mpsc::Sender<PipelineInput>> {
        let route = self.all.get(index as usize)?;
        Some(route.inputs.clone())
    }

    fn choose(&mut self, generation: &Generation, but: Option<u32>) -> Option<Chosen> {
        let all = (0_u32..).zip(&self.all);
        let others = all.filter(|(index, _)| Some(*index) != but);
        let found = others.map(|(index, route)| (index, route.state.load()));
        let takes = |(_, (standing, _)): &(u32, (Standing, u32))| *standing != Standing::Down;
        let found: Vec<(u32, (Standing, u32))> = found.filter(takes).collect();
        let (best, (standing, least)) = *found.iter().min_by_key(|(_, busy)| *busy)?;
        let prefix = prefix(generation);
        let known = self.prefixes.get(&prefix).copied();
        let is_near = |(index, (other, busy)): &&(u32, (Standing, u32))| {
            Some(*index) == known && *other == standing && *busy <= least + SLACK
        };
        let index = found.iter().find(is_near).map_or(best, |(index, _)| *index);
        self.note(prefix, index);
        let route = self.all.get(index as usize)?.clone();
        let arrival = route.state.arrivals().announce();
        Some(Chosen {
            index,
            route,
            arrival,
        })
    }

    fn note(&mut self, prefix: Digest, index: u32) {
        if self.prefixes.insert(prefix, index).is_none() {
            self.order.push_back(prefix);
        }
        if self.order.len() > PREFIXES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.prefixes.remove(&oldest);
        }
    }
}

impl Chosen {
    pub(super) fn state(&self) -> &PipelineState {
        &self.route.state
    }

    /// Inputs that wait for a pipeline at most.
    pub(super) fn waiting_max(&self) -> u32 {
        self.route.inputs.max_capacity() as u32
    }

    /// Hands a generation over to the pipeline, or gives it back where the pipeline is full or
    /// gone.
    pub(super) fn hand_over(
        self,
        submission: RoutedGeneration,
    ) -> Result<(), Box<RoutedGeneration>> {
        let submission = Box::new(submission);
        let Ok(permit) = self.route.inputs.try_reserve() else {
            return Err(submission);
        };
        permit.send(PipelineInput::Submit {
            submission,
            arrival: self.arrival,
        });
        Ok(())
    }
}

/// What prompts that can share a page have in common.
fn prefix(generation: &Generation) -> Digest {
    let spec = &generation.spec;
    let first = spec.prompt.len().min(PAGE_TOKENS as usize);
    Digest::of_value(Domain::Prefix, &(spec.adapter, &spec.prompt[..first]))
}
