//! Results as they are kept: every run of every work, replaced when the work is measured again.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::contestant::Contestant;
use crate::machine::Machine;
use crate::machine::gaps::Ticks;
use crate::perf::Profile;

/// Where reports lie, below the project's root.
pub(crate) const FOLDER: &str = "docs/performance";

/// Figures of a run, by name.
pub(crate) type Figures = BTreeMap<String, f64>;

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) machine: Machine,
    pub(crate) works: BTreeMap<String, Measured>,
    /// What the peers' own tools said, by work and contestant.
    #[serde(default)]
    pub(crate) tools: BTreeMap<String, BTreeMap<Contestant, Vec<Figures>>>,
    /// What the load generators reached against a sink, by work.
    #[serde(default)]
    pub(crate) sink: BTreeMap<String, Figures>,
    /// Where the brokers' time went, by work.
    #[serde(default)]
    pub(crate) profiles: BTreeMap<String, BTreeMap<Contestant, Profile>>,
    /// Save nothing.
    #[serde(skip)]
    pub(crate) dry: bool,
    /// When this run began.
    #[serde(skip)]
    pub(crate) steal_since: Option<Ticks>,
    /// What went wrong in this run.
    #[serde(skip)]
    pub(crate) troubles: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) day: String,
    pub(crate) window_s: f64,
    pub(crate) versions: BTreeMap<Contestant, String>,
    pub(crate) runs: Vec<Run>,
    /// Who could not do it, and why.
    #[serde(default)]
    pub(crate) failed: BTreeMap<Contestant, String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) contestant: Contestant,
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

/// Today, as the machine's `date` says it.
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
        // Whoever is interrupted leaves the old or the new, whole.
        let new = Self::path(root).with_extension("new");
        fs::write(&new, serde_json::to_string_pretty(self)? + "\n")?;
        Ok(fs::rename(new, Self::path(root))?)
    }

    /// Brings the hypervisor's steal of this run up to now.
    pub(crate) fn count_steal(&mut self) {
        if let Some(since) = self.steal_since {
            self.machine.steal_share = Some((Ticks::now() - since).steal_share());
        }
    }

    /// Tells of something that went wrong, now and once more at the end.
    pub(crate) fn trouble(&mut self, what: String) {
        eprintln!("{what}");
        self.troubles.push(what);
    }

    /// Replaces the runs of the contestants that ran; the others' stay.
    pub(crate) fn put(
        &mut self,
        id: &str,
        runs: Vec<Run>,
        failed: BTreeMap<Contestant, String>,
        versions: BTreeMap<Contestant, String>,
        window_s: f64,
    ) {
        let measured = self.works.entry(id.to_owned()).or_insert_with(|| Measured {
            day: String::new(),
            window_s,
            versions: BTreeMap::new(),
            runs: Vec::new(),
            failed: BTreeMap::new(),
        });
        measured.failed.retain(|contestant, _| !versions.contains_key(contestant));
        measured.failed.extend(failed);
        measured.runs.retain(|run| !versions.contains_key(&run.contestant));
        measured.runs.extend(runs);
        measured.versions.extend(versions);
        measured.window_s = window_s;
        measured.day = day();
    }
}

impl Measured {
    /// Whether any run says so.
    pub(crate) fn has(&self, figure: &str) -> bool {
        self.runs.iter().any(|run| run.figures.contains_key(figure))
    }

    pub(crate) fn spread(&self, contestant: Contestant, figure: &str) -> Option<Spread> {
        spread(
            self.runs
                .iter()
                .filter(|run| run.contestant == contestant)
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
