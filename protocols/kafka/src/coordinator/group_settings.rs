//! Settings of groups that clients set, as resources of the type GROUP: those of share groups (KIP-932, KIP-1240).
//!
//! Owns their names, the check of their values, and what they mean for a group. The rows are the coordinator's.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "the macro declares structures for a public codec; these are for this module only"
)]

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::row::{RowError, decode, encode};
use crate::codec::messages::messages;
use crate::codec::text::Str;
use crate::config::GroupLimits;

messages! {
    /// The row of a group's settings.
    pub struct GroupSettingsRow {
        settings: Vec<SettingRow> [1..],
    }

    /// A setting.
    pub struct SettingRow {
        name: Str [1..],
        value: Str [1..],
    }
}

/// Types of settings in DescribeConfigs.
mod kind {
    pub(super) const BOOLEAN: i8 = 1;
    pub(super) const STRING: i8 = 2;
    pub(super) const INT: i8 = 3;
}

/// The prefix of a time before now at which a group starts.
const BY_DURATION: &str = "by_duration:";

/// The settings that are set on a group, by name.
pub(crate) type GroupValues = BTreeMap<String, String>;

/// Where a group starts on a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ShareStart {
    /// At the first record.
    Earliest,
    /// At the next record.
    Latest,
    /// At the first record that is not older.
    Ago(Duration),
}

/// What the settings of a share group mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShareSettings {
    pub(crate) session_timeout: Duration,
    pub(crate) heartbeat_interval: Duration,
    pub(crate) lock_duration: Duration,
    pub(crate) deliveries_max: u32,
    pub(crate) locks_max: u32,
    pub(crate) start: ShareStart,
    pub(crate) renews: bool,
}

/// A setting of groups.
pub(crate) struct GroupSetting {
    pub(crate) name: &'static str,
    /// Type code in DescribeConfigs.
    pub(crate) config_type: i8,
    pub(crate) documentation: &'static str,
    default: fn(&GroupLimits) -> String,
    /// Sets it; none if the value is not valid.
    set: fn(&mut ShareSettings, &str) -> Option<()>,
    /// What values are valid.
    valid: &'static str,
}

impl GroupSetting {
    /// The value of a group that has none.
    pub(crate) fn default(&self, limits: &GroupLimits) -> String {
        (self.default)(limits)
    }
}

fn milliseconds(text: &str, min: u64, max: u64) -> Option<Duration> {
    let value = text.trim().parse::<u64>().ok().filter(|value| (min..=max).contains(value))?;
    Some(Duration::from_millis(value))
}

fn number(text: &str, min: u32, max: u32) -> Option<u32> {
    text.trim().parse().ok().filter(|value| (min..=max).contains(value))
}

fn shown(duration: Duration) -> String {
    duration.as_millis().to_string()
}

/// The settings, by name. Their bounds are those of Kafka's default configuration.
pub(crate) const SETTINGS: [GroupSetting; 8] = [
    GroupSetting {
        name: "share.auto.offset.reset",
        config_type: kind::STRING,
        documentation: "Where the group starts on a topic that it had no position on.",
        default: |_| "latest".to_owned(),
        set: |of, text| {
            of.start = start(text)?;
            Some(())
        },
        valid: "one of latest, earliest, by_duration:PnDTnHnMn.nS",
    },
    GroupSetting {
        name: "share.delivery.count.limit",
        config_type: kind::INT,
        documentation: "How often a record is delivered before it is given up.",
        default: |limits| limits.share_deliveries_max.to_string(),
        set: |of, text| {
            of.deliveries_max = number(text, 2, 10)?;
            Some(())
        },
        valid: "between 2 and 10",
    },
    GroupSetting {
        name: "share.heartbeat.interval.ms",
        config_type: kind::INT,
        documentation: "Time between heartbeats of members.",
        default: |limits| shown(limits.share_heartbeat_interval),
        set: |of, text| {
            of.heartbeat_interval = milliseconds(text, 5000, 15_000)?;
            Some(())
        },
        valid: "between 5000 and 15000",
    },
    GroupSetting {
        name: "share.isolation.level",
        config_type: kind::STRING,
        documentation: "Kept and described; records of transactions are delivered once they are committed, whatever it is.",
        default: |_| "read_committed".to_owned(),
        set: |_, text| matches!(text.trim(), "read_committed" | "read_uncommitted").then_some(()),
        valid: "one of read_committed, read_uncommitted",
    },
    GroupSetting {
        name: "share.partition.max.record.locks",
        config_type: kind::INT,
        documentation: "Records of a partition that members hold at a time.",
        default: |limits| limits.share_record_locks_max.to_string(),
        set: |of, text| {
            of.locks_max = number(text, 100, 4000)?;
            Some(())
        },
        valid: "between 100 and 4000",
    },
    GroupSetting {
        name: "share.record.lock.duration.ms",
        config_type: kind::INT,
        documentation: "Time after which a record that a member did not acknowledge is given to others.",
        default: |limits| shown(limits.share_record_lock_duration),
        set: |of, text| {
            of.lock_duration = milliseconds(text, 15_000, 60_000)?;
            Some(())
        },
        valid: "between 15000 and 60000",
    },
    GroupSetting {
        name: "share.renew.acknowledge.enable",
        config_type: kind::BOOLEAN,
        documentation: "Whether members may renew their hold on records.",
        default: |_| "true".to_owned(),
        set: |of, text| {
            of.renews = text.trim().to_ascii_lowercase().parse().ok()?;
            Some(())
        },
        valid: "true or false",
    },
    GroupSetting {
        name: "share.session.timeout.ms",
        config_type: kind::INT,
        documentation: "Time without a heartbeat after which a member is removed.",
        default: |limits| shown(limits.share_session_timeout),
        set: |of, text| {
            of.session_timeout = milliseconds(text, 45_000, 60_000)?;
            Some(())
        },
        valid: "between 45000 and 60000",
    },
];

