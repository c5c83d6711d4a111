//! SUBSCRIBE and UNSUBSCRIBE (sections 3.8 to 3.11, 4.8).

use inver_broker::{ConsumerSpec, Filter, Mode, SubscribeError, SubscriptionOptions};

use super::Session;
use super::retained::RetainedScan;
use super::subscriptions::Terms;
use crate::codec::{
    Packet, PropertiesBuf, Property, Qos, Reason, RetainHandling, Shared, SubAck, Subscribe,
    SubscribeOptions, UnsubAck, Unsubscribe, split_shared,
};
use crate::error::Stop;
use crate::sys::PREFIX;

impl Session {
    /// Subscribes to each filter, or says why not; one SUBACK for all [MQTT-3.8.4-5], once they are stored.
    pub(super) fn subscribe(&mut self, subscribe: &Subscribe<'_>) -> Result<(), Stop> {
        // What was published before is retained before, and not heard.
        self.flush()?;
        let id = subscribe.properties.iter().find_map(|property| match property {
            Property::SubscriptionIdentifier(id) => Some(id),
            _ => None,
        });
        let mode = asked_mode(subscribe);
        let mut reasons = Vec::with_capacity(subscribe.filters.len());
        let mut why = None;
        for &(filter, options) in &subscribe.filters {
            let mode = match split_shared(filter) {
                Shared::Yes { .. } => mode.clone(),
                _ => Ok(None),
            };
            let subscribed = mode.and_then(|mode| self.subscribe_one(filter, Terms { options, id, mode }));
            reasons.push(match subscribed {
                Ok(()) => match options.qos {
                    Qos::AtMostOnce => Reason::Success,
                    Qos::AtLeastOnce => Reason::GrantedQos1,
                    Qos::ExactlyOnce => Reason::GrantedQos2,
                },
                Err((reason, text)) => {
                    why.get_or_insert(text);
                    reason
                }
            });
        }
        let properties = self.reason_string(why.as_deref());
        let packet = Packet::SubAck(SubAck {
            packet_id: subscribe.packet_id,
            properties: properties.as_ref(),
            reasons,
        });
        let _always_fits = packet.encode(self.version, self.deferred.bytes());
        Ok(())
    }

    fn subscribe_one(&mut self, filter: &str, terms: Terms) -> Result<(), (Reason, String)> {
        if self.config.refused_filters.iter().any(|refused| refused == filter) {
            return Err((Reason::Unspecified, "this topic filter is refused here".to_owned()));
        }
        if filter.bytes().filter(|&byte| byte == b'/').count() >= self.config.topic_levels_max {
            return Err((Reason::TopicFilterInvalid, "a topic filter of too many levels".to_owned()));
        }
        let options = SubscriptionOptions {
            guaranteed: terms.options.qos != Qos::AtMostOnce,
            no_local: terms.options.no_local,
            opaque: terms.to_bytes(),
        };
        if let Shared::Yes { .. } = split_shared(filter) {
            return self.join(filter, terms, &options);
        }
        let (existed, lsn) =
            self.core.subscribe(filter.as_bytes(), &options).map_err(|error| refusal(&error))?;
        self.deferred.wait_for(lsn);
        // The queues may have been made just now: who has pulled nothing yet is not woken.
        (self.live_ready, self.inbox_ready) = (true, true);
        self.subscriptions.insert(filter, terms);
        let sys = filter.starts_with(PREFIX);
        if sys {
            self.hear_sys();
        }
        let SubscribeOptions { retain_handling, qos, .. } = terms.options;
        let send = match retain_handling {
            RetainHandling::Send => true,
            RetainHandling::SendIfNew => !existed,
            RetainHandling::DoNotSend => false,
        };
        if send {
            self.scans.push_back(RetainedScan {
                filter: Filter::slashed(filter.as_bytes()),
                sys,
                from: None,
                granted: qos,
                id: terms.id,
                after_turn: self.deferred.turn(),
            });
        }
        Ok(())
    }

