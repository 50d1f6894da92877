//! Serving: new tokens of many sequences in one pass, over keys and values in pages.
//!
//! A pass gives each of its sequences the bits that [`Stage::extend`] gives it alone, however
//! sequences are batched, cut into passes and assigned to pages. It keeps nothing for a backward
//! pass.

mod adapter;
mod pages;

use std::ops::Range;

use concord_kernels::cuda::MemoryPurpose;
use concord_kernels::ops::{KvPages, PAGE_TOKENS, PagedRun};
use concord_kernels::{Device, KernelError, Tensor};

pub use self::adapter::StageAdapter;

use self::pages::PagesPass;
use super::stage::Stage;

/// Tokens of a pass whose operations are so short that waking threads for them matters.
const SHORT_PASS: usize = 32;

/// New tokens of one sequence.
#[derive(Clone, Copy, Debug)]
pub struct StageRun<'a> {
    /// Which tokens, and the pages of the sequence.
    pub run: PagedRun<'a>,
    /// A low-rank update on top of the stage. Runs with the same adapter are adjacent.
    pub adapter: Option<&'a StageAdapter>,
}

/// The input of a stage in a pass, one run after another.
#[derive(Debug)]
pub enum PassInput<'a> {
    /// Token ids `[m]`, for the first stage.
    Tokens(&'a [u32]),
    /// Hidden states `[m, d]`: others; or what comes over a cut within a layer
    /// ([`DecoderConfig::cut_widths`](crate::config::DecoderConfig::cut_widths)).
    Hidden(Tensor),
}

/// The result of a pass.
#[derive(Debug)]
pub struct PassOutput {
    /// Hidden states `[m, d]`, or what goes over a cut within a layer, without -0.
    pub hidden: Tensor,
    /// Runs whose hidden states had a NaN or an infinity, by rising index: their rows are set to
    /// zeros. The other runs have the bits that they would have alone.
    pub broken: Vec<usize>,
}

impl Stage {
    /// Pages for the keys and values of the layers whose attention the stage has: none of a stage
    /// that has experts alone.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU is out of memory.
    pub fn kv_pages(&self, pages: u32) -> Result<KvPages, KernelError> {
        let (options, blocks) = (&self.options, &self.blocks);
        let precision = options.precisions.key_values;
        let shape = match blocks.first() {
            Some(block) => block.attention.shape,
            None => options.config.attention_shape(0),
        };
        let device = &options.device;
        device.kv_pages(blocks.len(), &shape, precision, pages)
    }

    /// Bytes of one page in all layers of the stage.
    pub fn kv_page_bytes(&self) -> u64 {
        let precision = self.options.precisions.key_values;
        let layer = |shape| KvPages::bytes_per_page(1, shape, precision);
        self.blocks
            .iter()
            .map(|block| layer(&block.attention.shape))
            .sum()
    }

