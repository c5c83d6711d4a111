//! The properties of MQTT 5 (section 2.2.2.2): name, value, and the packets that allow each.

/// The packet, or part of a packet, that properties belong to, as a bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the packets' own names
pub enum Place {
    Connect = 1,
    Will = 1 << 1,
    ConnAck = 1 << 2,
    Publish = 1 << 3,
    /// PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK and UNSUBACK allow the same two.
    Ack = 1 << 4,
    Subscribe = 1 << 5,
    Unsubscribe = 1 << 6,
    Disconnect = 1 << 7,
    Auth = 1 << 8,
}

/// A property with its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the specification's own names
pub enum Property<'a> {
    PayloadFormatIndicator(u8),
    MessageExpiryInterval(u32),
    ContentType(&'a str),
    ResponseTopic(&'a str),
    CorrelationData(&'a [u8]),
    SubscriptionIdentifier(u32),
    SessionExpiryInterval(u32),
    AssignedClientIdentifier(&'a str),
    ServerKeepAlive(u16),
    AuthenticationMethod(&'a str),
    AuthenticationData(&'a [u8]),
    RequestProblemInformation(u8),
    WillDelayInterval(u32),
    RequestResponseInformation(u8),
    ResponseInformation(&'a str),
    ServerReference(&'a str),
    ReasonString(&'a str),
    ReceiveMaximum(u16),
    TopicAliasMaximum(u16),
    TopicAlias(u16),
    MaximumQos(u8),
    RetainAvailable(u8),
    UserProperty(&'a str, &'a str),
    MaximumPacketSize(u32),
    WildcardSubscriptionAvailable(u8),
    SubscriptionIdentifierAvailable(u8),
    SharedSubscriptionAvailable(u8),
}

/// The property identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    PayloadFormatIndicator = 0x01,
    MessageExpiryInterval = 0x02,
    ContentType = 0x03,
    ResponseTopic = 0x08,
    CorrelationData = 0x09,
    SubscriptionIdentifier = 0x0B,
    SessionExpiryInterval = 0x11,
    AssignedClientIdentifier = 0x12,
    ServerKeepAlive = 0x13,
    AuthenticationMethod = 0x15,
    AuthenticationData = 0x16,
    RequestProblemInformation = 0x17,
    WillDelayInterval = 0x18,
    RequestResponseInformation = 0x19,
    ResponseInformation = 0x1A,
    ServerReference = 0x1C,
    ReasonString = 0x1F,
    ReceiveMaximum = 0x21,
    TopicAliasMaximum = 0x22,
    TopicAlias = 0x23,
    MaximumQos = 0x24,
    RetainAvailable = 0x25,
    UserProperty = 0x26,
    MaximumPacketSize = 0x27,
    WildcardSubscriptionAvailable = 0x28,
    SubscriptionIdentifierAvailable = 0x29,
    SharedSubscriptionAvailable = 0x2A,
}

impl Kind {
    /// The kind of an identifier. Identifiers are variable byte integers; all assigned ones take one byte.
    pub(crate) fn from_byte(byte: u8) -> Option<Kind> {
        use Kind::*;
        Some(match byte {
            0x01 => PayloadFormatIndicator,
            0x02 => MessageExpiryInterval,
            0x03 => ContentType,
            0x08 => ResponseTopic,
            0x09 => CorrelationData,
            0x0B => SubscriptionIdentifier,
            0x11 => SessionExpiryInterval,
            0x12 => AssignedClientIdentifier,
            0x13 => ServerKeepAlive,
            0x15 => AuthenticationMethod,
            0x16 => AuthenticationData,
            0x17 => RequestProblemInformation,
            0x18 => WillDelayInterval,
            0x19 => RequestResponseInformation,
            0x1A => ResponseInformation,
            0x1C => ServerReference,
            0x1F => ReasonString,
            0x21 => ReceiveMaximum,
            0x22 => TopicAliasMaximum,
            0x23 => TopicAlias,
            0x24 => MaximumQos,
            0x25 => RetainAvailable,
            0x26 => UserProperty,
            0x27 => MaximumPacketSize,
            0x28 => WildcardSubscriptionAvailable,
            0x29 => SubscriptionIdentifierAvailable,
            0x2A => SharedSubscriptionAvailable,
            _ => return None,
        })
    }

    /// The [`Place`]s that allow the property, as bits.
    pub(crate) fn places(self) -> u16 {
        use Place as P;
        const fn all(places: &[Place]) -> u16 {
            let mut bits = 0;
            let mut index = 0;
            while index < places.len() {
                bits |= places[index] as u16;
                index += 1;
            }
            bits
        }
        const MESSAGE: u16 = all(&[P::Publish, P::Will]);
        const OPENING: u16 = all(&[P::Connect, P::ConnAck]);
        match self {
            Kind::PayloadFormatIndicator
            | Kind::MessageExpiryInterval
            | Kind::ContentType
            | Kind::ResponseTopic
            | Kind::CorrelationData => MESSAGE,
            Kind::TopicAlias => P::Publish as u16,
            Kind::WillDelayInterval => P::Will as u16,
            Kind::SubscriptionIdentifier => all(&[P::Publish, P::Subscribe]),
            Kind::SessionExpiryInterval => OPENING | P::Disconnect as u16,
            Kind::ReceiveMaximum | Kind::TopicAliasMaximum | Kind::MaximumPacketSize => OPENING,
            Kind::AuthenticationMethod | Kind::AuthenticationData => OPENING | P::Auth as u16,
            Kind::RequestProblemInformation | Kind::RequestResponseInformation => P::Connect as u16,
            Kind::AssignedClientIdentifier
            | Kind::ServerKeepAlive
            | Kind::ResponseInformation
            | Kind::MaximumQos
            | Kind::RetainAvailable
            | Kind::WildcardSubscriptionAvailable
            | Kind::SubscriptionIdentifierAvailable
            | Kind::SharedSubscriptionAvailable => P::ConnAck as u16,
            Kind::ServerReference => all(&[P::ConnAck, P::Disconnect]),
            Kind::ReasonString => all(&[P::ConnAck, P::Ack, P::Disconnect, P::Auth]),
            Kind::UserProperty => u16::MAX,
        }
    }

    /// Whether the property may repeat: user properties anywhere, subscription identifiers in a PUBLISH (section
    /// 3.3.2.3.8).
    pub(crate) fn repeats(self, place: Place) -> bool {
        self == Kind::UserProperty || (self == Kind::SubscriptionIdentifier && place == Place::Publish)
    }
}

impl Property<'_> {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Property::PayloadFormatIndicator(_) => Kind::PayloadFormatIndicator,
            Property::MessageExpiryInterval(_) => Kind::MessageExpiryInterval,
            Property::ContentType(_) => Kind::ContentType,
            Property::ResponseTopic(_) => Kind::ResponseTopic,
            Property::CorrelationData(_) => Kind::CorrelationData,
            Property::SubscriptionIdentifier(_) => Kind::SubscriptionIdentifier,
            Property::SessionExpiryInterval(_) => Kind::SessionExpiryInterval,
            Property::AssignedClientIdentifier(_) => Kind::AssignedClientIdentifier,
            Property::ServerKeepAlive(_) => Kind::ServerKeepAlive,
            Property::AuthenticationMethod(_) => Kind::AuthenticationMethod,
            Property::AuthenticationData(_) => Kind::AuthenticationData,
            Property::RequestProblemInformation(_) => Kind::RequestProblemInformation,
            Property::WillDelayInterval(_) => Kind::WillDelayInterval,
            Property::RequestResponseInformation(_) => Kind::RequestResponseInformation,
            Property::ResponseInformation(_) => Kind::ResponseInformation,
            Property::ServerReference(_) => Kind::ServerReference,
            Property::ReasonString(_) => Kind::ReasonString,
            Property::ReceiveMaximum(_) => Kind::ReceiveMaximum,
            Property::TopicAliasMaximum(_) => Kind::TopicAliasMaximum,
            Property::TopicAlias(_) => Kind::TopicAlias,
            Property::MaximumQos(_) => Kind::MaximumQos,
            Property::RetainAvailable(_) => Kind::RetainAvailable,
            Property::UserProperty(..) => Kind::UserProperty,
            Property::MaximumPacketSize(_) => Kind::MaximumPacketSize,
            Property::WildcardSubscriptionAvailable(_) => Kind::WildcardSubscriptionAvailable,
            Property::SubscriptionIdentifierAvailable(_) => Kind::SubscriptionIdentifierAvailable,
            Property::SharedSubscriptionAvailable(_) => Kind::SharedSubscriptionAvailable,
        }
    }
}
