//! Rounds: every contestant in turn on the same work, A B C A B C, while all of them stay up.
//!
//! Whoever fails is left out of the work and started anew: one broken broker ends neither a work nor a report.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::broker::{Broker, Contestant, Places};
use crate::report::results::{Results, Run, spread};
use crate::report::table;
use crate::works::{Field, Kind, Lengths, Work};

/// How long a virtual machine that was just started is given to compile what is hot.
const COMPILE_TIME: Duration = Duration::from_secs(20);
/// Before each work it runs warm until two runs in succession have cost no less than the best before them by this share …
const STILL_GAINS: f64 = 0.05;
/// … but no longer than this.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(40);
/// Rounds that a work gets in addition if one contestant's rounds differ by more than this.
const FURTHER_ROUNDS: usize = 2;
const SPREAD_MAX: f64 = 1.3;

pub(crate) struct Settings {
    pub(crate) rounds: usize,
    pub(crate) lengths: Lengths,
    /// Only these, if there are any.
    pub(crate) only: Vec<Contestant>,
}

impl Settings {
    fn takes(&self, contestant: Contestant) -> bool {
        self.only.is_empty() || self.only.contains(&contestant)
    }
}

/// Starts the contestants of a field; who does not start is told of and left out.
pub(crate) fn start(
    field: Field,
    settings: &Settings,
    places: &Places,
    results: &mut Results,
) -> Vec<Broker> {
    let mut brokers = Vec::new();
    for contestant in field.contestants().iter().copied().filter(|contestant| settings.takes(*contestant)) {
        eprint!("starting {contestant} … ");
        match Broker::start(contestant, places) {
            Ok(broker) => {
                eprintln!("{} in {:.2} s", broker.version, broker.started_in.as_secs_f64());
                brokers.push(broker);
            }
            Err(error) => results.trouble(format!("{contestant} did not start: {error:#}")),
        }
    }
    brokers
}

/// Measures `works`, all of one field, and puts what was found into `results`.
pub(crate) fn compare(
    field: Field,
    works: &[&Work],
    settings: &Settings,
    places: &Places,
    results: &mut Results,
) -> Result<()> {
    let mut brokers = start(field, settings, places, results);
    if let Some(work) = works.iter().find(|work| !work.kind.wants_fresh() && !work.kind.is_long()) {
        for broker in brokers.iter_mut().filter(|broker| broker.contestant.is_compiled_while_it_runs()) {
            eprintln!("warming {} up", broker.contestant);
            let window = COMPILE_TIME.saturating_sub(settings.lengths.warmup);
            let _ = work.run(broker, Lengths { window, ..settings.lengths });
        }
    }
    for work in works {
        eprintln!("{}: {}", work.id, work.title);
        let (runs, failed) = rounds(work, &mut brokers, settings, places);
        // What a peer cannot do is a finding, not a trouble.
        for (contestant, error) in failed.iter().filter(|(contestant, _)| contestant.is_inver()) {
            results.trouble(format!("{} of {contestant}: {error}", work.id));
        }
        let versions: BTreeMap<Contestant, String> =
            brokers.iter().map(|broker| (broker.contestant, broker.version.clone())).collect();
        let window_s = settings.lengths.window.as_secs_f64();
        results.put(work.id, runs, failed, versions, window_s);
        table::print(work, results);
        crate::report::save(results, &places.root)?;
    }
    Ok(())
}

