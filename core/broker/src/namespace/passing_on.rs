//! Where messages of others end up by what a client sets up: in the hub, by a binding between exchanges, an alternate or a
//! dead-letter exchange; in a queue, by a binding; and in a topic, by its capture rule.
//!
//! At the hub a routing key is an address, and nobody checks the keys of such messages again. So who sets it up must be
//! allowed to publish at every address, and who captures must be allowed to receive all that the rule matches.

use inver_access::{Operation, ResourceKind, key_name};

use super::Namespace;
use crate::access::Permissions;
use crate::address::{Form, is_reserved, rewrite};
use crate::capture;
use crate::exchange::Exchange;
use crate::spec::{DeadLetter, ExchangeKind, HUB, TopicConfig, TopicError};

/// Whether a client may have messages with any routing key passed on to an exchange.
pub(super) fn may_pass_on(client: Option<&Permissions>, to: &str) -> bool {
    to != HUB || client.is_none_or(Permissions::writes_all_addresses)
}

/// Whether a client may have a queue publish its dead letters so.
pub(super) fn may_dead_letter(client: Option<&Permissions>, to: &DeadLetter) -> bool {
    let (HUB, Some(key), Some(client)) = (to.exchange.as_str(), &to.routing_key, client) else {
        return may_pass_on(client, &to.exchange);
    };
    let address = rewrite(Form::Dotted, Form::Slashed, key);
    let name = String::from_utf8_lossy(&address);
    !is_reserved(&address) && client.may(ResourceKind::Address, &name, Operation::Write)
}

impl Namespace {
    /// Checks that the client on whose behalf this is may capture what a rule in new settings of a topic matches.
    pub(super) fn check_capture(
        &self,
        before: Option<&TopicConfig>,
        config: &TopicConfig,
    ) -> Result<(), TopicError> {
        let filter =
            |config: &TopicConfig| config.get(capture::FILTER).filter(|text| !text.is_empty()).cloned();
        let (Some(client), Some(wanted)) = (self.client(), filter(config)) else { return Ok(()) };
        if before.and_then(filter).as_ref() == Some(&wanted) || client.receives_all_of(&wanted) {
            return Ok(());
        }
        client.denied_filter(&wanted, Operation::Receive);
        Err(TopicError::NotAllowed(wanted))
    }
}

/// Whether a client may bind to an exchange with this key; the audit log tells where not. A topic exchange asks for the key, and
/// the hub for the filter too.
#[must_use]
pub fn may_bind(client: &Permissions, source: &Exchange, key: &str) -> bool {
    if source.spec().kind != ExchangeKind::Topic || client.is_unrestricted() {
        return true;
    }
    if !client.may_key(source.name(), key, Operation::Read) {
        client.denied(ResourceKind::RoutingKey, &key_name(source.name(), key), Operation::Read);
        return false;
    }
    if source.name() != HUB {
        return true;
    }
    let filter = slashed_filter(key);
    let may_subscribe = client.may_filter(&filter, Operation::Subscribe);
    if !may_subscribe {
        client.denied_filter(&filter, Operation::Subscribe);
    }
    may_subscribe
}

/// A binding key of the hub as a slashed filter.
fn slashed_filter(key: &str) -> String {
    let slashed = rewrite(Form::Dotted, Form::Slashed, key.as_bytes());
    let levels = String::from_utf8_lossy(&slashed);
    let levels: Vec<&str> = levels.split('/').map(|level| if level == "*" { "+" } else { level }).collect();
    levels.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binding_keys_become_filters() {
        for (key, filter) in
            [("a.*.#", "a/+/#"), ("#", "#"), ("a*.b", "a*/b"), ("a/b.c", "a%2Fb/c"), ("", "")]
        {
            assert_eq!(slashed_filter(key), filter);
        }
    }
}
