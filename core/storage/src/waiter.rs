//! Blocking waits for a commit, with or without a writer thread.
//!
//! A log without threads (for simulation) has its writer here, and the waiting caller runs it.

use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;

use crate::error::{FailureCause, LogError};
use crate::ids::Lsn;
use crate::intake::Intake;
use crate::watermarks::ThreadWaker;
use crate::writer::Writer;

pub(crate) struct CommitWaiter {
    intake: Arc<Intake>,
    /// The writer of a log without threads.
    stepped: Option<Mutex<Option<Writer>>>,
}

impl CommitWaiter {
    /// For a log whose writer has a thread.
    pub(crate) fn parking(intake: Arc<Intake>) -> Self {
        Self { intake, stepped: None }
    }

    /// For a log without threads.
    pub(crate) fn stepping(intake: Arc<Intake>, writer: Writer) -> Self {
        Self { intake, stepped: Some(Mutex::new(Some(writer))) }
    }

    /// Runs the writer once, if it has no thread. Returns whether there was anything to write.
    pub(crate) fn step(&self) -> Result<bool, LogError> {
        match &self.stepped {
            Some(writer) => writer.lock().as_mut().map_or(Err(LogError::Closed), Writer::step),
            None => Ok(false),
        }
    }

    /// Blocks until everything up to `lsn` is committed.
    pub(crate) fn wait(&self, lsn: u64) -> Result<(), LogError> {
        let waker = ThreadWaker::current();
        let mut cx = Context::from_waker(&waker);
        loop {
            if let Poll::Ready(result) = self.intake.poll_committed(lsn, &mut cx) {
                return result;
            }
            if self.stepped.is_none() {
                std::thread::park();
            } else if !self.step()? {
                let cause = FailureCause::NeverSubmitted(Lsn(lsn));
                return Err(self.intake.fail("wait for a commit", cause));
            }
        }
    }

    /// Drops the writer of a log without threads.
    pub(crate) fn close(&self) {
        if let Some(writer) = &self.stepped {
            *writer.lock() = None;
        }
    }
}
