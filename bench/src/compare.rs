//! Comparison: all brokers stay up and run the same workload in turns, A B C A B C.
//!
//! A broker that fails is left out of the workload and restarted; the workload and the report continue without it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;

use crate::broker::Broker;
use crate::broker_kind::BrokerKind;
use crate::paths::Paths;
use crate::progress::Progress;
use crate::report::table;
use crate::results::{Results, Run, spread};
use crate::setup::{self, Settings};
use crate::workloads::{Bound, Protocol, Workload};
use crate::{profile, tools};

/// Additional rounds of a workload whose targets are met in some rounds and missed in others.
const FURTHER_ROUNDS: usize = 2;
/// Estimates for the remaining time: of a run beside its window, of warming up, and of a profile.
const BESIDE_TIME: Duration = Duration::from_millis(700);
const SETTLE_TIME: Duration = Duration::from_secs(12);
const PROFILE_TIME: Duration = Duration::from_secs(8);

/// The estimated duration of a workload.
pub(crate) fn planned(workload: &Workload, settings: &Settings) -> Duration {
    let kinds = workload.protocol.brokers().iter().filter(|kind| settings.includes(**kind));
    let runs = (kinds.clone().count() * rounds_of(workload, settings)) as u32;
    let run = settings.lengths.warmup + settings.lengths.window + BESIDE_TIME;
    let rounds = workload.kind.estimated_time().unwrap_or(run) * runs;
    let settles = kinds.filter(|kind| !kind.is_inver() && !workload.kind.needs_fresh_broker()).count();
    let profile = if settings.with_all && profile::is_always_selected(workload) {
        PROFILE_TIME
    } else {
        Duration::ZERO
    };
    rounds + SETTLE_TIME * settles as u32 + profile
}

/// The rounds of a workload: one where there is neither a peer nor a target, because a round takes minutes.
fn rounds_of(workload: &Workload, settings: &Settings) -> usize {
    let is_alone = workload.protocol.brokers().len() == 1;
    if is_alone && workload.targets.is_empty() { settings.rounds.min(1) } else { settings.rounds }
}

/// Measures workloads of one protocol and stores them in `results`.
pub(crate) fn compare(
    protocol: Protocol,
    workloads: &[&Workload],
    settings: &Settings,
    paths: &Paths,
    progress: &mut Progress,
    results: &mut Results,
) -> Result<()> {
    let mut brokers = setup::start(protocol, settings, paths, results);
    setup::warm_up(workloads, &mut brokers, settings.lengths);
    let (last, first): (Vec<&Workload>, Vec<&Workload>) =
        workloads.iter().partition(|workload| workload.kind.leaves_brokers_cold());
    for workload in &first {
        measure(workload, &mut brokers, settings, paths, progress, results)?;
    }
    if settings.with_all && tools::exist(protocol) {
        progress.begin(&format!("{protocol:?}: the peer's own tools"));
        let tools = tools::run_on(protocol, &mut brokers, settings, paths, results);
        tools.unwrap_or_else(|error| results.problem(format!("tools of {protocol:?}: {error:#}")));
        progress.end(tools::planned(protocol, settings));
    }
    for workload in &last {
        measure(workload, &mut brokers, settings, paths, progress, results)?;
    }
    Ok(())
}

/// Measures one workload and stores it.
fn measure(
    workload: &Workload,
    brokers: &mut [Broker],
    settings: &Settings,
    paths: &Paths,
    progress: &mut Progress,
    results: &mut Results,
) -> Result<()> {
    progress.begin(&format!("{}: {}", workload.id, workload.title));
    let (runs, failed) = rounds(workload, brokers, settings, paths);
    // The failure of a peer is a finding, not a problem.
    for (kind, error) in failed.iter().filter(|(kind, _)| kind.is_inver()) {
        results.problem(format!("{} of {kind}: {error}", workload.id));
    }
    let versions: BTreeMap<BrokerKind, String> =
        brokers.iter().map(|broker| (broker.kind, broker.version.clone())).collect();
    let window_s = settings.lengths.window.as_secs_f64();
    results.put(workload.id, runs, failed, versions, window_s);
    table::print(workload, results);
    crate::report::save(results, &paths.root)?;
    if settings.with_all && profile::is_selected(workload, results) {
        let profiled = profile::run_once(workload, brokers, settings, paths, results);
        profiled.unwrap_or_else(|error| results.problem(format!("profile of {}: {error:#}", workload.id)));
        crate::report::save(results, &paths.root)?;
    }
    progress.end(planned(workload, settings));
    Ok(())
}

