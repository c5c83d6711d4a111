//! A session's will: the message published for it when its connection ends without a DISCONNECT.

use std::sync::Arc;

use inver_storage::batch::Record;
use serde::{Deserialize, Serialize};

use crate::access::Permissions;
use crate::message::{HeaderView, HeaderWriter, Headers, Message, name};
use crate::rows;

/// The key of the will among the protocol state, whose own keys do not begin with a zero byte.
pub(super) const KEY: &[u8] = b"\0will";

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

/// The will of a client whose session ends with its connection.
#[derive(Serialize, Deserialize)]
pub(crate) struct WillRow {
    pub(super) will: Will,
    /// The user that the session belongs to; none: nobody.
    pub(super) owner: Option<String>,
}

/// A will that waits for its time.
pub(super) struct PendingWill {
    pub(super) will: Will,
    /// What the client that set it may do; none once the broker was restarted.
    pub(super) permissions: Option<Arc<Permissions>>,
}

impl Will {
    /// The record's headers, with the message's expiry.
    pub(super) fn headers<'a>(
        &self,
        record: &'a Record,
        now_ms: i64,
        writer: &'a mut HeaderWriter,
    ) -> Headers<'a> {
        let Some(expiry_s) = self.expiry_s else { return Message::of_record(record, false).headers };
        let view = HeaderView::of(record);
        writer.begin(&self.origin, Some(now_ms.saturating_add(i64::from(expiry_s) * 1000)));
        for (name, value) in view.properties().filter(|(name, _)| *name != name::EXPIRES) {
            writer.property(name, value.unwrap_or_default());
        }
        writer.user_of(&view);
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
