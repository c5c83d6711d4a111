//! The fetches of a connection: stored record batches out, and waits where there are too few.
//!
//! Owns a client's plan, its fetch session, the fetch under way and its reads from disk. Does not own the API
//! ([`crate::api::fetch`]) or the order of responses (the session's).
//!
//! The files, bottom up: `message`; `ahead` (batches read before they are requested), `slot` (a partition of a plan),
//! `plan` (the partitions that a client fetches), `session` (plans kept between requests, KIP-227); `running` (the
//! fetch under way), `cold` (reads from disk), `response`; `fetcher`, which runs the fetches of a connection.

mod ahead;
mod cold;
mod fetcher;
#[allow(missing_docs, reason = "fields bear the names of Kafka's message schema, where they are described")]
pub(crate) mod message;
mod plan;
mod response;
mod running;
mod session;
mod slot;
#[cfg(test)]
mod tests;

pub(crate) use self::fetcher::Fetcher;
