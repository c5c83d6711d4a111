//! Every order of what nodes, the store and the register can do, over the functions that run in production: nothing
//! acknowledged is lost, and what a reader sees only grows. Each rule left out is found.

mod journal;
mod register;
mod search;
