//! The plug over a real socket and a real log, spoken to in raw requests.

mod admin;
mod defects;
mod fetching;
mod groups;
mod producing;
mod sasl;
mod world;
