//! Round trips, and bytes that are not messages.

use super::*;

fn round_trip<T: Wire + PartialEq + std::fmt::Debug>(api: &Api, seed: &mut Seed) {
    for number in api.version_min..=api.version_max {
        let version = api.version(number).unwrap();
        for _ in 0..20 {
            let message = T::sample(seed, version);
            let mut out = BytesMut::new();
            message.write(&mut out, version);
            let mut reader = Reader::new(out.clone().freeze());
            assert_eq!(T::read(&mut reader, version).as_ref(), Ok(&message), "{} v{number}", api.name);
            assert_eq!(reader.remaining(), 0, "{} v{number}", api.name);
            // A truncated message never panics.
            for end in 0..out.len().min(300) {
                let _ = T::read(&mut Reader::new(Bytes::copy_from_slice(&out[..end])), version);
            }
        }
    }
}

#[test]
fn every_message_decodes_to_what_was_encoded() {
    let mut seed = Seed(1);
    macro_rules! run {
        ($($module:ident::$name:ident;)*) => {
            $(
                round_trip::<<crate::api::$module::$name as Handler>::Request>(&Api::$name, &mut seed);
                round_trip::<<crate::api::$module::$name as Handler>::Response>(&Api::$name, &mut seed);
            )*
        };
    }
    for_each_api!(run);
}

type Decode = fn(Bytes, Version) -> Option<DecodeError>;

fn decoders() -> Vec<(Api, Decode)> {
    fn decode<T: Wire>(bytes: Bytes, version: Version) -> Option<DecodeError> {
        T::read(&mut Reader::new(bytes), version).err()
    }
    macro_rules! run {
        ($($module:ident::$name:ident;)*) => {
            vec![$(
                (Api::$name, decode::<<crate::api::$module::$name as Handler>::Request> as Decode),
                (Api::$name, decode::<<crate::api::$module::$name as Handler>::Response> as Decode),
            )*]
        };
    }
    for_each_api!(run)
}

/// A count of two billion elements at any position reserves nothing; otherwise the process would abort here.
#[test]
fn forged_counts_reserve_nothing() {
    for (api, decode) in decoders() {
        for number in api.version_min..=api.version_max {
            let version = api.version(number).unwrap();
            for place in 0..64 {
                let mut bytes = vec![0u8; 64];
                for (at, forged) in [0x7f, 0xff, 0xff, 0xff, 0x7f].into_iter().enumerate() {
                    if let Some(byte) = bytes.get_mut(place + at) {
                        *byte = forged;
                    }
                }
                decode(bytes.into(), version);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let bytes = Bytes::from(bytes);
        let _ = super::super::header::read(&mut Reader::new(bytes.clone()), crate::api::find);
        for (api, decode) in decoders() {
            for number in api.version_min..=api.version_max {
                decode(bytes.clone(), api.version(number).unwrap());
            }
        }
    }

    /// Small numbers make counts and lengths that fit, so that decoders get deep into the message.
    #[test]
    fn small_bytes_never_panic(bytes in proptest::collection::vec(0u8..4, 0..300)) {
        let bytes = Bytes::from(bytes);
        for (api, decode) in decoders() {
            for number in api.version_min..=api.version_max {
                decode(bytes.clone(), api.version(number).unwrap());
            }
        }
    }
}
