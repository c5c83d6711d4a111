//! The watch over a client that must be heard now and then. There is none for a client without keep alive.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};

pin_project! {
    /// See the module's text.
    pub(super) struct KeepAlive {
        // One and a half times the keep alive [MQTT-3.1.2-22].
        patience: Duration,
        // When the last packet of the client was read.
        heard: Instant,
        #[pin]
        timer: Sleep,
    }
}

impl KeepAlive {
    /// None for 0.
    pub(super) fn new(keep_alive_s: u16) -> Option<Pin<Box<KeepAlive>>> {
        (keep_alive_s != 0).then(|| {
            let patience = Duration::from_millis(u64::from(keep_alive_s) * 1500);
            let timer = tokio::time::sleep(patience);
            Box::pin(KeepAlive { patience, heard: Instant::now(), timer })
        })
    }

    /// The client is there.
    pub(super) fn heard(self: Pin<&mut Self>) {
        *self.project().heard = Instant::now();
    }

    /// Ready when the client was silent for too long. The timer is set anew only when it rings, not with each packet.
    pub(super) fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        while this.timer.as_mut().poll(cx).is_ready() {
            let due = *this.heard + *this.patience;
            if due <= Instant::now() {
                return Poll::Ready(());
            }
            this.timer.as_mut().reset(due);
        }
        Poll::Pending
    }
}
