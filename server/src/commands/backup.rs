//! `inver backup` and `inver restore`.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write, stdin, stdout};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use inver_storage::{Log, LogOptions};
use serde_json::json;

use super::client::Reach;
use crate::backup::{self, Had, Kept, Source};

const STANDARD: &str = "-";

/// Back up the running broker, or the data folder of a stopped one, to a folder or standard output.
#[derive(Debug, clap::Args)]
pub(super) struct Backup {
    /// A folder, to which a later backup adds only what is new; or `-` for a tar archive on standard output.
    destination: PathBuf,
    /// The data folder of a stopped broker. Without it the running broker is asked, by an administrator.
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    reach: Reach,
}

/// Restore a backup into an empty data folder, after everything in it was verified.
#[derive(Debug, clap::Args)]
pub(super) struct Restore {
    /// A folder that `inver backup` wrote, a tar archive, or `-` for a tar archive on standard input.
    source: PathBuf,
    /// The data folder: a new one, or an empty one.
    data_dir: PathBuf,
}

impl Backup {
    pub(super) fn run(self) -> anyhow::Result<()> {
        if self.destination == Path::new(STANDARD) {
            let mut archive = self.archive(&Had::new())?;
            let mut out = BufWriter::new(stdout().lock());
            io::copy(&mut archive, &mut out).context("the backup ends too early")?;
            out.flush()?;
            return archive.finish();
        }
        let kept = Kept::open(&self.destination)?;
        let mut archive = self.archive(&kept.had())?;
        let received = backup::receive(&kept, &mut archive);
        // What failed on the other side is the better reason.
        let finished = archive.finish();
        let (manifest, copied) = match (received, finished) {
            (Ok(received), Ok(())) => received,
            (Err(_), Err(error)) | (Ok(_), Err(error)) | (Err(error), Ok(())) => return Err(error),
        };
        println!(
            "backed up to position {}: {} files, {} bytes, {copied} bytes copied",
            manifest.position,
            manifest.count(),
            manifest.bytes()
        );
        Ok(())
    }

    fn archive(&self, had: &Had) -> anyhow::Result<Archive> {
        match &self.data_dir {
            Some(data_dir) => Archive::of_folder(data_dir, had.clone()),
            None => {
                let client = self.reach.client()?;
                Ok(Archive { content: client.stream("/backup", &json!({ "had": had }))?, writer: None })
            }
        }
    }
}

/// A backup as it arrives.
struct Archive {
    content: Box<dyn Read>,
    /// The thread that writes it, if that is in this process.
    writer: Option<std::thread::JoinHandle<anyhow::Result<()>>>,
}

impl Archive {
    fn of_folder(data_dir: &Path, had: Had) -> anyhow::Result<Archive> {
        let shown = data_dir.display().to_string();
        if !data_dir.is_dir() {
            bail!("{shown} is not a folder");
        }
        let options = LogOptions { preallocate: false, ..LogOptions::default() };
        let log = Log::open(data_dir, options).with_context(|| shown.clone())?;
        let (reader, writer) = io::pipe()?;
        let thread = std::thread::spawn(move || {
            let backup = log.begin_backup()?;
            let written = backup::write(&backup, &had, BufWriter::new(writer));
            drop(backup);
            log.shutdown()?;
            written.map(drop)
        });
        Ok(Archive { content: Box::new(reader), writer: Some(thread) })
    }

    fn finish(self) -> anyhow::Result<()> {
        drop(self.content);
        match self.writer.map(std::thread::JoinHandle::join) {
            None => Ok(()),
            Some(Ok(written)) => written,
            Some(Err(_)) => bail!("the backup failed"),
        }
    }
}

impl Read for Archive {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.content.read(into)
    }
}

impl Restore {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let shown = self.source.display().to_string();
        let source = if self.source == Path::new(STANDARD) {
            Source::Archive(Box::new(stdin().lock()))
        } else if self.source.is_dir() {
            Source::Folder(self.source)
        } else {
            Source::Archive(Box::new(File::open(&self.source).with_context(|| shown.clone())?))
        };
        let manifest = backup::restore(source, &self.data_dir)
            .with_context(|| format!("cannot restore {shown}; nothing was put in place"))?;
        println!(
            "restored to position {}: {} files, {} bytes in {}",
            manifest.position,
            manifest.count(),
            manifest.bytes(),
            self.data_dir.display()
        );
        Ok(())
    }
}
