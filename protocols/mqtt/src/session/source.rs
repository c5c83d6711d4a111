//! Where messages for the client come from.

use inver_broker::{Filter, ScanFrom};

use crate::codec::Qos;

/// The source of a guaranteed message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DeliverySource {
    /// The session's inbox.
    Inbox,
    /// A shared subscription, by its number within the session.
    Shared(u64),
}

/// Retained messages that a new subscription has still to get [MQTT-3.3.1-9].
pub(super) struct RetainedScan {
    pub(super) filter: Filter,
    /// The filter is one of `$SYS` topics.
    pub(super) is_sys: bool,
    /// Where the scan of the retained table continues.
    pub(super) from: Option<ScanFrom>,
    pub(super) granted: Qos,
    pub(super) subscription_id: Option<u32>,
    /// The turn whose answers hold the SUBACK; retained messages follow it.
    pub(super) after_turn: u64,
}
