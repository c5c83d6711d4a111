//! SUBSCRIBE and UNSUBSCRIBE (sections 3.8 to 3.11, 4.8). A packet of many filters is carried out in several turns.

use std::borrow::Cow;

use inver_broker::{ConsumerSpec, Filter, Mode, SubscribeError, SubscriptionOptions};
use inver_driver::note_request;
use inver_settings::{MESSAGE_BYTES_MAX, excerpt};
use tokio::time::Instant;

use super::Session;
use super::filters::{self, Asked};
use super::ongoing::{Kind, Ongoing, Request};
use super::source::{DeliverySource, RetainedScan};
use super::terms::Terms;
use crate::codec::{
    DecodeError, Packet, PropertiesBuf, Property, Qos, Reason, RetainHandling, SubAck, Subscribe,
    SubscribeOptions, UnsubAck, Unsubscribe, check_filter,
};
use crate::config::template::{self, Values};
use crate::config::{AutoSubscription, By};
use crate::error::{Stop, count_reason};
use crate::sys;

/// The user property of SUBSCRIBE that selects the mode of its shared subscriptions, like the AMQP consumer argument of
/// that name.
const SUBSCRIPTION_TYPE: &str = "x-subscription-type";

/// Bytes of an acknowledgement beside its Reason String, roughly.
const REASON_STRING_ROOM_BYTES: usize = 1024;

impl Session {
    /// Subscribes to each filter or refuses it. One SUBACK for all filters [MQTT-3.8.4-5] waits until the subscriptions
    /// are stored.
    pub(super) fn subscribe(&mut self, subscribe: &Subscribe<'_>) -> Result<(), Stop> {
        let id = subscribe.properties.iter().find_map(|property| match property {
            Property::SubscriptionIdentifier(id) => Some(id),
            _ => None,
        });
        let kind = Kind::Subscribe { id, mode: requested_mode(subscribe), first_error: None };
        self.begin(subscribe.packet_id, kind, subscribe.filters.iter().copied())
    }

    /// Removes subscriptions. One UNSUBACK for all filters [MQTT-3.10.4-5] waits until that is stored.
    pub(super) fn unsubscribe(&mut self, unsubscribe: &Unsubscribe<'_>) -> Result<(), Stop> {
        let filters = unsubscribe.filters.iter().map(|filter| (*filter, SubscribeOptions::default()));
        self.begin(unsubscribe.packet_id, Kind::Unsubscribe, filters)
    }

    /// Carries a request out as far as the turn's time allows.
    fn begin<'f>(
        &mut self,
        packet_id: u16,
        kind: Kind,
        mut filters: impl ExactSizeIterator<Item = (&'f str, SubscribeOptions)>,
    ) -> Result<(), Stop> {
        note_request(kind.name());
        // Publishes of this turn precede the subscription: it must not receive them, but find them retained.
        self.flush()?;
        let reasons = Vec::with_capacity(filters.len());
        let mut request = Request { packet_id, since: Instant::now(), kind, reasons };
        while let Some((filter, options)) = filters.next() {
            self.carry_out(&mut request, filter, options)?;
            if filters.len() > 0 && self.filters_left == 0 {
                let rest: Vec<_> = filters.map(|(filter, options)| (filter.into(), options)).collect();
                self.ongoing = Some(Box::new(Ongoing { request, filters: rest.into_iter() }));
                return Ok(());
            }
        }
        self.answer(request);
        Ok(())
    }

