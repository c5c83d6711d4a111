//! Bodies of the fuzz targets: the entry points that bytes from outside reach. None panics, and none reserves memory
//! for bytes that were only claimed.
//!
//! The repository's `fuzz` folder calls them with a fuzzer's bytes; the tests here with random ones.

use bytes::{Bytes, BytesMut};
use inver_storage::batch::{Batch, HEADER_BYTES};

use crate::api::handler::Handler;
use crate::api::{find, for_each_api};
use crate::codec::header::{self, RequestHeader};
use crate::codec::reader::{DecodeError, Reader};
use crate::codec::wire::{Version, Wire};
use crate::map::batch::{Allowance, Rules, check_records, stamped};

/// Positions of fields in the header of a batch.
const MAGIC_AT: usize = 16;
const CRC_AT: std::ops::Range<usize> = 17..21;
const BATCH_LENGTH_AT: std::ops::Range<usize> = 8..12;

macro_rules! bodies {
    ($($module:ident::$name:ident;)*) => {
        fn body(api_key: i16, reader: &mut Reader, version: Version) -> Result<(), DecodeError> {
            match api_key {
                $(
                    <crate::api::$module::$name as Handler>::KEY => {
                        <crate::api::$module::$name as Handler>::Request::read(reader, version).map(drop)
                    }
                )*
                _ => Ok(()),
            }
        }
    };
}

for_each_api!(bodies);

/// Decodes a request without its length prefix.
pub fn request(bytes: &[u8]) {
    let mut reader = Reader::new(Bytes::copy_from_slice(bytes));
    if let Ok(RequestHeader::Known { response, .. }) = header::read(&mut reader, find) {
        let _ = body(response.api.key, &mut reader, response.version);
    }
}

/// Checks a producer's batch. Length, format and checksum are made valid first, so that the checks get past them.
pub fn batch(bytes: &[u8]) {
    let mut bytes = BytesMut::from(bytes);
    if bytes.len() < HEADER_BYTES {
        return;
    }
    let length = (bytes.len() - BATCH_LENGTH_AT.end) as u32;
    let crc = |bytes: &[u8]| crc32c::crc32c(bytes.get(CRC_AT.end..).unwrap_or_default());
    for (place, value) in [
        (BATCH_LENGTH_AT, &length.to_be_bytes()[..]),
        (MAGIC_AT..MAGIC_AT + 1, &[2]),
        (CRC_AT, &crc(&bytes).to_be_bytes()),
    ] {
        if let Some(field) = bytes.get_mut(place) {
            field.copy_from_slice(value);
        }
    }
    let Ok(batch) = Batch::parse(bytes.freeze()) else { return };
    for keyed in [false, true] {
        let mut allowance = Allowance { plain: usize::MAX, inflated: 64 << 20 };
        if let Ok(checked) = check_records(&batch, Rules { keyed, times: Some((0, 1 << 50)) }, &mut allowance)
        {
            let _ = stamped(batch.clone(), &checked, keyed.then_some(1 << 40));
        }
    }
}

#[cfg(test)]
mod tests {
    use inver_storage::batch::BatchBuilder;
    use proptest::prelude::*;

    use super::*;
    use crate::codec::api::Api;

    fn valid() -> Vec<u8> {
        let mut builder = BatchBuilder::new(200);
        builder.push(5, Some(b"key"), &[(b"name", Some(b"value")), (b"", None)], Some(b"value"));
        builder.push(6, None, &[], None);
        builder.finish().into_bytes().to_vec()
    }

    #[test]
    fn seeds_and_what_is_near_them() {
        crate::seeds::run("kafka_request", request);
        crate::seeds::run("kafka_batch", batch);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn any_request(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), version in 0i16..20) {
            request(&bytes);
            for api in Api::ALL {
                if let Some(front) = bytes.get_mut(..4) {
                    front[..2].copy_from_slice(&api.key.to_be_bytes());
                    front[2..].copy_from_slice(&version.to_be_bytes());
                }
                request(&bytes);
            }
        }

        #[test]
        fn any_records(front in proptest::collection::vec(any::<u8>(), 61), records in proptest::collection::vec(0u8..12, 0..100)) {
            batch(&[front, records].concat());
        }

        /// A valid batch with a few bytes changed gets further than random ones.
        #[test]
        fn a_nearly_valid_batch(changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..4)) {
            let mut bytes = valid();
            for (place, value) in changes {
                let place = place % bytes.len();
                bytes[place] = value;
            }
            batch(&bytes);
        }
    }
}
