//! Setting and publishing the will of a session.

use std::sync::Arc;

use bytes::Bytes;
use inver_storage::Entry;
use inver_storage::batch::records;

use super::core::SessionCore;
use super::will::{KEY, Will};
use crate::exchange::Inbox;
use crate::message::{HeaderWriter, Message};
use crate::publisher::{Publisher, Target};
use crate::rows;
use crate::spec::PublisherId;

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
