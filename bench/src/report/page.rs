//! The page: tables and charts of what was measured, with versions and settings.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Result;

use super::chart::{Group, bars};
use super::figures::{number, ratio};
use super::{loads, machine, wanted};
use crate::contestant::Contestant;
use crate::results::{Measured, Results, spread};
use crate::works::{Field, WORKS, Work};

const INTRODUCTION: &str = "\
# Measured side by side

This page and its charts are written by `cargo run --release -p inver-bench -- all`; nothing in it is typed in.
How it is measured, and how to repeat it: [how.md](how.md). Every run: [results.json](results.json).
Where the time goes: [profiles.md](profiles.md).

All brokers of a table stay up during it and take turns on the same work; a figure is the median of the rounds, with
the lowest and highest in brackets. The broker has one core, the load generators another. *CPU* is user and system
time of the whole broker for a million messages; latency is counted from the time a message was due in an open loop
of fixed rate. The ratio is peer ÷ Inver for CPU and latency, Inver ÷ peer for throughput: above 1 is better.
";

const FIELDS: [(Field, &str, &str); 7] = [
    (Field::Kafka, "kafka", "Kafka"),
    (Field::Amqp, "amqp", "AMQP 0-9-1"),
    (Field::Mqtt, "mqtt", "MQTT"),
    (Field::Cross, "cross", "Across protocols"),
    (Field::Own, "own", "Across protocols, where there is no other way"),
    (Field::Scale, "scale", "Very many"),
    (Field::Runtime, "runtime", "A runtime a core against one for all, on all cores"),
];

pub(crate) fn write(results: &Results, folder: &Path) -> Result<()> {
    let mut page = INTRODUCTION.to_owned();
    machine::line(&mut page, &results.machine);
    wanted::table(&mut page, results);
    for (field, name, title) in FIELDS {
        let works: Vec<(&Work, &Measured)> = WORKS
            .iter()
            .filter(|work| work.field == field)
            .filter_map(|work| Some((work, results.works.get(work.id)?)))
            .collect();
        if works.is_empty() {
            continue;
        }
        let _ = writeln!(page, "\n## {title}\n");
        for (figure, what, unit) in [
            ("cpu_s_per_million", "CPU for a million messages (shorter is better)", "s"),
            ("per_s", "Messages a second (longer is better)", "/s"),
            ("p99_us", "Latency, 99th percentile, open loop (shorter is better)", "µs"),
        ] {
            let groups = groups(&works, figure);
            if !groups.is_empty() {
                let file = format!("{name}-{figure}.svg");
                fs::write(folder.join(&file), bars(&format!("{title}: {what}"), unit, &groups))?;
                let _ = writeln!(page, "![{title}: {what}]({file})\n");
            }
        }
        throughput(&mut page, &works, results);
        latency(&mut page, &works, results);
        sizes(&mut page, &works);
        failures(&mut page, &works);
        versions(&mut page, &works);
    }
    tools(&mut page, results);
    loads::table(&mut page, results);
    fs::write(folder.join("README.md"), page)?;
    Ok(())
}

fn groups(works: &[(&Work, &Measured)], figure: &str) -> Vec<Group> {
    let mut groups = Vec::new();
    for (work, measured) in works {
        if (figure == "per_s" && work.kind.is_latency())
            || (figure == "cpu_s_per_million" && !measured.has("per_s"))
        {
            continue;
        }
        let bars: Vec<(String, f64, f64)> = work
            .field
            .contestants()
            .iter()
            .copied()
            .filter_map(|contestant| {
                let median = measured.spread(contestant, figure)?.median;
                Some((contestant.title().to_owned(), median, median))
            })
            .collect();
        if !bars.is_empty() {
            groups.push(Group { title: work.id.to_owned(), bars });
        }
    }
    groups
}

