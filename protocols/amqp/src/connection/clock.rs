//! The one timer of a connection: the handshake's bound, then heartbeats, then the wait for a closing's answer.
//!
//! A heartbeat interval has a few ticks, and the timer is set by the tick, not by each frame (AMQP 0-9-1, section 4.2.7).

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

use crate::codec::write;
use crate::session::Session;

/// How long the answer to a `connection.close` of ours is awaited.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// The same while the server goes down: a client that does not read must not hold it up.
const CLOSE_TIMEOUT_AT_SHUTDOWN: Duration = Duration::from_secs(2);
/// Ticks of a heartbeat interval.
const TICKS: u32 = 4;
/// Ticks without a write until a heartbeat is sent: half an interval.
const QUIET_TICKS_MAX: u32 = TICKS / 2;
/// Ticks without a read until a client counts as gone: two intervals.
const SILENT_TICKS_MAX: u32 = TICKS * 2;

/// What the timer is set for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aim {
    Handshake,
    /// Part of a heartbeat interval.
    Tick(Duration),
    Close,
    Nothing,
}

/// See the module's text.
pub(super) struct Clock {
    timer: Pin<Box<Sleep>>,
    aim: Aim,
    read_since_tick: bool,
    wrote_since_tick: bool,
    quiet_ticks: u32,
    silent_ticks: u32,
}

impl Clock {
    /// Bounds the handshake.
    pub(super) fn new(handshake_timeout: Duration) -> Clock {
        Clock {
            timer: Box::pin(sleep(handshake_timeout)),
            aim: Aim::Handshake,
            read_since_tick: false,
            wrote_since_tick: false,
            quiet_ticks: 0,
            silent_ticks: 0,
        }
    }

    /// The client was heard.
    pub(super) fn has_read(&mut self) {
        self.read_since_tick = true;
    }

    /// Something was written that was no heartbeat.
    pub(super) fn has_written(&mut self) {
        self.wrote_since_tick = true;
    }

    /// Ready when time is up. A client that is not `heeded` may be silent.
    pub(super) fn poll(&mut self, heeded: bool, out: &mut Vec<u8>, cx: &mut Context<'_>) -> Poll<()> {
        if self.aim == Aim::Nothing {
            return Poll::Pending;
        }
        loop {
            ready!(self.timer.as_mut().poll(cx));
            match self.aim {
                Aim::Handshake => {
                    tracing::info!("handshake took too long");
                    return Poll::Ready(());
                }
                Aim::Close => return Poll::Ready(()),
                Aim::Nothing => return Poll::Pending,
                Aim::Tick(part) => {
                    if self.tick(heeded, out) {
                        tracing::info!("missed heartbeats from client");
                        return Poll::Ready(());
                    }
                    self.timer.as_mut().reset(Instant::now() + part);
                }
            }
        }
    }

    /// Part of a heartbeat interval passed. True if the client has been silent for too long.
    fn tick(&mut self, heeded: bool, out: &mut Vec<u8>) -> bool {
        if std::mem::take(&mut self.wrote_since_tick) || !out.is_empty() {
            self.quiet_ticks = 0;
        } else {
            self.quiet_ticks += 1;
            if self.quiet_ticks == QUIET_TICKS_MAX {
                self.quiet_ticks = 0;
                out.extend_from_slice(&write::HEARTBEAT);
            }
        }
        if std::mem::take(&mut self.read_since_tick) || !heeded {
            self.silent_ticks = 0;
        } else {
            self.silent_ticks += 1;
        }
        self.silent_ticks >= SILENT_TICKS_MAX
    }

    /// Sets the timer for what the session has come to.
    pub(super) fn set(&mut self, session: &Session, server_ends: bool, cx: &mut Context<'_>) {
        let heartbeat = Duration::from_secs(session.heartbeat_s().into());
        let aim = match () {
            () if session.is_closing() => Aim::Close,
            () if !session.is_open() => Aim::Handshake,
            () if heartbeat.is_zero() => Aim::Nothing,
            () => Aim::Tick(heartbeat / TICKS),
        };
        if aim == self.aim {
            return;
        }
        self.aim = aim;
        let from_now = match aim {
            Aim::Close if server_ends => CLOSE_TIMEOUT_AT_SHUTDOWN,
            Aim::Close => CLOSE_TIMEOUT,
            Aim::Tick(part) => part,
            Aim::Handshake | Aim::Nothing => return,
        };
        self.timer.as_mut().reset(Instant::now() + from_now);
        // Leaves the waker with it; it cannot be over yet.
        _ = self.timer.as_mut().poll(cx);
    }
}
