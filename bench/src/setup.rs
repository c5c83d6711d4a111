//! Brokers started and warm, ready for measurement.

use std::time::{Duration, Instant};

use crate::broker::Broker;
use crate::broker_kind::BrokerKind;
use crate::paths::Paths;
use crate::results::Results;
use crate::workloads::{Lengths, Protocol, Workload};

/// Load on a newly started virtual machine, for its compiler.
const COMPILE_TIME: Duration = Duration::from_secs(20);
/// A broker with a JIT compiler is warm after two successive runs that are not cheaper than the best before by this share.
const GAIN_MIN: f64 = 0.05;
/// Time limit of warming up for one workload.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(40);

/// Settings of a measurement.
pub(crate) struct Settings {
    pub(crate) rounds: usize,
    pub(crate) lengths: Lengths,
    /// Only these brokers; empty: all.
    pub(crate) only: Vec<BrokerKind>,
    /// Also run profiles and the peers' own tools, on the same brokers, which are warm by then.
    pub(crate) with_all: bool,
}

impl Settings {
    pub(crate) fn includes(&self, kind: BrokerKind) -> bool {
        self.only.is_empty() || self.only.contains(&kind)
    }
}

/// Starts the brokers of a protocol. A broker that fails to start is reported and left out.
pub(crate) fn start(
    protocol: Protocol,
    settings: &Settings,
    paths: &Paths,
    results: &mut Results,
) -> Vec<Broker> {
    let mut brokers = Vec::new();
    for kind in protocol.brokers().iter().copied().filter(|kind| settings.includes(*kind)) {
        eprint!("starting {kind} … ");
        match Broker::start(kind, paths) {
            Ok(broker) => {
                eprintln!("{} in {:.2} s", broker.version, broker.started_in.as_secs_f64());
                brokers.push(broker);
            }
            Err(error) => results.problem(format!("failed to start {kind}: {error:#}")),
        }
    }
    brokers
}

/// Runs one of the workloads on brokers with a JIT compiler, until hot code is compiled.
pub(crate) fn warm_up(workloads: &[&Workload], brokers: &mut [Broker], lengths: Lengths) {
    let Some(workload) =
        workloads.iter().find(|workload| !workload.kind.needs_fresh_broker() && !workload.kind.is_long())
    else {
        return;
    };
    for broker in brokers.iter_mut().filter(|broker| broker.kind.has_jit_compiler()) {
        eprintln!("warming up {}", broker.kind);
        let window = COMPILE_TIME.saturating_sub(lengths.warmup);
        let _ = workload.run(broker, Lengths { window, ..lengths });
    }
}

/// Warms a peer up for a workload: a cold virtual machine or page cache would distort its figures.
pub(crate) fn settle(workload: &Workload, broker: &mut Broker, lengths: Lengths) {
    if broker.kind.is_inver() || workload.kind.is_long() {
        return;
    }
    let began = Instant::now();
    // The whole run is warm-up.
    let lengths = Lengths { warmup: Duration::ZERO, ..lengths };
    let (mut best, mut without_gain) = (f64::INFINITY, 0);
    loop {
        let Ok(figures) = workload.run(broker, lengths) else { return };
        let cost = figures.get("cpu_s_per_million").copied().unwrap_or(0.0);
        without_gain = if cost < best * (1.0 - GAIN_MIN) { 0 } else { without_gain + 1 };
        best = best.min(cost);
        let is_settled = !broker.kind.has_jit_compiler() || without_gain == 2;
        if is_settled || began.elapsed() > SETTLE_TIME_MAX {
            return;
        }
    }
}
