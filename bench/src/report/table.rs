//! The table in the terminal.

use super::figures::{FIGURES, number, ratio};
use crate::results::{Figures, Results};
use crate::works::Work;

/// One run in a line.
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

/// Medians with minimum and maximum, a line a contestant.
pub(crate) fn print(work: &Work, results: &Results) {
    let Some(measured) = results.works.get(work.id) else { return };
    println!("\n{}  {} (a {})", work.id, work.title, work.unit);
    for contestant in work.field.contestants().iter().copied() {
        let mut line = format!("  {:<18}", contestant.title());
        for (name, title, unit) in FIGURES {
            if let Some(spread) = measured.spread(contestant, name) {
                if *name == "lost" && spread.max == 0.0 {
                    continue;
                }
                let (low, high) = (number(spread.min), number(spread.max));
                line += &format!("  {title} {}{unit} [{low}–{high}]", number(spread.median));
            }
        }
        if contestant.is_inver() {
            let figures = [("cpu_s_per_million", "CPU"), ("per_s", "throughput"), ("p99_us", "p99")];
            for (figure, title) in figures {
                if let Some(ratio) = ratio(work, results, contestant, figure) {
                    line += &format!("  {title} ×{ratio:.2}");
                }
            }
            for wanted in work.wanted.iter().filter(|wanted| wanted.of == contestant) {
                if let Some(found) = wanted.found(work, results) {
                    line += &format!("  ({} wanted {}: {})", wanted.figure, found.wanted, found.value);
                }
            }
        }
        println!("{line}");
    }
    for (contestant, error) in &measured.failed {
        println!("  {:<18}  failed: {error}", contestant.title());
    }
    println!();
}
