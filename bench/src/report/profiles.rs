//! The page of profiles: where the brokers' CPU goes.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Result;

use super::figures::number;
use crate::perf::purposes;
use crate::results::Results;
use crate::works::WORKS;

const INTRODUCTION: &str = "\
# Where the brokers' time goes

This page is written by `cargo run --release -p inver-bench -- all` (or `profile kafka`, `profile amqp`, …); nothing in
it is typed in. `perf` samples all threads of the broker in the window of a work. A sample in the kernel is charged to
the nearest frame above it that tells what it was for (a copy below `tcp_sendmsg` is network, a wake-up of a sleeping
thread is a wake-up wherever it happens); a sample in user space to its function. What a virtual machine (Java, Erlang)
compiles has no names there and counts as the broker itself. CPU-s are of a million messages. A work is here if it is
one of those that always are, or if it missed what is wanted of it.
";

pub(crate) fn write(results: &Results, folder: &Path) -> Result<()> {
    if results.profiles.is_empty() {
        return Ok(());
    }
    let mut page = INTRODUCTION.to_owned();
    for work in WORKS {
        let Some(profiles) = results.profiles.get(work.id) else { continue };
        let purposes = purposes(profiles);
        let _ = writeln!(page, "\n## {} {}\n", work.id, work.title);
        let _ = writeln!(page, "| CPU-s a million (a {}) | all | {} |", work.unit, purposes.join(" | "));
        let _ = writeln!(page, "|---|---|{}", "---|".repeat(purposes.len()));
        for (contestant, profile) in profiles {
            let cost = profile.cpu_s_per_million;
            let cells: Vec<String> = purposes
                .iter()
                .map(|purpose| match profile.purposes.get(purpose) {
                    Some(share) => format!("{} ({:.0} %)", number(cost * share), share * 100.0),
                    None => "–".to_owned(),
                })
                .collect();
            let _ = writeln!(page, "| {contestant} | {} | {} |", number(cost), cells.join(" | "));
        }
        page.push('\n');
        for (contestant, profile) in profiles {
            let functions: Vec<String> = profile
                .functions
                .iter()
                .map(|(function, share)| format!("`{}` {:.1} %", function.replace('|', "/"), share * 100.0))
                .collect();
            let _ = writeln!(page, "- {contestant}: {}.", functions.join(", "));
        }
    }
    Ok(fs::write(folder.join("profiles.md"), page)?)
}
