//! What requests do. No sockets.

pub mod group;
