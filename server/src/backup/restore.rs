//! Restoring a backup: everything is verified in a folder of its own before it is put in place.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use inver_storage::inspect::verify;
use inver_storage::{Lsn, RESTORE_FOLDER};

use super::folder::{place, read_manifest, sync, unpack};
use super::{Had, Hashing, Manifest};

/// Put in place last: without it, the folder is not a whole log.
const CHECKPOINT: &str = "checkpoint.redb";

/// Where a backup is.
pub(crate) enum Source {
    Folder(PathBuf),
    Archive(Box<dyn Read>),
}

/// Restores a backup into a data folder that is empty or does not exist. Returns its manifest.
pub(crate) fn restore(source: Source, data_dir: &Path) -> anyhow::Result<Manifest> {
    let shown = data_dir.display();
    fs::create_dir_all(data_dir).with_context(|| shown.to_string())?;
    for entry in fs::read_dir(data_dir).with_context(|| shown.to_string())? {
        let name = entry?.file_name();
        if name != RESTORE_FOLDER && name != "lost+found" {
            bail!("{shown} is not empty ({}): name a new folder", name.to_string_lossy());
        }
    }
    let staging = data_dir.join(RESTORE_FOLDER);
    if staging.exists() {
        fs::remove_dir_all(&staging)?;
    }
    fs::create_dir(&staging)?;
    sync(data_dir)?;
    let staged = stage(source, &staging);
    if staged.is_err() {
        let _ = fs::remove_dir_all(&staging);
    }
    let manifest = staged?;
    let (last, others): (Vec<_>, Vec<_>) = manifest.files.keys().partition(|name| *name == CHECKPOINT);
    for name in others.into_iter().chain(last) {
        fs::rename(staging.join(name), data_dir.join(name))?;
    }
    sync(data_dir)?;
    fs::remove_dir_all(&staging)?;
    sync(data_dir)?;
    Ok(manifest)
}

/// Copies the files and verifies them: sizes, hashes, every checksum of the log, and its end.
fn stage(source: Source, staging: &Path) -> anyhow::Result<Manifest> {
    let (manifest, received) = match source {
        Source::Archive(archive) => unpack(archive, staging)?,
        Source::Folder(dir) => copy(&dir, staging)?,
    };
    for (name, entry) in &manifest.files {
        let bytes = fs::metadata(staging.join(name)).map(|file| file.len()).unwrap_or_default();
        match received.get(name) {
            None if entry.sha256.is_none() => {
                bail!("the archive adds to an earlier backup: {name} is not in it")
            }
            None => bail!("{name} is missing in the backup"),
            Some(sha256) if entry.sha256.as_ref() == Some(sha256) && entry.bytes == bytes => {}
            Some(_) => bail!("{name} is not what the manifest says: the backup is damaged"),
        }
    }
    if let Some(name) = received.keys().find(|name| !manifest.files.contains_key(*name)) {
        bail!("{name} is not in the manifest: the backup is damaged");
    }
    let report = verify(staging).context("the log in the backup")?;
    if let Some(flaw) = report.flaws.first() {
        bail!("the log in the backup is damaged: {flaw}");
    }
    if report.end != Lsn(manifest.position) {
        bail!("the log in the backup ends at {}, the manifest says {}", report.end, manifest.position);
    }
    sync(staging)?;
    Ok(manifest)
}

fn copy(dir: &Path, staging: &Path) -> anyhow::Result<(Manifest, Had)> {
    let manifest = read_manifest(dir)?;
    let manifest = manifest.with_context(|| format!("{}: no backup (no manifest.json)", dir.display()))?;
    let mut copied = Had::new();
    for (name, entry) in &manifest.files {
        let from = place(dir, &manifest, name, entry);
        let source = File::open(&from).with_context(|| from.display().to_string())?;
        let mut content = Hashing::new(source);
        let mut file = File::options().write(true).create_new(true).open(staging.join(name))?;
        io::copy(&mut content, &mut file).with_context(|| name.clone())?;
        file.sync_all()?;
        copied.insert(name.clone(), content.finish());
    }
    Ok((manifest, copied))
}
