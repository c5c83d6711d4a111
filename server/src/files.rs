//! The broker's files are the broker's alone: their permissions, and the secret that is kept beside the log.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, bail};
use inver_access::{SECRET_BYTES, TokenSecret};
use rustix::fs::Mode;
use tracing::warn;

/// Permissions of the data folder.
const FOLDER_MODE: u32 = 0o700;
/// Permissions of the file of a secret.
const SECRET_MODE: u32 = 0o600;
/// The secret of delegation tokens, in the data folder. It is in no backup.
const TOKEN_SECRET: &str = "delegation-tokens.key";

/// From now on what this process creates is readable and writable by its user only.
pub(crate) fn create_private() {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
}

/// Creates the folder if it is missing, and takes it from other users of this machine if they may enter it.
pub(crate) fn make_private(folder: &Path) {
    let Ok(metadata) = std::fs::metadata(folder) else {
        // The log says what is wrong when it cannot be opened.
        let _ = std::fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder);
        return;
    };
    let mode = metadata.mode() & 0o777;
    // What is no folder is not changed: the log says that it cannot be opened.
    if !metadata.is_dir() || mode & !FOLDER_MODE == 0 {
        return;
    }
    let shown = folder.display();
    match std::fs::set_permissions(folder, std::fs::Permissions::from_mode(FOLDER_MODE)) {
        Ok(()) => warn!(
            "the data folder {shown} was open to other users of this machine (mode {mode:04o}); its mode is now 0700"
        ),
        Err(error) => {
            warn!(
                "the data folder {shown} is open to other users of this machine (mode {mode:04o}): {error}"
            );
        }
    }
}

/// The secret of delegation tokens of a data folder, which is made when it is missing.
pub(crate) fn token_secret(folder: &Path) -> anyhow::Result<TokenSecret> {
    let path = folder.join(TOKEN_SECRET);
    let shown = || path.display().to_string();
    match std::fs::read(&path) {
        Ok(bytes) => match <[u8; SECRET_BYTES]>::try_from(bytes) {
            Ok(bytes) => return Ok(TokenSecret::new(bytes)),
            Err(_) => {
                bail!("{} has not {SECRET_BYTES} bytes: without it, delegation tokens are lost", shown())
            }
        },
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(shown),
    }
    let secret = TokenSecret::random().context("the system provides no random numbers")?;
    // Whole or absent, whenever the process ends.
    let part = path.with_extension("part");
    let mut file = File::options().write(true).create(true).truncate(true).mode(SECRET_MODE).open(&part)?;
    file.write_all(secret.as_bytes()).and_then(|()| file.sync_all()).with_context(shown)?;
    std::fs::rename(&part, &path).with_context(shown)?;
    File::open(folder).and_then(|folder| folder.sync_all()).with_context(shown)?;
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_folder_is_taken_from_others() {
        let parent = tempfile::tempdir().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o777;
        let new = parent.path().join("a/b");
        make_private(&new);
        assert_eq!(mode(&new), 0o700);
        for open in [0o755, 0o770, 0o700] {
            std::fs::set_permissions(&new, std::fs::Permissions::from_mode(open)).unwrap();
            make_private(&new);
            assert_eq!(mode(&new), 0o700);
        }
    }

    #[test]
    fn the_secret_of_tokens_is_made_once_and_for_the_broker_only() {
        let folder = tempfile::tempdir().unwrap();
        let secret = token_secret(folder.path()).unwrap();
        assert_eq!(token_secret(folder.path()).unwrap(), secret);
        let path = folder.path().join(TOKEN_SECRET);
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        std::fs::write(&path, b"short").unwrap();
        assert!(token_secret(folder.path()).unwrap_err().to_string().contains("has not 32 bytes"));
    }
}
