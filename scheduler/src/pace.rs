//! How long rows of prompts take, learnt from the passes that are back. While a client waits for
//! its next token, the part of a prompt in a pass is limited by time, not by a number of rows: the
//! time of a row differs a thousandfold between machines and models, and grows with the context.
//!
//! Nothing here changes any bit of an answer.

/// Most time that prompts may add between two tokens of an answer, in microseconds.
pub(crate) const ADDED_US: f64 = 50_000.0;

/// Rows of the first prompt that others wait for, before anything was measured.
const FIRST_ROWS: f64 = 32.0;

/// Fewer rows of a prompt are not worth a place in a pass. A prompt gets at least so many, however
/// long they take, if no other prompt is in flight, so that every prompt comes to its end.
pub(crate) const ROWS_LEAST: u32 = 16;

/// Times are kept by context, in classes of powers of two; the first class is below this many
/// positions.
const CONTEXT_FIRST: u32 = 512;

/// The number of classes.
const CONTEXTS: usize = 24;

/// Least time of a row, in microseconds, because a measured one may be 0.
const RATE_LEAST: f64 = 0.01;

/// A measured time counts as at most so many times the expected one, so that a pass that was held
/// up by something else has little effect.
const SURPRISE_MAX: f64 = 4.0;

/// Rows of a prompt in a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// The position of the first.
    pub(crate) first: u32,
    /// How many.
    pub(crate) rows: u32,
}

/// How long the passes of a pipeline take.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pace {
    /// Microseconds of a pass without rows of prompts, from stage to stage.
    base: Option<f64>,
    /// Microseconds that a row of a prompt adds, by context.
    rates: [Option<f64>; CONTEXTS],
    /// When the first stage finished the newest pass that is back.
    free_us: f64,
    /// When that pass came back.
    back_us: f64,
}

impl Pace {
    /// Microseconds that a chunk adds to a pass, from stage to stage.
    pub(crate) fn cost(&self, chunk: Chunk) -> f64 {
        self.rate(chunk.first) * f64::from(chunk.rows)
    }

    /// How many rows from the position `first` on take `micros` microseconds.
    pub(crate) fn rows(&self, first: u32, micros: f64) -> u32 {
        // The cast saturates; a negative time gives no rows.
        (micros / self.rate(first)) as u32
    }

    /// Learns from a pass that is back.
    ///
    /// All stages are assumed to be equally fast. A pass enters the first stage once it is sent and
    /// the one before it has left that stage. Passes that follow each other closely leave the last
    /// stage at intervals of one stage's time.
    pub(crate) fn measure(&mut self, stages: u32, sent_us: u64, now_us: u64, chunks: &[Chunk]) {
        let (stages, sent, now) = (f64::from(stages), sent_us as f64, now_us as f64);
        let entered = sent.max(self.free_us);
        let behind = (now - sent.max(self.back_us)).max(0.0) * stages;
        let took = (now - entered).max(0.0).min(behind);
        (self.free_us, self.back_us) = (entered + took / stages, now);
        if chunks.is_empty() {
            let base = self.base.unwrap_or(took);
            self.base = Some(base + (took - base) / 4.0);
            return;
        }
        let rows: u32 = chunks.iter().map(|chunk| chunk.rows).sum();
        if rows >= ROWS_LEAST {
            let added = (took - self.base.unwrap_or(0.0)).max(0.0);
            self.learn(chunks, added, f64::from(rows));
        }
    }

    /// Learns that `chunks`, with `rows` rows together, added the time `added` to a pass.
    fn learn(&mut self, chunks: &[Chunk], added: f64, rows: f64) {
        let mean = (added / rows).max(RATE_LEAST);
        let is_first = self.rates.iter().all(Option::is_none);
        let expected: f64 = chunks.iter().map(|chunk| self.cost(*chunk)).sum();
        let ratio = (added / expected).min(SURPRISE_MAX);
        for chunk in chunks {
            let at = context(chunk.first);
            let rate = self.rate(chunk.first);
            let learnt = match self.rates[at] {
                _ if is_first => mean,
                None => rate * ratio,
                // A longer time than expected is learnt faster, because others wait meanwhile.
                Some(_) if ratio > 1.0 => rate * (1.0 + ratio) / 2.0,
                Some(_) => rate * (3.0 + ratio) / 4.0,
            };
            self.rates[at] = Some(learnt.max(RATE_LEAST));
        }
    }

