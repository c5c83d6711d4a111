//! The end of connections and channels.

use std::error::Error;

use inver_broker::{AuthError, CloseReason, Identity, LoginRefusal};
use inver_driver::count_error;
use inver_storage::NoMemory;

use super::channel::Channel;
use super::shared::Shared;
use super::{Session, State, confirms};
use crate::codec::{Method, write};
use crate::error::{Refusal, ReplyCode};
use crate::map::ORIGIN;

impl Session {
    /// The authenticator has decided.
    pub(crate) fn authenticated(&mut self, verdict: Result<Identity, AuthError>, out: &mut Vec<u8>) {
        self.authenticating = false;
        if let Err(error) = &verdict {
            self.client.login_refused(error.into(), error);
        }
        let reason = match &verdict {
            Err(error @ AuthError::LoopbackOnly) => Some(error.to_string()),
            _ => None,
        };
        if let Err(refusal) =
            self.handshake.authenticated(verdict.is_ok(), reason.as_deref(), &self.limits, out)
        {
            // A login that may succeed later is not answered with 403, which clients take as final.
            let is_passing = verdict.as_ref().is_err_and(AuthError::is_passing);
            if self.handshake.capabilities.authentication_failure_close && !is_passing {
                self.refuse(0, &refusal, out);
            } else {
                self.state = State::Over;
            }
        }
        self.identity = verdict.ok();
    }

    /// Closes the connection from the broker's side, as at a shutdown.
    pub(crate) fn close(&mut self, reason: &str, out: &mut Vec<u8>) {
        self.force(format!("broker forced connection closure with reason '{reason}'"), out);
    }

    /// Closes the connection for a reason of the broker's, in RabbitMQ's words.
    pub(crate) fn force_close(&mut self, reason: &CloseReason, out: &mut Vec<u8>) {
        let text = match reason {
            CloseReason::NamespaceDeleted(name) => format!("vhost '{name}' is down"),
            CloseReason::UserDeleted(name) => format!("user '{name}' is deleted"),
            other => other.to_string(),
        };
        self.force(text, out);
    }

    fn force(&mut self, text: String, out: &mut Vec<u8>) {
        if matches!(self.state, State::Running) {
            self.refuse(0, &Refusal::new(ReplyCode::ConnectionForced, text), out);
        } else if !self.is_closing() {
            self.state = State::Over;
        }
    }

    /// Closes the connection because the log failed.
    pub(crate) fn log_failed(&mut self, error: impl Error + Send + Sync + 'static, out: &mut Vec<u8>) {
        self.refuse(0, &Refusal::internal(error), out);
    }

    /// Closes the connection because there is no memory for a frame that it has begun to send.
    pub(crate) fn out_of_memory(&mut self, error: &NoMemory, out: &mut Vec<u8>) {
        self.refuse(0, &Refusal::resource_error(error), out);
    }

    /// Ends the session without a reply. Everything received before takes effect.
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
            if let Err(error) = shared.client.namespace.delete_queue(&name, false, false) {
                tracing::debug!(queue = name, %error, "failed to delete exclusive queue");
            }
        }
    }

    /// Sends `channel.close` or `connection.close` for an error, and releases what that closes.
    pub(super) fn refuse(&mut self, number: u16, refusal: &Refusal, out: &mut Vec<u8>) {
        if self.is_closing() || self.state == State::Over {
            return;
        }
        // Methods before the error take effect.
        let failed = self.flush().err();
        if let Some(error) = &failed {
            tracing::debug!(%error, "failed to write publishes to the log");
        }
        self.write_replies(out);
        // What other channels published is lost too: they must not go on to confirm what comes after it.
        let (number, refusal) = match &failed {
            Some(failure) if !refusal.code.is_hard() => (0, failure),
            _ => (number, refusal),
        };
        count_error(ORIGIN, refusal.code.name());
        let (class_id, method_id) = refusal.method;
        let (reply_code, reply_text) = (refusal.code.number(), refusal.text.as_str());
        if number != 0 && !refusal.code.is_hard() && self.state == State::Running {
            self.client.request_refused(&format!("channel {number}"), &reply_text);
            if let (Some(shared), Some(channel)) = (self.shared.as_deref_mut(), self.channels.find(number)) {
                forget_confirms(channel, shared);
                channel.release(shared);
                channel.closing = true;
                let close = Method::ChannelClose { reply_code, reply_text, class_id, method_id };
                write::method(out, number, &close);
                return;
            }
        }
        let reason = match &refusal.cause {
            Some(error) => {
                tracing::error!(%error, "connection closed: broker failed");
                LoginRefusal::Unavailable
            }
            None if matches!(refusal.code, ReplyCode::NotAllowed | ReplyCode::AccessRefused) => {
                LoginRefusal::NotPermitted
            }
            None => LoginRefusal::Protocol,
        };
        self.client.failed(reason, &reply_text);
        self.release();
        write::method(out, 0, &Method::ConnectionClose { reply_code, reply_text, class_id, method_id });
        self.state = State::Closing;
    }
}

/// Removes a channel's pending confirms from the connection's count.
pub(super) fn forget_confirms(channel: &Channel, shared: &mut Shared) {
    let outstanding = usize::try_from(channel.confirms.outstanding()).unwrap_or(usize::MAX);
    shared.unconfirmed = shared.unconfirmed.saturating_sub(outstanding);
}
