//! What sessions show to administration, and ending one from outside its connection.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use inver_storage::{Offset, ReadError, Stream, SubmitError};

use super::SessionError;
use super::core::{Presence, SessionCore};
use super::registry::Sessions;
use crate::completion::Completion;
use crate::ordered::{Named, Order};
use crate::peek::{self, PeekBounds, Peeked};
use crate::spec::Expiry;
use crate::subscription::SkipError;

/// Offsets that one peek reads, returned or not.
const VISITED_MAX: u64 = 100_000;

/// A session.
#[derive(Clone, Debug)]
pub struct SessionInfo {
    /// The client's id.
    pub client_id: Arc<str>,
    /// The id of the connection that holds it in the registry, where that is known.
    pub connection: Option<u64>,
    /// A connection holds it.
    pub connected: bool,
    /// Since when no connection holds it, milliseconds since 1970.
    pub away_since_ms: Option<i64>,
    /// It can outlive its connection.
    pub durable: bool,
    /// How long it outlives its connection.
    pub expiry: Expiry,
    /// The number of its subscriptions.
    pub filters: usize,
    /// Guaranteed messages that wait.
    pub queued: u64,
    /// Guaranteed messages delivered and not acknowledged.
    pub unacked: u64,
    /// It has a will.
    pub has_will: bool,
}

/// A subscription of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionFilter {
    /// The filter, slashed; a shared one with its group.
    pub filter: Box<[u8]>,
    /// Guaranteed messages are delivered guaranteed.
    pub guaranteed: bool,
    /// The session's own publishes are not delivered to it.
    pub no_local: bool,
}

impl SessionCore {
    fn info(&self) -> SessionInfo {
        let inbox = self.queues.lock().inbox().cloned();
        let (queued, unacked) = match inbox {
            Some(inbox) => {
                let depth = inbox.counts();
                (depth.ready, depth.unacked)
            }
            None => (self.stored(), 0),
        };
        let state = self.state.lock();
        let (connection, away_since_ms) = match &state.presence {
            Presence::Held(holder) => (holder.mailbox.connection(), None),
            Presence::Away { since_ms } => (None, Some(*since_ms)),
        };
        SessionInfo {
            client_id: self.client_id().clone(),
            connection,
            connected: away_since_ms.is_none(),
            away_since_ms,
            durable: self.is_durable(),
            expiry: state.expiry,
            filters: state.filters.len(),
            queued,
            unacked,
            has_will: state.will.is_some(),
        }
    }

    /// Messages in the stream that are not acknowledged.
    pub(super) fn stored(&self) -> u64 {
        let Some((stream, cursor)) = self.stream() else { return 0 };
        let end = stream.high_watermark().0;
        let ahead = end.saturating_sub(cursor.position().0);
        let acked: u64 =
            cursor.acked_above().iter().map(|r| r.end.0.min(end).saturating_sub(r.start.0)).sum();
        ahead.saturating_sub(acked)
    }
}

impl Named for SessionCore {
    fn name(&self) -> &str {
        self.client_id()
    }
}

impl Sessions {
    /// Up to `max` sessions that follow the client id `after` in this order, without the first `skip` of them; from
    /// the beginning without `after`.
    #[must_use]
    pub fn following(&self, order: Order, after: Option<&str>, skip: usize, max: usize) -> Vec<SessionInfo> {
        self.0.following(order, after, skip, max).iter().map(|core| core.info()).collect()
    }

    /// The session of this client.
    #[must_use]
    pub fn info(&self, client_id: &str) -> Option<SessionInfo> {
        Some(self.get(client_id)?.info())
    }

    /// The subscriptions of a session, in order, at most `max`.
    #[must_use]
    pub fn filters(&self, client_id: &str, max: usize) -> Option<Vec<SessionFilter>> {
        let core = self.get(client_id)?;
        let state = core.state.lock();
        let filters = state.filters.iter().take(max).map(|(filter, options)| SessionFilter {
            filter: filter.clone(),
            guaranteed: options.guaranteed,
            no_local: options.no_local,
        });
        Some(filters.collect())
    }

    /// Reads guaranteed messages that wait for a client, from an offset on, without taking or marking them. None if it has
    /// no session. Can read from disk: call where blocking is allowed.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn peek(
        &self,
        client_id: &str,
        from: u64,
        messages_max: usize,
        bytes_max: usize,
    ) -> Result<Option<Peeked>, ReadError> {
        let Some(core) = self.get(client_id) else { return Ok(None) };
        let inbox = core.queues.lock().inbox().cloned();
        if let Some(inbox) = inbox {
            return inbox.peek(from, messages_max, bytes_max).map(Some);
        }
        let Some((stream, cursor)) = core.stream() else { return Ok(Some(Peeked::default())) };
        let bounds = PeekBounds { messages_max, bytes_max, visited_max: VISITED_MAX };
        let names = &self.namespace().context().stream_names;
        let from = Offset(from).max(cursor.position());
        let is_acked = |offset| cursor.is_acked(Offset(offset));
        peek::stream(stream, from, &bounds, |stream| names.get(stream), is_acked).map(Some)
    }

    /// The stream of a durable session's inbox.
    #[must_use]
    pub fn inbox_stream(&self, client_id: &str) -> Option<Stream> {
        Some(self.get(client_id)?.stream()?.0.clone())
    }

    /// Drops the messages that wait for a client, and those that it has not acknowledged; how many they were. None if it has
    /// no session.
    ///
    /// # Errors
    /// The log rejects the write.
    pub fn purge(&self, client_id: &str) -> Result<Option<(u64, Completion)>, SubmitError> {
        let Some(core) = self.get(client_id) else { return Ok(None) };
        if core.is_durable() {
            return core.purge().map(Some);
        }
        let inbox = core.queues.lock().inbox().cloned();
        inbox.map_or(Ok((0, Completion::Now)), |inbox| inbox.purge()).map(Some)
    }

    /// Steps over messages of a session's inbox that cannot be read, where it goes on: see `Subscription::skip_damaged`. Reads
    /// from the disk. None if there is no such session.
    ///
    /// # Errors
    /// The disk fails, the end of the damage is not known, or the log rejects the write.
    pub fn skip_damaged(&self, client_id: &str) -> Result<Option<(u64, Completion)>, SkipError> {
        let Some(core) = self.get(client_id) else { return Ok(None) };
        let held = core.queues.lock().inbox().cloned();
        let inbox = held.or_else(|| core.inbox_of_stream());
        inbox.map_or(Ok((0, Completion::Now)), |inbox| inbox.skip_damaged()).map(Some)
    }

    /// Ends a session with its subscriptions and messages; its will is published. A connection that holds it is told to
    /// drop it and waited for. None if there is no such session.
    ///
    /// # Errors
    /// The connection does not drop it in time, or the log rejects the write.
    pub async fn end(&self, client_id: &str) -> Result<Option<Completion>, SessionError> {
        loop {
            let Some(core) = self.get(client_id) else { return Ok(None) };
            if let Some(released) = core.ask_holder() {
                self.await_release(released).await?;
                continue;
            }
            let _changing = self.0.changing();
            if core.state.lock().is_held() {
                continue;
            }
            if core.ended.load(Ordering::Acquire) {
                // It ended with its connection.
                return Ok(Some(Completion::Now));
            }
            core.publish_will();
            return Ok(Some(core.end()?));
        }
    }
}
