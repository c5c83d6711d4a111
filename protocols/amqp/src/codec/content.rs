//! Content headers: class, body size and the properties of `basic` (AMQP 0-9-1, sections 4.2.6 and 1.8).
//!
//! A header keeps its properties as bytes; [`Properties::parse`] finds the fields in one pass, without allocation.

use super::Malformed;
use super::table::{self, Table};
use super::wire::{Reader, Writer};

/// A content header frame's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentHeader<'a> {
    /// The class; only `basic` has content.
    pub class: u16,
    /// Unused; must be zero.
    pub weight: u16,
    /// The length of the body over all body frames.
    pub body_bytes: u64,
    /// Property flags and property list, as received.
    pub properties: &'a [u8],
}

impl<'a> ContentHeader<'a> {
    /// Decodes a content header frame's payload. The properties are not checked.
    pub fn decode(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        let (class, weight, body_bytes) = (reader.short()?, reader.short()?, reader.longlong()?);
        Ok(ContentHeader { class, weight, body_bytes, properties: reader.rest() })
    }
}

/// The property flags of a message without properties.
pub const NO_PROPERTIES: [u8; 2] = [0, 0];

/// The flag of each property, in the order of the property list.
pub mod flag {
    /// `content-type`
    pub const CONTENT_TYPE: u16 = 1 << 15;
    /// `content-encoding`
    pub const CONTENT_ENCODING: u16 = 1 << 14;
    /// `headers`
    pub const HEADERS: u16 = 1 << 13;
    /// `delivery-mode`
    pub const DELIVERY_MODE: u16 = 1 << 12;
    /// `priority`
    pub const PRIORITY: u16 = 1 << 11;
    /// `correlation-id`
    pub const CORRELATION_ID: u16 = 1 << 10;
    /// `reply-to`
    pub const REPLY_TO: u16 = 1 << 9;
    /// `expiration`
    pub const EXPIRATION: u16 = 1 << 8;
    /// `message-id`
    pub const MESSAGE_ID: u16 = 1 << 7;
    /// `timestamp`
    pub const TIMESTAMP: u16 = 1 << 6;
    /// `type`
    pub const KIND: u16 = 1 << 5;
    /// `user-id`
    pub const USER_ID: u16 = 1 << 4;
    /// `app-id`
    pub const APP_ID: u16 = 1 << 3;
    /// `cluster-id`, deprecated
    pub const CLUSTER_ID: u16 = 1 << 2;
    /// More flags follow. No class of AMQP 0-9-1 has that many properties.
    pub const CONTINUATION: u16 = 1;
}

/// The properties of `basic`. Strings are bytes, because clients send any bytes in `correlation-id` and others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Properties<'a> {
    /// A MIME type.
    pub content_type: Option<&'a [u8]>,
    /// A MIME content encoding.
    pub content_encoding: Option<&'a [u8]>,
    /// The user's headers.
    pub headers: Option<Table<'a>>,
    /// 1 transient, 2 persistent.
    pub delivery_mode: Option<u8>,
    /// 0 to 9 by the specification; RabbitMQ accepts 0 to 255.
    pub priority: Option<u8>,
    /// Correlates a reply with its request.
    pub correlation_id: Option<&'a [u8]>,
    /// The address for replies.
    pub reply_to: Option<&'a [u8]>,
    /// The time to live in milliseconds, in decimal digits.
    pub expiration: Option<&'a [u8]>,
    /// The application's message identifier.
    pub message_id: Option<&'a [u8]>,
    /// Seconds since the epoch.
    pub timestamp: Option<u64>,
    /// The application's message type.
    pub kind: Option<&'a [u8]>,
    /// The publishing user; must be the authenticated one.
    pub user_id: Option<&'a [u8]>,
    /// The publishing application.
    pub app_id: Option<&'a [u8]>,
    /// Deprecated.
    pub cluster_id: Option<&'a [u8]>,
}

