//! Share fetches of one connection (KIP-932): members of share groups acquire records and acknowledge them.
//!
//! A member has a *share session* on its connection: the partitions that it wants, and the records that it acquired and has not
//! acknowledged. Behind it stands a consumer of the group's subscription of each topic, as clients of other protocols have it;
//! that gives each record to one consumer, counts deliveries, and takes back what a connection leaves when it ends.
//!
//! `session` is the state of one member, `acquired` its records and their time, `sharer` all sessions of a connection and the
//! fetches under way, `answer` the response.

mod acquired;
mod answer;
#[allow(missing_docs, reason = "fields bear the names of Kafka's message schema, where they are described")]
pub(crate) mod message;
mod running;
mod session;
mod sharer;

pub(crate) use self::answer::text;
pub(crate) use self::sharer::{Acknowledge, OfPartition, Rejected, Sharer, member};
