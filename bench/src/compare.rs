//! Rounds: every contestant in turn on the same work, A B C A B C, while all of them stay up.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::broker::{Broker, Contestant, Places};
use crate::report::results::{Machine, Results, Run};
use crate::works::{Field, Kind, Lengths, Work};

/// How long a virtual machine is given to compile what is hot.
const COMPILE_TIME: Duration = Duration::from_secs(20);

pub(crate) struct Settings {
    pub(crate) rounds: usize,
    pub(crate) lengths: Lengths,
    /// Only these, if there are any.
    pub(crate) only: Vec<Contestant>,
}

fn contestants(field: Field, settings: &Settings) -> Vec<Contestant> {
    let keep = |contestant: &Contestant| settings.only.is_empty() || settings.only.contains(contestant);
    field.contestants().iter().copied().filter(keep).collect()
}

/// Measures `works`, all of one field, and puts what was found into `results`.
pub(crate) fn compare(
    field: Field,
    works: &[&Work],
    settings: &Settings,
    places: &Places,
    results: &mut Results,
) -> Result<()> {
    let mut brokers = Vec::new();
    for contestant in contestants(field, settings) {
        eprint!("starting {contestant} … ");
        let broker = Broker::start(contestant, places).with_context(|| format!("starting {contestant}"))?;
        eprintln!("{} in {:.2} s", broker.version, broker.started_in.as_secs_f64());
        brokers.push(broker);
    }
    results.machine = Machine::here();
    for broker in brokers.iter_mut().filter(|broker| broker.contestant.is_compiled_while_it_runs()) {
        if let Some(work) = works.iter().find(|work| !work.kind.wants_fresh()) {
            eprintln!("warming {} up", broker.contestant);
            let window = COMPILE_TIME.saturating_sub(settings.lengths.warmup);
            let _ = work.run(broker, Lengths { window, ..settings.lengths });
        }
    }
    for work in works {
        eprintln!("{}: {}", work.id, work.title);
        let mut runs = Vec::new();
        for round in 1..=settings.rounds {
            for broker in &mut brokers {
                let contestant = broker.contestant;
                if work.kind.wants_fresh() {
                    // A start is measured by starting, and memory by a broker that has not used it before.
                    let again = Broker::start(contestant, places)?;
                    *broker = again;
                } else if !work.kind.wants_fresh() && round == 1 && !contestant.is_inver() {
                    // A virtual machine, or a page cache, that is cold says nothing.
                    let _ = work.run(broker, settings.lengths);
                }
                match work.run(broker, settings.lengths) {
                    Ok(figures) => {
                        eprintln!(
                            "  {round} {:<18} {}",
                            contestant.title(),
                            crate::report::table::brief(&figures)
                        );
                        runs.push(Run { contestant, round, figures });
                    }
                    Err(error) => eprintln!("  {round} {:<18} failed: {error:#}", contestant.title()),
                }
            }
        }
        let versions: BTreeMap<Contestant, String> =
            brokers.iter().map(|broker| (broker.contestant, broker.version.clone())).collect();
        let window_s = settings.lengths.window.as_secs_f64();
        results.put(work.id, runs, versions, window_s);
        crate::report::table::print(work, results);
        crate::report::save(results, &places.root)?;
    }
    Ok(())
}

impl Kind {
    fn wants_fresh(self) -> bool {
        matches!(
            self,
            Self::Start | Self::MqttIdle { .. } | Self::MqttSubscriptions { .. } | Self::Scale { .. }
        )
    }

    pub(crate) fn is_start(self) -> bool {
        matches!(self, Self::Start)
    }
}
