//! Metrics of the protocol.

use std::time::Duration;

use inver_driver::Count;
use metrics::{Counter, Histogram, Unit, counter, describe_counter, describe_histogram, histogram};

use crate::codec::api::Api;
use crate::codec::error_code::ErrorCode;

/// The protocol's name.
pub(crate) const NAME: &str = "kafka";

/// Where the number of records is in a record batch.
const RECORD_COUNT_AT: usize = 57;

/// Requests taken, by API.
const REQUESTS: &str = "inver_kafka_requests_total";
/// Error codes sent in responses, by API and error code.
const ERRORS: &str = "inver_kafka_errors_total";
const PRODUCED_BYTES: &str = "inver_kafka_produced_bytes_total";
const PRODUCED_RECORDS: &str = "inver_kafka_produced_records_total";
const FETCHED_BYTES: &str = "inver_kafka_fetched_bytes_total";

/// Time from a request to its response, by API. That of a fetch includes the time for which it waits for records.
const REQUEST_SECONDS: &str = "inver_kafka_request_seconds";

/// Counters that are looked up once.
pub(crate) struct Metrics {
    /// By api key.
    requests: Vec<Option<(Counter, Histogram)>>,
    pub(crate) produced_bytes: Counter,
    pub(crate) produced_records: Counter,
    pub(crate) fetched_bytes: Counter,
}

impl Metrics {
    /// Counters for these APIs.
    pub(crate) fn new(apis: &[Api]) -> Metrics {
        describe();
        let mut requests = Vec::new();
        for api in apis {
            let place = usize::try_from(api.key).unwrap_or(0);
            requests.resize_with(requests.len().max(place + 1), || None);
            if let Some(counter) = requests.get_mut(place) {
                let seconds = histogram!(REQUEST_SECONDS, "api" => api.name);
                *counter = Some((counter!(REQUESTS, "api" => api.name), seconds));
            }
        }
        Metrics {
            requests,
            produced_bytes: counter!(PRODUCED_BYTES),
            produced_records: counter!(PRODUCED_RECORDS),
            fetched_bytes: counter!(FETCHED_BYTES),
        }
    }

    /// Counts a request.
    pub(crate) fn count_request(&self, api: &Api) {
        if let Some((counter, _)) = self.of(api.key) {
            counter.increment(1);
        }
    }

    /// Records the time from a request to its response.
    pub(crate) fn observe_request(&self, api_key: i16, took: Duration) {
        if let Some((_, seconds)) = self.of(api_key) {
            seconds.record(took);
        }
    }

    fn of(&self, api_key: i16) -> Option<&(Counter, Histogram)> {
        usize::try_from(api_key).ok().and_then(|place| self.requests.get(place)?.as_ref())
    }
}

/// Counts an error code in a response. Looks the counter up each time: errors are rare.
pub(crate) fn count_error(api: &Api, code: ErrorCode) {
    counter!(ERRORS, "api" => api.name, "error" => code.name()).increment(1);
    inver_driver::count_error(NAME, code.name());
}

/// Counts a record batch that is sent to a client.
pub(crate) fn count_sent(batch: &[u8]) {
    inver_driver::count(Count::SentAuto, record_count(batch).into());
}

/// The number of records in a record batch.
pub(crate) fn record_count(batch: &[u8]) -> u32 {
    let records = batch.get(RECORD_COUNT_AT..).and_then(|bytes| bytes.first_chunk().copied());
    records.map_or(0, u32::from_be_bytes)
}

fn describe() {
    use Unit::{Bytes, Count, Seconds};
    describe_counter!(REQUESTS, Count, "Requests taken, by API.");
    describe_counter!(ERRORS, Count, "Error codes sent in responses, by API.");
    describe_counter!(PRODUCED_BYTES, Bytes, "Bytes of record batches appended.");
    describe_counter!(PRODUCED_RECORDS, Count, "Records appended.");
    describe_counter!(FETCHED_BYTES, Bytes, "Bytes of record batches sent to clients.");
    describe_histogram!(
        REQUEST_SECONDS,
        Seconds,
        "Time from a request to its response, by API; for a fetch with the time for which it waits for records."
    );
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use bytes::BytesMut;
    use metrics::{Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
    use parking_lot::Mutex;

    use super::*;
    use crate::api::heartbeat::HeartbeatResponse;
    use crate::codec::header::ResponseHeader;
    use crate::response::encode;

    /// Counters by name and labels.
    #[derive(Default)]
    struct Counters(Mutex<BTreeMap<String, Arc<AtomicU64>>>);

    impl Recorder for Counters {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            let labels: Vec<&str> = key.labels().map(|label| label.value()).collect();
            let name = format!("{} {}", key.name(), labels.join(" "));
            Counter::from_arc(self.0.lock().entry(name).or_default().clone())
        }
        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::noop()
        }
        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }

    impl Counters {
        fn value(&self, name: &str) -> u64 {
            self.0.lock().get(name).map_or(0, |counter| counter.load(Ordering::Relaxed))
        }
    }

    #[test]
    fn requests_are_counted_by_api_and_errors_by_api_and_code() {
        let counters = Counters::default();
        metrics::with_local_recorder(&counters, || {
            let metrics = Metrics::new(Api::ALL);
            metrics.count_request(&Api::Heartbeat);
            metrics.count_request(&Api::Heartbeat);
            metrics.count_request(&Api::DescribeTopicPartitions);
            let version = Api::Heartbeat.version(4).unwrap();
            let header = ResponseHeader { api: &Api::Heartbeat, version, correlation_id: 1 };
            for error_code in [ErrorCode::NONE, ErrorCode::UNKNOWN_MEMBER_ID] {
                encode(&mut BytesMut::new(), header, &HeartbeatResponse { throttle_time_ms: 0, error_code });
            }
        });
        assert_eq!(counters.value("inver_kafka_requests_total Heartbeat"), 2);
        assert_eq!(counters.value("inver_kafka_requests_total DescribeTopicPartitions"), 1);
        assert_eq!(counters.value("inver_kafka_requests_total Fetch"), 0);
        assert_eq!(counters.value("inver_kafka_errors_total Heartbeat UNKNOWN_MEMBER_ID"), 1);
        assert_eq!(counters.value("inver_kafka_errors_total Heartbeat NONE"), 0);
    }
}
