//! The recorder behind the `metrics` facade, and the text that Prometheus scrapes.
//!
//! Counters and gauges are kept by the exporter crate. Histograms are counted into fixed buckets here, because the exporter
//! keeps every sample until the next scrape: its memory and its cost would grow with the rate of samples. Histograms of a
//! name share their buckets, which follow from the name's unit, so that quantiles can be computed over all series.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use metrics::{Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use parking_lot::Mutex;

/// Upper bounds of the buckets of `…_seconds`: 50 µs to 10 s.
const SECONDS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];
/// Upper bounds of the buckets of `…_bytes`: 256 B to 64 MiB.
const BYTES: &[f64] = &[
    256.0,
    1024.0,
    4096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];
/// Upper bounds of the buckets of `…_message_bytes`, which are those of the connection driver.
const MESSAGE_BYTES: &[f64] = &{
    let mut bounds = [0.0; inver_driver::MESSAGE_SIZES.len()];
    let mut at = 0;
    while at < bounds.len() {
        bounds[at] = inver_driver::MESSAGE_SIZES[at] as f64;
        at += 1;
    }
    bounds
};
/// Upper bounds of the buckets of all other histograms, which count things.
const COUNTS: &[f64] = &[
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16_384.0,
    65_536.0,
];

/// The metrics of the process.
#[derive(Clone)]
pub(crate) struct Metrics {
    exporter: PrometheusHandle,
    histograms: Arc<Histograms>,
}

impl Metrics {
    /// Installs the recorder of the process. Handles taken before count nothing.
    pub(crate) fn install() -> anyhow::Result<Metrics> {
        let (recorder, metrics) = Self::recorder();
        metrics::set_global_recorder(recorder).ok().context("a metrics recorder is installed already")?;
        Ok(metrics)
    }

    /// Metrics of a recorder that is not installed.
    #[cfg(test)]
    pub(crate) fn unregistered() -> Metrics {
        Self::recorder().1
    }

    fn recorder() -> (ProcessRecorder, Metrics) {
        let exporter = PrometheusBuilder::new().build_recorder();
        let histograms = Arc::<Histograms>::default();
        let metrics = Metrics { exporter: exporter.handle(), histograms: histograms.clone() };
        (ProcessRecorder { exporter, histograms }, metrics)
    }

    /// All metrics in the text format of Prometheus, version 0.0.4.
    pub(crate) fn render(&self) -> String {
        self.exporter.run_upkeep();
        let mut text = self.exporter.render();
        self.histograms.render(&mut text);
        text
    }
}

struct ProcessRecorder {
    exporter: PrometheusRecorder,
    histograms: Arc<Histograms>,
}

impl Recorder for ProcessRecorder {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, help: SharedString) {
        self.exporter.describe_counter(name, unit, help);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, help: SharedString) {
        self.exporter.describe_gauge(name, unit, help);
    }

    fn describe_histogram(&self, name: KeyName, _unit: Option<Unit>, help: SharedString) {
        self.histograms.0.lock().entry(name.as_str().to_owned()).or_default().help = help;
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        self.exporter.register_counter(key, metadata)
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.exporter.register_gauge(key, metadata)
    }

    fn register_histogram(&self, key: &Key, _metadata: &Metadata<'_>) -> Histogram {
        let mut families = self.histograms.0.lock();
        let family = families.entry(key.name().to_owned()).or_default();
        let buckets = || Arc::new(Buckets::new(bounds_of(key.name())));
        Histogram::from_arc(family.series.entry(labels_of(key)).or_insert_with(buckets).clone())
    }
}

/// The bounds of a histogram, by the unit in its name.
fn bounds_of(name: &str) -> &'static [f64] {
    match name {
        name if name.ends_with("_seconds") => SECONDS,
        name if name.ends_with("_message_bytes") => MESSAGE_BYTES,
        name if name.ends_with("_bytes") => BYTES,
        _ => COUNTS,
    }
}

/// The labels of a series, as they are rendered: each with a comma behind it.
fn labels_of(key: &Key) -> String {
    let mut labels = String::new();
    for label in key.labels() {
        let value = label.value().replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = write!(labels, "{}=\"{value}\",", label.key());
    }
    labels
}