    /// Joins a shared subscription; it gets no retained messages (section 4.8.2).
    fn join(
        &mut self,
        text: &str,
        terms: Terms,
        options: &SubscriptionOptions,
    ) -> Result<(), (Reason, String)> {
        if let Some(member) = self.members.iter_mut().find(|member| *member.text == *text) {
            let mode = member.consumer.subscription().mode();
            if mode != terms.share_mode() {
                return Err(refusal(&SubscribeError::ModeClash(mode)));
            }
            let (_, lsn) = self.core.stay(text.as_bytes(), options).map_err(|error| refusal(&error))?;
            member.terms = terms;
            self.deferred.wait_for(lsn);
            return Ok(());
        }
        let spec = ConsumerSpec::new(self.mailbox().clone(), self.members.next_number());
        let joined = self.core.join(text.as_bytes(), options, terms.share_mode(), spec);
        let (consumer, _, lsn) = joined.map_err(|error| refusal(&error))?;
        self.deferred.wait_for(lsn);
        self.members.push(text, terms, consumer);
        Ok(())
    }

    /// Takes subscriptions back; one UNSUBACK for all [MQTT-3.10.4-5], once that is stored.
    pub(super) fn unsubscribe(&mut self, unsubscribe: &Unsubscribe<'_>) -> Result<(), Stop> {
        self.flush()?;
        let mut reasons = Vec::with_capacity(unsubscribe.filters.len());
        for &filter in &unsubscribe.filters {
            if let Some(member) = self.members.remove(filter) {
                // What was not sent yet goes to other members.
                member.consumer.ack(&self.outbound.settle_member(member.number));
                self.held.retain(|(from, _)| !from.is_member(member.number));
            }
            let (existed, lsn) = self.core.unsubscribe(filter.as_bytes());
            self.subscriptions.remove(filter);
            self.deferred.wait_for(lsn);
            reasons.push(if existed { Reason::Success } else { Reason::NoSubscriptionExisted });
        }
        let packet_id = unsubscribe.packet_id;
        let properties = PropertiesBuf::new();
        let packet = Packet::UnsubAck(UnsubAck { packet_id, properties: properties.as_ref(), reasons });
        let _always_fits = packet.encode(self.version, self.deferred.bytes());
        Ok(())
    }

    /// A reason string for an acknowledgement, if the client wants such [MQTT-3.1.2-29] and can take it.
    fn reason_string(&self, why: Option<&str>) -> PropertiesBuf {
        let mut properties = PropertiesBuf::new();
        if let Some(why) = why
            && self.problem_information
            && why.len() + REASON_STRING_ROOM_BYTES <= self.client_packet_bytes_max
        {
            let _too_long_is_left_out = properties.push(Property::ReasonString(why));
        }
        properties
    }
}

/// The user property of SUBSCRIBE that says how the members of its shared subscriptions share them, as the consumer
/// argument of that name does for AMQP clients.
const SUBSCRIPTION_TYPE: &str = "x-subscription-type";

fn asked_mode(subscribe: &Subscribe<'_>) -> Result<Option<Mode>, (Reason, String)> {
    let asked = subscribe.properties.iter().find_map(|property| match property {
        Property::UserProperty(name, value) if name == SUBSCRIPTION_TYPE => Some(value),
        _ => None,
    });
    let parse = |text: &str| {
        text.parse().map_err(|()| {
            let why = format!("{SUBSCRIPTION_TYPE}: expected exclusive, shared, failover or key_shared");
            (Reason::ImplementationSpecific, why)
        })
    };
    asked.map(parse).transpose()
}

/// What a packet needs beside its reason string, roughly.
const REASON_STRING_ROOM_BYTES: usize = 1024;

fn refusal(error: &SubscribeError) -> (Reason, String) {
    let reason = match error {
        // Somebody shares it in another way: the filter is well-formed and not for this client.
        SubscribeError::ModeClash(_) | SubscribeError::Attach(_) => Reason::TopicFilterInvalid,
        SubscribeError::Limit(_) => Reason::QuotaExceeded,
        SubscribeError::Log(_) => Reason::Unspecified,
    };
    (reason, error.to_string())
}
