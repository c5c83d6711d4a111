//! Metrics of the protocol.

use metrics::{Counter, counter};

use crate::codec::api::Api;
use crate::codec::error_code::ErrorCode;

/// Requests taken, by API.
const REQUESTS: &str = "inver_kafka_requests_total";
/// Error codes sent in responses, by API and error code.
const ERRORS: &str = "inver_kafka_errors_total";
const PRODUCED_BYTES: &str = "inver_kafka_produced_bytes_total";
const PRODUCED_RECORDS: &str = "inver_kafka_produced_records_total";
const FETCHED_BYTES: &str = "inver_kafka_fetched_bytes_total";

/// Counters that are looked up once.
pub(crate) struct Metrics {
    /// By api key.
    requests: Vec<Option<Counter>>,
    pub(crate) produced_bytes: Counter,
    pub(crate) produced_records: Counter,
    pub(crate) fetched_bytes: Counter,
}

impl Metrics {
    /// Counters for these APIs.
    pub(crate) fn new(apis: &[Api]) -> Metrics {
        let mut requests = Vec::new();
        for api in apis {
            let place = usize::try_from(api.key).unwrap_or(0);
            requests.resize_with(requests.len().max(place + 1), || None);
            if let Some(counter) = requests.get_mut(place) {
                *counter = Some(counter!(REQUESTS, "api" => api.name));
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
        let counter = usize::try_from(api.key).ok().and_then(|place| self.requests.get(place)?.as_ref());
        if let Some(counter) = counter {
            counter.increment(1);
        }
    }
}

/// Counts an error code in a response. Looks the counter up each time: errors are rare.
pub(crate) fn count_error(api: &Api, code: ErrorCode) {
    counter!(ERRORS, "api" => api.name, "error" => code.name()).increment(1);
}
