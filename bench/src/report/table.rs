//! The table in the terminal.

use super::results::Results;
use super::{FIGURES, number};
use crate::broker::Contestant;
use crate::works::{Figures, Work};

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

/// Peer ÷ Inver of the figure that the work is judged by, or Inver ÷ peer where more is better.
pub(crate) fn ratio(work: &Work, results: &Results, contestant: Contestant, figure: &str) -> Option<f64> {
    let measured = results.works.get(work.id)?;
    let peer = *work.field.contestants().last()?;
    let (own, other) = (measured.spread(contestant, figure)?.median, measured.spread(peer, figure)?.median);
    let ratio = if figure == "per_s" { own / other } else { other / own };
    ratio.is_finite().then_some(ratio)
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
