//! The one timer of a connection.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};

pin_project! {
    /// A timer for the earliest deadline, and the times from which deadlines are counted.
    ///
    /// A deadline that moves away is not registered again: the timer fires at the old time and is set for the new one.
    pub(crate) struct Timer {
        #[pin]
        sleep: Sleep,
        // When the client was heard last.
        pub(crate) heard: Instant,
        // When something was written to the client last.
        pub(crate) wrote: Instant,
    }
}

impl Timer {
    pub(crate) fn new(due: Instant, now: Instant) -> Pin<Box<Timer>> {
        Box::pin(Timer { sleep: sleep_until(due), heard: now, wrote: now })
    }

    /// Ready at `due`.
    pub(crate) fn poll(self: Pin<&mut Self>, due: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let mut sleep = self.project().sleep;
        if due < sleep.deadline() {
            sleep.as_mut().reset(due);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if sleep.deadline() >= due || Instant::now() >= due {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(due);
        }
        Poll::Pending
    }

    pub(crate) fn has_heard(self: Pin<&mut Self>, now: Instant) {
        *self.project().heard = now;
    }

    pub(crate) fn has_written(self: Pin<&mut Self>, now: Instant) {
        *self.project().wrote = now;
    }
}
