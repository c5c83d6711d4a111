//! How far a long run is, and when it will end.

use std::time::{Duration, Instant};

/// Parts of a run, each with a guess of how long it takes; the guesses are corrected by what those before took.
pub(crate) struct Progress {
    began: Instant,
    planned: Duration,
    done: Duration,
}

impl Progress {
    pub(crate) fn new(planned: Duration) -> Self {
        Self { began: Instant::now(), planned, done: Duration::ZERO }
    }

    /// A part begins.
    pub(crate) fn begin(&self, part: &str) {
        let passed = self.began.elapsed();
        let left = left(passed, self.done, self.planned);
        eprintln!("[{} passed, about {} left] {part}", minutes(passed), minutes(left));
    }

    /// A part that was guessed to take so long is over.
    pub(crate) fn end(&mut self, planned: Duration) {
        self.done += planned;
    }
}

/// What is left of the plan, at the pace of what is done.
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
    fn what_is_left_goes_at_the_pace_of_what_is_done() {
        let seconds = Duration::from_secs;
        assert_eq!(left(seconds(0), seconds(0), seconds(60)), seconds(60));
        assert_eq!(left(seconds(40), seconds(20), seconds(60)), seconds(80));
        assert_eq!(left(seconds(70), seconds(70), seconds(60)), seconds(0));
        assert_eq!(minutes(seconds(605)), "10:05");
    }
}
