//! Strategies for random valid packets.

use proptest::prelude::*;

use super::super::*;

/// Packets borrow their fields; tests leak the owners.
fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

fn text() -> impl Strategy<Value = &'static str> {
    prop_oneof!["[a-z/]{1,12}", "[\\PC&&[^+#]]{1,8}"].prop_map(|text: String| leak(text).as_str())
}

fn bytes() -> impl Strategy<Value = &'static [u8]> {
    prop::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| leak(bytes).as_slice())
}

fn qos() -> impl Strategy<Value = Qos> {
    (0u8..3).prop_map(|bits| Qos::from_bits(bits).unwrap())
}

pub(super) fn version() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::V31), Just(Version::V311), Just(Version::V5)]
}

/// Any property with a valid value.
fn property() -> impl Strategy<Value = Property<'static>> {
    let number = any::<u32>().prop_map(|n| n.max(1));
    prop_oneof![
        (0u8..2).prop_map(Property::PayloadFormatIndicator),
        any::<u32>().prop_map(Property::MessageExpiryInterval),
        text().prop_map(Property::ContentType),
        text().prop_map(Property::ResponseTopic),
        bytes().prop_map(Property::CorrelationData),
        (1u32..0x0fff_ffff).prop_map(Property::SubscriptionIdentifier),
        any::<u32>().prop_map(Property::SessionExpiryInterval),
        text().prop_map(Property::AssignedClientIdentifier),
        any::<u16>().prop_map(Property::ServerKeepAlive),
        text().prop_map(Property::AuthenticationMethod),
        any::<u32>().prop_map(Property::WillDelayInterval),
        (0u8..2).prop_map(Property::RequestProblemInformation),
        (0u8..2).prop_map(Property::RequestResponseInformation),
        text().prop_map(Property::ResponseInformation),
        text().prop_map(Property::ServerReference),
        text().prop_map(Property::ReasonString),
        number.clone().prop_map(|n| Property::ReceiveMaximum((n as u16).max(1))),
        any::<u16>().prop_map(Property::TopicAliasMaximum),
        number.clone().prop_map(|n| Property::TopicAlias((n as u16).max(1))),
        (0u8..2).prop_map(Property::MaximumQos),
        (0u8..2).prop_map(Property::RetainAvailable),
        (text(), text()).prop_map(|(name, value)| Property::UserProperty(name, value)),
        number.prop_map(Property::MaximumPacketSize),
        (0u8..2).prop_map(Property::WildcardSubscriptionAvailable),
        (0u8..2).prop_map(Property::SubscriptionIdentifierAvailable),
        (0u8..2).prop_map(Property::SharedSubscriptionAvailable),
    ]
}

/// Properties allowed in this place.
fn properties(place: Place, version: Version) -> impl Strategy<Value = Properties<'static>> {
    prop::collection::vec(property(), 0..8).prop_map(move |candidates| {
        let mut buf = PropertiesBuf::new();
        let mut seen = Vec::new();
        for property in candidates {
            let kind = property.kind();
            if kind.places() & place as u16 != 0 && (kind.repeats(place) || !seen.contains(&kind)) {
                seen.push(kind);
                buf.push(property).unwrap();
            }
        }
        if version == Version::V5 { leak(buf).as_ref() } else { Properties::EMPTY }
    })
}

fn reasons(of: &'static [Reason]) -> impl Strategy<Value = Reason> {
    prop::sample::select(of)
}

fn connect(version: Version) -> impl Strategy<Value = Packet<'static>> {
    let will = (qos(), any::<bool>(), text(), bytes(), properties(Place::Will, version)).prop_map(
        |(qos, retain, topic, payload, properties)| Will { qos, retain, topic, payload, properties },
    );
    (
        (any::<(bool, bool)>(), any::<u16>(), text(), prop::option::of(will)),
        (prop::option::of(text()), prop::option::of(bytes()), properties(Place::Connect, version)),
    )
        .prop_map(
            move |(
                ((is_bridge, clean_start), keep_alive_s, client_id, will),
                (username, password, properties),
            )| {
                let password = if username.is_none() && version != Version::V5 { None } else { password };
                Packet::Connect(Box::new(Connect {
                    version,
                    is_bridge: is_bridge && version != Version::V5,
                    clean_start,
                    keep_alive_s,
                    client_id,
                    will,
                    username,
                    password,
                    properties,
                }))
            },
        )
}

fn publish(version: Version) -> impl Strategy<Value = Packet<'static>> {
    (any::<(bool, bool)>(), qos(), text(), 1u16.., bytes(), properties(Place::Publish, version)).prop_map(
        |((dup, retain), qos, topic, packet_id, payload, properties)| {
            let has_id = qos != Qos::AtMostOnce;
            let packet_id = if has_id { packet_id } else { 0 };
            Packet::Publish(Publish {
                dup: dup && has_id,
                qos,
                retain,
                topic,
                packet_id,
                properties,
                payload,
            })
        },
    )
}

