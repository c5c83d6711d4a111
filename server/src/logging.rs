//! The log: its form, its filter, and the line that says what was started.

use std::path::Path;

use inver_broker::AccessControl;
use inver_settings::Setting;
use tracing::info;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

use crate::config::{Config, ListenerEntry, LogFormat};
use crate::log_lines::OneLine;

/// The filter of the log's lines, which can be changed while the broker runs.
#[derive(Clone)]
pub(crate) struct LogFilter(reload::Handle<Targets, Registry>);

impl LogFilter {
    /// A filter of a log that is not written.
    #[cfg(test)]
    pub(crate) fn unused() -> LogFilter {
        // The handle outlives its layer: setting it fails.
        LogFilter(reload::Layer::new(Targets::new()).1)
    }

    /// The filter as text.
    pub(crate) fn get(&self) -> String {
        self.0.with_current(ToString::to_string).unwrap_or_default()
    }

    /// Changes which lines are written from now on.
    pub(crate) fn set(&self, filter: &Targets) {
        // Fails only when the process ends.
        let _ = self.0.reload(filter.clone());
    }
}

/// Writes the log of this process to standard error from now on.
pub(crate) fn install(config: &Config) -> LogFilter {
    let lines = tracing_subscriber::fmt::layer().with_writer(|| OneLine(std::io::stderr()));
    let lines = match config.logging.format {
        LogFormat::Text => lines.with_ansi(false).boxed(),
        LogFormat::Json => {
            lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
        }
    };
    let (filter, handle) = reload::Layer::new(config.logging.filter.0.clone());
    tracing_subscriber::registry().with(filter).with(lines).init();
    LogFilter(handle)
}

/// Says what is started, and from what.
pub(crate) fn log_start(config: &Config, file: Option<&Path>) {
    info!(
        version = env!("CARGO_PKG_VERSION"),
        config_file = file.map(tracing::field::debug),
        data_dir = ?config.general.data_dir,
        commit = config.log.commit.show(),
        listeners = listeners(config),
        "starting"
    );
}

/// Which clients are let in: those that log in as one of so many users, or only those on this machine.
pub(crate) fn shown_access(access: &AccessControl) -> String {
    match access.users().len() {
        0 => "loopback only".to_owned(),
        1 => "1 user".to_owned(),
        users => format!("{users} users"),
    }
}

/// The configured listeners: `amqp=127.0.0.1:5672 http=…`.
fn listeners(config: &Config) -> String {
    let entries = config.listeners();
    let shown = entries.iter().flat_map(|ListenerEntry { settings, .. }| {
        settings.address.0.iter().map(|address| format!("{}={address}", settings.name))
    });
    shown.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_line_names_all_listeners_that_are_on() {
        let text = listeners(&Config::default());
        let expected = "kafka=127.0.0.1:9092 mqtt=127.0.0.1:1883 mqtt-websocket=127.0.0.1:8083 amqp=127.0.0.1:5672 \
                        stream=127.0.0.1:5552 http=127.0.0.1:15672";
        let sorted = |text: &str| {
            let mut parts: Vec<String> = text.split(' ').map(str::to_owned).collect();
            parts.sort();
            parts
        };
        assert_eq!(sorted(&text), sorted(expected));
    }
}
