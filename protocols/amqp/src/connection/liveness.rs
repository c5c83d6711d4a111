//! The deadlines of a connection: the login, then heartbeats (AMQP 0-9-1, section 4.2.7), then the answer to a close.

use std::time::Duration;

use inver_driver::Activity;
use tokio::time::Instant;

use super::ended::Ended;
use crate::session::Session;

/// Time that a client has to answer `connection.close`.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// The same during shutdown, which a client that does not read must not delay.
const CLOSE_TIMEOUT_AT_SHUTDOWN: Duration = Duration::from_millis(500);

/// What the connection is bounded by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The login must be done by then.
    Login(Instant),
    /// Heartbeats are exchanged at this interval; zero for none.
    Open(Duration),
    /// `connection.close` must be answered by then.
    Closing(Instant),
}

/// The deadlines of a connection.
pub(super) struct Liveness {
    phase: Phase,
    /// When a heartbeat was due last.
    beat: Instant,
}

impl Liveness {
    /// A connection that must log in.
    pub(super) fn new(now: Instant, login_timeout: Duration) -> Liveness {
        Liveness { phase: Phase::Login(now + login_timeout), beat: now }
    }

    /// Follows the session into its next phase.
    pub(super) fn follow(&mut self, session: &Session, is_shutdown: bool, now: Instant) {
        match self.phase {
            Phase::Login(_) | Phase::Open(_) if session.is_closing() => {
                let timeout = if is_shutdown { CLOSE_TIMEOUT_AT_SHUTDOWN } else { CLOSE_TIMEOUT };
                self.phase = Phase::Closing(now + timeout);
            }
            Phase::Login(_) if session.is_open() => {
                self.phase = Phase::Open(Duration::from_secs(session.heartbeat_s().into()));
                self.beat = now;
            }
            _ => {}
        }
    }

    /// The next deadline.
    pub(super) fn deadline(&self, activity: &Activity) -> Option<Instant> {
        match self.phase {
            Phase::Login(by) | Phase::Closing(by) => Some(by),
            Phase::Open(Duration::ZERO) => None,
            Phase::Open(heartbeat) => {
                let silent = silent(heartbeat, activity);
                [Some(self.beat_due(heartbeat, activity)), silent].into_iter().flatten().min()
            }
        }
    }

    /// Whether a heartbeat must be sent at `now`, or why the connection ends.
    pub(super) fn expired(&mut self, activity: &Activity, now: Instant) -> Result<bool, Ended> {
        match self.phase {
            Phase::Login(by) if by <= now => Err(Ended::LoginTimeout),
            Phase::Closing(by) if by <= now => Err(Ended::CloseUnanswered),
            Phase::Login(_) | Phase::Closing(_) | Phase::Open(Duration::ZERO) => Ok(false),
            Phase::Open(heartbeat) => {
                if silent(heartbeat, activity).is_some_and(|due| due <= now) {
                    return Err(Ended::HeartbeatsMissed);
                }
                let is_due = self.beat_due(heartbeat, activity) <= now;
                if is_due {
                    self.beat = now;
                }
                Ok(is_due)
            }
        }
    }

    /// When a heartbeat is due: half an interval after the last output.
    fn beat_due(&self, heartbeat: Duration, activity: &Activity) -> Instant {
        activity.unwritten_for(heartbeat / 2).max(self.beat + heartbeat / 2)
    }
}

/// When a silent client is disconnected: after two intervals without input.
fn silent(heartbeat: Duration, activity: &Activity) -> Option<Instant> {
    activity.silent_for(2 * heartbeat)
}
