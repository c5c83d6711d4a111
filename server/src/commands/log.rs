//! `inver log dump|verify`: looks at the files of a broker that does not run.

use std::io::{BufWriter, ErrorKind, Write, stdout};
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Subcommand;
use inver_storage::inspect;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Print every entry of the log, one a line.
    Dump {
        /// The data folder.
        data_dir: PathBuf,
    },
    /// Read all of the log and check every checksum; exit code 0 says that nothing is wrong.
    Verify {
        /// The data folder.
        data_dir: PathBuf,
    },
}

impl Command {
    pub(super) fn run(self) -> anyhow::Result<()> {
        match self {
            Command::Dump { data_dir } => {
                let mut out = BufWriter::new(stdout().lock());
                let mut written = Ok(());
                inspect::dump(&data_dir, &mut |entry| {
                    if written.is_ok() {
                        written = writeln!(
                            out,
                            "{} {} lsn {} {} bytes {:?}",
                            entry.file, entry.position, entry.lsn, entry.length, entry.parts
                        );
                    }
                })
                .with_context(|| data_dir.display().to_string())?;
                match written.and_then(|()| out.flush()) {
                    // The reader of the pipe has seen enough.
                    Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
                    other => Ok(other?),
                }
            }
            Command::Verify { data_dir } => {
                let report = inspect::verify(&data_dir).with_context(|| data_dir.display().to_string())?;
                println!(
                    "{} segments, {} entries, {} batches, {} bytes; {} streams, {} cursors; checkpoint at {}",
                    report.segments,
                    report.entries,
                    report.batches,
                    report.bytes,
                    report.streams,
                    report.cursors,
                    report.checkpoint
                );
                if report.torn_bytes > 0 {
                    println!(
                        "{} bytes of an unfinished write at the end; the next start cuts them",
                        report.torn_bytes
                    );
                }
                for flaw in &report.flaws {
                    println!("{flaw}");
                }
                match report.flaws.len() {
                    0 => Ok(()),
                    wrong => bail!("{wrong} things are wrong"),
                }
            }
        }
    }
}
