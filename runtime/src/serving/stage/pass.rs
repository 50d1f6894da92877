//! One pass through a stage.

use std::time::{Duration, Instant};

use concord_kernels::Tensor;
use concord_kernels::ops::PagedRun;
use concord_models::decoder::{PassInput, PassOutput, StageAdapter, StageRun};
use concord_proto::Digest;
use concord_proto::serving::{DrawOrder, FromStage, PassResult, Passed, SequenceRun, runs_digest};

use super::bound::ServingStage;
use super::draw::{ComputedPass, draw};
use super::row_log::{Position, RowInput};
use super::rows::{OutgoingPass, digests, ranges};
use crate::RuntimeError;
use crate::faults::Faults;

/// Draw orders that may be ahead of their passes: as many as passes can be in flight, and more.
const ORDERS_MAX: usize = 1_024;

/// What comes in with a pass.
pub(super) enum Rows {
    /// Tokens, into the first stage.
    Tokens(Vec<u32>),
    /// Hidden states, and their digests.
    Hidden {
        rows: Vec<f32>,
        digests: Vec<Digest>,
    },
}

impl Rows {
    fn entered(&self) -> Vec<RowInput> {
        match self {
            Self::Tokens(tokens) => tokens.iter().copied().map(RowInput::Token).collect(),
            Self::Hidden { digests, .. } => digests.iter().copied().map(RowInput::Row).collect(),
        }
    }
}

impl ServingStage {
    /// Does a pass, and hands it on.
    pub(super) fn pass(
        &mut self,
        faults: &Faults,
        number: u64,
        runs: Vec<SequenceRun>,
        rows: Rows,
        arrived: Instant,
    ) -> Result<(), RuntimeError> {
        self.check(number, &runs, &rows)?;
        let started = Instant::now();
        let entered = rows.entered();
        let output = self.compute(&runs, rows)?;
        let broken: Vec<u32> = output.broken.iter().map(|run| *run as u32).collect();
        let mut rows = output.hidden.into_values()?;
        faults.after_pass(number, &mut rows);
        let mut left = digests(&rows, self.binding.leaving);
        self.note(&runs, &entered, &left);
        self.next_pass = number + 1;
        let micros = |time: Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        let passed = Passed {
            pass: number,
            rows: left.len() as u32,
            runs: runs_digest(&runs),
            broken: broken.clone(),
            queue_us: micros(started.saturating_duration_since(arrived)),
            compute_us: micros(started.elapsed()),
            wait_us: micros(arrived.saturating_duration_since(self.idle_since)),
            wire_us: 0,
            bytes: 0,
        };
        self.idle_since = Instant::now();
        if let Some(next) = &self.next {
            if faults.before_sending_rows(number, &mut rows) {
                left = digests(&rows, self.binding.leaving);
            }
            let outgoing = OutgoingPass {
                runs,
                digests: std::mem::take(&mut left),
                rows,
                passed,
            };
            if next.blocking_send(outgoing).is_err() {
                tracing::debug!("the way to the next stage is closed; a pass is dropped");
            }
            return Ok(());
        }
        let computed = ComputedPass { runs, rows, broken };
        self.undrawn.insert(number, (computed, passed));
        match self.orders.remove(&number) {
            Some(order) => self.draws(faults, order),
            None => Ok(()),
        }
    }

