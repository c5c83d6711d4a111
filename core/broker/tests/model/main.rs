//! The model as a protocol uses it, over a log in a temporary folder.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]
#![allow(clippy::disallowed_methods, reason = "tests bound their waits in real time")]

mod away;
mod captures;
mod clock;
mod cold;
mod dead_letters;
mod defects;
mod delayed;
mod fan_out;
mod fixture;
mod hub;
mod hub_access;
mod hub_modes;
mod late_receivers;
mod leaving;
mod lifetime;
mod limits;
mod permissions;
mod policies;
mod priorities;
mod queues;
mod redelivery;
mod refused;
mod relayed;
mod removal;
mod retention;
mod routing_model;
mod routing_scale;
mod session_access;
mod subscription_model;
mod subscriptions;
mod time;
mod transactions;
mod unacked;
mod undelivered;
