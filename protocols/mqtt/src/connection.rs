//! One connection: reads big, parses in place, and writes once a turn.
//!
//! A turn begins when anything happened (bytes, a wake-up of the mailbox, a commit, a timer) and ends without having
//! waited. Between turns the task waits for all of them at once. What the client does not take bounds what is read
//! from it: beyond the output's bound, or while the log's writer is behind, nothing is read.

mod first;
mod keep_alive;
mod socket;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use inver_broker::{Broker, Connection, Mailbox};

use self::keep_alive::KeepAlive;
use self::socket::{Chunk, Socket};
use crate::buffers;
use crate::codec::{ConnAck, Packet, Reason, decode};
use crate::error::Stop;
use crate::server::Server;
use crate::session::Session;
use crate::session::connect::Accepted;

/// How long the last bytes may take to be written and read.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves a connection until its end: a future without states of its own, so that all of an idle connection is in one
/// piece. What is rarely alive (the way in, the way out) is beside it while it is.
pub(crate) fn serve(connection: Connection, broker: Broker, server: Arc<Server>) -> Serving {
    Serving::Opening(Box::pin(open(connection, broker, server)))
}

/// See [`serve`].
#[expect(clippy::large_enum_variant, reason = "it is what a connection is nearly always")]
pub(crate) enum Serving {
    Opening(Pin<Box<dyn Future<Output = Option<Running>> + Send>>),
    Running(Running),
    Ending(Pin<Box<dyn Future<Output = ()> + Send>>),
    Over,
}

impl Future for Serving {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match &mut *self {
                Serving::Opening(opening) => match ready!(opening.as_mut().poll(cx)) {
                    Some(running) => *self = Serving::Running(running),
                    None => *self = Serving::Over,
                },
                Serving::Running(running) => {
                    let stop = ready!(running.poll(cx));
                    if let Serving::Running(running) = std::mem::replace(&mut *self, Serving::Over) {
                        *self = Serving::Ending(Box::pin(running.end(stop)));
                    }
                }
                Serving::Ending(ending) => {
                    ready!(ending.as_mut().poll(cx));
                    *self = Serving::Over;
                }
                Serving::Over => return Poll::Ready(()),
            }
        }
    }
}

