//! Backups of the log: a stream of files with a manifest, the folder that keeps it, and the way back.
//!
//! A backup is a tar archive: files of a data folder, and `manifest.json` as its last entry, with the size and SHA-256 of
//! each file and the position of the backup. An archive without its manifest is not whole. [`folder`] keeps one backup in a
//! folder and adds to it only the sealed segments that it does not have yet.

mod archive;
mod folder;
mod restore;

use std::collections::BTreeMap;
use std::io::{self, Read};

use anyhow::bail;
use data_encoding::HEXLOWER;
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

pub(crate) use self::archive::write;
pub(crate) use self::folder::{Kept, receive};
pub(crate) use self::restore::{Source, restore};

/// The version of manifests that this build writes and reads.
const FORMAT: u32 = 1;
const MANIFEST: &str = "manifest.json";
/// Bytes of the largest manifest.
const MANIFEST_BYTES_MAX: u64 = 256 << 20;
const BUFFER_BYTES: usize = 256 << 10;

/// The sealed segments that the receiver has: name and identity.
pub(crate) type Had = BTreeMap<String, String>;

/// What a backup holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Manifest {
    format: u32,
    /// Version of the broker.
    inver: String,
    /// The identity of the log, in hexadecimal digits.
    log_id: String,
    /// Everything acknowledged before the log reached this position is in the backup.
    pub(crate) position: u64,
    /// Milliseconds since 1970.
    taken_ms: u64,
    /// Of a backup in a folder: where its files are that a later backup replaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    folder: Option<String>,
    files: BTreeMap<String, Entry>,
}

/// A file of a backup.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Entry {
    bytes: u64,
    /// Absent in a stream for a file that the receiver has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    /// Of a sealed segment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    identity: Option<String>,
}

impl Manifest {
    fn parse(bytes: &[u8]) -> anyhow::Result<Manifest> {
        let manifest: Manifest =
            serde_json::from_slice(bytes).map_err(|error| anyhow::anyhow!("{MANIFEST}: {error}"))?;
        if manifest.format > FORMAT {
            bail!("{MANIFEST} has format version {}, this build reads up to {FORMAT}", manifest.format);
        }
        if let Some(name) = manifest.files.keys().find(|name| !is_plain(name)) {
            bail!("{MANIFEST}: {name:?} is not the name of a file");
        }
        if manifest.folder.as_ref().is_some_and(|folder| !is_plain(folder)) {
            bail!("{MANIFEST}: the folder is not a plain name");
        }
        Ok(manifest)
    }

    /// Bytes of all files.
    pub(crate) fn bytes(&self) -> u64 {
        self.files.values().map(|entry| entry.bytes).sum()
    }

    /// Number of files.
    pub(crate) fn count(&self) -> usize {
        self.files.len()
    }
}

/// Whether a name is one part of a path, and no way out of its folder.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', '\0'])
}

/// Passes bytes on and computes their SHA-256.
struct Hashing<R> {
    inner: R,
    context: Context,
}

impl<R> Hashing<R> {
    fn new(inner: R) -> Hashing<R> {
        Hashing { inner, context: Context::new(&SHA256) }
    }

    fn finish(self) -> String {
        HEXLOWER.encode(self.context.finish().as_ref())
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(into)?;
        self.context.update(into.get(..read).unwrap_or_default());
        Ok(read)
    }
}
