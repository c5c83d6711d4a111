//! `inver log dump|verify`: looks at the files of a broker that does not run.

use std::path::PathBuf;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Print every entry of the log, one a line.
    Dump {
        /// The data folder.
        data_dir: PathBuf,
    },
    /// Read all of the log and check every checksum.
    Verify {
        /// The data folder.
        data_dir: PathBuf,
    },
}

impl Command {
    pub(super) fn run(self) -> anyhow::Result<()> {
        match self {
            Command::Dump { data_dir } | Command::Verify { data_dir } => {
                anyhow::bail!("{}: not yet", data_dir.display())
            }
        }
    }
}
