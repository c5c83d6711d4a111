//! The checkpoint in two files with the same content.
//!
//! Each commit goes to one file and then to the other, so one of them is whole at any time, and damage of one file is
//! mended from the other. Commits are numbered: two files with the same number hold the same checkpoint; the file with the
//! lower number missed a commit and is written again by the next one. Segments may be removed only after [`commit`] returned:
//! no file then names them.
//!
//! What is read at a start is verified by that. Pages that a start does not read, as those of the second file, are verified
//! by the first commit after it.
//!
//! [`commit`]: CheckpointStore::commit

use std::sync::Arc;

use bytes::Bytes;

use super::redb_store::{COMMITS_KEY, RedbStore};
use super::store::{CheckpointStore, Fill, Sink, Space, Visit};
use crate::error::{CHECKPOINT_COPY_FILE, CHECKPOINT_FILE, CheckpointError};
use crate::medium::Medium;

/// A checkpoint that is being rebuilt; removed by the next start if that does not end.
const REBUILT_FILE: &str = "checkpoint-rebuilt.tmp";
const NAMES: [&str; 2] = [CHECKPOINT_FILE, CHECKPOINT_COPY_FILE];

#[derive(Debug)]
pub(crate) struct MirroredStore {
    medium: Arc<dyn Medium>,
    /// Of each file.
    cache_bytes_max: usize,
    main: Named,
    /// `None`: to be written by the next commit.
    copy: Option<RedbStore>,
    /// Why the last commit could not write the second file.
    copy_failure: Option<CheckpointError>,
    /// The number of the last commit.
    commits: u64,
    /// Every page of the files was verified since they were opened.
    is_verified: bool,
}

#[derive(Debug)]
struct Named {
    name: &'static str,
    store: RedbStore,
}

impl MirroredStore {
    /// Opens the files; creates the first if there is none. An error if there are files and none can be opened.
    pub(crate) fn open(medium: Arc<dyn Medium>, cache_bytes_max: usize) -> Result<Self, CheckpointError> {
        let cache_bytes_max = cache_bytes_max / NAMES.len();
        let found = medium.list()?;
        let mut opened = Vec::new();
        let mut first_error = None;
        for name in NAMES.into_iter().filter(|name| found.iter().any(|found| found == name)) {
            let store = RedbStore::open(medium.as_ref(), name, cache_bytes_max);
            match store.and_then(|store| Ok((store.commits()?, Named { name, store }))) {
                Ok(opened_one) => opened.push(opened_one),
                Err(error) => {
                    tracing::warn!(file = name, %error, "checkpoint file cannot be read");
                    first_error.get_or_insert(error);
                }
            }
        }
        // The later first; of equals, the first name.
        opened.sort_by_key(|(commits, _)| std::cmp::Reverse(*commits));
        let mut opened = opened.into_iter();
        let ((commits, main), copy) = match (opened.next(), opened.next()) {
            (None, _) => match first_error {
                Some(error) => return Err(error),
                None => {
                    let name = CHECKPOINT_FILE;
                    let store = RedbStore::create(medium.as_ref(), name, cache_bytes_max, &mut |_| Ok(()))?;
                    ((0, Named { name, store }), None)
                }
            },
            (Some(only), None) => (only, None),
            (Some(main), Some((number, copy))) if main.0 == number => (main, Some(copy.store)),
            // The process ended between the two commits.
            (Some(later), Some(earlier)) => match later.1.store.check_rows() {
                Ok(()) => (later, None),
                Err(error) => {
                    tracing::warn!(file = later.1.name, %error, "checkpoint file is damaged, using the older one");
                    // No later commit has the number of a damaged file.
                    ((later.0, earlier.1), None)
                }
            },
        };
        Ok(Self { medium, cache_bytes_max, main, copy, copy_failure: None, commits, is_verified: false })
    }

    /// Starts an empty checkpoint beside files that cannot be read. They stay until [`MirroredStore::finish_rebuild`].
    pub(crate) fn rebuild(medium: Arc<dyn Medium>, cache_bytes_max: usize) -> Result<Self, CheckpointError> {
        let cache_bytes_max = cache_bytes_max / NAMES.len();
        let name = REBUILT_FILE;
        let store = RedbStore::create(medium.as_ref(), name, cache_bytes_max, &mut |_| Ok(()))?;
        Ok(Self {
            medium,
            cache_bytes_max,
            main: Named { name, store },
            copy: None,
            copy_failure: None,
            commits: 0,
            is_verified: true,
        })
    }

    /// Puts the files that cannot be read aside, and the rebuilt checkpoint in their place.
    pub(crate) fn finish_rebuild(&mut self) -> Result<(), CheckpointError> {
        let medium = self.medium.as_ref();
        self.copy = None;
        for name in medium.list()?.iter().filter(|name| NAMES.contains(&name.as_str())) {
            medium.rename(name, &format!("salvaged-{name}"))?;
        }
        medium.rename(self.main.name, CHECKPOINT_FILE)?;
        medium.sync_folder()?;
        self.main.name = CHECKPOINT_FILE;
        Ok(())
    }

