//! The page about the headroom of the load generators over the fastest broker.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Result;

use super::figures::number;
use super::page::GENERATED;
use crate::results::{Figures, Results};
use crate::workloads::{WORKLOADS, Workload};

/// Target: capacity of the generators over the throughput of the fastest broker.
const HEADROOM: f64 = 3.0;
/// Share of its core above which the generator limits a broker.
const BUSY: f64 = 0.9;

fn figure(figures: &Figures, name: &str) -> f64 {
    figures.get(name).copied().unwrap_or(0.0)
}

/// Messages per second that the generators would send with a core to themselves.
fn capacity(figures: &Figures) -> f64 {
    figure(figures, "per_s") / figure(figures, "load_core_share").clamp(0.01, 1.0)
}

/// The median run of the fastest broker.
fn fastest<'a>(workload: &Workload, results: &'a Results) -> Option<&'a Figures> {
    let measured = results.workloads.get(workload.id)?;
    let median = |broker| Some((measured.spread(broker, "per_s")?.median, broker));
    let medians = workload.protocol.brokers().iter().filter_map(|broker| median(*broker));
    let (per_s, broker) = medians.max_by(|one, other| one.0.total_cmp(&other.0))?;
    let own = measured.runs.iter().filter(|run| run.broker == broker);
    let near = |figures: &Figures| (figure(figures, "per_s") - per_s).abs();
    own.map(|run| &run.figures).min_by(|one, other| near(one).total_cmp(&near(other)))
}

/// Writes the page about the load generators.
pub(crate) fn write(results: &Results, folder: &Path) -> Result<()> {
    if results.sink.is_empty() {
        return Ok(());
    }
    let mut page = format!("# Performance: headroom of the load generators\n\n{GENERATED}");
    table(&mut page, results);
    Ok(fs::write(folder.join("load-generators.md"), page)?)
}

fn table(page: &mut String, results: &Results) {
    page.push_str(
        "\nThe same generators against a sink that reads, counts and answers on the broker's core. *Capacity* is what they reach per second\nof their own CPU: against the sink, or, for workloads that the sink does not support, beside the fastest broker. The target is three\ntimes the fastest broker; below that the generator may limit a broker's throughput, but not its CPU per million messages. *In the\nkernel* is the kernel's share of the generators' CPU, for copying and TCP, which no client avoids.\n\n| workload | fastest broker, messages/s | load core beside it | against the sink, messages/s | load core | in the kernel | capacity, messages/s | times the fastest broker | |\n|---|---|---|---|---|---|---|---|---|\n",
    );
    for workload in WORKLOADS.iter().filter(|workload| !workload.kind.is_latency()) {
        let (broker, sink) = (fastest(workload, results), results.sink.get(workload.id));
        let Some(broker) = broker.filter(|figures| figures.contains_key("load_core_share")) else { continue };
        let per_s = figure(broker, "per_s");
        let could = sink.map_or(0.0, capacity).max(capacity(broker));
        let times = could / per_s;
        let bound = if figure(broker, "load_core_share") >= BUSY {
            "**limited by the generator**"
        } else if times >= HEADROOM {
            "met"
        } else {
            "missed"
        };
        // The run that the capacity is taken from.
        let best = sink.filter(|sink| capacity(sink) >= capacity(broker)).unwrap_or(broker);
        let kernel = best
            .get("load_kernel_share")
            .map_or_else(|| "–".to_owned(), |share| format!("{:.0} %", share * 100.0));
        let cell = |name| sink.map_or_else(|| "–".to_owned(), |sink| number(figure(sink, name)));
        let _ = writeln!(
            page,
            "| **{}** {} | {} | {} | {} | {} | {kernel} | {} | ×{times:.1} | {bound} |",
            workload.id,
            workload.title,
            number(per_s),
            number(figure(broker, "load_core_share")),
            cell("per_s"),
            cell("load_core_share"),
            number(could),
        );
    }
    let latency = WORKLOADS.iter().filter(|workload| workload.kind.is_latency());
    let latency: Vec<_> =
        latency.filter_map(|workload| Some((workload, results.sink.get(workload.id)?))).collect();
    if !latency.is_empty() {
        page.push_str("\nLatency that the generators add, against the sink:\n\n| workload | p50, µs | p90, µs | p99, µs | p99.9, µs |\n|---|---|---|---|---|\n");
        for (workload, sink) in latency {
            let cell = |name| number(figure(sink, name));
            let (p50, p90) = (cell("p50_us"), cell("p90_us"));
            let (p99, p999) = (cell("p99_us"), cell("p999_us"));
            let _ =
                writeln!(page, "| **{}** {} | {p50} | {p90} | {p99} | {p999} |", workload.id, workload.title);
        }
    }
}
