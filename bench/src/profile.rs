//! CPU profiles: a workload runs once more, with `perf` sampling the broker.

use std::process::Command;

use anyhow::{Result, ensure};

use crate::broker::Broker;
use crate::broker_kind::BrokerKind;
use crate::paths::Paths;
use crate::perf::{self, Profile};
use crate::report::number;
use crate::results::Results;
use crate::setup::{self, Settings};
use crate::workloads::{Protocol, Target, Workload};

/// Workloads that are profiled by default.
const PROFILED: [&str; 12] = ["K1", "K1x4", "K2", "K2x4", "K4", "K5", "K6", "A1", "A2", "M1", "M2", "X1"];

/// Whether a workload is profiled by default: one of a fixed set, or one that misses a target.
pub(crate) fn is_selected(workload: &Workload, results: &Results) -> bool {
    let misses = |target: &Target| target.verdict(workload, results).is_some_and(|verdict| !verdict.is_met);
    workload.kind.has_window() && (is_always_selected(workload) || workload.targets.iter().any(misses))
}

pub(crate) fn is_always_selected(workload: &Workload) -> bool {
    PROFILED.contains(&workload.id)
}

/// Whether a broker is profiled. Peers are left out where a run takes long.
fn is_profiled(kind: BrokerKind, workload: &Workload, settings: &Settings) -> bool {
    let named = settings.only.contains(&kind);
    named || kind == BrokerKind::InverAlways || !(kind.is_inver() || workload.kind.is_long())
}

/// Profiles workloads of one protocol and stores them in `results`.
pub(crate) fn measure(
    protocol: Protocol,
    workloads: &[&Workload],
    settings: &Settings,
    paths: &Paths,
    results: &mut Results,
) -> Result<()> {
    if workloads.is_empty() {
        return Ok(());
    }
    let mut brokers = setup::start(protocol, settings, paths, results);
    for workload in workloads {
        for broker in &mut brokers {
            if is_profiled(broker.kind, workload, settings) {
                setup::settle(workload, broker, settings.lengths);
            }
        }
        run_once(workload, &mut brokers, settings, paths, results)?;
        crate::report::save(results, &paths.root)?;
    }
    Ok(())
}

/// Runs a workload once more on each broker, with `perf` sampling it.
pub(crate) fn run_once(
    workload: &Workload,
    brokers: &mut [Broker],
    settings: &Settings,
    paths: &Paths,
    results: &mut Results,
) -> Result<()> {
    let perf = Command::new("perf").arg("--version").output();
    ensure!(
        perf.is_ok_and(|output| output.status.success()),
        "perf is not installed (Debian: apt-get install linux-perf): no profiles"
    );
    for broker in brokers.iter_mut().filter(|broker| is_profiled(broker.kind, workload, settings)) {
        let kind = broker.kind;
        if results.workloads.get(workload.id).is_some_and(|measured| measured.failed.contains_key(&kind)) {
            continue;
        }
        let file = paths.data().join(format!("{}.perf", std::process::id()));
        broker.record = Some(file.clone());
        let run = workload.run(broker, settings.lengths);
        broker.record = None;
        if (run.is_err() || workload.kind.needs_fresh_broker())
            && let Err(error) = broker.replace(paths)
        {
            results.problem(format!("failed to restart {kind}: {error:#}"));
        }
        let profile = run.and_then(|figures| {
            let cost = figures.get("cpu_s_per_million").copied().unwrap_or(0.0);
            Ok(Profile { cpu_s_per_million: cost, ..perf::read(&file)? })
        });
        let _ = std::fs::remove_file(&file);
        match profile {
            Ok(profile) => {
                println!("{:<6} {:<18} {}", workload.id, kind.title(), brief(&profile));
                results.profiles.entry(workload.id.to_owned()).or_default().insert(kind, profile);
            }
            Err(error) if kind.is_inver() => {
                results.problem(format!("{} of {kind}, profiled: {error:#}", workload.id));
            }
            // A peer's profile is for comparison only.
            Err(error) => eprintln!("{} of {kind}, profiled: {error:#}", workload.id),
        }
    }
    Ok(())
}

/// A profile in one line.
fn brief(profile: &Profile) -> String {
    let mut parts: Vec<(&String, &f64)> = profile.purposes.iter().collect();
    parts.sort_by(|one, other| other.1.total_cmp(one.1));
    let parts: Vec<String> =
        parts.iter().map(|(name, share)| format!("{name} {:.0} %", **share * 100.0)).collect();
    format!("CPU per million {} s: {}", number(profile.cpu_s_per_million), parts.join(", "))
}
