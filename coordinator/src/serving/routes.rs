//! Which pipeline takes a generation.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, PoisonError};

use concord_proto::serving::{Generation, PAGE_TOKENS, PipelineView};
use concord_proto::{Digest, Domain};
use tokio::sync::mpsc;

use super::pipeline::{Input, Shared, Standing, Submitted};

/// Beginnings of prompts of which it is known where they were last computed.
const PREFIXES_MAX: usize = 4_096;

/// So many generations more than the least busy pipeline has may be with one that knows the prompt.
const SLACK: u32 = 8;

impl Route {
    /// Hands over a generation for which this pipeline was chosen, or gives it back.
    pub(super) fn hand_over(&self, submitted: Submitted) -> Result<(), Box<Submitted>> {
        let input = Input::Submit(Box::new(submitted));
        let Err(refused) = self.inputs.try_send(input) else {
            return Ok(());
        };
        self.shared.lock().coming -= 1;
        match refused.into_inner() {
            Input::Submit(submitted) => Err(submitted),
            _ => Ok(()),
        }
    }
}

/// The ways to all pipelines.
#[derive(Default)]
pub(super) struct Routes {
    all: Vec<Route>,
    /// Where prompts that begin alike went.
    prefixes: BTreeMap<Digest, u32>,
    order: VecDeque<Digest>,
}

/// The way to a pipeline.
#[derive(Clone)]
pub(super) struct Route {
    pub(super) inputs: mpsc::Sender<Input>,
    pub(super) shared: Arc<Shared>,
}

impl Routes {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn push(&mut self, route: Route) {
        self.all.push(route);
    }

    pub(super) fn inputs(&self, index: u32) -> Option<mpsc::Sender<Input>> {
        let route = self.all.get(index as usize)?;
        Some(route.inputs.clone())
    }

    pub(super) fn views(&self) -> Vec<PipelineView> {
        self.all.iter().map(|route| route.shared.view()).collect()
    }

    /// All ways, which are gone from here then.
    pub(super) fn take(&mut self) -> Vec<mpsc::Sender<Input>> {
        let all = std::mem::take(&mut self.all);
        all.into_iter().map(|route| route.inputs).collect()
    }

    /// The pipeline for a generation, other than `but`: one that runs before one that is about to;
    /// among these the one that knows the prompt, unless it has much more to do than others. The
    /// generation counts as on its way there from now on.
    pub(super) fn choose(
        &mut self,
        generation: &Generation,
        but: Option<u32>,
    ) -> Option<(u32, Route)> {
        let standing = |route: &Route| {
            let inner = route.shared.lock();
            let mut view = PipelineView::default();
            inner.scheduler.view(&mut view);
            (inner.standing, view.active + view.waiting + inner.coming)
        };
        let all = (0_u32..).zip(&self.all);
        let others = all.filter(|(index, _)| Some(*index) != but);
        let found = others.map(|(index, route)| (index, standing(route)));
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
        let route = self.all.get(index as usize)?;
        route.shared.lock().coming += 1;
        Some((index, route.clone()))
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

/// What prompts that can share a page have in common.
fn prefix(generation: &Generation) -> Digest {
    let spec = &generation.spec;
    let first = spec.prompt.len().min(PAGE_TOKENS as usize);
    Digest::of_value(Domain::Prefix, &(spec.adapter, &spec.prompt[..first]))
}

impl Shared {
    pub(super) fn lock(&self) -> std::sync::MutexGuard<'_, super::pipeline::Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