impl<'a> Properties<'a> {
    /// Parses flags and list. No bytes at all are a message without properties. The headers are validated in full.
    pub fn parse(raw: &'a [u8]) -> Result<Self, Malformed> {
        let mut properties = Properties::default();
        if raw.is_empty() {
            return Ok(properties);
        }
        let mut reader = Reader::new(raw);
        let flags = reader.short()?;
        if flags & (flag::CONTINUATION | 1 << 1) != 0 {
            return Err(Malformed::Trailing);
        }
        let text = |bit: u16, reader: &mut Reader<'a>| -> Result<Option<&'a [u8]>, Malformed> {
            if flags & bit == 0 { Ok(None) } else { reader.short_bytes().map(Some) }
        };
        properties.content_type = text(flag::CONTENT_TYPE, &mut reader)?;
        properties.content_encoding = text(flag::CONTENT_ENCODING, &mut reader)?;
        if flags & flag::HEADERS != 0 {
            let raw = reader.longstr()?;
            table::validate(raw)?;
            properties.headers = Some(Table::of(raw));
        }
        if flags & flag::DELIVERY_MODE != 0 {
            properties.delivery_mode = Some(reader.octet()?);
        }
        if flags & flag::PRIORITY != 0 {
            properties.priority = Some(reader.octet()?);
        }
        properties.correlation_id = text(flag::CORRELATION_ID, &mut reader)?;
        properties.reply_to = text(flag::REPLY_TO, &mut reader)?;
        properties.expiration = text(flag::EXPIRATION, &mut reader)?;
        properties.message_id = text(flag::MESSAGE_ID, &mut reader)?;
        if flags & flag::TIMESTAMP != 0 {
            properties.timestamp = Some(reader.longlong()?);
        }
        properties.kind = text(flag::KIND, &mut reader)?;
        properties.user_id = text(flag::USER_ID, &mut reader)?;
        properties.app_id = text(flag::APP_ID, &mut reader)?;
        properties.cluster_id = text(flag::CLUSTER_ID, &mut reader)?;
        if reader.rest().is_empty() { Ok(properties) } else { Err(Malformed::Trailing) }
    }

    /// The flags of the properties that are set.
    pub fn flags(&self) -> u16 {
        let all = [
            (self.content_type.is_some(), flag::CONTENT_TYPE),
            (self.content_encoding.is_some(), flag::CONTENT_ENCODING),
            (self.headers.is_some(), flag::HEADERS),
            (self.delivery_mode.is_some(), flag::DELIVERY_MODE),
            (self.priority.is_some(), flag::PRIORITY),
            (self.correlation_id.is_some(), flag::CORRELATION_ID),
            (self.reply_to.is_some(), flag::REPLY_TO),
            (self.expiration.is_some(), flag::EXPIRATION),
            (self.message_id.is_some(), flag::MESSAGE_ID),
            (self.timestamp.is_some(), flag::TIMESTAMP),
            (self.kind.is_some(), flag::KIND),
            (self.user_id.is_some(), flag::USER_ID),
            (self.app_id.is_some(), flag::APP_ID),
            (self.cluster_id.is_some(), flag::CLUSTER_ID),
        ];
        all.iter().filter(|(there, _)| *there).fold(0, |flags, (_, bit)| flags | bit)
    }

    /// Appends flags and list.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out);
        writer.short(self.flags());
        let text = |writer: &mut Writer<'_>, value: Option<&[u8]>| {
            if let Some(value) = value {
                writer.short_bytes(value);
            }
        };
        text(&mut writer, self.content_type);
        text(&mut writer, self.content_encoding);
        if let Some(headers) = self.headers {
            writer.table(headers);
        }
        if let Some(mode) = self.delivery_mode {
            writer.octet(mode);
        }
        if let Some(priority) = self.priority {
            writer.octet(priority);
        }
        text(&mut writer, self.correlation_id);
        text(&mut writer, self.reply_to);
        text(&mut writer, self.expiration);
        text(&mut writer, self.message_id);
        if let Some(seconds) = self.timestamp {
            writer.longlong(seconds);
        }
        text(&mut writer, self.kind);
        text(&mut writer, self.user_id);
        text(&mut writer, self.app_id);
        text(&mut writer, self.cluster_id);
    }
}
