//! Targets for Inver, with the measured figures.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Result;

use super::figures::{FIGURES, number, ratio, sink_ratio};
use super::page::GENERATED;
use crate::results::Results;
use crate::workloads::{Bound, Target, WORKLOADS, Workload};

/// A target compared with its figure.
pub(crate) struct Verdict {
    pub(crate) value: String,
    pub(crate) target: String,
    pub(crate) is_met: bool,
}

impl Target {
    /// The verdict; `None` if the figure was not measured.
    pub(crate) fn verdict(&self, workload: &Workload, results: &Results) -> Option<Verdict> {
        let own = || Some(results.workloads.get(workload.id)?.spread(self.of, self.figure)?.median);
        Some(match self.bound {
            Bound::Times(bound) => {
                let value = ratio(workload, results, self.of, self.figure)?;
                Verdict {
                    value: format!("×{value:.1}"), target: format!("×{bound}"), is_met: value >= bound
                }
            }
            Bound::AtMost(bound) => {
                let value = own()?;
                Verdict {
                    value: number(value),
                    target: format!("at most {}", number(bound)),
                    is_met: value <= bound,
                }
            }
            Bound::TimesOf(bound, other) => {
                let value = own()? / results.workloads.get(other)?.spread(self.of, self.figure)?.median;
                Verdict {
                    value: format!("×{value:.2}"),
                    target: format!("at most ×{bound} of {other}'s"),
                    is_met: value <= bound,
                }
            }
        })
    }

    /// The sink's ratio, if it is better; not for throughput, which its load bounds.
    fn sink(&self, workload: &Workload, results: &Results) -> Option<f64> {
        if !matches!(self.bound, Bound::Times(_)) || self.figure == "per_s" {
            return None;
        }
        let found = ratio(workload, results, self.of, self.figure)?;
        sink_ratio(workload, results, self.figure).filter(|sink| *sink > found)
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
    for workload in WORKLOADS {
        for target in workload.targets {
            let Some(verdict) = target.verdict(workload, results) else { continue };
            let figure = FIGURES.iter().find(|(name, ..)| *name == target.figure);
            let (title, unit) = figure.map_or((target.figure, ""), |(_, title, unit)| (title, unit));
            let unit =
                if matches!(target.bound, Bound::AtMost(_)) { format!(", {unit}") } else { String::new() };
            let outcome = match target.sink(workload, results) {
                _ if verdict.is_met => "met".to_owned(),
                Some(sink) => format!("**missed** (sink: ×{sink:.1})"),
                None => "**missed**".to_owned(),
            };
            let _ = writeln!(
                page,
                "| **{}** {} | {title}{unit} | {} | {} | {} | {outcome} |",
                workload.id, workload.title, target.of, verdict.target, verdict.value,
            );
        }
    }
}
