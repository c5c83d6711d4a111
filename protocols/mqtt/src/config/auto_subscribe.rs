//! Subscriptions that the server makes for every client when it connects.

use inver_settings::serde::Deserializer;
use inver_settings::serde::de::Error;
use inver_settings::{Form, Setting};
use serde::Deserialize;

use super::template;

/// Bound of the subscriptions.
const SUBSCRIPTIONS_MAX: usize = 100;

/// A subscription.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AutoSubscription {
    /// The filter, a template.
    pub filter: String,
    /// The QoS: 0 to 2.
    #[serde(default)]
    pub qos: u8,
    /// No Local.
    #[serde(default)]
    pub no_local: bool,
    /// Retain As Published.
    #[serde(default)]
    pub retain_as_published: bool,
    /// Retain Handling: 0 to 2.
    #[serde(default)]
    pub retain_handling: u8,
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AutoSubscriptions(pub Vec<AutoSubscription>);

impl Setting for AutoSubscriptions {
    const FORM: Form = Form::Structured;

    fn read<'de, D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        let all: Vec<AutoSubscription> = Vec::deserialize(value)?;
        if all.len() > SUBSCRIPTIONS_MAX {
            return Err(D::Error::custom(format_args!("more than {SUBSCRIPTIONS_MAX} subscriptions")));
        }
        for AutoSubscription { filter, qos, retain_handling, .. } in &all {
            template::check(filter, 0).map_err(D::Error::custom)?;
            if *qos > 2 || *retain_handling > 2 {
                return Err(D::Error::custom("qos and retain_handling are 0, 1 or 2"));
            }
        }
        Ok(AutoSubscriptions(all))
    }

    fn show(&self) -> String {
        let all = self.0.iter().map(|one| {
            format!(
                "{{ filter = {:?}, qos = {}, no_local = {}, retain_as_published = {}, retain_handling = {} }}",
                one.filter, one.qos, one.no_local, one.retain_as_published, one.retain_handling
            )
        });
        format!("[{}]", all.collect::<Vec<_>>().join(", "))
    }
}
