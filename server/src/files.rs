//! Permissions of the broker's files: they are the broker's alone.

use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::Mode;
use tracing::warn;

/// Permissions of the data folder.
const FOLDER_MODE: u32 = 0o700;

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
}