fn cell(measured: &Measured, contestant: Contestant, figure: &str) -> String {
    measured.spread(contestant, figure).map_or_else(
        || "–".to_owned(),
        |spread| format!("{} [{}–{}]", number(spread.median), number(spread.min), number(spread.max)),
    )
}

fn times(work: &Work, results: &Results, contestant: Contestant, figure: &str) -> String {
    if !contestant.is_inver() {
        return String::new();
    }
    let Some(ratio) = ratio(work, results, contestant, figure) else { return String::new() };
    let wanted = work.wanted.iter().filter(|wanted| wanted.of == contestant && wanted.figure == figure);
    let found = wanted.filter_map(|wanted| wanted.found(work, results)).next();
    match found {
        Some(found) => {
            let met = if found.is_met { "met" } else { "missed" };
            format!("**{}** (wanted {}: {met})", found.value, found.wanted)
        }
        None => format!("×{ratio:.1}"),
    }
}

fn throughput(page: &mut String, works: &[(&Work, &Measured)], results: &Results) {
    if works.iter().all(|(work, measured)| work.kind.is_latency() || !measured.has("per_s")) {
        return;
    }
    page.push_str("| work | broker | messages/s | | CPU-s a million | | memory, MB | to disk a message, B | wake-ups a message |\n|---|---|---|---|---|---|---|---|---|\n");
    for (work, measured) in works {
        if work.kind.is_latency() || !measured.has("per_s") {
            continue;
        }
        for (index, contestant) in work.field.contestants().iter().copied().enumerate() {
            let name = if index == 0 {
                format!("**{}** {} (a {})", work.id, work.title, work.unit)
            } else {
                String::new()
            };
            let _ = writeln!(
                page,
                "| {name} | {contestant} | {} | {} | {} | {} | {} | {} | {} |",
                cell(measured, contestant, "per_s"),
                times(work, results, contestant, "per_s"),
                cell(measured, contestant, "cpu_s_per_million"),
                times(work, results, contestant, "cpu_s_per_million"),
                cell(measured, contestant, "rss_mb"),
                cell(measured, contestant, "disk_bytes_per_message"),
                cell(measured, contestant, "switches_per_message"),
            );
        }
    }
    page.push('\n');
}

fn latency(page: &mut String, works: &[(&Work, &Measured)], results: &Results) {
    let works: Vec<_> = works.iter().filter(|(work, _)| work.kind.is_latency()).collect();
    if works.is_empty() {
        return;
    }
    page.push_str("| latency, µs | broker | p50 | p90 | | p99 | | p99.9 | ack p50 | ack p99 | CPU-s a million |\n|---|---|---|---|---|---|---|---|---|---|---|\n");
    for (work, measured) in works {
        for (index, contestant) in work.field.contestants().iter().copied().enumerate() {
            let name = if index == 0 { format!("**{}** {}", work.id, work.title) } else { String::new() };
            let _ = writeln!(
                page,
                "| {name} | {contestant} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                cell(measured, contestant, "p50_us"),
                cell(measured, contestant, "p90_us"),
                times(work, results, contestant, "p90_us"),
                cell(measured, contestant, "p99_us"),
                times(work, results, contestant, "p99_us"),
                cell(measured, contestant, "p999_us"),
                cell(measured, contestant, "confirm_p50_us"),
                cell(measured, contestant, "confirm_p99_us"),
                cell(measured, contestant, "cpu_s_per_million"),
            );
        }
    }
    page.push('\n');
    machine::gaps(page, &results.machine);
}