impl ShareSettings {
    /// Those of a group without settings of its own.
    pub(crate) fn new(limits: &GroupLimits) -> ShareSettings {
        ShareSettings {
            session_timeout: limits.share_session_timeout,
            heartbeat_interval: limits.share_heartbeat_interval,
            lock_duration: limits.share_record_lock_duration,
            deliveries_max: limits.share_deliveries_max,
            locks_max: limits.share_record_locks_max,
            start: ShareStart::Latest,
            renews: true,
        }
    }

    /// Those of a group with these values.
    ///
    /// # Errors
    /// What is wrong with a name or a value, in Kafka's words.
    pub(crate) fn of(limits: &GroupLimits, values: &GroupValues) -> Result<ShareSettings, String> {
        let mut settings = ShareSettings::new(limits);
        for (name, value) in values {
            let setting = SETTINGS.iter().find(|setting| setting.name == name);
            let setting = setting.ok_or_else(|| format!("Unknown group config name: {name}"))?;
            (setting.set)(&mut settings, value).ok_or_else(|| {
                format!("Invalid value {value} for configuration {name}: Value must be {}", setting.valid)
            })?;
        }
        Ok(settings)
    }
}

/// Where a group starts.
fn start(text: &str) -> Option<ShareStart> {
    match text.trim() {
        "earliest" => Some(ShareStart::Earliest),
        "latest" => Some(ShareStart::Latest),
        other => duration(other.strip_prefix(BY_DURATION)?).map(ShareStart::Ago),
    }
}

/// A duration in the form of ISO 8601 that Java's `Duration` reads, without signs: `PnDTnHnMn.nS`.
fn duration(text: &str) -> Option<Duration> {
    let (days, times) = match text.strip_prefix(['P', 'p'])?.split_once(['T', 't']) {
        Some((_, "")) => return None,
        Some((days, times)) => (days, times),
        None => (text.get(1..)?, ""),
    };
    if days.is_empty() && times.is_empty() {
        return None;
    }
    let mut seconds = 0.0;
    for (mut rest, units) in
        [(days, &[('D', 86_400.0)][..]), (times, &[('H', 3600.0), ('M', 60.0), ('S', 1.0)])]
    {
        for (unit, factor) in units {
            if let Some((number, after)) = rest.split_once([*unit, unit.to_ascii_lowercase()]) {
                let is_number = !number.is_empty()
                    && number.chars().all(|c| c.is_ascii_digit() || c == '.' && *unit == 'S');
                seconds += number.parse::<f64>().ok().filter(|_| is_number)? * factor;
                rest = after;
            }
        }
        if !rest.is_empty() {
            return None;
        }
    }
    Duration::try_from_secs_f64(seconds).ok()
}

/// The row of a group's settings.
pub(super) fn row(values: &GroupValues) -> Bytes {
    let setting = |(name, value): (&String, &String)| SettingRow {
        name: Str::from(name.as_str()),
        value: Str::from(value.as_str()),
    };
    encode(&GroupSettingsRow { settings: values.iter().map(setting).collect() })
}

/// The settings of a stored row.
pub(super) fn of_row(row: Bytes) -> Result<GroupValues, RowError> {
    let row: GroupSettingsRow = decode(row)?;
    Ok(row.settings.into_iter().map(|of| (of.name.to_string(), of.value.to_string())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_java_reads_them() {
        let read = |text| duration(text).map(|duration| duration.as_millis());
        assert_eq!(read("PT1H30M"), Some(5_400_000));
        assert_eq!(read("P2DT3.5S"), Some(172_803_500));
        assert_eq!(read("P1D"), Some(86_400_000));
        assert_eq!(read("pt5m"), Some(300_000));
        for wrong in [
            "",
            "P",
            "PT",
            "P1DT",
            "1H",
            "PT1X",
            "PT-1S",
            "PT1M1H",
            "PT1.5H",
            "PT1e3S",
            "PTS",
            "PT99999999999999999999999S",
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn values_are_checked_and_kept() {
        let limits = GroupLimits::default();
        let values = |name: &str, value: &str| GroupValues::from([(name.to_owned(), value.to_owned())]);
        for setting in &SETTINGS {
            let default = values(setting.name, &setting.default(&limits));
            assert_eq!(
                ShareSettings::of(&limits, &default),
                Ok(ShareSettings::new(&limits)),
                "{}",
                setting.name
            );
            assert!(ShareSettings::of(&limits, &values(setting.name, "x")).is_err(), "{}", setting.name);
            assert_eq!(of_row(row(&default)).unwrap(), default);
        }
        let settings =
            ShareSettings::of(&limits, &values("share.auto.offset.reset", "by_duration:PT1M")).unwrap();
        assert_eq!(settings.start, ShareStart::Ago(Duration::from_secs(60)));
        // Data folders have it.
        let kept = b"\x01\x02\x1bshare.delivery.count.limit\x022\0\0";
        assert_eq!(&row(&values("share.delivery.count.limit", "2"))[..], kept);
        let unknown = ShareSettings::of(&limits, &values("share.nothing", "1"));
        assert_eq!(unknown.unwrap_err(), "Unknown group config name: share.nothing");
        assert!(SETTINGS.is_sorted_by_key(|setting| setting.name));
    }
}
