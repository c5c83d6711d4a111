//! Rounds: every contestant in turn on the same work, A B C A B C, while all of them stay up.
//!
//! Whoever fails is left out of the work and started anew: one broken broker ends neither a work nor a report.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::broker::Broker;
use crate::contestant::Contestant;
use crate::places::Places;
use crate::progress::Progress;
use crate::report::table;
use crate::results::{Results, Run, spread};
use crate::works::{Bound, Field, Kind, Lengths, Noun, Work};
use crate::{profile, tools};

/// How long a virtual machine that was just started is given to compile what is hot.
const COMPILE_TIME: Duration = Duration::from_secs(20);
/// Before each work it runs warm until two runs in succession have cost no less than the best before them by this share …
const STILL_GAINS: f64 = 0.05;
/// … but no longer than this.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(40);
/// Rounds that a work gets in addition if by some of its rounds what is wanted is met, and by others missed.
const FURTHER_ROUNDS: usize = 2;
/// Guesses, for the time that is left: what a run takes beside its window, what becoming warm takes, and a profile.
const BESIDE_TIME: Duration = Duration::from_millis(700);
const SETTLE_TIME: Duration = Duration::from_secs(12);
const PROFILE_TIME: Duration = Duration::from_secs(8);

pub(crate) struct Settings {
    pub(crate) rounds: usize,
    pub(crate) lengths: Lengths,
    /// Only these, if there are any.
    pub(crate) only: Vec<Contestant>,
    /// Beside the rounds also profiles and the peers' own tools, on the same brokers, which are warm by then.
    pub(crate) with_all: bool,
}

impl Settings {
    pub(crate) fn takes(&self, contestant: Contestant) -> bool {
        self.only.is_empty() || self.only.contains(&contestant)
    }

    /// A guess of how long a work takes.
    pub(crate) fn planned(&self, work: &Work) -> Duration {
        let contestants = work.field.contestants().iter().filter(|contestant| self.takes(**contestant));
        let runs = (contestants.clone().count() * self.rounds_of(work)) as u32;
        let run = self.lengths.warmup + self.lengths.window + BESIDE_TIME;
        let rounds = work.kind.usual_time().unwrap_or(run) * runs;
        let settles =
            contestants.filter(|contestant| !contestant.is_inver() && !work.kind.wants_fresh()).count();
        let profile =
            if self.with_all && profile::is_always_wanted(work) { PROFILE_TIME } else { Duration::ZERO };
        rounds + SETTLE_TIME * settles as u32 + profile
    }

