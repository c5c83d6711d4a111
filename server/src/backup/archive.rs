//! Writing a backup as a tar archive.

use std::collections::BTreeMap;
use std::io::{BufReader, Write};

use inver_broker::Clock;
use inver_storage::{Backup, BackupFile};
use tar::{Builder, EntryType, Header};

use super::{BUFFER_BYTES, Entry, FORMAT, Had, Hashing, MANIFEST, Manifest};

/// Writes the backup without the segments that the receiver has. Returns its manifest.
pub(crate) fn write(backup: &Backup, had: &Had, out: impl Write) -> anyhow::Result<Manifest> {
    let mut archive = Builder::new(out);
    let mut files = BTreeMap::new();
    for file in backup.files() {
        let file = file?;
        let identity = if file.is_sealed { Some(file.identity()?) } else { None };
        let has = identity.is_some() && had.get(&file.name) == identity.as_ref();
        let sha256 = if has { None } else { Some(append(&mut archive, &file)?) };
        files.insert(file.name.clone(), Entry { bytes: file.bytes, sha256, identity });
    }
    let (position, tail) = backup.tail()?;
    for file in tail {
        let sha256 = Some(append(&mut archive, &file)?);
        files.insert(file.name.clone(), Entry { bytes: file.bytes, sha256, identity: None });
    }
    let manifest = Manifest {
        format: FORMAT,
        inver: env!("CARGO_PKG_VERSION").into(),
        log_id: format!("{:032x}", backup.log_id()),
        position: position.0,
        taken_ms: u64::try_from(Clock::system().now_ms()).unwrap_or_default(),
        folder: None,
        files,
    };
    let text = serde_json::to_vec_pretty(&manifest)?;
    archive.append_data(&mut header(text.len() as u64), MANIFEST, text.as_slice())?;
    archive.finish()?;
    Ok(manifest)
}

/// Appends a file; returns its SHA-256.
fn append(archive: &mut Builder<impl Write>, file: &BackupFile) -> anyhow::Result<String> {
    let mut content = Hashing::new(BufReader::with_capacity(BUFFER_BYTES, file.reader()));
    archive.append_data(&mut header(file.bytes), &file.name, &mut content)?;
    Ok(content.finish())
}

fn header(bytes: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_size(bytes);
    header.set_mode(0o600);
    header.set_mtime(0);
    header
}