/// All rounds of one work: who failed is not asked again.
fn rounds(
    work: &Work,
    brokers: &mut [Broker],
    settings: &Settings,
    places: &Places,
) -> (Vec<Run>, BTreeMap<Contestant, String>) {
    let mut own_places = if work.kind.is_start() { places.on_every_core() } else { places.clone() };
    own_places.for_latency = work.kind.is_latency();
    let (mut runs, mut failed) = (Vec::new(), BTreeMap::new());
    let mut round = 0;
    while round < settings.rounds
        || (round < settings.rounds + FURTHER_ROUNDS && !work.kind.is_long() && differ(work, &runs))
    {
        round += 1;
        for broker in brokers.iter_mut() {
            let contestant = broker.contestant;
            if failed.contains_key(&contestant) {
                continue;
            }
            // A start is measured by starting, and memory by a broker that has not used it before.
            let ready = if work.kind.wants_fresh() || broker.is_tuned_otherwise(&own_places) {
                broker.renew(&own_places)
            } else {
                if round == 1 {
                    settle(work, broker, settings.lengths);
                }
                Ok(())
            };
            // What the one before has left unwritten is not written on this one's time.
            rustix::fs::sync();
            match ready.and_then(|()| work.run(broker, settings.lengths)) {
                Ok(figures) => {
                    eprintln!("  {round} {:<18} {}", contestant.title(), table::brief(&figures));
                    runs.push(Run { contestant, round, figures });
                }
                Err(error) => {
                    eprintln!("  {round} {:<18} failed: {error:#}", contestant.title());
                    let own = broker.last_error().map(|line| format!("; it says: {line}"));
                    failed.insert(contestant, format!("{error:#}{}", own.unwrap_or_default()));
                    // Whatever state it is in: the next work finds a whole one.
                    if let Err(error) = broker.renew(places) {
                        eprintln!("    and did not start again: {error:#}");
                    }
                }
            }
        }
    }
    if work.kind.is_start() {
        for broker in brokers {
            if let Err(error) = broker.renew(places) {
                eprintln!("    {} did not start again: {error:#}", broker.contestant);
            }
        }
    }
    (runs, failed)
}

/// Warms a peer up for a work: a virtual machine, or a page cache, that is cold says nothing.
pub(crate) fn settle(work: &Work, broker: &mut Broker, lengths: Lengths) {
    if broker.contestant.is_inver() || work.kind.is_long() {
        return;
    }
    let began = Instant::now();
    let (mut best, mut without_gain) = (f64::INFINITY, 0);
    loop {
        let Ok(figures) = work.run(broker, lengths) else { return };
        let cost = figures.get("cpu_s_per_million").copied().unwrap_or(0.0);
        without_gain = if cost < best * (1.0 - STILL_GAINS) { 0 } else { without_gain + 1 };
        best = best.min(cost);
        let is_settled = !broker.contestant.is_compiled_while_it_runs() || without_gain == 2;
        if is_settled || began.elapsed() > SETTLE_TIME_MAX {
            return;
        }
    }
}

/// Whether the rounds of any contestant say too different things for their median to be trusted.
fn differ(work: &Work, runs: &[Run]) -> bool {
    let contestants = work.field.contestants();
    contestants.iter().any(|contestant| {
        let own = runs.iter().filter(|run| run.contestant == *contestant);
        spread(own.filter_map(|run| run.figures.get(work.kind.main_figure()).copied()))
            .is_some_and(|spread| spread.max > spread.min * SPREAD_MAX)
    })
}

impl Kind {
    fn wants_fresh(self) -> bool {
        matches!(
            self,
            Self::Start | Self::MqttIdle { .. } | Self::MqttSubscriptions { .. } | Self::Scale { .. }
        )
    }

    /// Whether a round takes much longer than its window.
    fn is_long(self) -> bool {
        match self {
            Self::KafkaPartitions { partitions } => partitions > 1000,
            Self::KafkaBacklog { .. } => true,
            _ => self.wants_fresh() && !self.is_start(),
        }
    }

    pub(crate) fn is_start(self) -> bool {
        matches!(self, Self::Start)
    }

    /// The figure that rounds are compared by.
    fn main_figure(self) -> &'static str {
        if self.is_start() {
            "start_ms"
        } else if self.is_latency() {
            "p99_us"
        } else {
            "cpu_s_per_million"
        }
    }
}