    /// The filter after the rules that rewrite those of clients, as an address is written.
    fn rewritten<'a>(&self, filter: &'a str) -> Cow<'a, str> {
        let by = By { client_id: self.core.client_id(), user: self.core.permissions().user() };
        let inner = filters::inner(filter);
        let is_asked = !inner.is_empty() && !self.is_internal();
        let rewritten = is_asked.then(|| self.server.config.rewrite.subscribe(inner, by)).flatten();
        self.as_address(filter, rewritten.as_deref())
    }

    /// The filter as an address is written, with `rewritten` in place of what is behind its prefix or group.
    fn as_address<'a>(&self, filter: &'a str, rewritten: Option<&str>) -> Cow<'a, str> {
        let inner = filters::inner(filter);
        let prefix = filter.strip_suffix(inner).unwrap_or_default();
        let names = self.server.config.amqp_names;
        match (names.topic(rewritten.unwrap_or(inner)), rewritten) {
            (Cow::Borrowed(_), None) => Cow::Borrowed(filter),
            (inner, _) => Cow::Owned(format!("{prefix}{inner}")),
        }
    }

    /// Makes the subscriptions that every client gets; why the first one that is refused is.
    pub(super) fn subscribe_automatically(&mut self) -> Option<String> {
        let server = self.server.shared();
        let mut refused = None;
        for one in &server.config.auto_subscribe.0 {
            let filter = {
                let user = self.core.permissions().user().unwrap_or_default();
                template::fill(&one.filter, Values { matched: &[], client_id: self.core.client_id(), user })
            };
            if let Err(why) = self.subscribe_as(&filter, one) {
                refused.get_or_insert(format!("{filter}: {why}"));
            }
        }
        refused
    }

    fn subscribe_as(&mut self, filter: &str, one: &AutoSubscription) -> Result<(), String> {
        let user = self.core.permissions().user().unwrap_or_default();
        if template::is_widened(&one.filter, self.core.client_id(), user) {
            return Err("the client's name has a wildcard".to_owned());
        }
        check_filter(filter).map_err(|error| error.to_string())?;
        let filter = self.as_address(filter, None);
        let asked = asked(&filter, matches!(filter, Cow::Owned(_))).map_err(|(_, why)| why)?;
        let qos = one.qos.min(self.limits.maximum_qos);
        let options = SubscribeOptions {
            qos: Qos::from_bits(qos).unwrap_or_default(),
            no_local: one.no_local && !asked.is_shared,
            retain_as_published: one.retain_as_published,
            retain_handling: match one.retain_handling {
                0 => RetainHandling::Send,
                1 => RetainHandling::SendIfNew,
                _ => RetainHandling::DoNotSend,
            },
        };
        self.subscribe_one(&asked, Terms { options, id: None, mode: None }).map_err(|(_, why)| why)
    }

    /// Goes on with a request of an earlier turn. False while it is not done: the client's other packets come after it.
    pub(crate) fn go_on(&mut self) -> Result<bool, Stop> {
        let Some(mut ongoing) = self.ongoing.take() else { return Ok(true) };
        note_request(ongoing.request.kind.name());
        while let Some((filter, options)) = ongoing.filters.next() {
            self.carry_out(&mut ongoing.request, &filter, options)?;
            if ongoing.filters.len() > 0 && self.filters_left == 0 {
                self.ongoing = Some(ongoing);
                return Ok(false);
            }
        }
        self.answer(ongoing.request);
        Ok(true)
    }

    fn carry_out(
        &mut self,
        request: &mut Request,
        filter: &str,
        options: SubscribeOptions,
    ) -> Result<(), Stop> {
        self.filters_left = self.filters_left.saturating_sub(1);
        let filter = &self.rewritten(filter);
        let reason = match &mut request.kind {
            Kind::Unsubscribe => self.unsubscribe_one(filter)?,
            Kind::Subscribe { id, mode, first_error } => {
                let (id, mut options) = (*id, options);
                options.retain_as_published |= self.is_bridge;
                options.qos = options.qos.min(Qos::from_bits(self.limits.maximum_qos).unwrap_or(options.qos));
                let is_rewritten = matches!(filter, Cow::Owned(_));
                let subscribed = asked(filter, is_rewritten).and_then(|asked| {
                    let mode = if asked.is_shared { mode.clone()? } else { None };
                    options.no_local |= self.is_bridge && !asked.is_shared;
                    self.subscribe_one(&asked, Terms { options, id, mode })
                });
                match subscribed {
                    Ok(()) => match options.qos {
                        Qos::AtMostOnce => Reason::Success,
                        Qos::AtLeastOnce => Reason::GrantedQos1,
                        Qos::ExactlyOnce => Reason::GrantedQos2,
                    },
                    Err((reason, text)) => {
                        first_error.get_or_insert(text);
                        count_reason(reason);
                        reason
                    }
                }
            }
        };
        request.reasons.push(reason);
        Ok(())
    }

    fn answer(&mut self, request: Request) {
        let Request { packet_id, since, kind, reasons } = request;
        self.deferred.measure(kind.name(), since);
        let (mut properties, is_subscribe) = (PropertiesBuf::new(), !matches!(kind, Kind::Unsubscribe));
        if let Kind::Subscribe { first_error, .. } = kind {
            properties = self.reason_string(first_error.as_deref());
        }
        let properties = properties.as_ref();
        let packet = match is_subscribe {
            true => Packet::SubAck(SubAck { packet_id, properties, reasons }),
            false => Packet::UnsubAck(UnsubAck { packet_id, properties, reasons }),
        };
        let _always_fits = packet.encode(self.version, self.deferred.bytes());
    }

    fn subscribe_one(&mut self, asked: &Asked<'_>, terms: Terms) -> Result<(), (Reason, String)> {
        let filter = &*asked.text;
        if asked.is_shared && !self.limits.shared {
            let what = "shared subscriptions are not available (mqtt.shared_subscriptions)";
            return Err((Reason::SharedSubscriptionsNotSupported, what.to_owned()));
        }
        if !self.limits.wildcards && filter.contains(['+', '#']) {
            let what = "subscriptions with wildcards are not available (mqtt.wildcard_subscriptions)";
            return Err((Reason::WildcardSubscriptionsNotSupported, what.to_owned()));
        }
        if self.server.config.refused_filters.iter().any(|refused| refused == filter) {
            return Err((Reason::Unspecified, "topic filter refused by configuration".to_owned()));
        }
        if filter.bytes().filter(|&byte| byte == b'/').count() >= self.server.config.topic_levels_max {
            return Err((Reason::TopicFilterInvalid, "a topic filter of too many levels".to_owned()));
        }
        let options = SubscriptionOptions {
            guaranteed: terms.options.qos != Qos::AtMostOnce,
            no_local: terms.options.no_local,
            exclusive: asked.is_exclusive,
            opaque: terms.to_bytes(),
        };
        if asked.is_shared {
            if terms.options.no_local {
                let what = "No Local on a shared subscription [MQTT-3.8.3-4]";
                return Err((Reason::TopicFilterInvalid, what.to_owned()));
            }
            return self.join(filter, terms, &options);
        }
        let (existed, completion) =
            self.core.subscribe(filter.as_bytes(), &options).map_err(|error| refusal(&error))?;
        self.deferred.wait_for(completion);
        self.subscriptions.insert(filter, terms);
        let is_sys = filter.starts_with(sys::PREFIX);
        if is_sys {
            self.server.sys.subscribe(&self.mailbox, self.core.namespace().clock());
        }
        let SubscribeOptions { retain_handling, qos, .. } = terms.options;
        let sends_retained = match retain_handling {
            RetainHandling::Send => true,
            RetainHandling::SendIfNew => !existed,
            RetainHandling::DoNotSend => false,
        };
        if sends_retained {
            self.scans.push_back(RetainedScan {
                filter: Filter::slashed(filter.as_bytes()),
                is_sys,
                from: None,
                granted: qos,
                subscription_id: terms.id,
                after_turn: self.deferred.turn(),
            });
        }
        Ok(())
    }

    /// Joins a shared subscription, or changes the terms of one that the session is a member of. No retained messages
    /// are sent (section 4.8.2).
    fn join(
        &mut self,
        text: &str,
        terms: Terms,
        options: &SubscriptionOptions,
    ) -> Result<(), (Reason, String)> {
        if let Some(shared) = self.shared.iter_mut().find(|shared| *shared.text == *text) {
            let mode = shared.consumer.subscription().mode();
            if mode != terms.share_mode() {
                return Err(refusal(&SubscribeError::ModeClash(mode)));
            }
            let (_, completion) =
                self.core.stay(text.as_bytes(), options).map_err(|error| refusal(&error))?;
            shared.terms = terms;
            self.deferred.wait_for(completion);
            return Ok(());
        }
        let spec = ConsumerSpec::new(self.mailbox().clone(), self.shared.next_number());
        let joined = self.core.join(text.as_bytes(), options, terms.share_mode(), spec);
        let (consumer, _, completion) = joined.map_err(|error| refusal(&error))?;
        self.deferred.wait_for(completion);
        self.shared.push(text, terms, consumer);
        Ok(())
    }

    fn unsubscribe_one(&mut self, filter: &str) -> Result<Reason, Stop> {
        let filter = &*filters::stored(filter);
        if let Some(shared) = self.shared.remove(filter) {
            // Messages already sent are completed here; the others go to the remaining members.
            let _ = shared.consumer.ack(&self.inflight.acknowledge_shared(shared.number))?;
            self.blocked.retain(|(source, _)| *source != DeliverySource::Shared(shared.number));
        }
        let (existed, completion) = self.core.unsubscribe(filter.as_bytes())?;
        self.subscriptions.remove(filter);
        self.deferred.wait_for(completion);
        Ok(if existed { Reason::Success } else { Reason::NoSubscriptionExisted })
    }

    /// A Reason String, if the client wants such [MQTT-3.1.2-29] and accepts a packet of that size.
    fn reason_string(&self, text: Option<&str>) -> PropertiesBuf {
        let mut properties = PropertiesBuf::new();
        if let Some(text) = text.map(|text| excerpt(text, MESSAGE_BYTES_MAX))
            && self.problem_information
            && text.len() + REASON_STRING_ROOM_BYTES <= self.client_packet_bytes_max
        {
            let _omitted_if_too_long = properties.push(Property::ReasonString(&text));
        }
        properties
    }
}

