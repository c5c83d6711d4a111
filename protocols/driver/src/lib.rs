//! The connection task that all protocols share: buffers, the turn loop, timeouts, shutdown and closing.
//!
//! Owns: reading and writing one socket, the bounds of time for both, fairness between connections of a thread, waiting
//! for the log, and the way a connection ends. A protocol supplies a [`Machine`]: a state machine without a socket that
//! takes bytes and writes bytes. Dispatch is static; nothing is allocated and no lock is taken for a message.
//!
//! Does not own: listening, TLS and WebSocket (the server's), framing, login, and what a message means (the protocol's).
//!
//! Invariants:
//! - an idle connection owns no buffer but the beginning of a message whose rest has not arrived;
//! - a client that takes no output for [`Timeouts::write_stall`] is disconnected, whatever its protocol agreed with it;
//! - the socket is not read while the log takes no more writes or the machine takes no more input, and the time of a
//!   client that is not read does not count against it;
//! - what clients hold before they have logged in is bounded, over all connections ([`limit_login_memory`]);
//! - after [`TURNS_MAX`] turns, or [`TURN_TIME`], other connections of the thread get theirs.
//!
//! The README of this crate walks through adding a protocol.

mod commits;
mod connections;
mod driver;
mod input;
mod link;
mod login_memory;
mod machine;
mod output;
mod pool;
mod quota;
mod serving;
#[cfg(test)]
mod tests;
mod timeouts;
mod timer;
mod traffic;

pub use commits::CommitQueue;
pub use connections::Connections;
pub use driver::{Driver, TURNS_MAX};
pub use input::{Input, Owned, Progress, Shared};
pub use login_memory::limit_login_memory;
pub use machine::{Activity, Close, End, Machine};
pub use output::Output;
pub use quota::Room;
pub use serving::Serving;
pub use timeouts::Timeouts;
pub use traffic::turn_time::{PUBLISH_COST_MAX, TURN_TIME, is_over};
pub use traffic::{
    Count, CountedConsumer, CountedPublisher, MESSAGE_SIZES, count, count_error, count_received,
    note_request, observe_request,
};
