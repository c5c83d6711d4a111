//! A connection: a session on the driver, after the CONNECT that opened it.

mod authenticating;
mod connecting;
mod events;

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use inver_broker::{Broker, CloseReason, Connection, LiveConnection, LoggedClient, Mailbox};
use inver_driver::{Activity, Close, Driver, End, Machine, Output, Progress, Serving, Shared, Timeouts};
use inver_storage::{Log, Lsn};
use tokio::time::Instant;

use self::connecting::{Connecting, Outcome};
use crate::codec::{ConnAck, Packet, Reason, decode};
use crate::error::Stop;
use crate::map::ORIGIN;
use crate::server::{Server, Taken};
use crate::session::Session;
use crate::session::connect::Accepted;

/// Serves a connection to its end.
pub(crate) fn serve(connection: Connection, broker: Broker, server: Arc<Server>) -> Serving<Client> {
    Serving::open(open(connection, broker, server))
}

/// From the first byte to a CONNACK in the output.
async fn open(connection: Connection, broker: Broker, server: Arc<Server>) -> Option<Driver<Client>> {
    server.count_socket();
    let client = broker.client_log().client(ORIGIN, connection.peer);
    let (endpoints, certificate) = (connection.endpoints(), connection.certificate.clone());
    let connecting = Connecting::new(client, endpoints, certificate, broker, server.clone());
    let mut driver = Driver::new(connection, &server.connections, connecting);
    match poll_fn(|cx| driver.poll(cx)).await {
        End::Protocol(Outcome::Accepted(accepted, client)) => {
            let Accepted { session, present, clean_start, properties, .. } = *accepted;
            let connack = Packet::ConnAck(ConnAck {
                session_present: present,
                reason: Reason::Success,
                properties: properties.as_ref(),
            });
            let _always_fits = connack.encode(session.version(), driver.output().flat());
            server.count_output(driver.output().flat().len());
            events::connected(&server, &session, &client, clean_start);
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

    /// Takes packets of the input.
    fn take(&mut self, input: &[u8], out: &mut Vec<u8>, taken: &mut Taken) -> Result<Progress, Stop> {
        let version = self.session.version();
        let packet_bytes_max = self.session.config().packet_bytes_max;
        if !self.session.go_on()? {
            return Ok(Progress::blocked(0));
        }
        while let Some(rest) = input.get(taken.bytes..).filter(|rest| !rest.is_empty()) {
            let Some((packet, length)) = decode(rest, version, packet_bytes_max)? else { break };
            if self.session.waits_at_gate(&packet) {
                return Ok(Progress::blocked(taken.bytes));
            }
            self.session.packet(&packet, out)?;
            taken.packets += 1;
            taken.answers += u64::from(rest.first().is_some_and(|first| is_answered(*first)));
            taken.bytes += length;
            if self.session.is_turn_over() {
                return Ok(Progress::blocked(taken.bytes));
            }
        }
        Ok(Progress::all(taken.bytes))
    }
}

/// Whether a packet with this first byte is answered: a PUBLISH at QoS 1 or 2, PUBREC, PUBREL, SUBSCRIBE, UNSUBSCRIBE, PINGREQ.
fn is_answered(first: u8) -> bool {
    match first >> 4 {
        3 => first & 0b110 != 0,
        5 | 6 | 8 | 10 | 12 => true,
        _ => false,
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
        let has_room = pending_bytes + self.session.deferred_bytes() < self.session.config().output_bytes_max;
        has_room && !self.session.has_more_to_deliver()
    }

    fn input(&mut self, input: &[u8], out: &mut Output) -> Result<Progress, Stop> {
        let out = out.flat();
        let (written, mut taken) = (out.len(), Taken::default());
        let progress = self.take(input, out, &mut taken);
        self.session.server().count_input(&taken);
        self.session.server().count_output(out.len().saturating_sub(written));
        progress
    }

    fn is_at_gate(&self) -> bool {
        self.session.is_at_gate()
    }

    fn end_turn(&mut self, out: &mut Output) -> Result<bool, Stop> {
        let room = out.room();
        let out = out.flat();
        let written = out.len();
        let ended = self.session.end_turn();
        self.session.release(self.session.log().committed(), out);
        let more = ended.and_then(|()| self.session.deliver(room, out));
        self.session.server().count_output(out.len().saturating_sub(written));
        self.session.server().sys.end_turn();
        more
    }

    fn awaits(&self) -> Option<Lsn> {
        self.session.waits_for()
    }

    fn poll_work(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Stop>> {
        if self.session.deliver_slice() { Poll::Ready(Ok(())) } else { Poll::Pending }
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
        events::disconnected(self.session.server(), &self.session, &self.client, end);
        // What came before the end counts.
        if let Err(error) = self.session.end_turn() {
            tracing::debug!(%error, "failed to submit the last turn");
        }
        while self.session.deliver_slice() {}
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
        assert!(running <= 352, "what runs: {running}");
        assert!(size_of::<Session>() <= 272, "the session: {}", size_of::<Session>());
    }
}
