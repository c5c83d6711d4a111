//! `inver log dump|verify|salvage`: inspects the log of a stopped broker and salvages a damaged one.

use std::io::{BufWriter, ErrorKind, Write, stdout};
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Subcommand;
use inver_storage::{Log, LogOptions, inspect};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Print every entry of the log, one per line.
    Dump {
        /// The data folder.
        data_dir: PathBuf,
    },
    /// Read the whole log and verify every checksum; exit code 0 if no damage was found.
    Verify {
        /// The data folder.
        data_dir: PathBuf,
    },
    /// Bring the folder of a stopped broker to the newest format, or say that there is nothing to do.
    Upgrade {
        /// The data folder.
        data_dir: PathBuf,
    },
    /// List the damaged parts that must be given up before the log opens again; with --give-up, give them up.
    Salvage {
        /// The data folder. Copy it first.
        data_dir: PathBuf,
        /// Give the damaged parts up. They are kept in files `salvaged-…` in the folder.
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
                    // The reader closed the pipe.
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
                    0 => println!("no damage found"),
                    _ if give_up => println!("damaged parts given up; the rest of the log is usable"),
                    _ => bail!("nothing was changed; --give-up gives these parts up"),
                }
                Ok(())
            }
            Command::Upgrade { data_dir } => {
                let shown = || data_dir.display().to_string();
                // Refuses a folder without a log.
                inspect::verify(&data_dir).with_context(shown)?;
                let options = LogOptions { preallocate: false, ..LogOptions::default() };
                let log = Log::open(&data_dir, options).with_context(shown)?;
                let is_newest = log.is_checkpoint_mirrored();
                log.shutdown().with_context(shown)?;
                let version = inspect::FORMAT_VERSION;
                match is_newest {
                    true => println!("nothing to do: the log has the newest format (version {version})"),
                    false => println!(
                        "upgraded to the newest format (version {version}): the checkpoint is in two files"
                    ),
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
                        "{} bytes of an incomplete write at the end; the next start removes them",
                        report.torn_bytes
                    );
                }
                for flaw in &report.flaws {
                    println!("{flaw}");
                }
                match report.flaws.len() {
                    0 => Ok(()),
                    flaws => bail!("{flaws} flaws found"),
                }
            }
        }
    }
}
