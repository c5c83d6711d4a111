//! Progress of a long run, and its estimated end.

use std::time::{Duration, Instant};

/// Parts of a run with estimated durations, corrected by the actual durations of the parts before.
pub(crate) struct Progress {
    began: Instant,
    planned: Duration,
    done: Duration,
}

impl Progress {
    pub(crate) fn new(planned: Duration) -> Self {
        Self { began: Instant::now(), planned, done: Duration::ZERO }
    }

    /// Reports the start of a part.
    pub(crate) fn begin(&self, part: &str) {
        let passed = self.began.elapsed();
        let left = left(passed, self.done, self.planned);
        eprintln!("[{} passed, about {} left] {part}", minutes(passed), minutes(left));
    }

    /// Records that a part with this estimate is done.
    pub(crate) fn end(&mut self, planned: Duration) {
        self.done += planned;
    }
}

/// The remaining time at the pace so far.
fn left(passed: Duration, done: Duration, planned: Duration) -> Duration {
    let rest = planned.saturating_sub(done);
    if done.is_zero() { rest } else { rest.mul_f64(passed.as_secs_f64() / done.as_secs_f64()) }
}

fn minutes(time: Duration) -> String {
    format!("{}:{:02}", time.as_secs() / 60, time.as_secs() % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remaining_time_follows_the_pace_so_far() {
        let seconds = Duration::from_secs;
        assert_eq!(left(seconds(0), seconds(0), seconds(60)), seconds(60));
        assert_eq!(left(seconds(40), seconds(20), seconds(60)), seconds(80));
        assert_eq!(left(seconds(70), seconds(70), seconds(60)), seconds(0));
        assert_eq!(minutes(seconds(605)), "10:05");
    }
}