    /// Where there is neither a peer nor anything wanted, and a round takes minutes, one says it all.
    fn rounds_of(&self, work: &Work) -> usize {
        let is_alone = work.field.contestants().len() == 1;
        if is_alone && work.wanted.is_empty() { self.rounds.min(1) } else { self.rounds }
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
    progress: &mut Progress,
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
    let (last, first): (Vec<&Work>, Vec<&Work>) = works.iter().partition(|work| work.kind.leaves_cold());
    for work in &first {
        measure(work, &mut brokers, settings, places, progress, results)?;
    }
    if settings.with_all && tools::are_there(field) {
        progress.begin(&format!("{field:?}: the peer's own tools"));
        let tools = tools::play(field, &mut brokers, settings, places, results);
        tools.unwrap_or_else(|error| results.trouble(format!("tools of {field:?}: {error:#}")));
        progress.end(tools::planned(field, settings));
    }
    for work in &last {
        measure(work, &mut brokers, settings, places, progress, results)?;
    }
    Ok(())
}

/// Measures one work and keeps what was found.
fn measure(
    work: &Work,
    brokers: &mut [Broker],
    settings: &Settings,
    places: &Places,
    progress: &mut Progress,
    results: &mut Results,
) -> Result<()> {
    progress.begin(&format!("{}: {}", work.id, work.title));
    let (runs, failed) = rounds(work, brokers, settings, places);
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
    if settings.with_all && profile::is_wanted(work, results) {
        let profiled = profile::look(work, brokers, settings, places, results);
        profiled.unwrap_or_else(|error| results.trouble(format!("profile of {}: {error:#}", work.id)));
        crate::report::save(results, &places.root)?;
    }
    progress.end(settings.planned(work));
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
    let rounds = settings.rounds_of(work);
    while round < rounds
        || (round < rounds + FURTHER_ROUNDS && !work.kind.is_long() && is_undecided(work, &runs))
    {
        round += 1;
        for broker in brokers.iter_mut() {
            let contestant = broker.contestant;
            if failed.contains_key(&contestant) {
                continue;
            }
            // A start is measured by starting, and memory by a broker that has not used it before.
            let renewed = work.kind.wants_fresh() || broker.is_tuned_otherwise(&own_places);
            let ready = if renewed { broker.renew(&own_places) } else { Ok(()) };
            if round == 1 && ready.is_ok() && !work.kind.wants_fresh() {
                settle(work, broker, settings.lengths);
            }
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
    // All of it is warm-up.
    let lengths = Lengths { warmup: Duration::ZERO, ..lengths };
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

/// Whether what is wanted is met by some of these rounds and missed by others.
fn is_undecided(work: &Work, runs: &[Run]) -> bool {
    let of = |contestant: Contestant, figure: &str| {
        let own = runs.iter().filter(|run| run.contestant == contestant);
        spread(own.filter_map(|run| run.figures.get(figure).copied()))
    };
    work.wanted.iter().any(|wanted| {
        let Some(own) = of(wanted.of, wanted.figure) else { return false };
        let peer = work.field.contestants().last().and_then(|peer| of(*peer, wanted.figure));
        match (&wanted.bound, peer) {
            (Bound::Times(times), Some(peer)) if wanted.figure == "per_s" => {
                own.min / peer.max < *times && own.max / peer.min >= *times
            }
            (Bound::Times(times), Some(peer)) => peer.min / own.max < *times && peer.max / own.min >= *times,
            (Bound::AtMost(most), _) => own.min <= *most && own.max > *most,
            // Of another work, which has had its rounds.
            (Bound::Times(_), None) | (Bound::TimesOf(..), _) => false,
        }
    })
}

impl Kind {
    pub(crate) fn wants_fresh(self) -> bool {
        matches!(
            self,
            Self::Start | Self::MqttIdle { .. } | Self::MqttSubscriptions { .. } | Self::Scale { .. }
        )
    }

    /// Whether a round takes much longer than its window.
    pub(crate) fn is_long(self) -> bool {
        match self {
            Self::KafkaPartitions { partitions } => partitions > 1000,
            Self::KafkaBacklog { .. } => true,
            _ => self.wants_fresh() && !self.is_start(),
        }
    }

    /// Whether brokers are started anew by it, or may not survive it: nobody is warm after it.
    fn leaves_cold(self) -> bool {
        self.is_start() || matches!(self, Self::KafkaPartitions { .. } if self.is_long())
    }

    pub(crate) fn is_start(self) -> bool {
        matches!(self, Self::Start)
    }

    /// A guess of how long a round takes each contestant, where that is not told by the window.
    fn usual_time(self) -> Option<Duration> {
        let seconds = match self {
            Self::KafkaBacklog { .. } => 14,
            Self::KafkaPartitions { partitions } if partitions > 1000 => 14,
            Self::MqttSubscriptions { .. } => 15,
            Self::MqttIdle { .. } | Self::Start => 4,
            Self::Scale { noun: Noun::Topics, .. } => 30,
            Self::Scale { noun: Noun::Queues, .. } => 10,
            Self::Scale { noun: Noun::Sessions, .. } => 200,
            _ => return None,
        };
        Some(Duration::from_secs(seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::works::WORKS;

    fn run(contestant: Contestant, cpu: f64, per_s: f64) -> Run {
        let figures = [("cpu_s_per_million".to_owned(), cpu), ("per_s".to_owned(), per_s)].into();
        Run { contestant, round: 1, figures }
    }

    #[test]
    fn rounds_that_disagree_about_what_is_wanted_decide_nothing() {
        // K2: three times less CPU than Kafka, and no less throughput.
        let work = Work::named("K2").unwrap();
        let (own, peer) = (Contestant::InverAlways, Contestant::Kafka);
        let met = [run(own, 1.0, 9.0), run(own, 1.9, 8.0), run(peer, 6.0, 7.0)];
        assert!(!is_undecided(work, &met));
        let open = [run(own, 1.0, 9.0), run(own, 2.1, 8.0), run(peer, 6.0, 7.0)];
        assert!(is_undecided(work, &open));
        let missed = [run(own, 3.0, 6.0), run(peer, 6.0, 7.0)];
        assert!(!is_undecided(work, &missed));
        let open_by_throughput = [run(own, 1.0, 9.0), run(own, 1.0, 6.0), run(peer, 6.0, 7.0)];
        assert!(is_undecided(work, &open_by_throughput));
    }

    #[test]
    fn only_what_nobody_is_compared_in_and_nothing_is_wanted_of_has_one_round() {
        let lengths = Lengths { warmup: Duration::ZERO, window: Duration::ZERO };
        let settings = Settings { rounds: 3, lengths, only: Vec::new(), with_all: true };
        let of_one: Vec<&str> =
            WORKS.iter().filter(|work| settings.rounds_of(work) == 1).map(|work| work.id).collect();
        assert_eq!(of_one, ["S2q", "S2s"]);
    }
}