/// Works whose figure is a size or a time to start.
fn sizes(page: &mut String, works: &[(&Work, &Measured)]) {
    const FIGURES: [(&str, &str); 7] = [
        ("start_ms", "until it answers, ms"),
        ("made_s", "made in, s"),
        ("rss_bytes_each", "memory each, B"),
        ("rss_mb", "memory, MB"),
        ("idle_ms_per_s", "CPU when idle, ms a second"),
        ("restart_ms", "restart, ms"),
        ("restarted_rss_mb", "memory after it, MB"),
    ];
    for (work, measured) in works {
        if !work.kind.is_start() && !measured.has("rss_bytes_each") {
            continue;
        }
        let figures: Vec<_> = FIGURES.into_iter().filter(|(figure, _)| measured.has(figure)).collect();
        let heads: Vec<&str> = figures.iter().map(|(_, head)| *head).collect();
        let _ = writeln!(page, "| **{}** {} | {} |", work.id, work.title, heads.join(" | "));
        let _ = writeln!(page, "|---{}|", "|---".repeat(heads.len()));
        for contestant in work.field.contestants().iter().copied() {
            let cells: Vec<String> =
                figures.iter().map(|(figure, _)| cell(measured, contestant, figure)).collect();
            let _ = writeln!(page, "| {contestant} | {} |", cells.join(" | "));
        }
        page.push('\n');
    }
}

/// Who could not do a work, and why; who was not asked to; and what was lost on the way.
fn failures(page: &mut String, works: &[(&Work, &Measured)]) {
    for (work, measured) in works {
        for (contestant, error) in &measured.failed {
            let error = error.lines().next().unwrap_or_default();
            let _ = writeln!(page, "- **{}**: {contestant} could not do it: {error}.", work.id);
        }
        for contestant in work.field.contestants().iter().copied() {
            let has_run = measured.runs.iter().any(|run| run.contestant == contestant);
            if !has_run && !measured.failed.contains_key(&contestant) {
                let _ = writeln!(page, "- **{}**: {contestant} was not measured.", work.id);
            }
            if let Some(lost) = measured.spread(contestant, "lost").filter(|lost| lost.max > 0.0) {
                let _ = writeln!(
                    page,
                    "- **{}**: {contestant} lost messages: {} [{}–{}] a run.",
                    work.id,
                    number(lost.median),
                    number(lost.min),
                    number(lost.max)
                );
            }
        }
    }
}

fn versions(page: &mut String, works: &[(&Work, &Measured)]) {
    let mut versions: BTreeMap<Contestant, BTreeSet<&str>> = BTreeMap::new();
    let mut days = BTreeSet::new();
    let mut windows = BTreeSet::new();
    for (_, measured) in works {
        days.insert(measured.day.as_str());
        windows.insert(format!("{} s", measured.window_s));
        for (contestant, version) in &measured.versions {
            versions.entry(*contestant).or_default().insert(version);
        }
    }
    for (contestant, version) in versions {
        let version: Vec<&str> = version.into_iter().collect();
        let _ = writeln!(page, "- {contestant}: {}; {}.", version.join(", "), contestant.settings());
    }
    let join = |set: Vec<String>| set.join(", ");
    let _ = writeln!(
        page,
        "- Measured on {}, windows of {}.",
        join(days.into_iter().map(str::to_owned).collect()),
        join(windows.into_iter().collect())
    );
}

fn tools(page: &mut String, results: &Results) {
    if results.tools.is_empty() {
        return;
    }
    page.push_str("\n## The peers' own tools\n\nThe same brokers driven by the tools that come with the peers. The tools need far more CPU than the generators above and\nshare one core, so that they bound the throughput of whichever broker is faster than they are: compare the CPU.\n\n| tool | broker | messages/s | CPU-s a million |\n|---|---|---|---|\n");
    for (tool, contestants) in &results.tools {
        for (contestant, runs) in contestants {
            let cell = |figure: &str| {
                spread(runs.iter().filter_map(|run| run.get(figure).copied())).map_or_else(
                    || "–".to_owned(),
                    |spread| {
                        format!("{} [{}–{}]", number(spread.median), number(spread.min), number(spread.max))
                    },
                )
            };
            let _ = writeln!(
                page,
                "| {tool} | {contestant} | {} | {} |",
                cell("per_s"),
                cell("cpu_s_per_million")
            );
        }
    }
}
