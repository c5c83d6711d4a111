//! Dump and verification of a stopped log.

use crate::shorthand::*;
use inver_storage::inspect::{PartSummary, dump, salvage, verify};
use inver_storage::{Entry, Offset, OpenError};

#[test]
fn a_stopped_log_is_dumped_and_verified_and_damage_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), &small());
    assert!(matches!(verify(dir.path()), Err(OpenError::Locked { .. })));
    let streams = [create_stream(&log), create_stream(&log)];
    let cursor = log.cursor(create_cursor(&log, streams[0].id())).unwrap();
    for i in 0..400u32 {
        append(&log, &streams[..1 + i as usize % 2], &[&i.to_be_bytes()]);
        cursor.ack(&[Offset(u64::from(i))..Offset(u64::from(i) + 1)]).unwrap();
    }
    let mut entry = Entry::new();
    entry.trim(&streams[0], Offset(3));
    commit(&log, entry);
    log.shutdown().unwrap();
    let report = verify(dir.path()).unwrap();
    assert_eq!(report.flaws, []);
    assert_eq!((report.batches, report.streams, report.cursors, report.torn_bytes), (400, 2, 1, 0));
    assert!(report.segments > 3 && report.index_entries > 300 && report.entries > 400, "{report:?}");
    let mut last = None;
    let (mut batches, mut acked, mut trims) = (0, 0, 0);
    dump(dir.path(), &mut |entry| {
        assert!(last < Some(entry.lsn));
        last = Some(entry.lsn);
        for part in entry.parts {
            match part {
                PartSummary::Batch { destinations, header } => {
                    batches += 1;
                    assert!(matches!(destinations.len(), 1 | 2));
                    assert_eq!(header.record_count, 1);
                }
                PartSummary::Acks(acks) => {
                    acked += acks.iter().map(|(_, start, end)| end.0 - start.0).sum::<u64>();
                }
                PartSummary::Trim { to, .. } => {
                    trims += 1;
                    assert_eq!(to, Offset(3));
                }
                _ => {}
            }
        }
    })
    .unwrap();
    assert_eq!((batches, acked, trims), (400, 400, 1));
    let first = dir.path().join("0000000000000000.seg");
    let mut bytes = std::fs::read(&first).unwrap();
    let length = bytes.len();
    for at in [300, length - 70] {
        bytes[at] ^= 4;
        std::fs::write(&first, &bytes).unwrap();
        let flaws = verify(dir.path()).unwrap().flaws;
        assert_eq!(flaws.len(), 1, "{flaws:?}");
        assert!(flaws[0].file.starts_with("000") && flaws[0].position <= at as u64, "{flaws:?}");
        assert_eq!(dump(dir.path(), &mut |_| {}).is_err(), at == 300);
        bytes[at] ^= 4;
    }
}

#[test]
fn a_folder_without_a_log_is_rejected_and_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("letter.txt"), "not a log").unwrap();
    assert!(verify(dir.path()).is_err());
    assert!(dump(dir.path(), &mut |_| {}).is_err());
    assert!(salvage(dir.path(), true).is_err());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    let missing = dir.path().join("missing");
    assert!(verify(&missing).is_err() && !missing.exists());
}