/// Runs all rounds of one workload. A broker that failed is skipped in later rounds.
fn rounds(
    workload: &Workload,
    brokers: &mut [Broker],
    settings: &Settings,
    paths: &Paths,
) -> (Vec<Run>, BTreeMap<BrokerKind, String>) {
    let mut run_paths = if workload.kind.is_start() { paths.on_every_core() } else { paths.clone() };
    run_paths.tune_for_latency = workload.kind.is_latency();
    let (mut runs, mut failed) = (Vec::new(), BTreeMap::new());
    let mut round = 0;
    let rounds = rounds_of(workload, settings);
    while round < rounds
        || (round < rounds + FURTHER_ROUNDS && !workload.kind.is_long() && is_undecided(workload, &runs))
    {
        round += 1;
        for broker in brokers.iter_mut() {
            let kind = broker.kind;
            if failed.contains_key(&kind) {
                continue;
            }
            let is_replaced = workload.kind.needs_fresh_broker() || broker.needs_other_tuning(&run_paths);
            let ready = if is_replaced { broker.replace(&run_paths) } else { Ok(()) };
            if round == 1 && ready.is_ok() && !workload.kind.needs_fresh_broker() {
                setup::settle(workload, broker, settings.lengths);
            }
            // Dirty pages of the previous broker must not be written during this run.
            rustix::fs::sync();
            match ready.and_then(|()| workload.run(broker, settings.lengths)) {
                Ok(figures) => {
                    eprintln!("  {round} {:<18} {}", kind.title(), table::brief(&figures));
                    runs.push(Run { broker: kind, round, figures });
                }
                Err(error) => {
                    eprintln!("  {round} {:<18} failed: {error:#}", kind.title());
                    let own = broker.last_error().map(|line| format!("; its log: {line}"));
                    failed.insert(kind, format!("{error:#}{}", own.unwrap_or_default()));
                    // Its state is unknown: replace it for the next workload.
                    if let Err(error) = broker.replace(paths) {
                        eprintln!("    failed to start again: {error:#}");
                    }
                }
            }
        }
    }
    if workload.kind.needs_fresh_broker() {
        for broker in brokers {
            if let Err(error) = broker.replace(paths) {
                eprintln!("    failed to restart {}: {error:#}", broker.kind);
            }
        }
    }
    (runs, failed)
}

/// Whether a target is met in some of these rounds and missed in others.
fn is_undecided(workload: &Workload, runs: &[Run]) -> bool {
    let of = |kind: BrokerKind, figure: &str| {
        let own = runs.iter().filter(|run| run.broker == kind);
        spread(own.filter_map(|run| run.figures.get(figure).copied()))
    };
    workload.targets.iter().any(|target| {
        let Some(own) = of(target.of, target.figure) else { return false };
        let peer = workload.protocol.brokers().last().and_then(|peer| of(*peer, target.figure));
        match (&target.bound, peer) {
            (Bound::Times(times), Some(peer)) if target.figure == "per_s" => {
                own.min / peer.max < *times && own.max / peer.min >= *times
            }
            (Bound::Times(times), Some(peer)) => peer.min / own.max < *times && peer.max / own.min >= *times,
            (Bound::AtMost(most), _) => own.min <= *most && own.max > *most,
            // Depends on another workload, whose rounds are complete.
            (Bound::Times(_), None) | (Bound::TimesOf(..), _) => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workloads::{Lengths, WORKLOADS};

    fn run(kind: BrokerKind, cpu: f64, per_s: f64) -> Run {
        let figures = [("cpu_s_per_million".to_owned(), cpu), ("per_s".to_owned(), per_s)].into();
        Run { broker: kind, round: 1, figures }
    }

    #[test]
    fn rounds_that_disagree_about_a_target_are_undecided() {
        // K2: three times less CPU than Kafka, and no less throughput.
        let workload = Workload::named("K2").unwrap();
        let (own, peer) = (BrokerKind::InverAlways, BrokerKind::Kafka);
        let met = [run(own, 1.0, 9.0), run(own, 1.9, 8.0), run(peer, 6.0, 7.0)];
        assert!(!is_undecided(workload, &met));
        let open = [run(own, 1.0, 9.0), run(own, 2.1, 8.0), run(peer, 6.0, 7.0)];
        assert!(is_undecided(workload, &open));
        let missed = [run(own, 3.0, 6.0), run(peer, 6.0, 7.0)];
        assert!(!is_undecided(workload, &missed));
        let open_by_throughput = [run(own, 1.0, 9.0), run(own, 1.0, 6.0), run(peer, 6.0, 7.0)];
        assert!(is_undecided(workload, &open_by_throughput));
    }

    #[test]
    fn only_workloads_without_peer_and_target_have_one_round() {
        let lengths = Lengths { warmup: Duration::ZERO, window: Duration::ZERO };
        let settings = Settings { rounds: 3, lengths, only: Vec::new(), with_all: true };
        let single: Vec<&str> = WORKLOADS
            .iter()
            .filter(|workload| rounds_of(workload, &settings) == 1)
            .map(|workload| workload.id)
            .collect();
        assert_eq!(single, ["S2q", "S2s"]);
    }
}
