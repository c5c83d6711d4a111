//! Copies of messages for one session's inbox: retained messages of a new subscription, and QoS 2 messages of a shared
//! subscription.
//!
//! Matching the session's filters again would not tell how to deliver them, so the copy stores it in a property
//! (`mqtt-inbox-for`) in front of the message's own. The copy is in the inbox only: no other protocol reads it, and the
//! property is not sent to clients.

use std::fmt;

use inver_broker::message::{HeaderView, HeaderWriter, Headers, Property, expires_ms};
use inver_storage::batch::Record;

use super::names::{ORIGIN, own};
use crate::codec::Qos;

/// How a copy is delivered, fixed when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InboxFor {
    /// Granted QoS of the subscription.
    pub(crate) granted: Qos,
    pub(crate) retain: bool,
    /// From a shared subscription; otherwise a retained message.
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
    /// Decodes what [`Display`](fmt::Display) wrote.
    pub(super) fn read(value: &[u8]) -> Option<InboxFor> {
        let mut parts = std::str::from_utf8(value).ok()?.splitn(4, '/');
        let granted = Qos::from_bits(parts.next()?.parse().ok()?)?;
        let (retain, shared) = (parts.next()? == "1", parts.next()? == "1");
        Some(InboxFor { granted, retain, shared, subscription_id: parts.next()?.parse().ok() })
    }
}

/// Headers of what the server itself has to say: a message of this topic, or a copy of one for an inbox.
pub(crate) fn server_headers<'w>(
    writer: &'w mut HeaderWriter,
    topic: &str,
    qos: Qos,
    inbox_for: Option<InboxFor>,
) -> Headers<'w> {
    writer.begin(ORIGIN, None);
    if let Some(inbox_for) = inbox_for {
        writer.property(own::INBOX_FOR, inbox_for.to_string().as_bytes());
    }
    writer.put(Property::Address(topic.as_bytes()));
    writer.put(Property::Qos(qos as u8));
    writer.headers()
}

/// Headers of a copy: the message's own, how the copy is delivered, and its topic, which the address of where it is copied
/// from may have told alone.
pub(crate) fn inbox_copy<'w>(
    writer: &'w mut HeaderWriter,
    record: &Record,
    topic: &str,
    inbox_for: InboxFor,
) -> Headers<'w> {
    let view = HeaderView::of(record);
    writer.begin_like(&view, expires_ms(record));
    writer.property(own::INBOX_FOR, inbox_for.to_string().as_bytes());
    let has_address = |property| matches!(property, Property::Address(_) | Property::RoutingKey(_));
    if !view.typed_properties().any(has_address) {
        writer.put(Property::Address(topic.as_bytes()));
    }
    for property in view.typed_properties() {
        if !matches!(property, Property::ExpiresMs(_) | Property::Other(own::INBOX_FOR, _)) {
            writer.put(property);
        }
    }
    writer.user_of(&view);
    writer.headers()
}
