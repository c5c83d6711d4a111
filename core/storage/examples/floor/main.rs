//! The log compared with its floor in one run on the same bytes: a bare loop that checksums, writes and (under `always`)
//! syncs the same groups, or reads them.
//!
//! `cargo run --release -p inver-storage --example floor -- [--quick] [folder] [part ...]` prints Markdown. The parts are
//! os, always, reads, streams, recovery and cleaner; the default is all of them, which takes some minutes and at most 12 GB
//! of disk. `--quick` runs a hundredth of each, as a check.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]
#![allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]

mod always;
mod cleaner;
mod os;
mod reads;
mod recovery;
mod setup;
mod streams;

use setup::{Bench, Row};

/// Name and function of a part.
type PartOf = (&'static str, fn(&Bench) -> Vec<Row>);

const PARTS: [PartOf; 6] = [
    ("os", os::run),
    ("always", always::run),
    ("reads", reads::run),
    ("streams", streams::run),
    ("recovery", recovery::run),
    ("cleaner", cleaner::run),
];

fn main() {
    let (mut is_quick, mut dir, mut wanted) = (false, None, Vec::new());
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--quick" => is_quick = true,
            name if PARTS.iter().any(|(part, _)| *part == name) => wanted.push(argument),
            folder => dir = Some(folder.to_owned()),
        }
    }
    let bench = Bench::new(dir.as_deref().unwrap_or("floor-data"), is_quick);
    println!("| measurement | log | floor | ratio | target |\n|---|---|---|---|---|");
    for (name, run) in PARTS {
        if wanted.is_empty() || wanted.iter().any(|part| part == name) {
            eprintln!("{name} ...");
            run(&bench).iter().for_each(|row| println!("{row}"));
        }
    }
    bench.clear();
}
