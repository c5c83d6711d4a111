//! SUBSCRIBE and UNSUBSCRIBE (sections 3.8 and 3.10).

use super::error::{DecodeError, EncodeError};
use super::properties::Properties;
use super::property::Place;
use super::reader::Reader;
use super::reason::Reason;
use super::text::{Shared, check_filter, split_shared};
use super::types::{Qos, Type, Version};
use super::writer::{field_length, put_field, put_header, put_u16};

/// Topic filters in one packet: as many as a session may have.
const FILTERS_MAX: usize = 100_000;

/// Subscriptions requested by a client, at least one [MQTT-3.8.3-2].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// Packet identifier, repeated in the SUBACK.
    pub packet_id: u16,
    /// MQTT 5's properties.
    pub properties: Properties<'a>,
    /// Topic filters with their options, in their order.
    pub filters: Vec<(&'a str, SubscribeOptions)>,
}

/// Subscriptions removed by a client, at least one [MQTT-3.10.3-2].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// Packet identifier, repeated in the UNSUBACK.
    pub packet_id: u16,
    /// MQTT 5's properties.
    pub properties: Properties<'a>,
    /// Topic filters in their order.
    pub filters: Vec<&'a str>,
}

/// Options of a subscription (section 3.8.3.1). Before MQTT 5 only the QoS exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubscribeOptions {
    /// Maximum QoS of deliveries.
    pub qos: Qos,
    /// No Local: the client does not receive its own messages.
    pub no_local: bool,
    /// Retain As Published: forwarded messages keep their RETAIN flag.
    pub retain_as_published: bool,
    /// Retain Handling.
    pub retain_handling: RetainHandling,
}

/// Retain Handling: when retained messages are sent to a subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum RetainHandling {
    /// At each SUBSCRIBE [MQTT-3.3.1-9].
    #[default]
    Send = 0,
    /// If the subscription is new [MQTT-3.3.1-10].
    SendIfNew = 1,
    /// Never [MQTT-3.3.1-11].
    DoNotSend = 2,
}

impl SubscribeOptions {
    /// Decodes the options byte; reserved bits must be zero [MQTT-3.8.3-5].
    pub fn from_byte(byte: u8, version: Version) -> Result<SubscribeOptions, DecodeError> {
        let reserved = if version == Version::V5 { 0b1100_0000 } else { 0b1111_1100 };
        if byte & reserved != 0 {
            return Err(DecodeError::malformed(
                "reserved bits of the subscription options are set [MQTT-3.8.3-5]",
            ));
        }
        let qos = Qos::from_bits(byte & 3)
            .ok_or(DecodeError::protocol("a subscription at QoS 3 (section 3.8.3.1)"))?;
        let retain_handling = match byte >> 4 & 3 {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            _ => return Err(DecodeError::protocol("Retain Handling 3 (section 3.8.3.1)")),
        };
        Ok(SubscribeOptions {
            qos,
            no_local: byte & 4 != 0,
            retain_as_published: byte & 8 != 0,
            retain_handling,
        })
    }

    /// The encoded options byte.
    pub fn byte(self, version: Version) -> u8 {
        let qos = self.qos as u8;
        match version {
            Version::V5 => {
                qos | u8::from(self.no_local) << 2
                    | u8::from(self.retain_as_published) << 3
                    | (self.retain_handling as u8) << 4
            }
            _ => qos,
        }
    }
}

fn properties<'a>(
    reader: &mut Reader<'a>,
    version: Version,
    place: Place,
) -> Result<Properties<'a>, DecodeError> {
    match version {
        Version::V5 => Properties::read(reader, place),
        _ => Ok(Properties::EMPTY),
    }
}

/// Whether there may be another filter.
fn check_count(filters: usize) -> Result<(), DecodeError> {
    match filters < FILTERS_MAX {
        true => Ok(()),
        false => {
            Err(DecodeError::because(Reason::QuotaExceeded, "more topic filters than a session may have"))
        }
    }
}

impl<'a> Subscribe<'a> {
    pub(super) fn read(reader: &mut Reader<'a>, version: Version) -> Result<Subscribe<'a>, DecodeError> {
        let packet_id = reader.packet_id()?;
        let properties = properties(reader, version, Place::Subscribe)?;
        let mut filters = Vec::new();
        while !reader.is_empty() {
            check_count(filters.len())?;
            let filter = reader.string()?;
            check_filter(filter)?;
            let options = SubscribeOptions::from_byte(reader.u8()?, version)?;
            if options.no_local && split_shared(filter) != Shared::No {
                return Err(DecodeError::protocol("No Local on a shared subscription [MQTT-3.8.3-4]"));
            }
            filters.push((filter, options));
        }
        if filters.is_empty() {
            return Err(DecodeError::protocol("SUBSCRIBE without a topic filter [MQTT-3.8.3-2]"));
        }
        Ok(Subscribe { packet_id, properties, filters })
    }

    pub(super) fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let mut remaining = 2;
        if version == Version::V5 {
            remaining += self.properties.wire_length();
        }
        for (filter, _) in &self.filters {
            remaining += field_length(filter.as_bytes())? + 1;
        }
        put_header(out, Type::Subscribe.first_byte(), remaining)?;
        put_u16(out, self.packet_id);
        if version == Version::V5 {
            self.properties.put(out);
        }
        for (filter, options) in &self.filters {
            put_field(out, filter.as_bytes());
            out.push(options.byte(version));
        }
        Ok(())
    }
}

impl<'a> Unsubscribe<'a> {
    pub(super) fn read(reader: &mut Reader<'a>, version: Version) -> Result<Unsubscribe<'a>, DecodeError> {
        let packet_id = reader.packet_id()?;
        let properties = properties(reader, version, Place::Unsubscribe)?;
        let mut filters = Vec::new();
        while !reader.is_empty() {
            check_count(filters.len())?;
            let filter = reader.string()?;
            check_filter(filter)?;
            filters.push(filter);
        }
        if filters.is_empty() {
            return Err(DecodeError::protocol("UNSUBSCRIBE without a topic filter [MQTT-3.10.3-2]"));
        }
        Ok(Unsubscribe { packet_id, properties, filters })
    }

    pub(super) fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let mut remaining = 2;
        if version == Version::V5 {
            remaining += self.properties.wire_length();
        }
        for filter in &self.filters {
            remaining += field_length(filter.as_bytes())?;
        }
        put_header(out, Type::Unsubscribe.first_byte(), remaining)?;
        put_u16(out, self.packet_id);
        if version == Version::V5 {
            self.properties.put(out);
        }
        for filter in &self.filters {
            put_field(out, filter.as_bytes());
        }
        Ok(())
    }
}
