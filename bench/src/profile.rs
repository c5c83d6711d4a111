//! Where the brokers' time goes: a work is played once more, with `perf` looking at whoever is asked.

use std::process::Command;

use anyhow::{Result, ensure};

use crate::broker::Broker;
use crate::contest::{self, Settings};
use crate::contestant::Contestant;
use crate::perf::{self, Profile};
use crate::places::Places;
use crate::report::number;
use crate::results::Results;
use crate::works::{Field, Wanted, Work};

/// Works that are looked at when none is named, whatever was found of them.
const PROFILED: [&str; 12] = ["K1", "K1x4", "K2", "K2x4", "K4", "K5", "K6", "A1", "A2", "M1", "M2", "X1"];

/// Whether a work is looked at when none is named: some always are, and whichever misses what is wanted of it.
pub(crate) fn is_wanted(work: &Work, results: &Results) -> bool {
    let misses = |wanted: &Wanted| wanted.found(work, results).is_some_and(|found| !found.is_met);
    work.kind.has_window() && (is_always_wanted(work) || work.wanted.iter().any(misses))
}

pub(crate) fn is_always_wanted(work: &Work) -> bool {
    PROFILED.contains(&work.id)
}

/// Whether a contestant is looked at. Where a run takes long, the peer is not.
fn is_looked_at(contestant: Contestant, work: &Work, settings: &Settings) -> bool {
    let named = settings.only.contains(&contestant);
    named || contestant == Contestant::InverAlways || !(contestant.is_inver() || work.kind.is_long())
}

/// Profiles works, all of one field, and puts what was found into `results`.
pub(crate) fn measure(
    field: Field,
    works: &[&Work],
    settings: &Settings,
    places: &Places,
    results: &mut Results,
) -> Result<()> {
    if works.is_empty() {
        return Ok(());
    }
    let mut brokers = contest::start(field, settings, places, results);
    for work in works {
        for broker in &mut brokers {
            if is_looked_at(broker.contestant, work, settings) {
                contest::settle(work, broker, settings.lengths);
            }
        }
        look(work, &mut brokers, settings, places, results)?;
        crate::report::save(results, &places.root)?;
    }
    Ok(())
}

/// Plays a work once more to each broker, with `perf` looking at it.
pub(crate) fn look(
    work: &Work,
    brokers: &mut [Broker],
    settings: &Settings,
    places: &Places,
    results: &mut Results,
) -> Result<()> {
    let there = Command::new("perf").arg("--version").output();
    ensure!(
        there.is_ok_and(|output| output.status.success()),
        "there is no perf on this machine (Debian: apt-get install linux-perf): nothing is profiled"
    );
    for broker in brokers.iter_mut().filter(|broker| is_looked_at(broker.contestant, work, settings)) {
        let contestant = broker.contestant;
        if results.works.get(work.id).is_some_and(|measured| measured.failed.contains_key(&contestant)) {
            continue;
        }
        let file = places.data().join(format!("{}.perf", std::process::id()));
        broker.record = Some(file.clone());
        let run = work.run(broker, settings.lengths);
        broker.record = None;
        if (run.is_err() || work.kind.wants_fresh())
            && let Err(error) = broker.renew(places)
        {
            results.trouble(format!("{contestant} did not start again: {error:#}"));
        }
        let profile = run.and_then(|figures| {
            let cost = figures.get("cpu_s_per_million").copied().unwrap_or(0.0);
            Ok(Profile { cpu_s_per_million: cost, ..perf::read(&file)? })
        });
        let _ = std::fs::remove_file(&file);
        match profile {
            Ok(profile) => {
                println!("{:<6} {:<18} {}", work.id, contestant.title(), brief(&profile));
                results.profiles.entry(work.id.to_owned()).or_default().insert(contestant, profile);
            }
            Err(error) if contestant.is_inver() => {
                results.trouble(format!("{} of {contestant}, profiled: {error:#}", work.id));
            }
            // A peer is only looked at for comparison.
            Err(error) => eprintln!("{} of {contestant}, profiled: {error:#}", work.id),
        }
    }
    Ok(())
}

/// A profile in a line.
fn brief(profile: &Profile) -> String {
    let mut parts: Vec<(&String, &f64)> = profile.purposes.iter().collect();
    parts.sort_by(|one, other| other.1.total_cmp(one.1));
    let parts: Vec<String> =
        parts.iter().map(|(name, share)| format!("{name} {:.0} %", **share * 100.0)).collect();
    format!("CPU a million {} s: {}", number(profile.cpu_s_per_million), parts.join(", "))
}
