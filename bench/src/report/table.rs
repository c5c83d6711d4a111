//! The results in the terminal.

use super::figures::{FIGURES, number, ratio};
use crate::results::{Figures, Results};
use crate::workloads::Workload;

/// A run in one line.
pub(crate) fn brief(figures: &Figures) -> String {
    let mut parts: Vec<String> = FIGURES
        .iter()
        .filter_map(|(name, title, unit)| {
            let value = *figures.get(*name)?;
            (*name != "lost" || value > 0.0).then(|| format!("{title} {}{unit}", number(value)))
        })
        .collect();
    if let (Some(broker), Some(load)) = (figures.get("broker_core_share"), figures.get("load_core_share")) {
        parts.push(format!("cores {broker:.2}+{load:.2}"));
    }
    parts.join(", ")
}

/// Prints medians with minimum and maximum, one line per broker.
pub(crate) fn print(workload: &Workload, results: &Results) {
    let Some(measured) = results.workloads.get(workload.id) else { return };
    println!("\n{}  {} (per {})", workload.id, workload.title, workload.unit);
    for broker in workload.protocol.brokers().iter().copied() {
        let mut line = format!("  {:<18}", broker.title());
        for (name, title, unit) in FIGURES {
            if let Some(spread) = measured.spread(broker, name) {
                if *name == "lost" && spread.max == 0.0 {
                    continue;
                }
                let (low, high) = (number(spread.min), number(spread.max));
                line += &format!("  {title} {}{unit} [{low}–{high}]", number(spread.median));
            }
        }
        if broker.is_inver() {
            let figures = [("cpu_s_per_million", "CPU"), ("per_s", "throughput"), ("p99_us", "p99")];
            for (figure, title) in figures {
                if let Some(ratio) = ratio(workload, results, broker, figure) {
                    line += &format!("  {title} ×{ratio:.2}");
                }
            }
            for target in workload.targets.iter().filter(|target| target.of == broker) {
                if let Some(found) = target.verdict(workload, results) {
                    line += &format!("  ({} target {}: {})", target.figure, found.target, found.value);
                }
            }
        }
        println!("{line}");
    }
    for (broker, error) in &measured.failed {
        println!("  {:<18}  failed: {error}", broker.title());
    }
    println!();
}
