//! Presentation of a figure: title, digits, and the ratio to the peer's.

use crate::broker_kind::BrokerKind;
use crate::results::Results;
use crate::workloads::Workload;

/// Figures that are shown: name, title, unit.
pub(super) const FIGURES: &[(&str, &str, &str)] = &[
    ("per_s", "throughput", "/s"),
    ("cpu_s_per_million", "CPU per million", "s"),
    ("p50_us", "p50", "µs"),
    ("p90_us", "p90", "µs"),
    ("p99_us", "p99", "µs"),
    ("p999_us", "p99.9", "µs"),
    ("confirm_p50_us", "ack p50", "µs"),
    ("confirm_p99_us", "ack p99", "µs"),
    ("rss_mb", "memory", "MB"),
    ("disk_bytes_per_message", "disk bytes per message", "B"),
    ("switches_per_message", "wake-ups per message", ""),
    ("start_ms", "start", "ms"),
    ("rss_bytes_each", "memory each", "B"),
    ("made_s", "created in", "s"),
    ("made_cpu_s", "CPU to create", "s"),
    ("idle_ms_per_s", "idle CPU per second", "ms"),
    ("restart_ms", "restart", "ms"),
    ("restarted_rss_mb", "memory after restart", "MB"),
    ("lost", "lost", ""),
];

/// A number with about three significant digits.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    if size >= 1e6 {
        format!("{:.2} M", value / 1e6)
    } else if size >= 10_000.0 {
        format!("{:.0} k", value / 1e3)
    } else if size >= 1_000.0 {
        format!("{:.2} k", value / 1e3)
    } else if size >= 100.0 || value == 0.0 {
        format!("{value:.0}")
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else if size >= 1.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.3}")
    }
}

/// The ratio in which above 1 is better for Inver: peer ÷ Inver, or Inver ÷ peer for throughput.
pub(super) fn ratio(workload: &Workload, results: &Results, broker: BrokerKind, figure: &str) -> Option<f64> {
    let own = results.workloads.get(workload.id)?.spread(broker, figure)?.median;
    ratio_of(workload, results, own, figure)
}

/// The same ratio of the sink.
pub(super) fn sink_ratio(workload: &Workload, results: &Results, figure: &str) -> Option<f64> {
    ratio_of(workload, results, *results.sink.get(workload.id)?.get(figure)?, figure)
}

fn ratio_of(workload: &Workload, results: &Results, own: f64, figure: &str) -> Option<f64> {
    let peer = *workload.protocol.brokers().last()?;
    let other = results.workloads.get(workload.id)?.spread(peer, figure)?.median;
    let ratio = if figure == "per_s" { own / other } else { other / own };
    ratio.is_finite().then_some(ratio)
}
