//! The log's back-pressure on a connection, and what a client hears of it.
//!
//! While the log takes no more, a connection's socket is not read. A client that published and understands it is told with
//! `connection.blocked` once that lasts, and with `connection.unblocked` when it is over (RabbitMQ's extension). Short holds
//! are the ordinary work of a full pipe: nobody is told of those.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Sleep, sleep};

use crate::session::Session;

/// See the module's text.
#[derive(Default)]
pub(super) struct Pressure {
    /// Runs while the log holds back and nobody was told yet.
    patience: Option<Pin<Box<Sleep>>>,
}

impl Pressure {
    /// Ready when input may be read.
    pub(super) fn poll(
        &mut self,
        session: &mut Session,
        out: &mut Vec<u8>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        if !session.log().is_admitting() {
            match session.log().poll_admit(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => session.log_failed(error, out),
                Poll::Pending => {
                    self.wait(session, out, cx);
                    return Poll::Pending;
                }
            }
        }
        self.patience = None;
        session.send_unblocked(out);
        Poll::Ready(())
    }

    fn wait(&mut self, session: &mut Session, out: &mut Vec<u8>, cx: &mut Context<'_>) {
        if !session.should_send_blocked() {
            return;
        }
        let patience = self.patience.get_or_insert_with(|| Box::pin(sleep(session.limits().blocked_after)));
        if patience.as_mut().poll(cx).is_ready() {
            self.patience = None;
            session.send_blocked(out);
        }
    }
}
