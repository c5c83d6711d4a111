//! Counters of queues with their rates.
//!
//! Nothing is counted for this: the numbers of a durable queue follow from the offsets of its stream. What expired or was
//! purged counts as delivered and acknowledged. A rate is that of the time since the sample before, of which there is one at
//! most every [`INTERVAL`]; of queues beyond [`SAMPLED_MAX`] there are no rates.

use std::collections::HashMap;
use std::time::Duration;

use inver_broker::{Depth, Queue};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

/// Time between two samples of a queue.
const INTERVAL: Duration = Duration::from_secs(5);
/// Time after which the sample of a queue that nobody asked about is forgotten.
const KEPT: Duration = Duration::from_secs(120);
/// Queues of which samples are kept.
const SAMPLED_MAX: usize = 20_000;

/// The samples of queues, by the ids of their subscriptions.
#[derive(Debug, Default)]
pub(in crate::http) struct QueueRates(Mutex<Samples>);

#[derive(Debug, Default)]
struct Samples {
    by_queue: HashMap<u64, Sampled>,
    /// When those that nobody asked about were forgotten last.
    swept: Option<Instant>,
}

#[derive(Debug)]
struct Sampled {
    at: Instant,
    counts: Counts,
    rates: [f64; COUNTS],
}

/// Published, delivered, acknowledged; all messages, those ready, those delivered and not acknowledged.
type Counts = [u64; COUNTS];
const COUNTS: usize = 6;

impl QueueRates {
    /// What a list shows of the counters of a queue.
    pub(super) fn of(&self, now: Instant, queue: &Queue, depth: Depth) -> Map<String, Value> {
        let Depth { ready, unacked, .. } = depth;
        let stream = queue.topic().and_then(|topic| Some(topic.partition(0)?.stream().next_offset().0));
        let published = stream.unwrap_or_default();
        let delivered = published.saturating_sub(ready);
        let counts =
            [published, delivered, delivered.saturating_sub(unacked), ready + unacked, ready, unacked];
        let rates = self.sample(now, queue.subscription().id(), counts);
        let rate = |at: usize| json!({"rate": rates.get(at).copied().unwrap_or_default()});
        let mut shown = Map::from_iter([
            ("messages_details".to_owned(), rate(3)),
            ("messages_ready_details".to_owned(), rate(4)),
            ("messages_unacknowledged_details".to_owned(), rate(5)),
        ]);
        if published > 0 {
            let [publish, deliver, ack, ..] = counts;
            let stats = json!({
                "publish": publish,
                "publish_details": rate(0),
                "deliver_get": deliver,
                "deliver_get_details": rate(1),
                "ack": ack,
                "ack_details": rate(2),
            });
            shown.insert("message_stats".to_owned(), stats);
        }
        shown
    }

    fn sample(&self, now: Instant, queue: u64, counts: Counts) -> [f64; COUNTS] {
        let mut samples = self.0.lock();
        if let Some(sampled) = samples.by_queue.get_mut(&queue) {
            let elapsed = now.saturating_duration_since(sampled.at);
            if elapsed >= INTERVAL {
                let change = |(now, before): (u64, u64)| (now as f64 - before as f64) / elapsed.as_secs_f64();
                for (rate, pair) in sampled.rates.iter_mut().zip(counts.into_iter().zip(sampled.counts)) {
                    *rate = change(pair);
                }
                (sampled.at, sampled.counts) = (now, counts);
            }
            return sampled.rates;
        }
        let is_swept = samples.swept.is_some_and(|at| now.saturating_duration_since(at) < INTERVAL);
        if samples.by_queue.len() >= SAMPLED_MAX && !is_swept {
            samples.by_queue.retain(|_, sampled| now.saturating_duration_since(sampled.at) < KEPT);
            samples.swept = Some(now);
        }
        let rates = [0.0; COUNTS];
        if samples.by_queue.len() < SAMPLED_MAX {
            samples.by_queue.insert(queue, Sampled { at: now, counts, rates });
        }
        rates
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_since_the_sample_before_and_bounded() {
        let rates = QueueRates::default();
        let start = inver_broker::Clock::system().now();
        let at = |seconds: u64, published: u64, ready: u64| {
            rates.sample(start + Duration::from_secs(seconds), 1, [published, 0, 0, ready, ready, 0])
        };
        assert_eq!(at(0, 10, 4), [0.0; 6]);
        assert_eq!(at(1, 90, 4), [0.0; 6]);
        assert_eq!(at(10, 110, 2), [10.0, 0.0, 0.0, -0.2, -0.2, 0.0]);
        assert_eq!(at(11, 900, 2)[0], 10.0);
        for queue in 2..=SAMPLED_MAX as u64 + 5 {
            rates.sample(start, queue, [0; COUNTS]);
        }
        assert_eq!(rates.0.lock().by_queue.len(), SAMPLED_MAX);
        rates.sample(start + KEPT + Duration::from_secs(11), 0, [0; COUNTS]);
        assert_eq!(rates.0.lock().by_queue.len(), 1);
    }
}
