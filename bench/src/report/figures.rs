//! A figure as it is told: its title, its digits, and the ratio to the peer's.

use crate::contestant::Contestant;
use crate::results::Results;
use crate::works::Work;

/// Figures that are shown: name, title, unit.
pub(super) const FIGURES: &[(&str, &str, &str)] = &[
    ("per_s", "throughput", "/s"),
    ("cpu_s_per_million", "CPU a million", "s"),
    ("p50_us", "p50", "µs"),
    ("p90_us", "p90", "µs"),
    ("p99_us", "p99", "µs"),
    ("p999_us", "p99.9", "µs"),
    ("confirm_p50_us", "ack p50", "µs"),
    ("confirm_p99_us", "ack p99", "µs"),
    ("rss_mb", "memory", "MB"),
    ("disk_bytes_per_message", "to disk a message", "B"),
    ("switches_per_message", "wake-ups a message", ""),
    ("start_ms", "start", "ms"),
    ("rss_bytes_each", "memory each", "B"),
    ("made_s", "made in", "s"),
    ("made_cpu_s", "CPU for it", "s"),
    ("idle_ms_per_s", "idle CPU a second", "ms"),
    ("restart_ms", "restart", "ms"),
    ("restarted_rss_mb", "memory after it", "MB"),
    ("lost", "lost", ""),
];

/// A number with as many digits as it deserves.
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

/// Peer ÷ Inver of the figure that the work is judged by, or Inver ÷ peer where more is better.
pub(super) fn ratio(work: &Work, results: &Results, contestant: Contestant, figure: &str) -> Option<f64> {
    let own = results.works.get(work.id)?.spread(contestant, figure)?.median;
    ratio_of(work, results, own, figure)
}

/// The same ratio of the sink, which answers and does nothing else.
pub(super) fn sink_ratio(work: &Work, results: &Results, figure: &str) -> Option<f64> {
    ratio_of(work, results, *results.sink.get(work.id)?.get(figure)?, figure)
}

fn ratio_of(work: &Work, results: &Results, own: f64, figure: &str) -> Option<f64> {
    let peer = *work.field.contestants().last()?;
    let other = results.works.get(work.id)?.spread(peer, figure)?.median;
    let ratio = if figure == "per_s" { own / other } else { other / own };
    ratio.is_finite().then_some(ratio)
}
