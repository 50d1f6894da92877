//! The results of a run.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::TimedAnswer;

/// The measurements of one client.
pub(super) struct LoadRun {
    start: Instant,
    end: Instant,
    /// Tokens that came during the run.
    tokens: f64,
    answers: u64,
    first: Vec<Duration>,
    between: Vec<Duration>,
}

impl LoadRun {
    pub(super) fn new(start: Instant, end: Instant) -> Self {
        Self {
            start,
            end,
            tokens: 0.0,
            answers: 0,
            first: Vec::new(),
            between: Vec::new(),
        }
    }

    /// Adds an answer. A piece of text may have several tokens, so tokens are distributed evenly
    /// over pieces.
    pub(super) fn add(&mut self, answer: &TimedAnswer) {
        let inside = answer
            .pieces
            .iter()
            .filter(|at| (self.start..self.end).contains(at));
        let share = inside.count() as f64 / answer.pieces.len().max(1) as f64;
        self.tokens += share * answer.tokens as f64;
        if answer.pieces.last().is_some_and(|at| *at < self.end) {
            self.answers += 1;
        }
        if let Some(first) = answer.pieces.first() {
            self.first.push(*first - answer.sent);
        }
        let pairs = answer.pieces.windows(2);
        self.between.extend(pairs.map(|pair| pair[1] - pair[0]));
    }
}

/// The results of all clients together.
pub(super) struct Figures {
    tokens_per_second: f64,
    answers_per_second: f64,
    first: [f64; 2],
    between: [f64; 2],
}

impl Figures {
    pub(super) const HEADINGS: [&'static str; 7] = [
        "clients",
        "tokens/s",
        "answers/s",
        "first token ms, median",
        "95 %",
        "between tokens ms, median",
        "95 %",
    ];

    pub(super) fn of(runs: &[LoadRun], seconds: f64) -> Self {
        let all = |get: fn(&LoadRun) -> &Vec<Duration>| {
            let mut times: Vec<Duration> = runs.iter().flat_map(|run| get(run).clone()).collect();
            times.sort_unstable();
            [0.5, 0.95].map(|share| quantile(&times, share))
        };
        Self {
            tokens_per_second: runs.iter().map(|run| run.tokens).sum::<f64>() / seconds,
            answers_per_second: runs.iter().map(|run| run.answers as f64).sum::<f64>() / seconds,
            first: all(|run| &run.first),
            between: all(|run| &run.between),
        }
    }

    pub(super) fn row(&self, clients: usize) -> [String; 7] {
        let millis = |seconds: f64| format!("{:.1}", 1e3 * seconds);
        [
            clients.to_string(),
            format!("{:.0}", self.tokens_per_second),
            format!("{:.1}", self.answers_per_second),
            millis(self.first[0]),
            millis(self.first[1]),
            millis(self.between[0]),
            millis(self.between[1]),
        ]
    }

    pub(super) fn object(&self, clients: usize) -> Value {
        json!({
            "event": "load", "clients": clients, "tokens_per_second": self.tokens_per_second,
            "answers_per_second": self.answers_per_second,
            "first_token_seconds": self.first, "between_tokens_seconds": self.between,
        })
    }
}

/// A quantile in seconds; 0 for an empty list.
fn quantile(sorted: &[Duration], share: f64) -> f64 {
    let index = (share * sorted.len() as f64) as usize;
    let at = sorted.get(index.min(sorted.len().saturating_sub(1)));
    at.map_or(0.0, Duration::as_secs_f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_outside_of_the_run_do_not_count() {
        let start = Instant::now();
        let at = |millis: u64| start + Duration::from_millis(millis);
        let mut run = LoadRun::new(start, at(100));
        run.add(&TimedAnswer {
            sent: at(10),
            pieces: vec![at(30), at(50), at(90), at(150)],
            tokens: 8,
        });
        let figures = Figures::of(&[run], 0.1);
        assert!((figures.tokens_per_second - 60.0).abs() < 1e-9);
        assert_eq!(figures.answers_per_second, 0.0);
        assert!((figures.first[0] - 0.02).abs() < 1e-9);
        assert!((figures.between[1] - 0.06).abs() < 1e-9);
    }
}