    /// Microseconds of a row of a prompt at the position `first`.
    fn rate(&self, first: u32) -> f64 {
        let at = context(first);
        if let Some(rate) = self.rates[at] {
            return rate;
        }
        let known = |context: usize| self.rates[context].map(|rate| (context, rate));
        // A row takes at most twice as long with twice the context.
        if let Some((below, rate)) = (0..at).rev().find_map(known) {
            return rate * f64::from(1_u32 << (at - below));
        }
        match (at..CONTEXTS).find_map(known) {
            Some((_, rate)) => rate,
            None => ADDED_US / FIRST_ROWS,
        }
    }
}

/// The class of a position's context.
fn context(first: u32) -> usize {
    let times = first / CONTEXT_FIRST;
    (u32::BITS - times.leading_zeros()).min(CONTEXTS as u32 - 1) as usize
}

#[cfg(test)]
mod tests {
    use super::{ADDED_US, Chunk, FIRST_ROWS, Pace, context};

    fn chunk(first: u32, rows: u32) -> Chunk {
        Chunk { first, rows }
    }

    #[test]
    fn contexts_are_powers_of_two() {
        let places = [0, 511, 512, 1_023, 1_024, 2_047, 2_048, u32::MAX].map(context);
        assert_eq!(places, [0, 0, 1, 1, 2, 2, 3, 23]);
    }

    #[test]
    fn what_is_not_known_is_taken_to_be_slow() {
        let mut pace = Pace::default();
        assert_eq!(pace.rows(0, ADDED_US), FIRST_ROWS as u32);
        // Nothing but tokens: 10 ms each. Then 100 rows, 20 ms on top.
        pace.measure(1, 0, 10_000, &[]);
        pace.measure(1, 10_000, 40_000, &[chunk(0, 100)]);
        assert_eq!(pace.rows(0, ADDED_US), 250);
        // Twice as slow for twice the context, and twice again, until it is measured.
        assert_eq!(pace.rows(1_024, ADDED_US), 62);
        pace.measure(1, 40_000, 76_000, &[chunk(1_024, 62)]);
        assert_eq!(pace.rows(1_024, ADDED_US), 119);
        assert_eq!(pace.rows(0, ADDED_US), 250);
        assert_eq!(pace.rows(0, -1.0), 0);
    }

    #[test]
    fn one_pass_that_was_held_up_is_soon_forgotten() {
        let mut pace = Pace::default();
        pace.measure(1, 0, 20_000, &[chunk(0, 100)]);
        let mut now = 20_000;
        let mut passes = |pace: &mut Pace, micros: u64| {
            pace.measure(1, now, now + micros, &[chunk(0, 100)]);
            now += micros;
        };
        passes(&mut pace, 5_000_000);
        assert!(pace.rows(0, ADDED_US) >= 100);
        (0..10).for_each(|_| passes(&mut pace, 20_000));
        assert!(pace.rows(0, ADDED_US) >= 220);
    }

    /// Two passes of 30 ms over three even stages, sent together: the second is back 10 ms after
    /// the first, and takes no less.
    #[test]
    fn waiting_behind_another_pass_is_not_counted() {
        let mut pace = Pace::default();
        pace.measure(3, 0, 30_000, &[chunk(0, 100)]);
        pace.measure(3, 0, 40_000, &[chunk(0, 100)]);
        assert_eq!(pace.rows(0, 30_000.0), 100);
        // A token behind a prompt waits for it at every stage, and takes 3 ms itself.
        pace.measure(3, 40_000, 70_000, &[chunk(0, 100)]);
        pace.measure(3, 40_000, 71_000, &[]);
        assert_eq!(pace.base, Some(3_000.0));
    }
}