fn ack(version: Version) -> impl Strategy<Value = Packet<'static>> {
    const FIRST: &[Reason] = &[Reason::Success, Reason::NoMatchingSubscribers, Reason::QuotaExceeded];
    const SECOND: &[Reason] = &[Reason::Success, Reason::PacketIdNotFound];
    (0..4, 1u16.., reasons(FIRST), reasons(SECOND), properties(Place::Ack, version)).prop_map(
        move |(kind, packet_id, first, second, properties)| {
            let of = |reason| Ack {
                packet_id,
                reason: if version == Version::V5 { reason } else { Reason::Success },
                properties,
            };
            match kind {
                0 => Packet::PubAck(of(first)),
                1 => Packet::PubRec(of(first)),
                2 => Packet::PubRel(of(second)),
                _ => Packet::PubComp(of(second)),
            }
        },
    )
}

fn subscribe(version: Version) -> impl Strategy<Value = Packet<'static>> {
    let filter = prop_oneof!["[a-z]{1,4}(/[a-z+]){0,3}(/#)?", "\\$share/g/[a-z]{1,4}"]
        .prop_map(|filter: String| leak(filter).as_str());
    let options = (0u8..3, 0u8..4, 0u8..3).prop_map(move |(qos, flags, handling)| {
        let byte = if version == Version::V5 { qos | flags << 2 | handling << 4 } else { qos };
        SubscribeOptions::from_byte(byte, version).unwrap()
    });
    let filters = prop::collection::vec((filter, options), 1..5).prop_map(|mut filters| {
        for (filter, options) in &mut filters {
            options.no_local &= split_shared(filter) == Shared::No;
        }
        filters
    });
    (1u16.., filters, properties(Place::Subscribe, version)).prop_map(|(packet_id, filters, properties)| {
        Packet::Subscribe(Subscribe { packet_id, properties, filters })
    })
}

fn other(version: Version) -> impl Strategy<Value = Packet<'static>> {
    const CONNACK: &[Reason] = &[Reason::Success, Reason::NotAuthorized, Reason::ServerUnavailable];
    const SUBACK: &[Reason] = &[Reason::Success, Reason::GrantedQos2, Reason::Unspecified];
    const DISCONNECT: &[Reason] = &[Reason::Success, Reason::DisconnectWithWill, Reason::ServerBusy];
    const AUTH: &[Reason] = &[Reason::Success, Reason::ContinueAuthentication, Reason::ReAuthenticate];
    let v5 = version == Version::V5;
    prop_oneof![
        (any::<bool>(), reasons(CONNACK), properties(Place::ConnAck, version)).prop_map(
            move |(present, reason, properties)| Packet::ConnAck(ConnAck {
                session_present: present && reason == Reason::Success && version != Version::V31,
                reason,
                properties
            })
        ),
        (1u16.., prop::collection::vec(reasons(SUBACK), 1..4), properties(Place::Ack, version)).prop_map(
            |(packet_id, reasons, properties)| Packet::SubAck(SubAck { packet_id, properties, reasons })
        ),
        (1u16.., prop::collection::vec(text(), 1..4), properties(Place::Unsubscribe, version)).prop_map(
            |(packet_id, filters, properties)| Packet::Unsubscribe(Unsubscribe {
                packet_id,
                properties,
                filters
            })
        ),
        (1u16.., 0usize..4, properties(Place::Ack, version)).prop_map(
            move |(packet_id, count, properties)| {
                let count = if v5 { count } else { 0 };
                Packet::UnsubAck(UnsubAck {
                    packet_id,
                    properties,
                    reasons: vec![Reason::NoSubscriptionExisted; count],
                })
            }
        ),
        Just(Packet::PingReq),
        Just(Packet::PingResp),
        (reasons(DISCONNECT), properties(Place::Disconnect, version)).prop_map(
            move |(reason, properties)| {
                Packet::Disconnect(Disconnect {
                    reason: if v5 { reason } else { Reason::Success },
                    properties,
                })
            }
        ),
        (reasons(AUTH), properties(Place::Auth, Version::V5)).prop_map(move |(reason, properties)| if v5 {
            Packet::Auth(Auth { reason, properties })
        } else {
            Packet::PingReq
        }),
    ]
}

/// Any packet of this version.
pub(super) fn packet_of(version: Version) -> impl Strategy<Value = Packet<'static>> {
    prop_oneof![connect(version), publish(version), ack(version), subscribe(version), other(version)]
}

/// Any packet of any version.
pub(super) fn packet() -> impl Strategy<Value = (Version, Packet<'static>)> {
    version().prop_flat_map(|version| (Just(version), packet_of(version)))
}
