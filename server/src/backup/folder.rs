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

    /// Refuses a backup whose segments would take the place of others that the last one needs.
    fn check_follows(&self, manifest: &Manifest) -> anyhow::Result<()> {
        let Some(last) = &self.last else { return Ok(()) };
        let shown = self.dir.display();
        if last.log_id != manifest.log_id {
            bail!("{shown} holds the backup of another broker: name another folder");
        }
        let is_other = |name: &String, entry: &Entry| {
            let before = last.files.get(name).and_then(|before| before.identity.as_ref());
            before.is_some() && entry.identity.is_some() && before != entry.identity.as_ref()
        };
        if let Some((name, _)) = manifest.files.iter().find(|(name, entry)| is_other(name, entry)) {
            bail!(
                "{shown} holds a backup that this one does not follow ({name} is another one), such as one from before the \
                 broker was restored or salvaged: name another folder"
            );
        }
        Ok(())
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
    if let Err(error) = kept.check_follows(&manifest) {
        fs::remove_dir_all(&changing)?;
        return Err(error);
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// An archive with one sealed segment.
    fn archive(content: &[u8], identity: &str) -> Vec<u8> {
        let mut hashing = Hashing::new(content);
        io::copy(&mut hashing, &mut io::sink()).unwrap();
        let manifest = json!({
            "format": 1, "inver": "1", "log_id": "7", "position": content.len(), "taken_ms": 1,
            "files": {"a.seg": {"bytes": content.len(), "sha256": hashing.finish(), "identity": identity}},
        });
        let mut archive = tar::Builder::new(Vec::new());
        for (name, content) in [("a.seg", content), (MANIFEST, manifest.to_string().as_bytes())] {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            archive.append_data(&mut header, name, content).unwrap();
        }
        archive.into_inner().unwrap()
    }

    #[test]
    fn a_backup_of_another_history_leaves_what_the_folder_holds() {
        let folder = tempfile::tempdir().unwrap();
        let take = |content: &[u8], identity| {
            let kept = Kept::open(folder.path()).unwrap();
            receive(&kept, archive(content, identity).as_slice())
        };
        assert_eq!(take(b"one", "x").unwrap().1, 3);
        assert_eq!(take(b"one", "x").unwrap().1, 3, "the same again");
        let refused = take(b"other", "y").unwrap_err().to_string();
        assert!(refused.contains("a.seg is another one"), "{refused}");
        let manifest = read_manifest(folder.path()).unwrap().unwrap();
        let (name, entry) = manifest.files.first_key_value().unwrap();
        assert_eq!(fs::read(place(folder.path(), &manifest, name, entry)).unwrap(), b"one");
    }
}
