//! What clients may use of the protocol, by listener and user: QoS, retained messages, kinds of subscriptions, keep alive.
//! MQTT 5 clients are told in CONNACK (section 3.2.2.3).

use inver_settings::serde::Deserializer;
use inver_settings::serde::de::Error;
use inver_settings::{Form, Setting};
use serde::Deserialize;

/// Bound of the rules.
const RULES_MAX: usize = 1000;

/// What one client may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClientLimits {
    /// The highest QoS of what it publishes and subscribes to: 0 to 2.
    pub(crate) maximum_qos: u8,
    /// It may publish retained messages.
    pub(crate) retain: bool,
    /// It may subscribe with wildcards.
    pub(crate) wildcards: bool,
    /// It may share subscriptions.
    pub(crate) shared: bool,
    /// The longest keep alive, seconds.
    pub(crate) keep_alive_s_max: Option<u16>,
}

/// A rule of the configuration: what it sets holds for the clients of its listener and user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientRule {
    /// Name of the listener; none: every listener.
    pub listener: Option<String>,
    /// Name of the user; none: every client.
    pub user: Option<String>,
    /// See [`MqttConfig::maximum_qos`](crate::MqttConfig::maximum_qos).
    pub maximum_qos: Option<u8>,
    /// See [`MqttConfig::retain_available`](crate::MqttConfig::retain_available).
    pub retain_available: Option<bool>,
    /// See [`MqttConfig::wildcard_subscriptions`](crate::MqttConfig::wildcard_subscriptions).
    pub wildcard_subscriptions: Option<bool>,
    /// See [`MqttConfig::shared_subscriptions`](crate::MqttConfig::shared_subscriptions).
    pub shared_subscriptions: Option<bool>,
    /// See [`MqttConfig::keep_alive_s_max`](crate::MqttConfig::keep_alive_s_max); 0: as the client requests.
    pub keep_alive_s_max: Option<u16>,
}

/// Rules in order: for each value the first one counts that applies to the client and sets it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientRules(pub Vec<ClientRule>);

impl ClientRules {
    /// What a client may use; `general` where no rule says otherwise.
    pub(crate) fn of(&self, general: ClientLimits, listener: &str, user: Option<&str>) -> ClientLimits {
        let is = |wanted: &Option<String>, value: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| value == Some(wanted))
        };
        let applies = |rule: &&ClientRule| is(&rule.listener, Some(listener)) && is(&rule.user, user);
        let mut limits = general;
        // The first rule has the last word.
        for rule in self.0.iter().filter(applies).rev() {
            limits = ClientLimits {
                maximum_qos: rule.maximum_qos.unwrap_or(limits.maximum_qos),
                retain: rule.retain_available.unwrap_or(limits.retain),
                wildcards: rule.wildcard_subscriptions.unwrap_or(limits.wildcards),
                shared: rule.shared_subscriptions.unwrap_or(limits.shared),
                keep_alive_s_max: match rule.keep_alive_s_max {
                    None => limits.keep_alive_s_max,
                    seconds => seconds.filter(|seconds| *seconds > 0),
                },
            };
        }
        limits
    }
}

impl Setting for ClientRules {
    const FORM: Form = Form::Structured;

    fn read<'de, D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        let rules: Vec<ClientRule> = Vec::deserialize(value)?;
        if rules.len() > RULES_MAX {
            return Err(D::Error::custom(format_args!("more than {RULES_MAX} rules")));
        }
        match rules.iter().filter_map(|rule| rule.maximum_qos).find(|qos| *qos > 2) {
            Some(qos) => Err(D::Error::custom(format_args!("maximum_qos is 0, 1 or 2, not {qos}"))),
            None => Ok(ClientRules(rules)),
        }
    }

    fn show(&self) -> String {
        let rules = self.0.iter().map(|rule| {
            let text = |name: &str, value: &Option<String>| {
                value.as_ref().map(|value| format!("{name} = {value:?}"))
            };
            let flag = |name: &str, value: Option<bool>| value.map(|value| format!("{name} = {value}"));
            let pairs = [
                text("listener", &rule.listener),
                text("user", &rule.user),
                rule.maximum_qos.map(|qos| format!("maximum_qos = {qos}")),
                flag("retain_available", rule.retain_available),
                flag("wildcard_subscriptions", rule.wildcard_subscriptions),
                flag("shared_subscriptions", rule.shared_subscriptions),
                rule.keep_alive_s_max.map(|seconds| format!("keep_alive_s_max = {seconds}")),
            ];
            format!("{{ {} }}", pairs.into_iter().flatten().collect::<Vec<_>>().join(", "))
        });
        format!("[{}]", rules.collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_applies_and_sets_a_value_counts() {
        let general = ClientLimits {
            maximum_qos: 2,
            retain: true,
            wildcards: true,
            shared: true,
            keep_alive_s_max: Some(100),
        };
        let rule = |listener: Option<&str>, user: Option<&str>| ClientRule {
            listener: listener.map(Into::into),
            user: user.map(Into::into),
            ..ClientRule::default()
        };
        let rules = ClientRules(vec![
            ClientRule { maximum_qos: Some(1), ..rule(Some("out"), Some("ann")) },
            ClientRule { maximum_qos: Some(0), retain_available: Some(false), ..rule(Some("out"), None) },
            ClientRule {
                keep_alive_s_max: Some(0),
                wildcard_subscriptions: Some(false),
                ..rule(None, Some("ann"))
            },
        ]);
        let of = |listener, user| rules.of(general, listener, user);
        assert_eq!(of("in", None), general);
        assert_eq!(of("out", None), ClientLimits { maximum_qos: 0, retain: false, ..general });
        let ann = ClientLimits { wildcards: false, keep_alive_s_max: None, ..general };
        assert_eq!(of("in", Some("ann")), ann);
        assert_eq!(of("out", Some("ann")), ClientLimits { maximum_qos: 1, retain: false, ..ann });
    }
}
