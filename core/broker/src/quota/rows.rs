//! Rows of quotas.

use bytes::Bytes;
use inver_access::QuotaLimits;
use serde::Deserialize;

use crate::tables::{self, QUOTAS, RowError};

/// The version of rows with a limit of mutations.
const VERSION: u8 = 2;

/// What rows of version 1 hold.
#[derive(Deserialize)]
struct Version1 {
    bytes_in: Option<u64>,
    bytes_out: Option<u64>,
    messages_in: Option<u64>,
    messages_out: Option<u64>,
    request_time_percent: Option<f64>,
    connections: Option<u64>,
}

pub(super) fn encode(limits: &QuotaLimits) -> Bytes {
    tables::encode_as(VERSION, limits)
}

pub(super) fn decode(row: &[u8]) -> Result<QuotaLimits, RowError> {
    if row.first() != Some(&1) {
        return tables::decode_as(VERSION, QUOTAS, row);
    }
    let Version1 { bytes_in, bytes_out, messages_in, messages_out, request_time_percent, connections } =
        tables::decode_as(1, QUOTAS, row)?;
    Ok(QuotaLimits {
        bytes_in,
        bytes_out,
        messages_in,
        messages_out,
        request_time_percent,
        connections,
        mutations: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_both_versions_are_read() {
        let limits = QuotaLimits { bytes_in: Some(3), connections: Some(7), ..QuotaLimits::default() };
        assert_eq!(decode(b"\x01\x01\x03\0\0\0\0\x01\x07").unwrap(), limits);
        assert_eq!(&encode(&limits)[..], b"\x02\x01\x03\0\0\0\0\x01\x07\0");
        let limits = QuotaLimits { mutations: Some(0.5), ..limits };
        assert_eq!(decode(&encode(&limits)).unwrap(), limits);
        assert!(decode(b"\x03\0").is_err() && decode(b"").is_err());
    }
}