    /// Draws from a pass, or holds the order until the pass has come.
    pub(super) fn draws(&mut self, faults: &Faults, order: DrawOrder) -> Result<(), RuntimeError> {
        let bad = |why: &str| {
            Err(RuntimeError::Pass(format!(
                "draws of {}: {why}",
                order.pass
            )))
        };
        if !self.binding.is_last() {
            return bad("this is not the last stage");
        }
        let Some((mut computed, mut passed)) = self.undrawn.remove(&order.pass) else {
            if order.pass < self.next_pass || self.orders.len() >= ORDERS_MAX {
                return bad("the pass is over, or too many orders wait");
            }
            self.orders.insert(order.pass, order);
            return Ok(());
        };
        let started = Instant::now();
        let (stage, of_pass) = (&self.loaded.stage, &mut computed);
        let device = &stage.options().device;
        let mut drawn = device.on_its_threads(|| draw(stage, of_pass, &order))?;
        let vocab = self.binding.deployment.vocab;
        faults.after_drawing(order.pass, vocab, &mut drawn);
        for drawn in &drawn {
            let run = &computed.runs[drawn.run as usize];
            if let Some(token) = &drawn.token {
                let position = run.first + run.count;
                self.log.draw(run.sequence, position, token);
            }
            // The row of a position scores the token after it.
            self.log.score(run.sequence, run.first + 1, &drawn.scored);
        }
        let micros = u32::try_from(started.elapsed().as_micros()).unwrap_or(u32::MAX);
        passed.compute_us = passed.compute_us.saturating_add(micros);
        passed.broken = computed.broken;
        // Told first, because it names the broken runs, whose draws are missing.
        self.tell(FromStage::Passed(passed));
        let pass = order.pass;
        self.tell(FromStage::Result(PassResult { pass, drawn }));
        self.idle_since = Instant::now();
        Ok(())
    }
}

impl ServingStage {
    /// Refuses what does not fit the binding.
    fn check(&self, number: u64, runs: &[SequenceRun], rows: &Rows) -> Result<(), RuntimeError> {
        let bad = |why: String| Err(RuntimeError::Pass(format!("pass {number}: {why}")));
        if number != self.next_pass {
            return bad(format!("pass {} was to come", self.next_pass));
        }
        if self.undrawn.len() >= ORDERS_MAX {
            return bad(format!("{ORDERS_MAX} passes wait for their draws"));
        }
        let count = match rows {
            Rows::Tokens(tokens) => {
                if self.binding.previous.is_some() {
                    return bad("tokens for a stage that is not the first".to_string());
                }
                let vocab = self.binding.deployment.vocab;
                if let Some(token) = tokens.iter().find(|token| **token >= vocab) {
                    return bad(format!("token {token} of {vocab}"));
                }
                tokens.len()
            }
            Rows::Hidden { digests, .. } => digests.len(),
        };
        if let Err(why) = self.binding.check_runs(runs, count) {
            return bad(why);
        }
        let unknown = |adapter: &Digest| !self.adapters.contains_key(adapter);
        match runs.iter().filter_map(|run| run.adapter).find(unknown) {
            Some(adapter) => bad(format!("adapter {} is not loaded", adapter.short())),
            None => Ok(()),
        }
    }

    fn compute(&mut self, runs: &[SequenceRun], rows: Rows) -> Result<PassOutput, RuntimeError> {
        let stage = &self.loaded.stage;
        let adapters = &self.adapters;
        let paged = |run| -> StageRun<'_> {
            let SequenceRun {
                pages,
                first,
                count,
                adapter,
                ..
            }: &SequenceRun = run;
            let adapter = adapter.as_ref().and_then(|adapter| adapters.get(adapter));
            StageRun {
                run: PagedRun {
                    pages,
                    first: *first as usize,
                    count: *count as usize,
                },
                adapter: adapter.map(|adapter| -> &StageAdapter { adapter }),
            }
        };
        let runs: Vec<StageRun<'_>> = runs.iter().map(paged).collect();
        let pages = &mut self.pages;
        let computed = stage.options().device.on_its_threads(move || match rows {
            Rows::Tokens(tokens) => stage.pass(pages, &runs, PassInput::Tokens(&tokens)),
            Rows::Hidden { rows, digests } => {
                let shape = [digests.len(), rows.len() / digests.len()];
                stage.pass(pages, &runs, PassInput::Hidden(Tensor::new(&shape, rows)?))
            }
        });
        Ok(computed?)
    }

    /// Notes the rows that went through, beside the pages.
    fn note(&mut self, runs: &[SequenceRun], entered: &[RowInput], left: &[Digest]) {
        for (run, range) in runs.iter().zip(ranges(runs)) {
            let rows = entered[range.clone()].iter().zip(&left[range]);
            let rows = rows.map(|(entered, left)| Position {
                entered: *entered,
                left: *left,
            });
            self.log.pass(run, &rows.collect::<Vec<_>>());
        }
    }
}
