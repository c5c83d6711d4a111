//! The connection on the driver: input, answers that wait for the log, deliveries, deadlines.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use inver_broker::{CloseReason, LiveConnection, LoginRefusal, Mailbox};
use inver_driver::{
    Activity, Close, Count, End, Machine, Output, Progress, Shared, Timeouts, count, is_over,
};
use inver_storage::{Log, LogError, Lsn};
use tokio::time::Instant;

use super::{Answer, Ended, Session};
use crate::codec::frame::{self, Code, key};
use crate::map::ORIGIN;
use crate::watch::DELETED;

impl Session {
    /// Writes the answers whose position is committed.
    fn answer(&mut self, out: &mut Vec<u8>) {
        while let Some(answer) = self.answers.pop(self.broker.log().committed()) {
            match answer {
                Answer::Frame(bytes) => out.extend_from_slice(&bytes),
                Answer::Confirms { publisher, made, ids } => {
                    self.unconfirmed -= ids.len();
                    // Another one that has its number since would take them for its own.
                    if self.publishers.get(&publisher).is_some_and(|present| present.made != made) {
                        continue;
                    }
                    count(Count::Confirmed, ids.len() as u64);
                    frame::put(out, key::PUBLISH_CONFIRM, 1, |out| {
                        out.push(publisher);
                        out.extend_from_slice(&(ids.len() as u32).to_be_bytes());
                        ids.iter().for_each(|id| out.extend_from_slice(&id.to_be_bytes()));
                    });
                }
            }
        }
    }

    /// When a heartbeat is due: half an interval after the last output; none if the client asked for none.
    fn beat_due(&self, activity: &Activity) -> Option<Instant> {
        let half = Duration::from_secs(self.heartbeat_s.into()) / 2;
        (self.heartbeat_s > 0).then(|| activity.unwritten_for(half).max(self.beat + half))
    }

    fn silent_due(&self, activity: &Activity) -> Option<Instant> {
        let heartbeat = Duration::from_secs(self.heartbeat_s.into());
        if self.heartbeat_s == 0 { None } else { activity.silent_for(2 * heartbeat) }
    }

    /// The bytes that a frame may have now: a client that has not logged in sends small ones.
    fn frame_bytes_max(&self) -> usize {
        const LOGIN_FRAME_BYTES_MAX: usize = 8 * 1024;
        if self.login.is_authenticated() { self.frame_max } else { LOGIN_FRAME_BYTES_MAX }
    }
}

impl Machine for Session {
    type Input = Shared;
    type Error = Ended;

    const READ_BYTES: usize = 256 * 1024;

    fn timeouts(&self) -> &Timeouts {
        &self.config.timeouts
    }

    fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }

    fn place(&self) -> Option<&LiveConnection> {
        self.opened.as_ref().map(|opened| &*opened.connection)
    }

    fn held_bytes(&self) -> usize {
        // The ids of messages that await their confirm.
        self.unconfirmed * size_of::<u64>()
    }

    fn log(&self) -> &Log {
        self.broker.log()
    }

    fn begin_turn(&mut self, now: Instant) {
        self.now = now;
    }

    fn wake(&mut self, tokens: &[u64], out: &mut Output) -> Result<(), Ended> {
        for subscription in self.subscriptions.values_mut() {
            if tokens.binary_search(&subscription.token()).is_ok() {
                subscription.wake();
            }
        }
        if tokens.contains(&DELETED) {
            self.tell_of_deleted(out.flat());
        }
        Ok(())
    }

    fn needs_admission(&self) -> bool {
        self.opened.is_some()
    }

    fn is_at_gate(&self) -> bool {
        self.is_at_gate
    }

    fn takes_input(&self, pending_bytes: usize) -> bool {
        !self.login.is_checking()
            && pending_bytes < self.config.output_bytes_max
            && self.unconfirmed < self.config.unconfirmed_max
    }

    fn input(&mut self, input: &[u8], out: &mut Output) -> Result<Progress, Ended> {
        let (mut used, started) = (0, Instant::now());
        loop {
            let rest = input.get(used..).unwrap_or_default();
            if let Some(claimed) = frame::claimed_bytes(rest)
                && claimed > self.frame_bytes_max()
            {
                let text = format!("a frame of {claimed} bytes, and the limit is {}", self.frame_bytes_max());
                return Err(Ended::Refused(Code::FrameTooLarge, text));
            }
            let Some((length, frame)) = frame::split(rest) else { return Ok(Progress::all(used)) };
            let is_publish = frame::header(frame).is_ok_and(|(command, ..)| command == key::PUBLISH);
            self.is_at_gate = is_publish && self.log().gate().shortage().is_some();
            if self.is_at_gate || self.unconfirmed >= self.config.unconfirmed_max {
                return Ok(Progress::blocked(used));
            }
            used += length;
            if !self.frame(frame, out.flat())? {
                return Ok(Progress::blocked(used));
            }
            if is_over(started) {
                return Ok(Progress::blocked(used));
            }
        }
    }

    fn end_turn(&mut self, out: &mut Output) -> Result<bool, Ended> {
        self.finish_login(out.flat())?;
        self.flush(out.flat());
        self.answer(out.flat());
        self.deliver(out)
    }

    fn awaits(&self) -> Option<Lsn> {
        self.answers.awaits()
    }

    fn log_failed(&mut self, error: LogError, _out: &mut Output) -> Result<(), Ended> {
        tracing::error!(%error, "connection closed: broker failed");
        Err(error.into())
    }

    fn deadline(&self, activity: &Activity) -> Option<Instant> {
        match self.login.due().filter(|_| self.opened.is_none()) {
            Some(due) => Some(due),
            None => [self.beat_due(activity), self.silent_due(activity)].into_iter().flatten().min(),
        }
    }

    fn expired(&mut self, activity: &Activity, now: Instant, out: &mut Output) -> Result<(), Ended> {
        if self.opened.is_none() && self.login.due().is_some_and(|due| due <= now) {
            return Err(Ended::LoginTimeout);
        }
        if self.silent_due(activity).is_some_and(|due| due <= now) {
            return Err(Ended::HeartbeatsMissed);
        }
        if self.beat_due(activity).is_some_and(|due| due <= now) {
            self.beat = now;
            // A stream can be deleted over other protocols too.
            self.tell_of_deleted(out.flat());
            if out.pending_bytes() == 0 {
                frame::put(out.flat(), key::HEARTBEAT, 1, |_| {});
            }
        }
        Ok(())
    }

    fn poll_work(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        self.login.poll(cx).map(Ok)
    }

    fn shutdown(&mut self, _now: Instant, _out: &mut Output) -> Result<(), Ended> {
        Err(Ended::Refused(Code::InternalError, "shutdown".to_owned()))
    }

    fn close(&mut self, reason: &CloseReason, _now: Instant, _out: &mut Output) -> Result<(), Ended> {
        Err(Ended::Refused(Code::Ok, reason.to_string()))
    }

    fn end(&mut self, end: &End<Ended>, out: &mut Output) -> Close {
        match end {
            End::Protocol(Ended::Refused(code, text)) => {
                inver_driver::count_error(ORIGIN, format!("{code:?}"));
                frame::put_close(out.flat(), *code, text);
                self.client.failed(LoginRefusal::Protocol, text);
            }
            End::Protocol(Ended::LoginTimeout) => self.client.failed(LoginRefusal::Timeout, end),
            End::Protocol(Ended::Log(error)) => self.client.failed(LoginRefusal::Unavailable, error),
            _ => self.client.ended(end),
        }
        self.subscriptions.clear();
        self.publishers.clear();
        self.opened = None;
        match end {
            End::Io(_) | End::Stalled | End::NoMemory(_) => Close::Abort,
            _ => Close::Linger,
        }
    }
}
