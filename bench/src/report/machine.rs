//! The machine, and the time that its hypervisor takes away.

use std::fmt::Write as _;

use crate::machine::Machine;

/// Share of lost time from which a 99th percentile reflects the machine.
const SHARE_OF_P99: f64 = 0.01;

pub(crate) fn line(page: &mut String, machine: &Machine) {
    let _ =
        write!(page, "\nMachine: {}, {} cores, Linux {}", machine.processor, machine.cores, machine.kernel);
    if let Some(steal) = machine.steal_share {
        let _ = write!(
            page,
            "; hypervisor steal over the last run (`/proc/stat`): {:.1} % of its cores' time",
            steal * 100.0
        );
    }
    page.push_str(".\n");
}

/// Gaps of the cores, and their effect on the latencies above.
pub(crate) fn gaps(page: &mut String, machine: &Machine) {
    if machine.gaps.is_empty() {
        return;
    }
    page.push_str("| gaps of the machine | longer than 0.1 ms, per second | longer than 1 ms, per second | longest, ms | time lost | other processes |\n|---|---|---|---|---|---|\n");
    for core in &machine.gaps {
        let _ = writeln!(
            page,
            "| core {} | {:.1} | {:.1} | {:.1} | {:.2} % | {:.2} % |",
            core.core,
            core.over_100_us_per_s,
            core.over_1_ms_per_s,
            core.longest_us / 1e3,
            core.lost_share * 100.0,
            core.waited_share * 100.0
        );
    }
    // Broker and load are on different cores: a gap of either delays a message.
    let lost: f64 = machine.gaps.iter().map(|core| core.lost_share).sum();
    let means = if lost >= SHARE_OF_P99 {
        "so p99 and p99.9 reflect the machine as much as the broker; compare p50 and p90"
    } else if lost >= SHARE_OF_P99 / 10.0 {
        "so p99.9 reflects the machine as much as the broker"
    } else {
        "which is too little to affect these percentiles"
    };
    let _ = writeln!(
        page,
        "\nMeasured before any broker was started, by a loop that only reads the clock: the host takes the cores away (hypervisor steal)\nfor {:.2} % of the time, both together, and delays whatever is due meanwhile, {means}.\n",
        lost * 100.0
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::gaps::CoreGaps;

    fn page_for(lost_share: f64) -> String {
        let core = CoreGaps { lost_share, longest_us: 6_900.0, over_1_ms_per_s: 2.5, ..CoreGaps::default() };
        let machine = Machine {
            gaps: vec![core, CoreGaps { core: 1, ..core }],
            steal_share: Some(0.021),
            ..Machine::default()
        };
        let mut page = String::new();
        line(&mut page, &machine);
        gaps(&mut page, &machine);
        page
    }

    #[test]
    fn lost_time_determines_which_percentiles_reflect_the_machine() {
        let much = page_for(0.009);
        assert!(much.contains("2.1 % of its cores' time"), "{much}");
        assert!(much.contains("| core 1 | 0.0 | 2.5 | 6.9 | 0.90 % |"), "{much}");
        assert!(much.contains("1.80 %") && much.contains("p99 and p99.9 reflect the machine"), "{much}");
        assert!(page_for(0.002).contains("so p99.9 reflects the machine"));
        assert!(page_for(0.0).contains("too little"));
        let mut page = String::new();
        gaps(&mut page, &Machine::default());
        assert_eq!(page, "", "no gaps were measured");
    }
}
