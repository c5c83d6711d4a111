//! Stored results (`results.json`): every run of every workload, replaced when the workload is measured again.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::broker_kind::BrokerKind;
use crate::machine::Machine;
use crate::machine::gaps::Ticks;
use crate::perf::Profile;

/// Folder of the reports, below the project's root.
pub(crate) const FOLDER: &str = "docs/performance";

/// Figures of a run, by name.
pub(crate) type Figures = BTreeMap<String, f64>;

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) machine: Machine,
    #[serde(alias = "works")]
    pub(crate) workloads: BTreeMap<String, Measured>,
    /// Figures of the peers' own tools, by tool and broker.
    #[serde(default)]
    pub(crate) tools: BTreeMap<String, BTreeMap<BrokerKind, Vec<Figures>>>,
    /// Figures of the load generators against the sink, by workload.
    #[serde(default)]
    pub(crate) sink: BTreeMap<String, Figures>,
    /// CPU profiles, by workload.
    #[serde(default)]
    pub(crate) profiles: BTreeMap<String, BTreeMap<BrokerKind, Profile>>,
    /// Nothing is saved.
    #[serde(skip)]
    pub(crate) dry: bool,
    /// CPU ticks at the start of this run.
    #[serde(skip)]
    pub(crate) steal_since: Option<Ticks>,
    /// Problems of this run.
    #[serde(skip)]
    pub(crate) problems: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) day: String,
    pub(crate) window_s: f64,
    pub(crate) versions: BTreeMap<BrokerKind, String>,
    pub(crate) runs: Vec<Run>,
    /// Brokers that failed the workload, with the error.
    #[serde(default)]
    pub(crate) failed: BTreeMap<BrokerKind, String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    #[serde(alias = "contestant")]
    pub(crate) broker: BrokerKind,
    pub(crate) round: usize,
    pub(crate) figures: Figures,
}

/// Median, minimum and maximum over rounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

/// The current date (UTC).
pub(crate) fn day() -> String {
    let output = Command::new("date").arg("-u").arg("+%Y-%m-%d").output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

impl Results {
    fn path(root: &Path) -> PathBuf {
        root.join(FOLDER).join("results.json")
    }

    pub(crate) fn load(root: &Path) -> Result<Self> {
        match fs::read_to_string(Self::path(root)) {
            Ok(text) => Ok(serde_json::from_str(&text)?),
            Err(_) => Ok(Self::default()),
        }
    }

    /// Writes the JSON.
    pub(crate) fn write(&self, root: &Path) -> Result<()> {
        fs::create_dir_all(root.join(FOLDER))?;
        // An interruption leaves either the old file or the new one.
        let new = Self::path(root).with_extension("new");
        fs::write(&new, serde_json::to_string_pretty(self)? + "\n")?;
        Ok(fs::rename(new, Self::path(root))?)
    }

    /// Updates the hypervisor's steal over this run.
    pub(crate) fn count_steal(&mut self) {
        if let Some(since) = self.steal_since {
            self.machine.steal_share = Some((Ticks::now() - since).steal_share());
        }
    }

    /// Reports a problem now, and again at the end of the run.
    pub(crate) fn problem(&mut self, what: String) {
        eprintln!("{what}");
        self.problems.push(what);
    }

    /// Replaces the runs of the brokers in `versions`; the runs of others are kept.
    pub(crate) fn put(
        &mut self,
        id: &str,
        runs: Vec<Run>,
        failed: BTreeMap<BrokerKind, String>,
        versions: BTreeMap<BrokerKind, String>,
        window_s: f64,
    ) {
        let measured = self.workloads.entry(id.to_owned()).or_insert_with(|| Measured {
            day: String::new(),
            window_s,
            versions: BTreeMap::new(),
            runs: Vec::new(),
            failed: BTreeMap::new(),
        });
        measured.failed.retain(|broker, _| !versions.contains_key(broker));
        measured.failed.extend(failed);
        measured.runs.retain(|run| !versions.contains_key(&run.broker));
        measured.runs.extend(runs);
        measured.versions.extend(versions);
        measured.window_s = window_s;
        measured.day = day();
    }
}

impl Measured {
    /// Whether any run has this figure.
    pub(crate) fn has(&self, figure: &str) -> bool {
        self.runs.iter().any(|run| run.figures.contains_key(figure))
    }

    pub(crate) fn spread(&self, broker: BrokerKind, figure: &str) -> Option<Spread> {
        spread(
            self.runs
                .iter()
                .filter(|run| run.broker == broker)
                .filter_map(|run| run.figures.get(figure).copied()),
        )
    }
}

/// Median, minimum and maximum of some values, if there are any.
pub(crate) fn spread(values: impl Iterator<Item = f64>) -> Option<Spread> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let median = match values.len() % 2 {
        1 => *values.get(middle)?,
        _ => f64::midpoint(*values.get(middle.checked_sub(1)?)?, *values.get(middle)?),
    };
    Some(Spread { median, min: *values.first()?, max: *values.last()? })
}
