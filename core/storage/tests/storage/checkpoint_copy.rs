//! A second checkpoint file that cannot be written: said, tried again, and no obstacle for the log.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use inver_storage::medium::fake::FakeMedium;
use inver_storage::medium::{Medium, MediumFile};
use inver_storage::{BackgroundTask, Clock, Log, LogOptions};

use crate::shorthand::*;

const COPY: &str = "checkpoint-copy.redb";

/// A medium that does not create the second file.
#[derive(Clone, Debug)]
struct Refusing {
    inner: FakeMedium,
    refuses: Arc<AtomicBool>,
}

impl Medium for Refusing {
    fn list(&self) -> io::Result<Vec<String>> {
        self.inner.list()
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn MediumFile>> {
        self.inner.open(name)
    }

    fn open_direct(&self, name: &str) -> io::Result<Option<Arc<dyn MediumFile>>> {
        self.inner.open_direct(name)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn MediumFile>> {
        if name.starts_with(COPY) && self.refuses.load(Ordering::Relaxed) {
            return Err(io::Error::other("refused by the test"));
        }
        self.inner.create(name)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn sync_folder(&self) -> io::Result<()> {
        self.inner.sync_folder()
    }

    fn lock(&self) -> io::Result<Box<dyn Send + Sync>> {
        self.inner.lock()
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

#[derive(Debug, Default)]
struct Stepped(AtomicI64);

impl Clock for Stepped {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

#[test]
fn it_is_said_and_written_again_without_further_changes() {
    let medium = Refusing { inner: FakeMedium::new(1), refuses: Arc::new(AtomicBool::new(true)) };
    let clock = Arc::new(Stepped::default());
    let log = Log::open_manual(Arc::new(medium.clone()), clock.clone(), LogOptions::default()).unwrap();
    let stream = create_stream(&log);
    append(&log, std::slice::from_ref(&stream), &[b"value"]);
    assert!(log.checkpoint().unwrap(), "the first file is enough for a checkpoint");
    let [(task, reason)] = log.put_off().try_into().unwrap();
    assert_eq!(task, BackgroundTask::CheckpointCopy);
    assert!(reason.contains("refused by the test"), "{reason}");
    assert!(!log.is_checkpoint_mirrored());

    medium.refuses.store(false, Ordering::Relaxed);
    log.step_maintenance().unwrap();
    assert!(!log.is_checkpoint_mirrored(), "the pause is not over");
    clock.0.store(1_000, Ordering::Relaxed);
    log.step_maintenance().unwrap();
    assert!(log.is_checkpoint_mirrored());
    assert_eq!(log.put_off(), []);
    log.shutdown().unwrap();
}
