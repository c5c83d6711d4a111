//! A connection: a session on the driver, after the CONNECT that opened it.

mod authenticating;
mod connecting;

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use inver_broker::{Broker, CloseReason, Connection, LiveConnection, LoggedClient, Mailbox};
use inver_driver::{Activity, Close, Driver, End, Machine, Output, Progress, Serving, Shared, Timeouts};
use inver_storage::{Log, Lsn};
use tokio::time::Instant;

use self::connecting::{Connecting, Outcome};
use crate::codec::{ConnAck, Packet, Reason, decode};
use crate::error::Stop;
use crate::map::ORIGIN;
use crate::server::Server;
use crate::session::Session;
use crate::session::connect::Accepted;

/// Serves a connection to its end.
pub(crate) fn serve(connection: Connection, broker: Broker, server: Arc<Server>) -> Serving<Client> {
    Serving::open(open(connection, broker, server))
}

/// From the first byte to a CONNACK in the output.
async fn open(connection: Connection, broker: Broker, server: Arc<Server>) -> Option<Driver<Client>> {
    let client = broker.client_log().client(ORIGIN, connection.peer);
    let (endpoints, certificate) = (connection.endpoints(), connection.certificate.clone());
    let connecting = Connecting::new(client, endpoints, certificate, broker, server.clone());
    let mut driver = Driver::new(connection, &server.connections, connecting);
    match poll_fn(|cx| driver.poll(cx)).await {
        End::Protocol(Outcome::Accepted(accepted, client)) => {
            let Accepted { session, present, properties, .. } = *accepted;
            let connack = Packet::ConnAck(ConnAck {
                session_present: present,
                reason: Reason::Success,
                properties: properties.as_ref(),
            });
            let _always_fits = connack.encode(session.version(), driver.output().flat());
            Some(driver.continue_with(Client { session, client }))
        }
        end => {
            driver.finish(end).await;
            None
        }
    }
}

/// A connected client.
pub(crate) struct Client {
    session: Session,
    client: LoggedClient,
}

impl Client {
    /// The longest silence: one and a half keep alive intervals [MQTT-3.1.2-22]; none for a keep alive of 0.
    fn silence_max(&self) -> Option<Duration> {
        let keep_alive_s = self.session.keep_alive_s();
        (keep_alive_s != 0).then(|| Duration::from_millis(u64::from(keep_alive_s) * 1500))
    }
}

impl Machine for Client {
    type Input = Shared;
    type Error = Stop;

    // A client that sends parts of a packet is silent.
    const BYTES_ARE_ACTIVITY: bool = false;

    fn timeouts(&self) -> &Timeouts {
        &self.session.config().timeouts
    }

    fn mailbox(&self) -> &Arc<Mailbox> {
        self.session.mailbox()
    }

    fn place(&self) -> Option<&LiveConnection> {
        Some(self.session.place())
    }

    fn log(&self) -> &Log {
        self.session.log()
    }

    fn begin_turn(&mut self, _now: Instant) {
        self.session.begin_turn();
    }

    fn wake(&mut self, tokens: &[u64], _out: &mut Output) -> Result<(), Stop> {
        tokens.iter().try_for_each(|&token| self.session.wake(token))
    }

    fn takes_input(&self, pending_bytes: usize) -> bool {
        pending_bytes + self.session.deferred_bytes() < self.session.config().output_bytes_max
    }

    fn input(&mut self, input: &[u8], out: &mut Output) -> Result<Progress, Stop> {
        let out = out.flat();
        let version = self.session.version();
        let packet_bytes_max = self.session.config().packet_bytes_max;
        let mut used = 0;
        while let Some(rest) = input.get(used..).filter(|rest| !rest.is_empty()) {
            let Some((packet, length)) = decode(rest, version, packet_bytes_max)? else { break };
            if self.session.waits_at_gate(&packet) {
                return Ok(Progress::blocked(used));
            }
            self.session.packet(&packet, out)?;
            used += length;
        }
        Ok(Progress::all(used))
    }

    fn is_at_gate(&self) -> bool {
        self.session.is_at_gate()
    }

    fn end_turn(&mut self, out: &mut Output) -> Result<bool, Stop> {
        let room = out.room();
        let out = out.flat();
        let ended = self.session.end_turn();
        self.session.release(self.session.log().committed(), out);
        ended?;
        self.session.deliver(room, out)
    }

    fn awaits(&self) -> Option<Lsn> {
        self.session.waits_for()
    }

    fn deadline(&self, activity: &Activity) -> Option<Instant> {
        activity.silent_for(self.silence_max()?)
    }

    fn expired(&mut self, _activity: &Activity, _now: Instant, _out: &mut Output) -> Result<(), Stop> {
        Err(Stop::KeepAliveTimeout)
    }

    fn shutdown(&mut self, _now: Instant, _out: &mut Output) -> Result<(), Stop> {
        Err(Stop::ShuttingDown)
    }

    fn close(&mut self, reason: &CloseReason, _now: Instant, _out: &mut Output) -> Result<(), Stop> {
        Err(Stop::Closed(reason.clone()))
    }

    fn end(&mut self, end: &End<Stop>, out: &mut Output) -> Close {
        self.client.ended(end);
        // What came before the end counts.
        if let Err(error) = self.session.end_turn() {
            tracing::debug!(%error, "failed to submit the last turn");
        }
        self.session.release(self.session.log().committed(), out.flat());
        let close = match end {
            End::Protocol(Stop::Disconnected) => Close::Linger,
            End::NoMemory(_) => {
                self.session.put_stop(&Stop::NoMemory, out.flat());
                Close::Linger
            }
            End::Protocol(stop) if stop.reason().is_some() => {
                self.session.put_stop(stop, out.flat());
                Close::Linger
            }
            _ => Close::Abort,
        };
        self.session.end();
        close
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory of an idle connection, in bytes. Raise no bound without knowing which field needs it.
    #[test]
    fn idle_connections_are_small() {
        let (future, running) = (size_of::<Serving<Client>>(), size_of::<Driver<Client>>());
        assert!(future <= running + 8, "the future: {future}");
        assert!(running <= 344, "what runs: {running}");
        assert!(size_of::<Session>() <= 264, "the session: {}", size_of::<Session>());
    }
}
