//! Bridges: what each is told of the other server, how to log in, which topics go which way.

use inver_settings::serde::Deserializer;
use inver_settings::serde::de::Error;
use inver_settings::{Form, Setting};
use serde::{Deserialize, Serialize};

use crate::codec::{Qos, Shared, check_filter, split_shared};

/// What is shown in place of a password.
const MASK: &str = "***";
/// Beginnings of filters and topics that are functions of a server.
const FUNCTIONS: [&str; 3] = ["$queue/", "$exclusive/", "$delayed/"];

/// Bound of the bridges of a broker.
pub const BRIDGES_MAX: usize = 100;
/// Bound of the topics of a bridge.
const TOPICS_MAX: usize = 1000;
/// Bytes of a name.
const NAME_BYTES_MAX: usize = 128;

/// The protocol version that a bridge speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum BridgeVersion {
    /// MQTT 3.1.1.
    #[serde(rename = "3.1.1")]
    V311,
    /// MQTT 5.
    #[default]
    #[serde(rename = "5")]
    V5,
}

/// Which way messages go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From this broker to the other server.
    #[default]
    Out,
    /// From the other server to this broker.
    In,
    /// Both.
    Both,
}

/// Topics that a bridge carries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BridgeTopic {
    /// A topic filter without the prefixes. Empty: the two prefixes are the topics.
    pub filter: String,
    /// Which way.
    pub direction: Direction,
    /// The highest QoS: 0 to 2.
    pub qos: u8,
    /// What precedes the filter on this broker.
    pub local_prefix: String,
    /// What precedes the filter on the other server.
    pub remote_prefix: String,
}

/// TLS of a bridge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BridgeTls {
    /// A file of the authorities that are trusted; empty: those of the system.
    pub ca: String,
    /// A file of the certificate chain that the bridge shows; empty: none.
    pub cert: String,
    /// The file of its private key.
    pub key: String,
}

/// A password, which is not shown by accident.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BridgePassword(pub String);

impl std::fmt::Debug for BridgePassword {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_empty() { "none" } else { MASK })
    }
}

/// A bridge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BridgeSpec {
    /// Its name.
    pub name: String,
    /// `host:port` of the other server; several, separated by spaces, are tried in turn.
    pub address: String,
    /// The protocol version.
    pub version: BridgeVersion,
    /// TLS; none: plain TCP.
    pub tls: Option<BridgeTls>,
    /// Its client id at the other server. Empty: `inver-NAME`.
    pub client_id: String,
    /// Its user name at the other server; empty: none.
    pub user: String,
    /// The password.
    pub password: BridgePassword,
    /// Whether the other server forgets the bridge when the connection ends.
    pub clean_start: bool,
    /// Seconds that the other server keeps what waits for the bridge (MQTT 5); the default is for ever.
    pub session_expiry_s: u32,
    /// Seconds; 0: none.
    pub keep_alive_s: u16,
    /// QoS 1 and 2 messages that are under way at a time, each way.
    pub inflight_max: u16,
    /// Seconds until the first attempt to connect again; the time doubles with each attempt.
    pub retry_s_min: u16,
    /// The longest time between two attempts.
    pub retry_s_max: u16,
    /// Whether the state of the bridge is published as a retained `1` or `0`.
    pub notifications: bool,
    /// Whether that is published on this broker alone.
    pub notifications_local_only: bool,
    /// Where it is published. Empty: `$SYS/broker/connection/CLIENT_ID/state`.
    pub notification_topic: String,
    /// Before MQTT 5: whether the bridge says that it is one, so that it does not get its own messages back.
    pub private: bool,
    /// Whether messages keep their retain flag on their way out.
    pub retain: bool,
    /// The user of this broker that it acts as. Empty: an anonymous client on this machine.
    pub local_user: String,
    /// The client id of its session on this broker. Empty: `bridge-NAME`.
    pub local_client_id: String,
    /// The namespace of this broker.
    pub namespace: String,
    /// What it carries. Of several that a topic matches, the first counts.
    pub topics: Vec<BridgeTopic>,
}

