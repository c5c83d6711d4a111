//! Rounds: every contestant in turn on the same work, A B C A B C, while all of them stay up.
//!
//! Whoever fails is left out of the work and started anew: one broken broker ends neither a work nor a report.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;

use crate::broker::Broker;
use crate::contest::{self, Settings};
use crate::contestant::Contestant;
use crate::places::Places;
use crate::progress::Progress;
use crate::report::table;
use crate::results::{Results, Run, spread};
use crate::works::{Bound, Field, Work};
use crate::{profile, tools};

/// Rounds that a work gets in addition if by some of its rounds what is wanted is met, and by others missed.
const FURTHER_ROUNDS: usize = 2;
/// Guesses, for the time that is left: what a run takes beside its window, what becoming warm takes, and a profile.
const BESIDE_TIME: Duration = Duration::from_millis(700);
const SETTLE_TIME: Duration = Duration::from_secs(12);
const PROFILE_TIME: Duration = Duration::from_secs(8);

/// A guess of how long a work takes.
pub(crate) fn planned(work: &Work, settings: &Settings) -> Duration {
    let contestants = work.field.contestants().iter().filter(|contestant| settings.takes(**contestant));
    let runs = (contestants.clone().count() * rounds_of(work, settings)) as u32;
    let run = settings.lengths.warmup + settings.lengths.window + BESIDE_TIME;
    let rounds = work.kind.usual_time().unwrap_or(run) * runs;
    let settles = contestants.filter(|contestant| !contestant.is_inver() && !work.kind.wants_fresh()).count();
    let profile =
        if settings.with_all && profile::is_always_wanted(work) { PROFILE_TIME } else { Duration::ZERO };
    rounds + SETTLE_TIME * settles as u32 + profile
}

/// Where there is neither a peer nor anything wanted, and a round takes minutes, one says it all.
fn rounds_of(work: &Work, settings: &Settings) -> usize {
    let is_alone = work.field.contestants().len() == 1;
    if is_alone && work.wanted.is_empty() { settings.rounds.min(1) } else { settings.rounds }
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
    let mut brokers = contest::start(field, settings, places, results);
    contest::warm_up(works, &mut brokers, settings.lengths);
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
    progress.end(planned(work, settings));
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
    let rounds = rounds_of(work, settings);
    while round < rounds
        || (round < rounds + FURTHER_ROUNDS && !work.kind.is_long() && is_undecided(work, &runs))
    {
        round += 1;
        for broker in brokers.iter_mut() {
            let contestant = broker.contestant;
            if failed.contains_key(&contestant) {
                continue;
            }
            let renewed = work.kind.wants_fresh() || broker.is_tuned_otherwise(&own_places);
            let ready = if renewed { broker.renew(&own_places) } else { Ok(()) };
            if round == 1 && ready.is_ok() && !work.kind.wants_fresh() {
                contest::settle(work, broker, settings.lengths);
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
    if work.kind.wants_fresh() {
        for broker in brokers {
            if let Err(error) = broker.renew(places) {
                eprintln!("    {} did not start again: {error:#}", broker.contestant);
            }
        }
    }
    (runs, failed)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::works::{Lengths, WORKS};

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
            WORKS.iter().filter(|work| rounds_of(work, &settings) == 1).map(|work| work.id).collect();
        assert_eq!(of_one, ["S2q", "S2s"]);
    }
}