/// All histograms, by name.
#[derive(Default)]
struct Histograms(Mutex<BTreeMap<String, Family>>);

/// The histograms of one name.
#[derive(Default)]
struct Family {
    help: SharedString,
    /// By their labels.
    series: BTreeMap<String, Arc<Buckets>>,
}

impl Histograms {
    fn render(&self, text: &mut String) {
        for (name, family) in self.0.lock().iter().filter(|(_, family)| !family.series.is_empty()) {
            let _ = writeln!(text, "# HELP {name} {}\n# TYPE {name} histogram", family.help);
            for (labels, buckets) in &family.series {
                buckets.render(name, labels, text);
            }
            text.push('\n');
        }
    }
}

/// One histogram: samples per bucket, and their sum.
struct Buckets {
    bounds: &'static [f64],
    /// One more than there are bounds: the last counts samples beyond them.
    counts: Vec<AtomicU64>,
    /// Bits of an `f64`.
    sum: AtomicU64,
}

impl Buckets {
    fn new(bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, counts, sum: AtomicU64::new(0) }
    }

    fn render(&self, name: &str, labels: &str, text: &mut String) {
        let mut count = 0;
        for (at, bucket) in self.counts.iter().enumerate() {
            count += bucket.load(Ordering::Relaxed);
            let bound = self.bounds.get(at).map_or("+Inf".to_owned(), f64::to_string);
            let _ = writeln!(text, "{name}_bucket{{{labels}le=\"{bound}\"}} {count}");
        }
        let labels = match labels.trim_end_matches(',') {
            "" => String::new(),
            labels => format!("{{{labels}}}"),
        };
        let sum = f64::from_bits(self.sum.load(Ordering::Relaxed));
        let _ = writeln!(text, "{name}_sum{labels} {sum}\n{name}_count{labels} {count}");
    }
}

impl HistogramFn for Buckets {
    fn record(&self, value: f64) {
        self.record_many(value, 1);
    }

    fn record_many(&self, value: f64, count: usize) {
        let at = self.bounds.partition_point(|bound| *bound < value);
        if let Some(bucket) = self.counts.get(at) {
            bucket.fetch_add(count as u64, Ordering::Relaxed);
        }
        let add = |sum: u64| Some((f64::from_bits(sum) + value * count as f64).to_bits());
        let _ = self.sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_are_rendered_as_cumulative_buckets() {
        let (recorder, metrics) = Metrics::recorder();
        metrics::with_local_recorder(&recorder, || {
            metrics::describe_histogram!("wait_seconds", Unit::Seconds, "Time of a wait.");
            let histogram = metrics::histogram!("wait_seconds", "kind" => "a\"b");
            for value in [0.000_01, 0.000_05, 0.002, 100.0] {
                histogram.record(value);
            }
            metrics::counter!("waits_total").increment(2);
        });
        let text = metrics.render();
        assert!(text.contains("waits_total 2\n"), "{text}");
        let labels = "kind=\"a\\\"b\"";
        for line in [
            "# HELP wait_seconds Time of a wait.".to_owned(),
            "# TYPE wait_seconds histogram".to_owned(),
            format!("wait_seconds_bucket{{{labels},le=\"0.00005\"}} 2"),
            format!("wait_seconds_bucket{{{labels},le=\"0.001\"}} 2"),
            format!("wait_seconds_bucket{{{labels},le=\"0.0025\"}} 3"),
            format!("wait_seconds_bucket{{{labels},le=\"10\"}} 3"),
            format!("wait_seconds_bucket{{{labels},le=\"+Inf\"}} 4"),
            format!("wait_seconds_count{{{labels}}} 4"),
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        assert!(text.contains("wait_seconds_sum{kind=\"a\\\"b\"} 100.00206"), "{text}");
    }

    #[test]
    fn memory_of_a_histogram_does_not_grow_with_its_samples() {
        let (recorder, metrics) = Metrics::recorder();
        let histogram = metrics::with_local_recorder(&recorder, || metrics::histogram!("group_entries"));
        histogram.record(3.0);
        let before = metrics.render().len();
        (0..100_000).for_each(|_| histogram.record(3.0));
        let text = metrics.render();
        assert!(text.contains("group_entries_bucket{le=\"4\"} 100001\n"), "{text}");
        assert!(text.len() < before + 500);
    }
}
