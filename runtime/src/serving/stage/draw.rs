//! The tokens of a pass: the logits of the rows that are wanted, and a draw from each.

use concord_kernels::ops::Logprobs;
use concord_kernels::ops::sample::{Candidates, RowSample, Sampling};
use concord_kernels::{Device, KernelError, Tensor};
use concord_models::decoder::Stage;
use concord_proto::F32Bits;
use concord_proto::serving::{Draw, DrawOrder, Drawn, SampleOrder, SequenceRun, TokenLogprob};

use super::rows::ranges;
use crate::RuntimeError;

/// Rows whose logits are held at a time: a vocabulary is far wider than a hidden state.
const LOGIT_ROWS: usize = 64;

/// A pass that is computed, on the last stage.
#[derive(Debug)]
pub(crate) struct ComputedPass {
    pub(crate) runs: Vec<SequenceRun>,
    /// Hidden states, row after row.
    pub(crate) rows: Vec<f32>,
    /// Runs whose rows are not finite, rising.
    pub(crate) broken: Vec<u32>,
}

/// A row from which a token is drawn or scored.
struct Wanted {
    /// Index of the draw.
    draw: usize,
    /// Index in the pass.
    row: usize,
    /// The token to score; with none, one is drawn.
    target: Option<u32>,
    /// How many alternatives are reported beside it; with none, no logprob.
    logprobs: Option<u8>,
}

/// A bias, as the kernels take it.
type Bias = Vec<(u32, f32)>;

/// Draws what is ordered. A run that cannot be drawn from joins those that are broken.
///
/// # Errors
/// [`RuntimeError::Pass`] for an order that does not fit the pass; [`RuntimeError::Kernel`] where a
/// GPU fails.
pub(crate) fn draw(
    stage: &Stage,
    computed: &mut ComputedPass,
    order: &DrawOrder,
) -> Result<Vec<Drawn>, RuntimeError> {
    let vocab = stage.options().config.vocab;
    let wanted = wanted(computed, order, vocab)?;
    let mut drawer = Drawer {
        stage,
        computed,
        order,
        bias: order.draws.iter().map(bias).collect(),
        tokens: wanted.iter().map(|_| None).collect(),
    };
    for (start, part) in (0..).step_by(LOGIT_ROWS).zip(wanted.chunks(LOGIT_ROWS)) {
        drawer.rows(start, part)?;
    }
    let mut tokens = drawer.tokens.into_iter();
    let mut drawn: Vec<Drawn> = Vec::with_capacity(order.draws.len());
    for (index, draw) in order.draws.iter().enumerate() {
        let (mut token, mut scored) = (None, Vec::new());
        let of_it = wanted.iter().filter(|wanted| wanted.draw == index);
        for (wanted, found) in of_it.zip(tokens.by_ref()) {
            match wanted.target {
                None => token = found,
                Some(_) => scored.extend(found),
            }
        }
        let run = draw.run;
        if computed.broken.binary_search(&run).is_err() {
            drawn.push(Drawn { run, token, scored });
        }
    }
    Ok(drawn)
}

/// The rows that are wanted, draw by draw. Runs that are broken, or whose order is impossible, have
/// none.
fn wanted(
    computed: &mut ComputedPass,
    order: &DrawOrder,
    vocab: usize,
) -> Result<Vec<Wanted>, RuntimeError> {
    let bad = |why: String| RuntimeError::Pass(format!("draws of pass {}: {why}", order.pass));
    let ranges: Vec<_> = ranges(&computed.runs).collect();
    let mut wanted = Vec::new();
    let mut last = None;
    for (index, draw) in order.draws.iter().enumerate() {
        if last.is_some_and(|last| draw.run <= last) {
            return Err(bad(format!("run {} out of order", draw.run)));
        }
        last = Some(draw.run);
        let range = ranges.get(draw.run as usize);
        let range = range.ok_or_else(|| bad(format!("there is no run {}", draw.run)))?;
        if draw.targets.len() > range.len() {
            return Err(bad(format!("run {} has fewer rows than targets", draw.run)));
        }
        if let Err(at) = computed.broken.binary_search(&draw.run) {
            if let Err(why) = possible(draw, vocab) {
                tracing::warn!("draws of pass {}, run {}: {why}", order.pass, draw.run);
                computed.broken.insert(at, draw.run);
                continue;
            }
            for (row, target) in range.clone().zip(&draw.targets) {
                wanted.push(Wanted {
                    draw: index,
                    row,
                    target: Some(*target),
                    logprobs: Some(draw.target_logprobs),
                });
            }
            if draw.sample.is_some() {
                wanted.push(Wanted {
                    draw: index,
                    row: range.end - 1,
                    target: None,
                    logprobs: draw.logprobs,
                });
            }
        }
    }
    Ok(wanted)
}

/// Whether a draw can be made from a vocabulary.
fn possible(draw: &Draw, vocab: usize) -> Result<(), String> {
    if draw.targets.iter().any(|target| *target as usize >= vocab) {
        return Err("a target beyond the vocabulary".to_string());
    }
    match &draw.sample {
        Some(order) => drawable(order, vocab),
        None => Ok(()),
    }
}

