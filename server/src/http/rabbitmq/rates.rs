//! Counters of messages and of churn, with their rates.
//!
//! A rate is that of the time since the request before, if that was at least [`INTERVAL`] ago; else the one answered then.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::http::metrics::text::Samples;

/// Time between two samples of the counters.
const INTERVAL: Duration = Duration::from_secs(5);

/// A counter's name, the series that it is the sum of, with their labels.
type Counter = (&'static str, &'static [(&'static str, &'static [(&'static str, &'static str)])]);

const SENT: &str = "inver_protocol_messages_sent_total";
const UNROUTABLE: &str = "inver_protocol_messages_unroutable_total";

#[rustfmt::skip]
const MESSAGES: [Counter; 12] = [
    ("publish", &[("inver_protocol_messages_received_total", &[])]),
    ("confirm", &[("inver_protocol_messages_confirmed_total", &[])]),
    ("deliver_get", &[(SENT, &[])]),
    ("deliver", &[(SENT, &[("by", "consume"), ("ack", "manual")])]),
    ("deliver_no_ack", &[(SENT, &[("by", "consume"), ("ack", "auto")])]),
    ("get", &[(SENT, &[("by", "get"), ("ack", "manual")])]),
    ("get_no_ack", &[(SENT, &[("by", "get"), ("ack", "auto")])]),
    ("get_empty", &[("inver_protocol_gets_empty_total", &[])]),
    ("redeliver", &[("inver_protocol_messages_redelivered_total", &[])]),
    ("ack", &[("inver_protocol_messages_acknowledged_total", &[])]),
    ("drop_unroutable", &[(UNROUTABLE, &[("action", "dropped")])]),
    ("return_unroutable", &[(UNROUTABLE, &[("action", "returned")])]),
];

/// A series of the protocols of clients, without that of HTTP.
const fn by_clients(series: &'static str) -> [(&'static str, &'static [(&'static str, &'static str)]); 3] {
    [(series, &[("protocol", "amqp")]), (series, &[("protocol", "mqtt")]), (series, &[("protocol", "kafka")])]
}

#[rustfmt::skip]
const CHURN: [Counter; 7] = [
    ("connection_created", &by_clients("inver_connections_accepted_total")),
    ("connection_closed", &by_clients("inver_connections_closed_total")),
    ("channel_created", &[("inver_protocol_channels_opened_total", &[])]),
    ("channel_closed", &[("inver_protocol_channels_closed_total", &[])]),
    ("queue_declared", &[("inver_queues_declared_total", &[])]),
    ("queue_created", &[("inver_queues_created_total", &[])]),
    ("queue_deleted", &[("inver_queues_deleted_total", &[])]),
];

/// The counters as they were when they were asked for.
#[derive(Debug, Default)]
pub(in crate::http) struct Rates(Mutex<Sampled>);

#[derive(Debug, Default)]
struct Sampled {
    at: Option<Instant>,
    values: BTreeMap<&'static str, f64>,
    rates: BTreeMap<&'static str, f64>,
}

/// The counters of now with their rates.
pub(super) struct Counters {
    values: BTreeMap<&'static str, f64>,
    rates: BTreeMap<&'static str, f64>,
}

impl Rates {
    /// The counters of these samples.
    pub(super) fn of(&self, now: Instant, samples: &Samples<'_>) -> Counters {
        let sum = |(name, series): &Counter| {
            (*name, series.iter().map(|(series, labels)| samples.sum(series, labels)).sum::<f64>())
        };
        let values: BTreeMap<&'static str, f64> = MESSAGES.iter().chain(&CHURN).map(sum).collect();
        let mut sampled = self.0.lock();
        let elapsed = sampled.at.map(|at| now.saturating_duration_since(at));
        if elapsed.is_none_or(|elapsed| elapsed >= INTERVAL) {
            if let Some(elapsed) = elapsed {
                let rate = |(name, value): (&&'static str, &f64)| {
                    let before = sampled.values.get(*name).copied().unwrap_or_default();
                    (*name, ((value - before) / elapsed.as_secs_f64()).max(0.0))
                };
                let rates = values.iter().map(rate).collect();
                sampled.rates = rates;
            }
            sampled.at = Some(now);
            sampled.values.clone_from(&values);
        }
        Counters { values, rates: sampled.rates.clone() }
    }
}

impl Counters {
    fn shown(&self, counters: &[Counter]) -> Value {
        let mut shown = Map::new();
        for (name, _) in counters {
            let value = self.values.get(name).copied().unwrap_or_default();
            let rate = self.rates.get(name).copied().unwrap_or_default();
            shown.insert((*name).to_owned(), json!(value as u64));
            shown.insert(format!("{name}_details"), json!({"rate": rate}));
        }
        Value::Object(shown)
    }

    /// Those of messages.
    pub(super) fn messages(&self) -> Value {
        self.shown(&MESSAGES)
    }

    /// Those of connections, channels and queues that come and go.
    pub(super) fn churn(&self) -> Value {
        self.shown(&CHURN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_rate_is_that_of_the_time_since_the_sample_before() {
        let rates = Rates::default();
        let start = inver_broker::Clock::system().now();
        let at = |seconds: u64, queues: u64| {
            let text = format!("inver_queues_created_total {queues}\n");
            let counters = rates.of(start + Duration::from_secs(seconds), &Samples::read(&text));
            let churn = counters.churn();
            (
                churn["queue_created"].as_u64().unwrap(),
                churn["queue_created_details"]["rate"].as_f64().unwrap(),
            )
        };
        assert_eq!(at(0, 10), (10, 0.0));
        assert_eq!(at(1, 100), (100, 0.0));
        assert_eq!(at(10, 110), (110, 10.0));
        assert_eq!(at(11, 111), (111, 10.0));
        assert_eq!(at(20, 110), (110, 0.0));
    }
}