    /// Hidden states after the stage's layers, of the tokens of `runs`, one run after another.
    /// Their keys and values are written to `pages`.
    ///
    /// # Errors
    /// [`KernelError::DoesNotFit`] where runs, rows, pages, positions or token ids do not fit;
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn pass(
        &self,
        pages: &mut KvPages,
        runs: &[StageRun<'_>],
        input: PassInput<'_>,
    ) -> Result<PassOutput, KernelError> {
        let device = &self.options.device;
        let tokens: usize = runs.iter().map(|run| run.run.count).sum();
        let pass = || self.pass_here(pages, runs, input);
        match tokens <= SHORT_PASS {
            true => device.on_awake_threads(pass),
            false => device.on_its_threads(pass),
        }
    }

    fn pass_here(
        &self,
        pages: &mut KvPages,
        runs: &[StageRun<'_>],
        input: PassInput<'_>,
    ) -> Result<PassOutput, KernelError> {
        let device = &self.options.device;
        let _activations = device.account(MemoryPurpose::Activations);
        let paged: Vec<PagedRun<'_>> = runs.iter().map(|run| run.run).collect();
        let positions = self.positions(pages, &paged)?;
        let mut x = self.entering(positions.len(), input)?;
        if runs.is_empty() {
            return Ok(PassOutput {
                hidden: x,
                broken: Vec::new(),
            });
        }
        let positions = device.ids(&positions)?;
        let mut pass = PagesPass {
            context: self.context(&positions),
            layer: 0,
            pages,
            runs: &paged,
            adapted: &adapted(runs),
        };
        if let Some(rest) = &self.rest {
            x = rest.forward(&pass, &x)?.0;
        }
        for (layer, block) in self.blocks.iter().enumerate() {
            pass.layer = layer;
            x = block.forward(&mut pass, x)?.0;
        }
        let broken = finished(device, &mut x, &paged)?;
        Ok(PassOutput { hidden: x, broken })
    }

    /// The position of every token.
    fn positions(&self, pages: &KvPages, runs: &[PagedRun<'_>]) -> Result<Vec<u32>, KernelError> {
        if pages.layers() != self.blocks.len() {
            return refuse(format!(
                "pages of {} layers for a stage of {}",
                pages.layers(),
                self.blocks.len()
            ));
        }
        let most = self.options.positions;
        let mut positions = Vec::new();
        for (index, run) in runs.iter().enumerate() {
            let end = run.first.saturating_add(run.count);
            if end > most || run.count == 0 {
                return refuse(format!(
                    "run {index} has {} tokens from position {} on; there are {most} positions",
                    run.count, run.first
                ));
            }
            if run.pages.len() < end.div_ceil(PAGE_TOKENS) {
                return refuse(format!("run {index} has too few pages for {end} tokens"));
            }
            positions.extend(run.first as u32..end as u32);
        }
        Ok(positions)
    }

    /// The input of the stage's first layer, `[m, d]`.
    fn entering(&self, tokens: usize, input: PassInput<'_>) -> Result<Tensor, KernelError> {
        let device = &self.options.device;
        match (input, &self.embed) {
            (PassInput::Tokens(ids), Some(table)) => {
                let vocab = table.vocab();
                if let Some(id) = ids.iter().find(|&&id| id as usize >= vocab) {
                    return refuse(format!("token {id} of a vocabulary of {vocab}"));
                }
                if ids.len() != tokens {
                    return refuse(format!("{} token ids for {tokens} tokens", ids.len()));
                }
                self.embedded(table, &device.ids(ids)?)
            }
            (PassInput::Tokens(_), None) => {
                refuse("token ids for a stage that is not the first".to_string())
            }
            (PassInput::Hidden(hidden), _) => {
                let expected = [tokens, self.widths()[0]];
                if hidden.shape() != expected {
                    let got = hidden.shape();
                    return refuse(format!("hidden states {got:?} where {expected:?} are due"));
                }
                device.place(hidden)
            }
        }
    }
}

fn refuse<T>(reason: String) -> Result<T, KernelError> {
    Err(KernelError::DoesNotFit(reason))
}

/// The rows that have an adapter; adjacent runs with the same adapter are joined.
fn adapted<'a>(runs: &[StageRun<'a>]) -> Vec<(Range<usize>, &'a StageAdapter)> {
    let mut spans: Vec<(Range<usize>, &StageAdapter)> = Vec::new();
    let mut row = 0;
    for run in runs {
        let rows = row..row + run.run.count;
        row = rows.end;
        let Some(adapter) = run.adapter else { continue };
        match spans.last_mut() {
            Some((last, same)) if last.end == rows.start && std::ptr::eq(*same, adapter) => {
                last.end = rows.end;
            }
            _ => spans.push((rows, adapter)),
        }
    }
    spans
}

/// Turns -0 into +0, and sets the rows of runs that are not finite to zero. Returns these runs.
fn finished(
    device: &Device,
    x: &mut Tensor,
    runs: &[PagedRun<'_>],
) -> Result<Vec<usize>, KernelError> {
    match device.canonicalise(&mut [("hidden states", &mut *x)]) {
        Ok(()) => return Ok(Vec::new()),
        Err(KernelError::NotFinite { .. }) => {}
        Err(error) => return Err(error),
    }
    let cols = x.rows_cols().1;
    let mut rest = x.values_mut()?;
    let mut broken = Vec::new();
    for (index, run) in runs.iter().enumerate() {
        let (rows, later) = rest.split_at_mut(run.count * cols);
        rest = later;
        if rows.iter().all(|value| value.is_finite()) {
            rows.iter_mut().for_each(|value| *value += 0.0);
        } else {
            rows.fill(0.0);
            broken.push(index);
        }
    }
    *x = device.place(std::mem::replace(x, Tensor::zeros(&[0])))?;
    Ok(broken)
}
