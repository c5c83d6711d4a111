//! A session's will: the message published for it when its connection ends without a DISCONNECT.

use std::sync::Arc;

use bytes::Bytes;
use inver_storage::Entry;
use inver_storage::batch::{Record, records};
use serde::{Deserialize, Serialize};

use super::core::SessionCore;
use crate::exchange::Inbox;
use crate::message::{HeaderView, HeaderWriter, Headers, Message, name};
use crate::publisher::{Publisher, Target};
use crate::rows;
use crate::spec::PublisherId;

/// The key of the will among the protocol state, whose own keys do not begin with a zero byte.
const KEY: &[u8] = b"\0will";

/// A will.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Will {
    /// The address, slashed.
    pub address: Vec<u8>,
    /// The message: a batch of one record.
    pub batch: Vec<u8>,
    /// Seconds between the end of the connection and the publish; the end of the session publishes it at once.
    pub delay_s: u32,
    /// Seconds after its publish when the message expires; none: never.
    pub expiry_s: Option<u32>,
    /// It becomes the address's retained value.
    pub retain: bool,
    /// It is guaranteed.
    pub guaranteed: bool,
    /// The protocol's name.
    pub origin: String,
}

impl Will {
    /// The record's headers, with the message's expiry.
    fn headers<'a>(&self, record: &'a Record, now_ms: i64, writer: &'a mut HeaderWriter) -> Headers<'a> {
        let Some(expiry_s) = self.expiry_s else { return Message::of_record(record, false).headers };
        let view = HeaderView::of(record);
        writer.begin(&self.origin, Some(now_ms.saturating_add(i64::from(expiry_s) * 1000)));
        for (name, value) in view.properties().filter(|(name, _)| *name != name::EXPIRES) {
            writer.property(name, value.unwrap_or_default());
        }
        view.user().for_each(|(name, value)| writer.user(name, value));
        writer.headers()
    }

    /// When it is published if the connection ended at `since_ms` (milliseconds since 1970).
    pub(super) fn due_ms(&self, since_ms: i64) -> i64 {
        since_ms.saturating_add(i64::from(self.delay_s) * 1000)
    }
}

pub(super) fn is_key(key: &[u8]) -> bool {
    key == KEY
}

pub(super) fn recovered(key: &[u8], value: &[u8]) -> Option<Will> {
    is_key(key).then(|| rows::decode(rows::SESSION_STATE, value).ok()).flatten()
}

impl SessionCore {
    pub(super) fn set_will(&self, will: Option<Will>, entry: &mut Entry) {
        match &will {
            Some(will) => self.put_in(entry, Bytes::from_static(KEY), rows::encode(will)),
            None => self.delete_in(entry, KEY),
        }
        self.state.lock().will = will.map(Box::new);
    }

    /// Publishes the will, if there is one.
    pub(super) fn publish_will(self: &Arc<Self>) {
        let will = self.state.lock().will.take();
        will.into_iter().for_each(|will| self.publish(&will));
    }

    /// Publishes a will that was taken, and deletes its row, in one entry.
    pub(super) fn publish(self: &Arc<Self>, will: &Will) {
        let batch = Bytes::copy_from_slice(&will.batch);
        let Some(Ok(record)) = records(&batch).ok().and_then(|mut r| r.next()) else { return };
        let origin = self.namespace().origin(&will.origin);
        let mut publisher =
            Publisher::new(self.namespace().clone(), PublisherId { origin, session: Some(self.id()) });
        // Its expiry starts now, not when the will was set.
        let now = self.namespace().clock().now_ms();
        let mut writer = HeaderWriter::default();
        let headers = will.headers(&record, now, &mut writer);
        let message = Message { timestamp_ms: now, headers, ..Message::of_record(&record, will.guaranteed) };
        let published = publisher.publish(Target::Hub(&will.address), &message);
        if will.retain {
            let retained = publisher.retain(&will.address, &message);
            if let Err(error) = retained {
                tracing::warn!(client_id = &**self.client_id(), %error, "failed to retain a will");
            }
        }
        publisher.attach(|entry| self.delete_in(entry, KEY));
        if let Err(error) = published.and_then(|_| publisher.flush()) {
            tracing::warn!(client_id = &**self.client_id(), %error, "failed to publish a will");
        }
    }
}