/// From the first byte to a CONNACK that is on its way.
async fn open(connection: Connection, broker: Broker, server: Arc<Server>) -> Option<Running> {
    let Connection { io, peer, mut shutdown, .. } = connection;
    let mut socket = Socket::new(io);
    let mailbox = Mailbox::new();
    server.connections.watch(&shutdown);
    let accepted = tokio::select! {
        accepted = first::connect(&mut socket, peer, &broker, &server, &mailbox) => accepted,
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
    Some(Running {
        keep_alive: KeepAlive::new(session.keep_alive_s()),
        session,
        socket,
        more: false,
        begun: false,
    })
}

/// A client that was let in.
pub(crate) struct Running {
    session: Session,
    socket: Socket,
    keep_alive: Option<Pin<Box<KeepAlive>>>,
    /// There are messages to write as soon as the output has room.
    more: bool,
    /// What came with the CONNECT was taken, and what waits in the session sent.
    begun: bool,
}

/// What came from the client.
#[derive(Default)]
enum Came {
    #[default]
    Nothing,
    /// What is left of an earlier read.
    Before,
    Bytes(Chunk),
    End,
}

/// What happened while the connection waited.
#[derive(Default)]
struct Woken {
    came: Came,
    mailbox: bool,
    /// The client has said nothing for too long.
    silent: bool,
    any: bool,
}

impl Running {
    /// Turn after turn, until there is nothing to be done now. Ready with the end.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Stop> {
        if !std::mem::replace(&mut self.begun, true)
            && let Err(stop) = self.turn(Came::Before)
        {
            return Poll::Ready(stop);
        }
        loop {
            let turned = match ready!(self.poll_woken(cx)) {
                Ok(woken) => self.take_up(woken),
                Err(stop) => Err(stop),
            };
            if let Err(stop) = turned {
                return Poll::Ready(stop);
            }
        }
    }

    /// A turn.
    fn take_up(&mut self, woken: Woken) -> Result<(), Stop> {
        if woken.mailbox {
            let mut tokens = buffers::take_tokens();
            self.session.mailbox().drain(&mut tokens);
            let told = tokens.iter().try_for_each(|&token| self.session.wake(token));
            buffers::give_tokens(tokens);
            told?;
        }
        if woken.silent {
            return Err(Stop::KeepAliveTimeout);
        }
        self.turn(woken.came)
    }

    /// Ready as soon as anything happened.
    fn poll_woken(&mut self, cx: &mut Context<'_>) -> Poll<Result<Woken, Stop>> {
        let mut woken = Woken::default();
        // Writing first makes room.
        let wrote = self.socket.poll_write(cx)?;
        let full = self.socket.output_len() + self.session.deferred_bytes()
            >= self.session.config().output_bytes_max;
        woken.any |= self.more && wrote && !full;
        if !full {
            match self.session.log().poll_admit(cx) {
                Poll::Ready(admitted) => {
                    admitted?;
                    if let Poll::Ready(read) = self.socket.poll_read(cx) {
                        let chunk = read?;
                        woken.came = if chunk.is_empty() { Came::End } else { Came::Bytes(chunk) };
                        woken.any = true;
                    }
                }
                // The disk is behind, not the client.
                Poll::Pending => {
                    self.keep_alive.iter_mut().for_each(|keep_alive| keep_alive.as_mut().heard());
                }
            }
        }
        if self.session.mailbox().poll(cx).is_ready() {
            woken.mailbox = true;
            woken.any = true;
        }
        if let Some(lsn) = self.session.waits_for()
            && let Poll::Ready(committed) = self.session.log().poll_committed(lsn, cx)
        {
            committed?;
            woken.any = true;
        }
        if self.keep_alive.as_mut().is_some_and(|keep_alive| keep_alive.as_mut().poll(cx).is_ready()) {
            woken.silent = true;
            woken.any = true;
        }
        if woken.any { Poll::Ready(Ok(woken)) } else { Poll::Pending }
    }

    /// Takes what was read, hands it to the log, and writes what may be written.
    fn turn(&mut self, came: Came) -> Result<(), Stop> {
        self.session.begin_turn();
        let taken = match came {
            Came::End => Err(Stop::EndOfStream),
            Came::Bytes(chunk) => self.take(Some(chunk)),
            Came::Before => self.take(None),
            Came::Nothing => Ok(()),
        };
        let ended = self.session.end_turn();
        self.session.release(self.session.log().committed(), self.socket.output());
        taken?;
        ended?;
        self.more = self.session.deliver(self.socket.output())?;
        Ok(())
    }

    /// Parses what was read, packet by packet, where it lies.
    fn take(&mut self, chunk: Option<Chunk>) -> Result<(), Stop> {
        let Running { session, socket, keep_alive, .. } = self;
        let version = session.version();
        let packet_bytes_max = session.config().packet_bytes_max;
        let mut any = false;
        let taken = socket.parse(chunk, |input, output| {
            let Some((packet, length)) = decode(input, version, packet_bytes_max)? else { return Ok(0) };
            any = true;
            session.packet(&packet, output)?;
            Ok::<usize, Stop>(length)
        });
        if any {
            keep_alive.iter_mut().for_each(|keep_alive| keep_alive.as_mut().heard());
        }
        taken
    }

    /// Lets the session go first, so that nobody waits for a slow socket, then writes the last bytes.
    async fn end(self, stop: Stop) {
        let Running { session, mut socket, .. } = self;
        tracing::debug!(%stop, dropped = session.dropped(), "connection ends");
        session.put_stop(&stop, socket.output());
        session.end();
        match stop {
            Stop::Disconnected => socket.finish(FAREWELL_TIMEOUT).await,
            _ if stop.reason().is_some() => socket.finish_and_linger(FAREWELL_TIMEOUT).await,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::mem::size_of;

    use super::*;

    /// What an idle connection holds here, in bytes: raise no bound without a look at where it went.
    #[test]
    fn idle_connections_are_small() {
        assert!(size_of::<Serving>() <= size_of::<Running>() + 8, "the future: {}", size_of::<Serving>());
        assert!(size_of::<Running>() <= 312, "what runs: {}", size_of::<Running>());
        assert!(size_of::<Session>() <= 256, "the session: {}", size_of::<Session>());
    }
}
