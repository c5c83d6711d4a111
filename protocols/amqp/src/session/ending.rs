//! How connections and channels end: what is said, and what is let go.

use std::error::Error;

use inver_broker::{AuthError, Identity};

use super::channel::Channel;
use super::shared::Shared;
use super::{Session, State, confirms};
use crate::codec::{Method, write};
use crate::error::{Refusal, ReplyCode};

impl Session {
    /// Somebody has decided about the credentials.
    pub(crate) fn authenticated(&mut self, verdict: Result<Identity, AuthError>, out: &mut Vec<u8>) {
        self.authenticating = false;
        let reason = match &verdict {
            Err(error @ AuthError::LoopbackOnly) => Some(error.to_string()),
            _ => None,
        };
        if let Err(refusal) =
            self.handshake.authenticated(verdict.is_ok(), reason.as_deref(), &self.limits, out)
        {
            if self.handshake.capabilities.authentication_failure_close {
                self.refuse(0, &refusal, out);
            } else {
                self.state = State::Over;
            }
        }
        self.identity = verdict.ok();
    }

    /// The server is going down, or the like.
    pub(crate) fn close(&mut self, reason: &str, out: &mut Vec<u8>) {
        if matches!(self.state, State::Running) {
            let text = format!("broker forced connection closure with reason '{reason}'");
            self.refuse(0, &Refusal::new(ReplyCode::ConnectionForced, text), out);
        } else if !self.is_closing() {
            self.state = State::Over;
        }
    }

    /// The log has failed: no promise can be kept any more.
    pub(crate) fn log_failed(&mut self, error: impl Error + Send + Sync + 'static, out: &mut Vec<u8>) {
        self.refuse(0, &Refusal::internal(error), out);
    }

    /// Lets go of everything. What was read was handed over before, and stays.
    pub(crate) fn end(&mut self) {
        self.state = State::Over;
        self.release();
    }

    pub(super) fn release(&mut self) {
        let Some(shared) = self.shared.as_deref_mut() else { return };
        for channel in self.channels.iter_mut() {
            channel.release(shared);
        }
        self.channels.clear();
        shared.ready.clear();
        shared.published.clear();
        shared.acknowledged.clear();
        shared.pending_confirms = confirms::PendingConfirms::default();
        shared.unconfirmed = 0;
        shared.halt = None;
        for name in shared.exclusive.drain() {
            if let Err(error) = shared.namespace.delete_queue(&name, false, false) {
                tracing::debug!(queue = name, %error, "exclusive queue not deleted");
            }
        }
    }

    /// Tells the client what it did wrong, and closes what that costs it.
    pub(super) fn refuse(&mut self, number: u16, refusal: &Refusal, out: &mut Vec<u8>) {
        if self.is_closing() || self.state == State::Over {
            return;
        }
        // What came before the fault stands.
        if let Err(error) = self.flush() {
            tracing::debug!(%error, "burst lost");
        }
        self.write_replies(out);
        let (class_id, method_id) = refusal.method;
        let (reply_code, reply_text) = (refusal.code.number(), refusal.text.as_str());
        if number != 0 && !refusal.code.is_hard() && self.state == State::Running {
            tracing::info!(channel = number, text = reply_text, "channel refused");
            if let (Some(shared), Some(channel)) = (self.shared.as_deref_mut(), self.channels.find(number)) {
                forget_confirms(channel, shared);
                channel.release(shared);
                channel.closing = true;
                let close = Method::ChannelClose { reply_code, reply_text, class_id, method_id };
                write::method(out, number, &close);
                return;
            }
        }
        tracing::info!(text = reply_text, "connection refused");
        self.release();
        write::method(out, 0, &Method::ConnectionClose { reply_code, reply_text, class_id, method_id });
        self.state = State::Closing;
    }
}

/// Confirms that will never be sent do not count against the connection.
pub(super) fn forget_confirms(channel: &Channel, shared: &mut Shared) {
    let outstanding = usize::try_from(channel.confirms.outstanding()).unwrap_or(usize::MAX);
    shared.unconfirmed = shared.unconfirmed.saturating_sub(outstanding);
}