impl Default for BridgeSpec {
    fn default() -> BridgeSpec {
        BridgeSpec {
            name: String::new(),
            address: String::new(),
            version: BridgeVersion::V5,
            tls: None,
            client_id: String::new(),
            user: String::new(),
            password: BridgePassword::default(),
            clean_start: false,
            session_expiry_s: u32::MAX,
            keep_alive_s: 60,
            inflight_max: 20,
            retry_s_min: 1,
            retry_s_max: 30,
            notifications: true,
            notifications_local_only: true,
            notification_topic: String::new(),
            private: true,
            retain: true,
            local_user: String::new(),
            local_client_id: String::new(),
            namespace: "/".to_owned(),
            topics: Vec::new(),
        }
    }
}

impl BridgeSpec {
    /// Fills in what follows from the name, and checks everything.
    ///
    /// # Errors
    /// What is wrong, as a sentence.
    pub fn complete(mut self) -> Result<BridgeSpec, String> {
        let or = |value: &mut String, default: String| {
            if value.is_empty() {
                *value = default;
            }
        };
        or(&mut self.client_id, format!("inver-{}", self.name));
        or(&mut self.local_client_id, format!("bridge-{}", self.name));
        or(&mut self.notification_topic, format!("$SYS/broker/connection/{}/state", self.client_id));
        self.check().map_err(|what| format!("bridge `{}`: {what}", self.name))?;
        Ok(self)
    }

    /// As it is shown: without the password.
    #[must_use]
    pub fn masked(&self) -> BridgeSpec {
        let mut masked = self.clone();
        if !masked.password.0.is_empty() {
            MASK.clone_into(&mut masked.password.0);
        }
        masked
    }

    /// Takes the password of the former bridge if this one has a masked one, as it was shown.
    pub fn unmask(&mut self, former: &BridgeSpec) {
        if self.is_masked() {
            self.password = former.password.clone();
        }
    }

    /// Whether the password is the one of what is shown.
    #[must_use]
    pub fn is_masked(&self) -> bool {
        self.password.0 == MASK
    }

    /// Whether both have the same session on this broker.
    #[must_use]
    pub fn shares_session(&self, other: &BridgeSpec) -> bool {
        (&self.namespace, &self.local_client_id) == (&other.namespace, &other.local_client_id)
    }

    fn check(&self) -> Result<(), String> {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if self.name.is_empty() || self.name.len() > NAME_BYTES_MAX || !self.name.bytes().all(is_word) {
            return Err(format!("a name has 1 to {NAME_BYTES_MAX} letters, digits and characters of `-_.`"));
        }
        if self.addresses().next().is_none() {
            return Err("`address` is missing: host:port of the other server".into());
        }
        for address in self.addresses() {
            let port = address
                .rsplit_once(':')
                .and_then(|(host, port)| (!host.is_empty()).then(|| port.parse::<u16>().ok())?);
            if port.is_none_or(|port| port == 0) {
                return Err(format!("`{address}` is no host:port"));
            }
        }
        if self.inflight_max == 0 || self.retry_s_min == 0 || self.retry_s_max < self.retry_s_min {
            return Err("`inflight_max` and `retry_s_min` are at least 1, `retry_s_max` is no less".into());
        }
        if let Some(tls) = &self.tls
            && tls.cert.is_empty() != tls.key.is_empty()
        {
            return Err("`tls.cert` and `tls.key` are given together".into());
        }
        let texts = [
            &self.client_id,
            &self.user,
            &self.password.0,
            &self.local_user,
            &self.local_client_id,
            &self.notification_topic,
        ];
        if texts.iter().any(|text| text.len() > usize::from(u16::MAX) || text.contains('\0')) {
            return Err("a text is longer than 65,535 bytes, or has a NUL".into());
        }
        if self.notification_topic.contains(['+', '#']) {
            return Err("`notification_topic` is a topic without wildcards".into());
        }
        if self.topics.is_empty() || self.topics.len() > TOPICS_MAX {
            return Err(format!("`topics` has 1 to {TOPICS_MAX} entries"));
        }
        self.topics.iter().try_for_each(BridgeTopic::check)
    }

