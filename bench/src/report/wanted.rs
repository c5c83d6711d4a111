//! Targets for Inver, beside what was measured.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Result;

use super::figures::{FIGURES, number, ratio, sink_ratio};
use super::page::GENERATED;
use crate::results::Results;
use crate::works::{Bound, WORKS, Wanted, Work};

/// What was found of something wanted.
pub(crate) struct Found {
    pub(crate) value: String,
    pub(crate) wanted: String,
    pub(crate) is_met: bool,
}

impl Wanted {
    /// None where it was not measured.
    pub(crate) fn found(&self, work: &Work, results: &Results) -> Option<Found> {
        let own = || Some(results.works.get(work.id)?.spread(self.of, self.figure)?.median);
        Some(match self.bound {
            Bound::Times(wanted) => {
                let value = ratio(work, results, self.of, self.figure)?;
                Found {
                    value: format!("×{value:.1}"), wanted: format!("×{wanted}"), is_met: value >= wanted
                }
            }
            Bound::AtMost(wanted) => {
                let value = own()?;
                Found {
                    value: number(value),
                    wanted: format!("at most {}", number(wanted)),
                    is_met: value <= wanted,
                }
            }
            Bound::TimesOf(wanted, other) => {
                let value = own()? / results.works.get(other)?.spread(self.of, self.figure)?.median;
                Found {
                    value: format!("×{value:.2}"),
                    wanted: format!("at most ×{wanted} of {other}'s"),
                    is_met: value <= wanted,
                }
            }
        })
    }

    /// The ratio that the sink has, if that is more; not of its throughput, which its load bounds.
    fn sink(&self, work: &Work, results: &Results) -> Option<f64> {
        if !matches!(self.bound, Bound::Times(_)) || self.figure == "per_s" {
            return None;
        }
        let found = ratio(work, results, self.of, self.figure)?;
        sink_ratio(work, results, self.figure).filter(|sink| *sink > found)
    }
}

/// Writes the page of targets.
pub(crate) fn write(results: &Results, folder: &Path) -> Result<()> {
    let mut page = format!(
        "# Performance targets\n\n{GENERATED}\nWhere a target is missed, the ratio that a sink reaches is given as well, if it is better: the sink reads, counts and answers, and\ndoes nothing else. It runs by itself after all brokers.\n\n| workload | figure | of | target | found | |\n|---|---|---|---|---|---|\n"
    );
    table(&mut page, results);
    Ok(fs::write(folder.join("targets.md"), page)?)
}

fn table(page: &mut String, results: &Results) {
    for work in WORKS {
        for wanted in work.wanted {
            let Some(found) = wanted.found(work, results) else { continue };
            let figure = FIGURES.iter().find(|(name, ..)| *name == wanted.figure);
            let (title, unit) = figure.map_or((wanted.figure, ""), |(_, title, unit)| (title, unit));
            let unit =
                if matches!(wanted.bound, Bound::AtMost(_)) { format!(", {unit}") } else { String::new() };
            let verdict = match wanted.sink(work, results) {
                _ if found.is_met => "met".to_owned(),
                Some(sink) => format!("**missed** (sink: ×{sink:.1})"),
                None => "**missed**".to_owned(),
            };
            let _ = writeln!(
                page,
                "| **{}** {} | {title}{unit} | {} | {} | {} | {verdict} |",
                work.id, work.title, wanted.of, found.wanted, found.value,
            );
        }
    }
}