/// Whether a token can be drawn from a vocabulary in this way.
///
/// # Errors
/// A sentence.
pub(crate) fn drawable(order: &SampleOrder, vocab: usize) -> Result<(), String> {
    let biased =
        |(token, bias): &(u32, F32Bits)| (*token as usize) < vocab && bias.get().is_finite();
    if !order.bias.iter().all(biased) {
        return Err("a bias that is no number, or of no token".to_string());
    }
    let (temperature, top_p) = (order.temperature.get(), order.top_p.get());
    if !(temperature.is_finite() && temperature >= 0.0 && top_p.is_finite()) {
        return Err("a temperature or top_p that is no number".to_string());
    }
    if let Some(bits) = &order.allowed {
        let byte = |token: usize| bits.get(token / 8).copied().unwrap_or(0);
        if !(0..vocab).any(|token| byte(token) >> (token % 8) & 1 == 1) {
            return Err("no token is allowed".to_string());
        }
    }
    Ok(())
}

fn bias(draw: &Draw) -> Bias {
    let bias = draw.sample.iter().flat_map(|order| &order.bias);
    bias.map(|(token, bias)| (*token, bias.get())).collect()
}

/// How the kernels are to draw.
pub(crate) fn sampling(order: &SampleOrder) -> Sampling {
    Sampling {
        temperature: order.temperature.get(),
        top_k: order.top_k as usize,
        top_p: order.top_p.get(),
        seed: order.seed,
    }
}

/// Finite logits `[m, v]` of rows; none where they overflow.
///
/// # Errors
/// [`KernelError::Cuda`] where a GPU fails.
pub(crate) fn logits(
    stage: &Stage,
    rows: Vec<f32>,
    count: usize,
) -> Result<Option<Tensor>, KernelError> {
    let device = &stage.options().device;
    let rows = Tensor::new(&[count, rows.len() / count], rows)?;
    let mut logits = stage.logits(&device.place(rows)?)?;
    match device.canonicalise(&mut [("logits", &mut logits)]) {
        Ok(()) => Ok(Some(logits)),
        Err(KernelError::NotFinite { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A token with the logprobs that the kernels give.
pub(crate) fn with_logprobs(token: u32, scored: Logprobs) -> TokenLogprob {
    let top = scored.top.into_iter();
    TokenLogprob {
        token,
        logprob: scored.target.into(),
        top: top.map(|(token, value)| (token, value.into())).collect(),
    }
}

struct Drawer<'a> {
    stage: &'a Stage,
    computed: &'a mut ComputedPass,
    order: &'a DrawOrder,
    bias: Vec<Bias>,
    /// For each wanted row.
    tokens: Vec<Option<TokenLogprob>>,
}

impl Drawer<'_> {
    /// Draws from the rows that are wanted at `start` and after.
    fn rows(&mut self, start: usize, wanted: &[Wanted]) -> Result<(), RuntimeError> {
        let hidden = self.stage.options().config.hidden;
        let mut rows = Vec::with_capacity(wanted.len() * hidden);
        for wanted in wanted {
            let row = wanted.row * hidden..(wanted.row + 1) * hidden;
            rows.extend_from_slice(&self.computed.rows[row]);
        }
        match logits(self.stage, rows, wanted.len())? {
            Some(logits) => self.tokens(start, wanted, &logits),
            // One that overflows must not take the others with it.
            None if wanted.len() > 1 => {
                let singles = wanted.chunks(1).enumerate();
                singles
                    .into_iter()
                    .try_for_each(|(index, one)| self.rows(start + index, one))
            }
            None => {
                let run = self.order.draws[wanted[0].draw].run;
                if let Err(at) = self.computed.broken.binary_search(&run) {
                    self.computed.broken.insert(at, run);
                }
                Ok(())
            }
        }
    }

    fn tokens(
        &mut self,
        start: usize,
        wanted: &[Wanted],
        logits: &Tensor,
    ) -> Result<(), RuntimeError> {
        let device: &Device = &self.stage.options().device;
        let draws = &self.order.draws;
        let runs = &self.computed.runs;
        let bias = &self.bias;
        let sample = |(row, wanted): (usize, &Wanted)| {
            let draw = &draws[wanted.draw];
            let order = draw.sample.as_ref().filter(|_| wanted.target.is_none())?;
            let run = &runs[draw.run as usize];
            Some(RowSample {
                row,
                sampling: sampling(order),
                candidates: Candidates {
                    bias: &bias[wanted.draw],
                    allowed: order.allowed.as_deref(),
                },
                position: u64::from(run.first) + u64::from(run.count),
            })
        };
        let samples: Vec<RowSample<'_>> = wanted.iter().enumerate().filter_map(sample).collect();
        let mut sampled = device.sample_rows(logits, &samples)?.into_iter();
        let tokens: Vec<u32> = wanted
            .iter()
            .map(|wanted| wanted.target.or_else(|| sampled.next()).unwrap_or_default())
            .collect();
        let scored: Vec<(usize, u32, u8)> = wanted
            .iter()
            .zip(&tokens)
            .enumerate()
            .filter_map(|(row, (wanted, token))| Some((row, *token, wanted.logprobs?)))
            .collect();
        let mut logprobs = device.logprobs(logits, &scored)?.into_iter();
        for (index, (wanted, token)) in wanted.iter().zip(tokens).enumerate() {
            let scored = wanted.logprobs.and_then(|_| logprobs.next());
            self.tokens[start + index] = Some(scored.map_or_else(
                || TokenLogprob::unasked(token),
                |scored| with_logprobs(token, scored),
            ));
        }
        Ok(())
    }
}
