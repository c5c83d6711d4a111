//! Stores for tests: one in memory that fails by a seed, and an S3 service over any store.

mod fake;
mod service;

pub use fake::{Defect, Fake, Faults};
pub use service::Service;
