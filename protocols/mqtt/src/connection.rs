//! One connection: reads big, parses in place, and writes once a turn.
//!
//! A turn begins when anything happened (bytes, a wake-up of the mailbox, a commit, a timer) and ends without having
//! waited. Between turns the task waits for all of them at once. What the client does not take bounds what is read
//! from it: beyond the output's bound, or while the log's writer is behind, nothing is read.

mod first;
mod keep_alive;
mod socket;

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use inver_broker::{Broker, Connection, Mailbox, Shutdown};
use inver_storage::Log;

use self::keep_alive::KeepAlive;
use self::socket::Socket;
use crate::codec::{ConnAck, Packet, Reason, decode};
use crate::error::Stop;
use crate::session::{Accepted, Session};
use crate::sys::{Connected, Plug};

/// How long the last bytes may take to be written and read.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves a connection until its end.
///
/// What is rarely alive (the way in, the way out) is on the heap while it is, so that an idle connection holds little
/// more than what it waits for.
pub(crate) fn serve(
    connection: Connection,
    broker: Broker,
    config: Arc<Plug>,
) -> impl Future<Output = ()> + Send {
    let opening = Box::pin(open(connection, broker, config));
    async move {
        let Some((mut running, shutdown)) = opening.await else { return };
        let stop = running.run(shutdown).await;
        Box::pin(running.end(stop)).await;
    }
}

/// From the first byte to a CONNACK that is on its way.
async fn open(connection: Connection, broker: Broker, config: Arc<Plug>) -> Option<(Box<Running>, Shutdown)> {
    let Connection { io, peer, mut shutdown, .. } = connection;
    let mut socket = Socket::new(io);
    let mailbox = Mailbox::new();
    let accepted = tokio::select! {
        accepted = first::connect(&mut socket, peer, &broker, &config, &mailbox) => accepted,
        () = shutdown.requested() => None,
    };
    let Some(Accepted { session, present, properties }) = accepted else {
        socket.finish_and_linger(FAREWELL_TIMEOUT).await;
        return None;
    };
    let version = session.version();
    let connack =
        ConnAck { session_present: present, reason: Reason::Success, properties: properties.as_ref() };
    if Packet::ConnAck(connack).encode(version, socket.output()).is_err() {
        return None;
    }
    let running = Running {
        log: broker.log().clone(),
        keep_alive: KeepAlive::new(session.keep_alive_s()),
        session,
        socket,
        mailbox,
        _connected: Connected::count(&config),
        config,
        tokens: Vec::new(),
    };
    Some((Box::new(running), shutdown))
}

struct Running {
    session: Box<Session>,
    socket: Socket,
    mailbox: Arc<Mailbox>,
    log: Log,
    config: Arc<Plug>,
    keep_alive: Option<KeepAlive>,
    tokens: Vec<u64>,
    _connected: Connected,
}

/// What came from the client.
#[derive(Clone, Copy, Default)]
enum Came {
    #[default]
    Nothing,
    /// What is left of an earlier read.
    Before,
    Bytes(usize),
    End,
}

/// What happened while the connection waited.
#[derive(Default)]
struct Woken {
    came: Came,
    mailbox: bool,
    /// The client has said nothing for too long.
    silent: bool,
    shutdown: bool,
    any: bool,
}

impl Running {
    async fn run(&mut self, mut shutdown: Shutdown) -> Stop {
        let shutdown = shutdown.requested();
        let mut shutdown = pin!(shutdown);
        // What came with the CONNECT is taken, and what waits in the session is sent.
        let mut more = match self.turn(Came::Before) {
            Ok(more) => more,
            Err(stop) => return stop,
        };
        loop {
            let woken = match self.wait(shutdown.as_mut(), more).await {
                Ok(woken) => woken,
                Err(stop) => return stop,
            };
            if woken.shutdown {
                return Stop::Tell(Reason::ServerShuttingDown, "the server is going down".into());
            }
            if woken.mailbox {
                self.mailbox.drain(&mut self.tokens);
                let tokens = std::mem::take(&mut self.tokens);
                if !tokens.iter().all(|&token| self.session.wake(token)) {
                    // [MQTT-3.1.4-3]
                    return Stop::Tell(
                        Reason::SessionTakenOver,
                        "another connection took the session over".into(),
                    );
                }
                self.tokens = tokens;
            }
            if woken.silent {
                let why = "nothing came within the keep alive [MQTT-3.1.2-22]";
                return Stop::Tell(Reason::KeepAliveTimeout, why.into());
            }
            more = match self.turn(woken.came) {
                Ok(more) => more,
                Err(stop) => return stop,
            };
        }
    }