    fn other_name(&self) -> &'static str {
        if self.main.name == CHECKPOINT_FILE { CHECKPOINT_COPY_FILE } else { CHECKPOINT_FILE }
    }

    /// Prepares another attempt after a commit to the main file failed: the other file, or this one opened again, or this
    /// one written again with all of its rows.
    fn replace_main(&mut self) -> Result<(), CheckpointError> {
        let failed = self.main.name;
        if self.copy.is_some() {
            self.fall_back();
            // Its content is unknown now, and it may say that it is the later one.
            self.medium.remove(failed)?;
            self.medium.sync_folder()?;
            return Ok(());
        }
        if self.main.store.has_sync_failed() {
            return Err(CheckpointError::Unsynced);
        }
        // First, because redb writes when it closes a file.
        self.main.store.close();
        self.main.store = RedbStore::open(self.medium.as_ref(), failed, self.cache_bytes_max)?;
        Ok(())
    }

    /// Writes the main file again with all of its rows, for a file that can be read and not written.
    fn rewrite_main(&mut self) -> Result<(), CheckpointError> {
        let rows = &self.main.store;
        let (medium, name) = (self.medium.as_ref(), self.main.name);
        self.main.store =
            RedbStore::create(medium, name, self.cache_bytes_max, &mut |sink| rows.copy_rows(sink))?;
        Ok(())
    }

    /// Verifies every page and leaves out a damaged file. While it fails nothing is committed: rows may be lost that only
    /// the log still has.
    fn verify(&mut self) -> Result<(), CheckpointError> {
        let copy_name = self.other_name();
        self.copy = self.copy.take().and_then(|mut copy| match copy.check_pages() {
            Ok(()) => Some(copy),
            Err(error) => {
                tracing::warn!(file = copy_name, %error, "checkpoint file is damaged, writing it again");
                None
            }
        });
        if let Err(error) = self.main.store.check_pages()
            && !self.fall_back()
        {
            tracing::warn!(file = self.main.name, %error, "checkpoint file is damaged, writing it again");
            self.replace_main()?;
            self.rewrite_main()?;
        }
        self.is_verified = true;
        Ok(())
    }

    fn commit_main(&mut self, fill: &mut Fill<'_>) -> Result<(), CheckpointError> {
        let Err(error) = self.main.store.commit(fill) else { return Ok(()) };
        if matches!(error, CheckpointError::Log(_)) {
            return Err(error);
        }
        tracing::warn!(file = self.main.name, %error, "checkpoint file cannot be written");
        self.replace_main()?;
        match self.main.store.commit(fill) {
            Ok(()) => return Ok(()),
            Err(error @ CheckpointError::Log(_)) => return Err(error),
            Err(_) => self.replace_main()?,
        }
        self.rewrite_main()?;
        self.main.store.commit(fill)
    }

    /// Brings the other file to the same content. Its failure is not the checkpoint's: the file is removed and written
    /// again by the next commit.
    fn commit_copy(&mut self, fill: &mut Fill<'_>) -> Result<(), CheckpointError> {
        let name = self.other_name();
        let committed = match self.copy.take() {
            Some(mut copy) => copy.commit(fill).map(|()| copy),
            None => {
                let rows = &self.main.store;
                RedbStore::create(self.medium.as_ref(), name, self.cache_bytes_max, &mut |sink| {
                    rows.copy_rows(sink)
                })
            }
        };
        match committed {
            Ok(copy) => (self.copy, self.copy_failure) = (Some(copy), None),
            Err(error @ CheckpointError::Log(_)) => return Err(error),
            Err(error) => {
                self.copy_failure = Some(error);
                if self.medium.list()?.iter().any(|found| found == name) {
                    self.medium.remove(name)?;
                    self.medium.sync_folder()?;
                }
            }
        }
        Ok(())
    }
}

impl CheckpointStore for MirroredStore {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, CheckpointError> {
        self.main.store.get(space, key)
    }

    fn scan(&self, space: Space, prefix: &[u8], visit: &mut Visit<'_>) -> Result<(), CheckpointError> {
        self.main.store.scan(space, prefix, visit)
    }

    fn commit(&mut self, fill: &mut Fill<'_>) -> Result<(), CheckpointError> {
        if !self.is_verified {
            self.verify()?;
        }
        self.commits = self.commits.wrapping_add(1);
        let commits = self.commits;
        let mut fill = |sink: &mut dyn Sink| {
            fill(sink)?;
            sink.put(Space::Meta, COMMITS_KEY, &commits.to_le_bytes())
        };
        self.commit_main(&mut fill)?;
        if self.main.name == REBUILT_FILE {
            return Ok(());
        }
        self.commit_copy(&mut fill)
    }

    fn fall_back(&mut self) -> bool {
        let Some(copy) = self.copy.take() else { return false };
        let name = self.other_name();
        tracing::warn!(
            file = self.main.name,
            using = name,
            "checkpoint file is damaged, using the other one"
        );
        self.main = Named { name, store: copy };
        true
    }

    fn is_mirrored(&self) -> bool {
        self.copy.is_some()
    }

    fn copy_failure(&self) -> Option<&CheckpointError> {
        self.copy_failure.as_ref()
    }

    fn check(&self) -> Result<(), CheckpointError> {
        self.main.store.check_rows()
    }

    fn copy_to(&self, name: &str) -> Result<(), CheckpointError> {
        let rows = &self.main.store;
        let mut fill = |sink: &mut dyn Sink| rows.copy_rows(sink);
        RedbStore::create(self.medium.as_ref(), name, self.cache_bytes_max, &mut fill).map(drop)
    }

    fn close(&mut self) {
        self.main.store.close();
        self.copy = None;
    }
}
