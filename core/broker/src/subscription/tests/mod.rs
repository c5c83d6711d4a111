//! Tests of subscriptions by themselves: a log in memory, a clock that stands still, no broker around them.

mod cold;
mod delivery;
mod fixture;
mod rejected_writes;
mod sources;