    /// The addresses in turn.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = &str> {
        self.address.split_whitespace()
    }
}

impl BridgeTopic {
    fn check(&self) -> Result<(), String> {
        if self.qos > 2 {
            return Err(format!("topic `{}`: the QoS is 0, 1 or 2", self.filter));
        }
        for (prefix, filter) in
            [(&self.local_prefix, self.local_filter()), (&self.remote_prefix, self.remote_filter())]
        {
            let is_filter = check_filter(&filter).is_ok()
                && split_shared(&filter) == Shared::No
                && filter.len() <= usize::from(u16::MAX)
                && !filter.contains('\0')
                && !FUNCTIONS.iter().any(|function| filter.starts_with(function));
            if !is_filter || prefix.contains(['+', '#']) {
                return Err(format!("`{filter}` is no topic filter behind a prefix without wildcards"));
            }
        }
        Ok(())
    }

    /// The filter on this broker.
    pub(crate) fn local_filter(&self) -> String {
        format!("{}{}", self.local_prefix, self.filter)
    }

    /// The filter on the other server.
    pub(crate) fn remote_filter(&self) -> String {
        format!("{}{}", self.remote_prefix, self.filter)
    }

    /// Its QoS.
    pub(crate) fn qos(&self) -> Qos {
        Qos::from_bits(self.qos).unwrap_or_default()
    }
}

/// The bridges of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfiguredBridges(pub Vec<BridgeSpec>);

impl Setting for ConfiguredBridges {
    const FORM: Form = Form::Structured;

