//! Copies that are made for one session's inbox: retained messages of a new subscription, and messages at QoS 2 of a
//! shared one. Their terms cannot be found again by the session's filters, so they travel with the copy, as a property
//! (`mqtt-inbox-for`) in front of the message's own. The copy lies in the inbox alone; no other protocol reads it, and
//! no client sees the property.

use std::fmt;

use inver_broker::message::{HeaderView, HeaderWriter, Headers, Property, expires_ms};
use inver_storage::batch::Record;

use super::own;
use crate::codec::Qos;

/// How a copy that was made for one session's inbox is delivered: what its subscription said when it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InboxFor {
    pub(crate) granted: Qos,
    pub(crate) retain: bool,
    /// It came from a shared subscription; else it is a retained message.
    pub(crate) shared: bool,
    pub(crate) subscription_id: Option<u32>,
}

impl fmt::Display for InboxFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/", self.granted as u8, u8::from(self.retain), u8::from(self.shared))?;
        self.subscription_id.map_or(Ok(()), |id| write!(f, "{id}"))
    }
}

impl InboxFor {
    pub(super) fn read(value: &[u8]) -> Option<InboxFor> {
        let mut parts = std::str::from_utf8(value).ok()?.splitn(4, '/');
        let granted = Qos::from_bits(parts.next()?.parse().ok()?)?;
        let (retain, shared) = (parts.next()? == "1", parts.next()? == "1");
        Some(InboxFor { granted, retain, shared, subscription_id: parts.next()?.parse().ok() })
    }
}

/// The headers of a copy that is made for one session's inbox: the message's own, and how it is to be delivered.
pub(crate) fn inbox_copy<'w>(writer: &'w mut HeaderWriter, record: &Record, terms: InboxFor) -> Headers<'w> {
    let view = HeaderView::of(record);
    writer.begin_like(&view, expires_ms(record));
    writer.property(own::INBOX_FOR, terms.to_string().as_bytes());
    for property in view.typed_properties() {
        if !matches!(property, Property::ExpiresMs(_) | Property::Other(own::INBOX_FOR, _)) {
            writer.put(property);
        }
    }
    for (name, value) in view.user() {
        writer.user(name, value);
    }
    writer.headers()
}
