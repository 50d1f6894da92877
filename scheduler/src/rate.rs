//! Tokens per second, over the last seconds.

/// How many seconds are kept.
const SECONDS: u64 = 8;

/// Counts by second.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rate {
    /// Second and count, at index second % SECONDS.
    counts: [(u64, u64); SECONDS as usize],
    first: Option<u64>,
}

impl Rate {
    /// Adds `count` to the second of `now_us`.
    pub(crate) fn add(&mut self, now_us: u64, count: u64) {
        let second = now_us / 1_000_000;
        self.first.get_or_insert(second);
        let slot = &mut self.counts[(second % SECONDS) as usize];
        if slot.0 != second {
            *slot = (second, 0);
        }
        slot.1 += count;
    }

    /// The mean over the last full seconds since the first count; within the first second, over
    /// that second so far.
    pub(crate) fn per_second(&self, now_us: u64) -> f64 {
        let second = now_us / 1_000_000;
        let Some(first) = self.first else {
            return 0.0;
        };
        let from = first.max(second.saturating_sub(SECONDS - 1));
        if from >= second {
            let since = (now_us - (second * 1_000_000)).max(100_000);
            return self.between(second, second) as f64 * 1e6 / since as f64;
        }
        self.between(from, second - 1) as f64 / (second - from) as f64
    }

    fn between(&self, from: u64, to: u64) -> u64 {
        let within = |slot: &&(u64, u64)| slot.0 >= from && slot.0 <= to;
        self.counts.iter().filter(within).map(|slot| slot.1).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::Rate;

    #[test]
    fn the_mean_is_over_the_last_full_seconds() {
        let mut rate = Rate::default();
        assert_eq!(rate.per_second(0), 0.0);
        for second in 0..20_u64 {
            rate.add(second * 1_000_000, second);
        }
        // Seconds 12 to 18.
        assert_eq!(rate.per_second(19_500_000), 15.0);
        // All is long ago.
        assert_eq!(rate.per_second(100_000_000), 0.0);
    }
}
