//! A session's will: what is published for it when its connection ends without a farewell.

use std::sync::Arc;

use bytes::Bytes;
use inver_storage::Entry;
use inver_storage::batch::records;
use serde::{Deserialize, Serialize};

use super::SessionCore;
use crate::catalog;
use crate::message::Message;
use crate::publisher::{Publisher, PublisherId, Target};

/// The opaque state's key that plugs cannot use: theirs do not begin with a zero byte.
const KEY: &[u8] = b"\0will";

/// See the module's text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Will {
    /// The address, slashed.
    pub address: Vec<u8>,
    /// The message: a batch of one record.
    pub batch: Vec<u8>,
    /// Seconds between the connection's end and the publish; the session's end comes first.
    pub delay_s: u32,
    /// It becomes the address's retained value.
    pub retain: bool,
    /// It is guaranteed.
    pub guaranteed: bool,
    /// The plug's name.
    pub origin: String,
}

impl Will {
    /// When it is published if the connection ended then.
    pub(super) fn due_ms(&self, since_ms: i64) -> i64 {
        since_ms.saturating_add(i64::from(self.delay_s) * 1000)
    }
}

pub(super) fn is_key(key: &[u8]) -> bool {
    key == KEY
}

pub(super) fn recovered(key: &[u8], value: &[u8]) -> Option<Will> {
    is_key(key).then(|| catalog::decode(catalog::SESSION_STATE, value).ok()).flatten()
}

impl SessionCore {
    pub(super) fn set_will(&self, will: Option<Will>, entry: &mut Entry) {
        match &will {
            Some(will) => self.put_in(entry, Bytes::from_static(KEY), catalog::encode(will)),
            None => self.delete_in(entry, KEY),
        }
        self.state.lock().will = will.map(Box::new);
    }

    /// Publishes the will, if there is one.
    pub(super) fn publish_will(self: &Arc<Self>) {
        let will = self.state.lock().will.take();
        will.into_iter().for_each(|will| self.publish(*will));
    }

    /// Publishes a will that was taken, and forgets it: one entry.
    pub(super) fn publish(self: &Arc<Self>, will: Will) {
        let Some(Ok(record)) = records(&Bytes::from(will.batch)).ok().and_then(|mut r| r.next()) else {
            return;
        };
        let origin = self.namespace.origin(&will.origin);
        let mut publisher =
            Publisher::new(self.namespace.clone(), PublisherId { origin, session: Some(self.id) });
        let message = Message::of_record(&record, will.guaranteed);
        let published = publisher.publish(Target::Hub(&will.address), &message);
        if will.retain {
            publisher.retain(&will.address, &message);
        }
        publisher.attach(|entry| self.delete_in(entry, KEY));
        if let Err(error) = published.and_then(|_| publisher.flush()) {
            tracing::warn!(client_id = %self.client_id, %error, "the will could not be published");
        }
    }
}
