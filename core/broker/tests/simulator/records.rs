//! Retained values and committed offsets.

use inver_broker::{CommittedOffset, Filter};

use crate::world::World;

pub(crate) const RETAINED: [&[u8]; 2] = [b"r/0", b"r/1"];
const GROUPS: [&str; 2] = ["g0", "g1"];

impl World {
    /// Commits an offset of a group.
    pub(crate) fn commit_offset(&mut self) {
        let namespace = self.namespace();
        let at = self.random.below(GROUPS.len() as u64) as usize;
        let number = self.next_number();
        let offset = CommittedOffset {
            offset: number as i64,
            leader_epoch: -1,
            metadata: None,
            committed_ms: self.clock.steady_ms(),
        };
        self.note(format_args!("commit offset {number} of {at}"));
        let offsets = [("topic", 0, offset)];
        if let Ok(lsn) = namespace.committed_offsets().commit(namespace.log(), GROUPS[at], &offsets) {
            self.offsets[at].set(lsn.0, Some(number));
        }
    }

    /// Compares retained values and committed offsets with what was written last.
    pub(crate) fn compare_records(&mut self) {
        let namespace = self.namespace();
        for (at, address) in RETAINED.into_iter().enumerate() {
            let mut found = Vec::new();
            let _end = namespace.retained().scan(&Filter::slashed(address), None, 10, &mut found);
            let value = found.first().and_then(|record| record.value.clone());
            let value = value.map(|value| std::str::from_utf8(&value).unwrap().parse().unwrap());
            assert_eq!(value, *self.retained[at].get(), "the retained value {at}");
        }
        for (at, group) in GROUPS.into_iter().enumerate() {
            let offset = namespace.committed_offsets().get(group, "topic", 0);
            let offset = offset.map(|offset| offset.offset as u64);
            assert_eq!(offset, *self.offsets[at].get(), "the committed offset of {group}");
        }
    }
}
