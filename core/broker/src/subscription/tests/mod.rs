//! Tests of subscriptions by themselves: a log in memory, a manual clock, and no broker around them.

#![allow(clippy::needless_pass_by_value, reason = "calls of tests are shorter")]

mod cold;
mod damage;
mod delivery;
mod fixture;
mod limits_model;
mod locking;
mod rejected_writes;
mod rooms;
mod sources;
mod undelivered;
mod unreadable;
