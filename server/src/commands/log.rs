//! `inver log dump|verify|salvage`: looks at the files of a broker that does not run, and gives up what is damaged.

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
    /// Say what is damaged and would have to be given up for the log to open again; give it up if told so.
    Salvage {
        /// The data folder. Copy it first.
        data_dir: PathBuf,
        /// Give it up. What was damaged is kept in files `salvaged-…` in the folder.
        #[arg(long)]
        give_up: bool,
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
            Command::Salvage { data_dir, give_up } => {
                let losses =
                    inspect::salvage(&data_dir, give_up).with_context(|| data_dir.display().to_string())?;
                for loss in &losses {
                    println!("{loss}");
                }
                match losses.len() {
                    0 => println!("nothing has to be given up"),
                    _ if give_up => println!("given up; the rest can be used"),
                    _ => bail!("nothing was changed yet; --give-up gives this up"),
                }
                Ok(())
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