    /// Waits until anything happened. `more`: there are messages to write as soon as the output has room.
    async fn wait(
        &mut self,
        mut shutdown: Pin<&mut impl Future<Output = ()>>,
        more: bool,
    ) -> Result<Woken, Stop> {
        let mailbox = self.mailbox.clone();
        let mut mail = pin!(mailbox.wait());
        poll_fn(|cx| {
            let mut woken = Woken::default();
            // Writing first makes room.
            let wrote = self.socket.poll_write(cx)?;
            let full =
                self.socket.output_len() + self.session.deferred_bytes() >= self.config.output_bytes_max;
            woken.any |= more && wrote && !full;
            if !full {
                match self.log.poll_admit(cx) {
                    Poll::Ready(admitted) => {
                        admitted.map_err(|error| unavailable(&error))?;
                        if let Poll::Ready(read) = self.socket.poll_read(cx) {
                            woken.came = match read? {
                                0 => Came::End,
                                bytes => Came::Bytes(bytes),
                            };
                            woken.any = true;
                        }
                    }
                    // The disk is behind, not the client.
                    Poll::Pending => self.keep_alive.iter_mut().for_each(KeepAlive::heard),
                }
            }
            if mail.as_mut().poll(cx).is_ready() {
                woken.mailbox = true;
                woken.any = true;
            }
            if let Some(lsn) = self.session.waits_for()
                && let Poll::Ready(committed) = self.log.poll_committed(lsn, cx)
            {
                committed.map_err(|error| unavailable(&error))?;
                woken.any = true;
            }
            if self.keep_alive.as_mut().is_some_and(|keep_alive| keep_alive.poll(cx).is_ready()) {
                woken.silent = true;
                woken.any = true;
            }
            if shutdown.as_mut().poll(cx).is_ready() {
                woken.shutdown = true;
                woken.any = true;
            }
            if woken.any { Poll::Ready(Ok(woken)) } else { Poll::Pending }
        })
        .await
    }

    /// Takes what was read, hands it to the log, and writes what may be written. Whether there is more to write.
    fn turn(&mut self, came: Came) -> Result<bool, Stop> {
        self.session.begin_turn();
        let taken = match came {
            Came::End => Err(Stop::Close("the client closed the connection".into())),
            Came::Bytes(bytes) => self.take(bytes),
            Came::Before => self.take(0),
            Came::Nothing => Ok(()),
        };
        let ended = self.session.end_turn();
        self.session.release(self.log.committed(), self.socket.output());
        taken?;
        ended?;
        self.session.deliver(self.socket.output())
    }

    /// Parses what was read, packet by packet, where it lies.
    fn take(&mut self, bytes: usize) -> Result<(), Stop> {
        let Running { session, socket, config, keep_alive, .. } = self;
        let version = session.version();
        let packet_bytes_max = config.packet_bytes_max;
        let mut any = false;
        let taken = socket.parse(bytes, |input, output| {
            let Some((packet, length)) = decode(input, version, packet_bytes_max)? else { return Ok(0) };
            any = true;
            session.packet(&packet, output)?;
            Ok::<usize, Stop>(length)
        });
        if any {
            keep_alive.iter_mut().for_each(KeepAlive::heard);
        }
        taken
    }

    /// Lets the session go first, so that nobody waits for a slow socket, then writes the last bytes.
    async fn end(self: Box<Self>, stop: Stop) {
        let Running { session, mut socket, .. } = *self;
        tracing::debug!(%stop, dropped = session.dropped(), "connection ends");
        session.put_stop(&stop, socket.output());
        session.end();
        match stop {
            Stop::Close(_) => {}
            Stop::Farewell => socket.finish(FAREWELL_TIMEOUT).await,
            Stop::Tell(..) => socket.finish_and_linger(FAREWELL_TIMEOUT).await,
        }
    }
}

fn unavailable(error: &dyn std::fmt::Display) -> Stop {
    Stop::Tell(Reason::Unspecified, error.to_string().into())
}

#[cfg(test)]
mod tests {
    use std::mem::size_of;

    use super::*;

    fn future_size<A, B, C, F: Future>(_: impl Fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    /// What an idle connection holds here, in bytes: raise no bound without a look at where it went.
    #[test]
    fn idle_connections_are_small() {
        assert!(future_size(serve) <= 368, "the future: {}", future_size(serve));
        assert!(size_of::<Running>() <= 200, "what runs: {}", size_of::<Running>());
        assert!(size_of::<Session>() <= 536, "the session: {}", size_of::<Session>());
    }
}
