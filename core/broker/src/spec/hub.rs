//! How a log topic takes part in the hub under its own name.

use super::topic::{TopicConfig, TopicError, TopicKind, check_flag, is_true};

/// The setting of a topic.
pub(crate) const SETTING: &str = "inver.hub";

/// The setting of a topic for retained values.
const RETAIN: &str = "inver.hub.retain";

/// Whether the records of a topic that name their address set retained values there, if their header for that says so.
pub(crate) fn retains(config: &TopicConfig) -> bool {
    is_true(config, RETAIN)
}

/// How a log topic takes part in the hub at the address of its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HubMode {
    /// With those who name it: publishes at its address are appended to it, and its records go to bindings without
    /// wildcards.
    #[default]
    Named,
    /// With bindings by wildcards too.
    Open,
    /// Not at all.
    Off,
}

impl HubMode {
    /// Every mode.
    pub const ALL: [HubMode; 3] = [HubMode::Named, HubMode::Open, HubMode::Off];

    /// The name that users read and write.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            HubMode::Named => "named",
            HubMode::Open => "open",
            HubMode::Off => "off",
        }
    }

    /// The mode of a topic that is created with this name and without a setting, where `default` is the broker's.
    #[must_use]
    pub fn default_of(name: &str, default: HubMode) -> HubMode {
        if is_internal(name) { HubMode::Off } else { default }
    }

    /// The mode of a topic. The name of a queue is no address in the hub; it takes part only with records that name
    /// their address.
    pub(crate) fn of(name: &str, kind: TopicKind, config: &TopicConfig, default: HubMode) -> HubMode {
        let set = config.get(SETTING).and_then(|value| value.trim().parse().ok());
        match (kind, set) {
            (_, Some(HubMode::Off)) => HubMode::Off,
            (TopicKind::Queue, _) => HubMode::Named,
            (TopicKind::Log, _) if is_internal(name) => HubMode::Off,
            (TopicKind::Log, set) => set.unwrap_or(default),
        }
    }
}

impl std::str::FromStr for HubMode {
    type Err = ();

    fn from_str(s: &str) -> Result<HubMode, ()> {
        HubMode::ALL.into_iter().find(|mode| mode.as_str() == s).ok_or(())
    }
}

/// Checks the setting of a topic of this name.
pub(crate) fn check(name: &str, config: &TopicConfig) -> Result<(), TopicError> {
    check_flag(config, RETAIN)?;
    let Some(value) = config.get(SETTING) else { return Ok(()) };
    match value.trim().parse() {
        Ok(HubMode::Named | HubMode::Open) if is_internal(name) => Err(TopicError::BadConfig(format!(
            "'{name}' is the name of an internal topic, whose {SETTING} is always off"
        ))),
        Ok(_) => Ok(()),
        Err(()) => Err(TopicError::BadConfig(format!("{SETTING} is named, open or off, not '{value}'"))),
    }
}

/// Whether a topic of this name holds the state of a tool and not messages of applications: names that begin with `_`
/// or `.` (offsets, schemas), topics of mirroring, of stream processing (`<application>-<store>-changelog`), and the
/// three topics of connector workers.
fn is_internal(name: &str) -> bool {
    const ENDINGS: [&str; 6] = [
        ".internal",
        "-internal",
        "-changelog",
        "-repartition",
        "-subscription-registration-topic",
        "-subscription-response-topic",
    ];
    name.starts_with(['_', '.'])
        || ENDINGS.iter().any(|ending| name.ends_with(ending))
        || is_of_connector_worker(name)
}

/// `connect-configs`, `connect-offsets` and `connect-status`, with any prefix, any other part in between, and `_` for `-`.
fn is_of_connector_worker(name: &str) -> bool {
    const PARTS: [&str; 3] = ["configs", "offsets", "status"];
    let Some((rest, last)) = name.rsplit_once(['-', '_']) else { return false };
    PARTS.contains(&last) && rest.split(['-', '_']).any(|part| part == "connect")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(value: &str) -> TopicConfig {
        TopicConfig::from([(SETTING.to_owned(), value.to_owned())])
    }

    #[test]
    fn topics_of_tools_are_internal() {
        for name in [
            "_schemas",
            "__consumer_offsets",
            "connect-configs",
            "connect-offsets",
            "connect-status",
            "docker-connect-configs",
            "connect-cluster-offsets",
            "my_connect_statuses_connect_status",
            "mm2-configs.source.internal",
            "source.checkpoints.internal",
            "app-KSTREAM-AGGREGATE-STATE-STORE-0000000003-changelog",
            "app-KSTREAM-AGGREGATE-STATE-STORE-0000000003-repartition",
            "app-KTABLE-FK-JOIN-SUBSCRIPTION-REGISTRATION-0000000006-topic-subscription-registration-topic",
        ] {
            assert!(is_internal(name), "{name}");
        }
        for name in [
            "orders",
            "a._b",
            "device.connect.status",
            "door-status",
            "disconnect-status",
            "connect",
            "changelog",
            "internal",
        ] {
            assert!(!is_internal(name), "{name}");
        }
    }

    #[test]
    fn the_mode_is_the_topics_own_then_the_default_and_off_for_internal_topics() {
        let of = |name, value: &str, default| HubMode::of(name, TopicKind::Log, &config(value), default);
        assert_eq!(of("t", "open", HubMode::Off), HubMode::Open);
        assert_eq!(of("t", "off", HubMode::Open), HubMode::Off);
        assert_eq!(of("t", "", HubMode::Open), HubMode::Open);
        assert_eq!(of("_t", "open", HubMode::Open), HubMode::Off);
        assert_eq!(HubMode::default_of("_t", HubMode::Open), HubMode::Off);
        assert_eq!(HubMode::default_of("t", HubMode::Open), HubMode::Open);
        let queue = |value: &str| HubMode::of("_q", TopicKind::Queue, &config(value), HubMode::Open);
        assert_eq!((queue(""), queue("open"), queue("off")), (HubMode::Named, HubMode::Named, HubMode::Off));
    }

    #[test]
    fn a_setting_without_effect_is_refused() {
        assert!(check("t", &config("open")).is_ok());
        assert!(check("t", &TopicConfig::new()).is_ok());
        assert!(check("_t", &config("off")).is_ok());
        assert!(check("_t", &config("named")).is_err());
        assert!(check("t", &config("Open")).is_err());
        let retain = |value: &str| TopicConfig::from([(RETAIN.to_owned(), value.to_owned())]);
        assert!(check("t", &retain("yes")).is_err() && check("t", &retain("true")).is_ok());
        assert!(retains(&retain("true")) && !retains(&retain("false")) && !retains(&TopicConfig::new()));
    }
}
