//! Bit rot: a bit flips in a stored file. No wrong data is read, and lost data is reported with its file.

use std::sync::Arc;

use inver_storage::medium::fake::FakeMedium;
use inver_storage::{Log, OpenError};

use super::model::Model;
use super::simulation::Simulation;

const SEGMENT_HEADER_BYTES: usize = 64;
const CHECKPOINTS: [&str; 2] = ["checkpoint.redb", "checkpoint-copy.redb"];

/// An entry, according to its header.
struct RawEntry {
    start: usize,
    end: usize,
    /// Everything below was on the medium when the entry was written.
    synced: u64,
}

impl Simulation {
    /// Damages a copy of the folder and checks the rest.
    pub(crate) fn rot(&mut self) {
        self.close_window();
        let whole = self.reopen(&self.medium.image()).map(|log| log.committed().0);
        let Ok(whole_end) = whole else { panic!("the log does not open without a fault: {whole:?}") };
        let image = self.medium.image();
        let segments: Vec<String> = image.names().into_iter().filter(|name| name.ends_with(".seg")).collect();
        if self.random.once_in(8) {
            return self.rot_checkpoint(&image, whole_end);
        }
        let Some(name) = segments.get(self.random.below(segments.len() as u64) as usize) else { return };
        let mut bytes = image.content(name).unwrap();
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let at = self.random.below((used + 16).min(bytes.len()) as u64) as usize;
        let mut entries = raw_entries(&bytes);
        bytes[at] ^= 1 << self.random.below(8);
        image.set_content(name, bytes);
        let is_last = segments.iter().rfind(|name| !name.starts_with('c')) == Some(name);
        let base = u64::from_str_radix(name.trim_end_matches(".seg").trim_start_matches('c'), 16).unwrap();
        // Torn entries prove nothing.
        entries.retain(|entry| base + entry.end as u64 <= whole_end);
        match self.reopen(&image) {
            Err(OpenError::Damaged { file, position, .. }) => {
                assert_eq!(&file, name);
                assert!(position <= at as u64, "byte {at} was reported at {position}");
            }
            Err(OpenError::Version { file, .. }) => assert!(&file == name && (8..12).contains(&at)),
            Err(error) => panic!("{error}"),
            Ok(log) => {
                let end = log.committed().0;
                if is_last {
                    // Replay reads all of it. Only a part that no later entry proves to be synced may be cut like a torn
                    // tail, from the damaged entry on.
                    let proven = entries.iter().map(|entry| entry.synced).max().unwrap_or(0);
                    assert!(at >= SEGMENT_HEADER_BYTES, "damage of the header was not detected");
                    let hit = entries.iter().find(|entry| (entry.start..entry.end).contains(&at));
                    assert!(base + at as u64 >= proven || hit.is_none(), "damage at {at} was not detected");
                    assert_eq!(end, hit.map_or(whole_end, |entry| base + entry.start as u64));
                } else {
                    assert_eq!(end, whole_end);
                }
                let damaged = if is_last { "none" } else { name.as_str() };
                let model = self.model_at(end);
                self.compare_with(&log, &model, Some(damaged));
                for work in [Log::clean, Log::compact] {
                    work(&log).unwrap();
                    self.compare_with(&log, &model, Some(damaged));
                }
            }
        }
    }

    /// Damages one file of the checkpoint: nothing is lost. Without the other file the damage is detected, or makes no
    /// difference.
    fn rot_checkpoint(&mut self, image: &FakeMedium, whole_end: u64) {
        let files: Vec<_> =
            CHECKPOINTS.into_iter().filter_map(|name| Some((name, image.content(name)?))).collect();
        let Some((name, bytes)) = files.get(self.random.below(2) as usize) else { return };
        let mut bytes = bytes.clone();
        let at = self.random.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << self.random.below(8);
        image.set_content(name, bytes);
        match self.reopen(image) {
            Err(OpenError::CheckpointLost(_)) if files.len() < 2 => {}
            Err(error) => panic!("{error}"),
            Ok(log) => {
                assert_eq!(log.committed().0, whole_end);
                self.compare_with(&log, &self.model_at(whole_end), None);
            }
        }
    }

    fn reopen(&self, medium: &FakeMedium) -> Result<Log, OpenError> {
        Log::open_manual(Arc::new(medium.clone()), self.clock.clone(), self.options.clone())
    }

    /// The model of a log that ends at a position.
    fn model_at(&self, end: u64) -> Model {
        let mut model = Model::default();
        for taken in self.history.iter().chain(&self.taken).filter(|taken| end > taken.after) {
            for change in &taken.changes {
                model.apply(change);
            }
        }
        model
    }
}

/// The entries of a segment, according to their headers.
fn raw_entries(bytes: &[u8]) -> Vec<RawEntry> {
    let u64_at = |at: usize| bytes.get(at..at + 8).map(|field| u64::from_le_bytes(field.try_into().unwrap()));
    let mut entries = Vec::new();
    let mut at = SEGMENT_HEADER_BYTES;
    while bytes.get(at..at + 4) == Some(b"ENTR") {
        let length = bytes.get(at + 8..at + 12).map(|field| u32::from_le_bytes(field.try_into().unwrap()));
        let (Some(length), Some(synced)) = (length, u64_at(at + 24)) else { break };
        let end = at + length as usize;
        if end > bytes.len() || length < 40 {
            break;
        }
        entries.push(RawEntry { start: at, end, synced });
        at = end;
    }
    entries
}
