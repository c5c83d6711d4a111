//! A backup kept in a folder.
//!
//! ```text
//! manifest.json          written last; replaced as a whole
//! segments/              sealed segments, which never change
//! changing-N/            checkpoint and end of the log of the backup that the manifest describes
//! ```
//!
//! The folder holds a whole backup at any time: a new one is complete before its manifest replaces the old one.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::{Entry, Had, Hashing, MANIFEST, MANIFEST_BYTES_MAX, Manifest};

const SEGMENTS: &str = "segments";
const CHANGING: &str = "changing-";

/// A folder of backups before a new one.
pub(crate) struct Kept {
    dir: PathBuf,
    last: Option<Manifest>,
}

impl Kept {
    /// Opens or creates the folder. One that holds other things is refused.
    pub(crate) fn open(dir: &Path) -> anyhow::Result<Kept> {
        let shown = dir.display();
        fs::create_dir_all(dir).with_context(|| shown.to_string())?;
        let last = read_manifest(dir)?;
        let own = |name: &str| name == SEGMENTS || name.starts_with(CHANGING) || name.starts_with(MANIFEST);
        for entry in fs::read_dir(dir)? {
            let name = entry?.file_name();
            if last.is_none() && !own(&name.to_string_lossy()) {
                bail!("{shown} holds other files ({}): name an empty folder", name.to_string_lossy());
            }
        }
        fs::create_dir_all(dir.join(SEGMENTS))?;
        Ok(Kept { dir: dir.to_owned(), last })
    }

    /// The sealed segments in it.
    pub(crate) fn had(&self) -> Had {
        let files = self.last.iter().flat_map(|last| &last.files);
        let whole = files.filter(|(name, entry)| {
            let length = fs::metadata(self.dir.join(SEGMENTS).join(name)).map(|file| file.len());
            length.is_ok_and(|length| length == entry.bytes)
        });
        whole.filter_map(|(name, entry)| Some((name.clone(), entry.identity.clone()?))).collect()
    }

    fn number(&self) -> u64 {
        let last = self.last.as_ref().and_then(|last| last.folder.as_ref());
        last.and_then(|name| name.strip_prefix(CHANGING)?.parse::<u64>().ok()).map_or(1, |last| last + 1)
    }
}

/// Where the file of a manifest is.
pub(super) fn place(dir: &Path, manifest: &Manifest, name: &str, entry: &Entry) -> PathBuf {
    let folder = match &entry.identity {
        Some(_) => SEGMENTS,
        None => manifest.folder.as_deref().unwrap_or(SEGMENTS),
    };
    dir.join(folder).join(name)
}

/// The manifest of the backup in a folder, if there is any.
pub(super) fn read_manifest(dir: &Path) -> anyhow::Result<Option<Manifest>> {
    match fs::read(dir.join(MANIFEST)) {
        Ok(bytes) => Ok(Some(Manifest::parse(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| dir.join(MANIFEST).display().to_string()),
    }
}

/// Takes an archive into the folder. Returns the new manifest, and how many bytes were copied.
pub(crate) fn receive(kept: &Kept, archive: impl Read) -> anyhow::Result<(Manifest, u64)> {
    let folder = format!("{CHANGING}{}", kept.number());
    let changing = kept.dir.join(&folder);
    if changing.exists() {
        // Of a backup that did not end.
        fs::remove_dir_all(&changing)?;
    }
    fs::create_dir(&changing)?;
    let (mut manifest, received) = unpack(archive, &changing)?;
    if kept.last.as_ref().is_some_and(|last| last.log_id != manifest.log_id) {
        fs::remove_dir_all(&changing)?;
        bail!("{} holds the backup of another broker: name another folder", kept.dir.display());
    }
    let mut copied = 0;
    for (name, entry) in &mut manifest.files {
        match received.get(name) {
            Some(sha256) if entry.sha256.as_ref() == Some(sha256) => copied += entry.bytes,
            Some(_) => bail!("{name}: its content changed on the way"),
            None => {
                let had = kept.last.as_ref().and_then(|last| last.files.get(name));
                entry.sha256 = had.and_then(|had| had.sha256.clone());
                if entry.sha256.is_none() {
                    bail!("{name} is missing in the backup");
                }
            }
        }
    }
    for (name, _) in
        manifest.files.iter().filter(|(name, entry)| entry.identity.is_some() && received.contains_key(*name))
    {
        fs::rename(changing.join(name), kept.dir.join(SEGMENTS).join(name))?;
    }
    sync(&kept.dir.join(SEGMENTS))?;
    sync(&changing)?;
    manifest.folder = Some(folder);
    let unfinished = kept.dir.join(format!("{MANIFEST}.tmp"));
    let mut file = File::create(&unfinished)?;
    io::Write::write_all(&mut file, &serde_json::to_vec_pretty(&manifest)?)?;
    file.sync_all()?;
    fs::rename(&unfinished, kept.dir.join(MANIFEST))?;
    sync(&kept.dir)?;
    remove_old(&kept.dir, &manifest)?;
    Ok((manifest, copied))
}

/// Removes what the manifest does not name.
fn remove_old(dir: &Path, manifest: &Manifest) -> anyhow::Result<()> {
    for entry in fs::read_dir(dir.join(SEGMENTS))? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_str().is_none_or(|name| !manifest.files.contains_key(name)) {
            fs::remove_file(entry.path())?;
        }
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_old = name
            .to_str()
            .is_some_and(|name| name.starts_with(CHANGING) && Some(name) != manifest.folder.as_deref());
        if is_old {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

pub(super) fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Unpacks an archive into a folder. Returns its manifest, and the SHA-256 of each file.
pub(super) fn unpack(archive: impl Read, into: &Path) -> anyhow::Result<(Manifest, Had)> {
    let mut received = Had::new();
    let mut manifest = None;
    let mut archive = tar::Archive::new(archive);
    for entry in archive.entries().context("the backup is not a tar archive")? {
        let mut entry = entry.context("the backup ends too early")?;
        let name = entry.path()?.to_str().map(str::to_owned);
        let Some(name) = name.filter(|name| super::is_plain(name)) else {
            bail!("the archive holds a file with an unexpected name: {}", entry.path()?.display());
        };
        if name == MANIFEST {
            let mut text = Vec::new();
            entry.take(MANIFEST_BYTES_MAX).read_to_end(&mut text)?;
            manifest = Some(Manifest::parse(&text)?);
            continue;
        }
        let mut file = File::options().write(true).create_new(true).open(into.join(&name))?;
        let mut content = Hashing::new(&mut entry);
        io::copy(&mut content, &mut file).with_context(|| format!("{name}: the backup ends too early"))?;
        file.sync_all()?;
        received.insert(name, content.finish());
    }
    let manifest = manifest.context("the backup ends without its manifest: it is not whole")?;
    Ok((manifest, received))
}