/// Reads a filter. One that a rule made is checked first, as the decoder does with those of clients.
fn asked(filter: &str, is_rewritten: bool) -> Result<Asked<'_>, (Reason, String)> {
    if is_rewritten {
        if filter.len() > usize::from(u16::MAX) {
            return Err((
                Reason::TopicFilterInvalid,
                "rewritten to a topic filter that is too long".to_owned(),
            ));
        }
        let why = |error: DecodeError| (Reason::TopicFilterInvalid, format!("rewritten: {error}"));
        check_filter(filter).map_err(why)?;
    }
    filters::asked(filter).map_err(|why| (Reason::TopicFilterInvalid, why.to_owned()))
}

fn requested_mode(subscribe: &Subscribe<'_>) -> Result<Option<Mode>, (Reason, String)> {
    let requested = subscribe.properties.iter().find_map(|property| match property {
        Property::UserProperty(name, value) if name == SUBSCRIPTION_TYPE => Some(value),
        _ => None,
    });
    let parse = |text: &str| {
        text.parse().map_err(|()| {
            let what = format!("{SUBSCRIPTION_TYPE}: expected exclusive, shared, failover or key_shared");
            (Reason::ImplementationSpecific, what)
        })
    };
    requested.map(parse).transpose()
}

fn refusal(error: &SubscribeError) -> (Reason, String) {
    let reason = match error {
        // "Correctly formed but not accepted for this Client" (section 3.9.3): others share it in another mode.
        SubscribeError::ModeClash(_) | SubscribeError::Attach(_) => Reason::TopicFilterInvalid,
        SubscribeError::NotAllowed => Reason::NotAuthorized,
        SubscribeError::Limit(_) | SubscribeError::Taken => Reason::QuotaExceeded,
        SubscribeError::NotShared
        | SubscribeError::Queue(_)
        | SubscribeError::Subscription(_)
        | SubscribeError::Log(_) => Reason::Unspecified,
    };
    (reason, error.to_string())
}
