//! The declared messages: against Kafka's published schema, in round trips of every version, and on invalid bytes.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::api::Api;
use super::reader::{DecodeError, Reader};
use super::wire::{Seed, StructureSchema, Version, Wire};
use crate::api::for_each_api;
use crate::api::handler::Handler;

mod arbitrary;
mod schema;
