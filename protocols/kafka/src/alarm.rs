//! The timer of a connection.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep};

/// A timer that is set anew without being registered anew each time: the task may be woken early, but it never rings
/// so.
pub(crate) struct Alarm {
    sleep: Pin<Box<Sleep>>,
    armed_for: Option<Instant>,
    due: Instant,
}

impl Alarm {
    pub(crate) fn new() -> Alarm {
        let now = Instant::now();
        Alarm { sleep: Box::pin(tokio::time::sleep_until(now)), armed_for: None, due: now }
    }

    /// It is to ring then.
    pub(crate) fn set(&mut self, due: Instant) {
        self.due = due;
        if self.armed_for.is_none_or(|armed| due < armed) {
            self.arm();
        }
    }

    fn arm(&mut self) {
        self.armed_for = Some(self.due);
        self.sleep.as_mut().reset(self.due);
    }

    /// Ready when it rings.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            if Instant::now() >= self.due {
                self.armed_for = None;
                return Poll::Ready(());
            }
            self.arm();
        }
    }
}
