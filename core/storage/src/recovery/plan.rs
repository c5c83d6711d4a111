//! Which files belong to a log: the checkpoint's list of segments compared with the files found.

use std::collections::BTreeMap;

use crate::checkpoint::{CheckpointStore, Meta, SegmentRecord, Space};
use crate::error::{CHECKPOINT_FILE, CheckpointError, OpenError};
use crate::format::segment::SegmentId;
use crate::medium::Medium;
use crate::scan::Scanner;

/// What to do about files that do not belong together.
pub(super) const NO_COPY: &str =
    "if the files were copied while the broker ran, they are no backup: take one with `inver backup`";

pub(super) struct Plan {
    /// Segments that need not be read.
    pub(super) sealed: Vec<(SegmentId, SegmentRecord)>,
    /// Segments to replay, in order.
    pub(super) replayed: Vec<SegmentId>,
    /// Files left by an interrupted removal or cleaning.
    pub(super) leftovers: Vec<SegmentId>,
}

impl Plan {
    pub(super) fn new(
        store: &dyn CheckpointStore,
        meta: Option<&Meta>,
        found: &[SegmentId],
    ) -> Result<Plan, OpenError> {
        let mut known = BTreeMap::new();
        store.scan(Space::Segments, &[], &mut |key, value| {
            let id = key.try_into().map(u64::from_be_bytes).ok().map(SegmentId);
            let (Some(id), Some(record)) = (id, SegmentRecord::decode(value)) else {
                return Err(CheckpointError::Damaged("malformed segment record"));
            };
            known.insert(id, record);
            Ok(())
        })?;
        if meta.is_none() && found.iter().any(|id| id.is_cleaned()) {
            let lost = CheckpointError::Damaged("file is missing");
            return Err(OpenError::CheckpointLost(lost));
        }
        if let Some(missing) = known.keys().find(|id| !found.contains(id)) {
            return Err(OpenError::damaged(&missing.file_name(), 0, &format!("file is missing; {NO_COPY}")));
        }
        let newest = known.keys().rfind(|id| !id.is_cleaned()).copied();
        let mut plan = Plan { sealed: Vec::new(), replayed: Vec::new(), leftovers: Vec::new() };
        for id in found {
            match known.get(id) {
                Some(record) if record.is_sealed => plan.sealed.push((*id, *record)),
                Some(_) => plan.replayed.push(*id),
                None if id.is_cleaned() || newest.is_some_and(|newest| *id < newest) => {
                    plan.leftovers.push(*id);
                }
                None => plan.replayed.push(*id),
            }
        }
        plan.replayed.sort_unstable();
        let lsn = meta.map_or(0, |meta| meta.lsn);
        match plan.replayed.first() {
            None if lsn > 0 => {
                Err(OpenError::damaged(CHECKPOINT_FILE, 0, "segment being appended to is missing"))
            }
            Some(first) if first.0 > lsn => {
                let detail = "the segment before this one, or the checkpoint, is missing";
                Err(OpenError::damaged(&first.file_name(), 0, &format!("{detail}; {NO_COPY}")))
            }
            _ => Ok(plan),
        }
    }

    /// Creates the identity of a log without a checkpoint: that of its first segment, or a new one.
    pub(super) fn first_meta(
        &self,
        medium: &dyn Medium,
        store: &mut dyn CheckpointStore,
        new_log_id: u128,
    ) -> Result<Meta, OpenError> {
        let log_id = match self.replayed.first() {
            Some(first) => {
                let name = first.file_name();
                let file = medium.open(&name).map_err(OpenError::io(format!("open {name}")))?;
                Scanner::open(file.as_ref(), None).map_err(|error| error.in_file(&name))?.0.log_id
            }
            None => new_log_id,
        };
        let meta = Meta { log_id, lsn: 0, durable: 0, next_stream: 1, next_cursor: 1, next_cleaned: 1 };
        store.commit(&mut |sink| sink.put(Space::Meta, Meta::KEY, &meta.encode()))?;
        Ok(meta)
    }
}

/// The checkpoint's record of the log as a whole, if there is any.
pub(super) fn read_meta(store: &dyn CheckpointStore) -> Result<Option<Meta>, OpenError> {
    let Some(bytes) = store.get(Space::Meta, Meta::KEY)? else { return Ok(None) };
    let meta = Meta::decode(&bytes).ok_or(CheckpointError::Damaged("malformed header"))?;
    Ok(Some(meta))
}
