//! The watch over a client that must be heard now and then. There is none for a client without keep alive.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// See the module's text.
pub(super) struct KeepAlive {
    /// One and a half times the keep alive [MQTT-3.1.2-22].
    patience: Duration,
    /// When the last packet of the client was read.
    heard: Instant,
    timer: Pin<Box<Sleep>>,
}

impl KeepAlive {
    /// None for 0.
    pub(super) fn new(keep_alive_s: u16) -> Option<Box<KeepAlive>> {
        (keep_alive_s != 0).then(|| {
            let patience = Duration::from_millis(u64::from(keep_alive_s) * 1500);
            Box::new(KeepAlive {
                patience,
                heard: Instant::now(),
                timer: Box::pin(tokio::time::sleep(patience)),
            })
        })
    }

    /// The client is there.
    pub(super) fn heard(&mut self) {
        self.heard = Instant::now();
    }

    /// Ready when the client was silent for too long. The timer is set anew only when it rings, not with each packet.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.timer.as_mut().poll(cx).is_ready() {
            let due = self.heard + self.patience;
            if due <= Instant::now() {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(due);
        }
        Poll::Pending
    }
}