    fn read<'de, D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        let all: Vec<BridgeSpec> = Vec::deserialize(value)?;
        if all.len() > BRIDGES_MAX {
            return Err(D::Error::custom(format_args!("more than {BRIDGES_MAX} bridges")));
        }
        let mut complete: Vec<BridgeSpec> = Vec::with_capacity(all.len());
        for spec in all {
            let spec = spec.complete().map_err(D::Error::custom)?;
            if complete.iter().any(|other| other.name == spec.name) {
                return Err(D::Error::custom(format_args!("two bridges have the name `{}`", spec.name)));
            }
            if let Some(other) = complete.iter().find(|other| other.shares_session(&spec)) {
                let (name, other, id) = (&spec.name, &other.name, &spec.local_client_id);
                return Err(D::Error::custom(format_args!(
                    "the bridges `{other}` and `{name}` have the same `local_client_id`, `{id}`"
                )));
            }
            complete.push(spec);
        }
        Ok(ConfiguredBridges(complete))
    }

    fn show(&self) -> String {
        let all: Vec<BridgeSpec> = self.0.iter().map(BridgeSpec::masked).collect();
        serde_json::to_string(&all).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> BridgeSpec {
        let topic = BridgeTopic { filter: "a/#".into(), ..BridgeTopic::default() };
        BridgeSpec { name: "b".into(), address: "h:1883".into(), topics: vec![topic], ..Default::default() }
    }

    #[test]
    fn what_follows_from_the_name_is_filled_in() {
        let complete = spec().complete().unwrap();
        assert_eq!((&*complete.client_id, &*complete.local_client_id), ("inver-b", "bridge-b"));
        assert_eq!(complete.notification_topic, "$SYS/broker/connection/inver-b/state");
    }

    #[test]
    fn a_password_is_masked_and_a_masked_one_stays() {
        let known = BridgeSpec { password: BridgePassword("secret".into()), ..spec() };
        assert!(!format!("{known:?}").contains("secret"));
        let mut again = known.masked();
        assert_eq!(again.password.0, "***");
        assert!(again.is_masked());
        again.unmask(&known);
        assert_eq!(again, known);
        assert!(spec().masked().password.0.is_empty());
    }

    #[test]
    fn two_bridges_do_not_share_a_session() {
        let read = |second: &str| {
            let entry = |name, id| {
                format!(
                    r#"{{"name":"{name}","local_client_id":"{id}","address":"h:1","topics":[{{"filter":"a"}}]}}"#
                )
            };
            let all = format!("[{},{}]", entry("a", ""), entry("b", second));
            ConfiguredBridges::read(&mut serde_json::Deserializer::from_str(&all))
        };
        assert!(read("").is_ok());
        assert!(read("bridge-a").unwrap_err().to_string().contains("`bridge-a`"));
    }

    /// Bridges over HTTP are stored so.
    #[test]
    fn kept_rows_stay_readable() {
        let row = r#"{"name":"b","address":"h:1883","version":"3.1.1","tls":{"ca":"c","cert":"","key":""},"client_id":"inver-b",
            "user":"u","password":"p","clean_start":false,"session_expiry_s":4294967295,"keep_alive_s":60,"inflight_max":20,
            "retry_s_min":1,"retry_s_max":30,"notifications":true,"notifications_local_only":true,
            "notification_topic":"$SYS/broker/connection/inver-b/state","private":true,"retain":true,"local_user":"",
            "local_client_id":"bridge-b","namespace":"/","topics":[{"filter":"a/#","direction":"both","qos":1,
            "local_prefix":"","remote_prefix":"r/"}]}"#;
        let kept: BridgeSpec = serde_json::from_str(row).unwrap();
        let topics = vec![BridgeTopic {
            filter: "a/#".into(),
            direction: Direction::Both,
            qos: 1,
            remote_prefix: "r/".into(),
            ..BridgeTopic::default()
        }];
        let expected = BridgeSpec {
            version: BridgeVersion::V311,
            tls: Some(BridgeTls { ca: "c".into(), ..BridgeTls::default() }),
            user: "u".into(),
            password: BridgePassword("p".into()),
            topics,
            ..spec()
        };
        assert_eq!(kept, expected.complete().unwrap());
    }

    #[test]
    fn what_cannot_work_is_refused() {
        let topic = |filter: &str, local: &str, qos| BridgeTopic {
            filter: filter.into(),
            local_prefix: local.into(),
            qos,
            ..BridgeTopic::default()
        };
        for bad in [
            BridgeSpec { name: "a b".into(), ..spec() },
            BridgeSpec { address: "host".into(), ..spec() },
            BridgeSpec { address: String::new(), ..spec() },
            BridgeSpec { address: "h:0".into(), ..spec() },
            BridgeSpec { topics: Vec::new(), ..spec() },
            BridgeSpec { topics: vec![topic("a/#/b", "", 0)], ..spec() },
            BridgeSpec { topics: vec![topic("#", "+/", 0)], ..spec() },
            BridgeSpec { topics: vec![topic("", "l", 0)], ..spec() },
            BridgeSpec { topics: vec![topic("a", "", 3)], ..spec() },
            BridgeSpec { topics: vec![topic("$share/g/a", "", 1)], ..spec() },
            BridgeSpec { topics: vec![topic("$queue/a", "", 1)], ..spec() },
            BridgeSpec { topics: vec![topic("a", "$exclusive/", 1)], ..spec() },
            BridgeSpec { topics: vec![topic("5/a", "$delayed/", 1)], ..spec() },
            BridgeSpec { inflight_max: 0, ..spec() },
            BridgeSpec { retry_s_min: 9, retry_s_max: 8, ..spec() },
            BridgeSpec { notification_topic: "a/#".into(), ..spec() },
            BridgeSpec { tls: Some(BridgeTls { cert: "c".into(), ..Default::default() }), ..spec() },
        ] {
            assert!(bad.clone().complete().is_err(), "{bad:?}");
        }
        let several = BridgeSpec { address: "a:1 b:2 [::1]:3".into(), ..spec() };
        assert!(several.complete().is_ok());
    }
}
