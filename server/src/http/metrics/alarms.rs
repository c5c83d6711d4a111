//! Alarms: states in which the broker still runs and an operator must act.

use std::fmt::Write;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use inver_storage::{BackgroundTask, Shortage};

use super::text::{Exposition, Kind, Samples};
use crate::http::App;
use crate::memory::available_bytes;

/// Share of a limit from which on memory and open files are an alarm.
const NEARLY_FULL: f64 = 0.9;

/// Wait of an entry for its commit from which on there is an alarm.
const STALLED_AFTER: Duration = Duration::from_secs(2);

/// The alarms that there are.
const NAMES: [&str; 12] = [
    "disk_low",
    "memory_high",
    "memory_low",
    "files_low",
    "connections_full",
    "log_behind",
    "log_stalled",
    "checkpoint_failed",
    "checkpoint_copy_failed",
    "maintenance_failed",
    "log_failed",
    "messages_damaged",
];

/// An alarm that is on.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Alarm {
    name: &'static str,
    /// What is the case, with figures.
    text: String,
}

impl Alarm {
    /// Its name, and what is the case.
    pub(super) fn into_parts(self) -> (&'static str, String) {
        (self.name, self.text)
    }
}

/// The alarms that are on. `samples`: what the recorder has.
pub(super) fn active(app: &App, samples: &Samples<'_>) -> Vec<Alarm> {
    let monitored = &app.node.monitored;
    let mut active = Vec::new();
    let mut raise = |name, text| active.push(Alarm { name, text });
    let log = app.broker.log();
    if log.gate().is_short(Shortage::Disk) {
        let (free, min) = log.free_bytes().unwrap_or_default();
        let text = format!("{free} bytes are free, log.free_bytes_min is {min}: publishers are held back");
        raise("disk_low", text);
    }
    let resident = samples.sum("process_resident_memory_bytes", &[]);
    if let Some(limit) = available_bytes()
        && resident > limit as f64 * NEARLY_FULL
    {
        raise("memory_high", format!("{resident} bytes are used, the limit is {limit}"));
    }
    if log.gate().is_short(Shortage::Memory) {
        let (used, limit) = log.memory().total();
        raise(
            "memory_low",
            format!("{used} bytes are held for clients, memory.limit is {limit}: publishers are held back"),
        );
    }
    let (open, max) = (samples.sum("process_open_fds", &[]), samples.sum("process_max_fds", &[]));
    if max > 0.0 && open > max * NEARLY_FULL {
        raise("files_low", format!("{open} files are open, the limit is {max}"));
    }
    let clients =
        samples.sum("inver_connections", &[]) - samples.sum("inver_connections", &[("protocol", "http")]);
    if monitored.connections_max > 0 && clients >= monitored.connections_max as f64 {
        raise(
            "connections_full",
            format!("{clients} connections are open, the limit is {}", monitored.connections_max),
        );
    }
    let damaged = samples.sum("inver_messages_damaged_total", &[]);
    let stopped = samples.sum("inver_subscriptions_unreadable_total", &[]);
    if damaged > 0.0 || stopped > 0.0 {
        let text = format!(
            "{damaged} messages could not be read and were stepped over, consumers were stopped {stopped} times"
        );
        raise("messages_damaged", text);
    }
    for (task, reason) in log.put_off() {
        match task {
            BackgroundTask::Checkpoint => {
                raise("checkpoint_failed", format!("no checkpoint can be written: {reason}"));
            }
            BackgroundTask::CheckpointCopy => {
                raise("checkpoint_copy_failed", format!("the checkpoint is in one file only: {reason}"));
            }
            task => {
                raise("maintenance_failed", format!("{task} failed and is tried again: {reason}"));
            }
        }
    }
    let wait = log.oldest_wait();
    if wait >= STALLED_AFTER {
        raise("log_stalled", format!("oldest uncommitted group is {} s old", wait.as_secs()));
    }
    if let Some(error) = log.failure() {
        raise("log_failed", error.to_string());
    } else if !log.is_admitting() {
        let queued = log.stats().queued_bytes;
        raise("log_behind", format!("{queued} bytes wait for the disk, so publishers wait"));
    }
    active
}

/// Writes a series for each alarm: 1 while it is on.
pub(super) fn write(text: &mut Exposition, active: &[Alarm]) {
    text.family("inver_alarm", Kind::Gauge, "1 while this alarm is on.");
    for name in NAMES {
        let is_on = active.iter().any(|alarm| alarm.name == name);
        text.sample("inver_alarm", &[("alarm", name)], if is_on { 1.0 } else { 0.0 });
    }
}

/// `/health/alarms`: 503 and the alarms while one is on.
pub(in crate::http) async fn health(State(app): State<App>) -> impl IntoResponse {
    let active = tokio::task::spawn_blocking(move || {
        let text = super::recorded(&app);
        active(&app, &Samples::read(&text))
    });
    let Ok(active) = active.await else {
        return (StatusCode::INTERNAL_SERVER_ERROR, "the alarms could not be determined\n".to_owned());
    };
    if active.is_empty() {
        return (StatusCode::OK, "no alarms\n".to_owned());
    }
    let mut text = String::new();
    for Alarm { name, text: what } in active {
        let _ = writeln!(text, "{name}: {what}");
    }
    (StatusCode::SERVICE_UNAVAILABLE, text)
}
