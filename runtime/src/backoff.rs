//! Pauses between tries: longer each time, bounded, and not the same for everybody.

use std::time::Duration;

/// The first pause of [`Backoff::for_coordinator`], at most.
const FIRST: Duration = Duration::from_millis(200);

/// Its longest pause. A coordinator that was started again waits 5 s for the workers that hold the
/// state of a job (`return_grace_us` of its settings): none may sleep for so long.
const LONGEST: Duration = Duration::from_secs(3);

/// How long a session has to last before the next loss of it counts as the first.
const LASTED: Duration = Duration::from_secs(10);

/// How long to wait before the next try.
#[derive(Clone, Debug)]
pub struct Backoff {
    next: Duration,
    first: Duration,
    longest: Duration,
}

impl Backoff {
    /// Pauses of at most `first`, then doubled up to `longest`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        let next = first;
        Self {
            next,
            first,
            longest,
        }
    }

    /// For a worker or checker that wants to come back to a coordinator.
    pub fn for_coordinator() -> Self {
        Self::new(FIRST, LONGEST)
    }

    /// The next pause: random, between half of the present bound and all of it, so that those who
    /// lost the same coordinator do not all come back at once.
    pub fn pause(&mut self) -> Duration {
        let most = self.next;
        self.next = most.saturating_mul(2).min(self.longest);
        let mut random = [0; 4];
        // Without random numbers all wait for the shortest time.
        let _ = getrandom::fill(&mut random);
        let share = f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX);
        most.mul_f64(0.5 + share / 2.0)
    }

    /// A connection has lasted for `lasted`. If that was long, pauses begin with the first again;
    /// one that broke at once is not tried again in a hurry.
    pub fn after(&mut self, lasted: Duration) {
        if lasted >= LASTED {
            self.next = self.first;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_bound() {
        let mut backoff = Backoff::new(FIRST, LONGEST);
        let mut most = FIRST;
        for _ in 0..40 {
            let pause = backoff.pause();
            assert!(pause >= most / 2 && pause <= most, "{pause:?} of {most:?}");
            most = (most * 2).min(LONGEST);
        }
        assert_eq!(most, LONGEST);
    }

    #[test]
    fn only_what_has_lasted_is_counted_anew() {
        let mut backoff = Backoff::new(FIRST, LONGEST);
        for _ in 0..10 {
            backoff.pause();
        }
        backoff.after(Duration::from_millis(10));
        assert!(backoff.pause() >= LONGEST / 2, "it broke at once");
        backoff.after(LASTED);
        assert!(backoff.pause() <= FIRST, "it lasted");
    }

    #[test]
    fn not_everybody_comes_back_at_once() {
        let pause = || Backoff::new(LONGEST, LONGEST).pause();
        let first = pause();
        assert!((0..20).any(|_| pause() != first), "all wait {first:?}");
    }
}
