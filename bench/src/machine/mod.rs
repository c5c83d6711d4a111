//! The machine of the run: its hardware, and the time that its host takes away.

pub(crate) mod gaps;

use std::fs;

use serde::{Deserialize, Serialize};

use gaps::CoreGaps;

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    /// Gaps of the cores; empty: not measured.
    #[serde(default)]
    pub(crate) gaps: Vec<CoreGaps>,
    /// Hypervisor steal over the last run.
    #[serde(default)]
    pub(crate) steal_share: Option<f64>,
}

impl Machine {
    pub(crate) fn here() -> Self {
        let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let processor =
            processor.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let cores = fs::read_to_string("/proc/cpuinfo").unwrap_or_default().matches("processor\t").count();
        Self {
            processor: processor.trim_start_matches(['\t', ' ', ':']).trim().to_owned(),
            cores,
            kernel: kernel.trim().to_owned(),
            ..Self::default()
        }
    }
}
