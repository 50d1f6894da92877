//! How long to wait before a member that ended is started again.

use std::time::Duration;

/// The first wait.
const REST_FIRST: Duration = Duration::from_millis(500);
/// The longest wait; each wait is twice the previous one, up to this.
const REST_MAX: Duration = Duration::from_secs(30);
/// A member that has lived this long works, and its earlier ends are forgotten.
const STEADY: Duration = Duration::from_secs(60);
/// Ends in a row after which the member is given up, if the last one was an error of its own, such
/// as a missing device.
const ERRORS_MAX: u32 = 5;
/// As [`ERRORS_MAX`], if it was killed. More, because memory may be free again later.
const KILLS_MAX: u32 = 8;

/// The ends of one member, in a row.
#[derive(Clone, Copy, Debug, Default)]
pub struct Restarts {
    ends: u32,
}

impl Restarts {
    /// Notes that the member has ended after the time `lived`. Returns how long to wait before the
    /// next start, or `None` if it is given up.
    pub fn ended(&mut self, lived: Duration, is_killed: bool) -> Option<Duration> {
        if is_steady(lived) {
            self.ends = 0;
        }
        let rest = REST_FIRST * (1 << self.ends.min(KILLS_MAX));
        self.ends += 1;
        let most = if is_killed { KILLS_MAX } else { ERRORS_MAX };
        (self.ends < most).then(|| rest.min(REST_MAX))
    }

    /// Ends in a row.
    pub fn ends(self) -> u32 {
        self.ends
    }
}

/// Whether a member that has lived this long works.
pub fn is_steady(lived: Duration) -> bool {
    lived >= STEADY
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Restarts;

    const SHORT: Duration = Duration::from_millis(100);

    fn rests(restarts: &mut Restarts, is_killed: bool) -> Vec<f64> {
        let rest = |_| restarts.ended(SHORT, is_killed);
        let rests = (0..20).map_while(rest);
        rests.map(|rest| rest.as_secs_f64()).collect()
    }

    #[test]
    fn each_rest_is_twice_the_last_and_there_is_an_end_to_it() {
        let mut restarts = Restarts::default();
        assert_eq!(rests(&mut restarts, false), [0.5, 1.0, 2.0, 4.0]);
        assert_eq!(restarts.ends(), 5);
        let mut killed = Restarts::default();
        let all = [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0];
        assert_eq!(rests(&mut killed, true), all);
        assert_eq!(killed.ends(), 8);
    }

    #[test]
    fn a_minute_of_work_forgets_all() {
        let mut restarts = Restarts::default();
        for lived in [1, 59, 2] {
            assert!(restarts.ended(Duration::from_secs(lived), true).is_some());
        }
        let rest = restarts.ended(Duration::from_secs(60), true);
        assert_eq!(rest, Some(Duration::from_millis(500)));
        assert_eq!(restarts.ends(), 1);
    }
}
