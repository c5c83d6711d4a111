//! Requests of every kind and version with whatever in them: no panic, and the answers are whole.

use std::time::Duration;

use inver_broker::BrokerConfig;
use inver_storage::{Log, LogOptions};
use proptest::prelude::*;

use super::*;
use crate::codec::tests::each_message;
use crate::codec::wire::Seed;
use crate::config::KafkaConfig;

struct World {
    session: Session,
    output: Output,
    runtime: tokio::runtime::Runtime,
    log: Log,
    _folder: tempfile::TempDir,
}

fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    let log = Log::open(folder.path(), LogOptions::default()).unwrap();
    let broker = inver_broker::Broker::open(log.clone(), BrokerConfig::default()).unwrap();
    for name in ["", "é", "ééé"] {
        // Samples are full of é, so some of them should mean something.
        let spec = inver_broker::TopicSpec { partitions: 3, config: Default::default() };
        let _ = broker.default_namespace().create_topic(&format!("t{name}"), &spec);
        let _ = broker.default_namespace().create_topic(name, &spec);
    }
    let node = Arc::new(Node::new(broker, KafkaConfig::default()).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let address: SocketAddr = "127.0.0.1:9092".parse().unwrap();
    let session = Session::new(node, address, address, Some(Identity::anonymous()), Mailbox::new());
    World { session, output: Output::default(), runtime, log, _folder: folder }
}

impl World {
    fn ask(&mut self, request: Bytes) {
        let _entered = self.runtime.enter();
        let now = Instant::now();
        if let Ok(Some(credentials)) = self.session.handle(request, now) {
            let _ = self.session.authenticated(credentials, Ok(Identity::anonymous()));
        }
        self.session.wake(&[0, 1, 2, 1 << 62, 1 << 63], now + Duration::from_secs(600));
        let _ = self.session.advance(&mut self.output);
    }

    /// Every answer that came has the length that it says.
    fn check_answers(&mut self) {
        let mut written = Vec::new();
        while self.output.pending_bytes() > 0 {
            let mut slices = [std::io::IoSlice::new(&[]); 8];
            let count = self.output.slices(&mut slices);
            let bytes: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
            self.output.advance(bytes.len());
            written.extend(bytes);
        }
        let mut rest = &written[..];
        while let Some((length, after)) = rest.split_first_chunk() {
            rest = &after[u32::from_be_bytes(*length) as usize..];
        }
        assert!(rest.is_empty());
    }
}

fn request<T: Wire>(api: &Api, number: i16, message: &T) -> Bytes {
    let version = api.version(number).unwrap();
    let mut bytes = BytesMut::new();
    let plain = Version { number: 0, flexible: false };
    api.key.write(&mut bytes, plain);
    number.write(&mut bytes, plain);
    7i32.write(&mut bytes, plain);
    Str::from("client").write(&mut bytes, plain);
    if version.flexible {
        0i8.write(&mut bytes, plain);
    }
    message.write(&mut bytes, version);
    bytes.freeze()
}

#[test]
fn any_request_in_any_version_is_survived() {
    let mut world = world();
    let mut seed = Seed(7);
    macro_rules! run {
        ($(($api:ident, $module:ident, $name:ident);)*) => {
            $(
                if stringify!($name).ends_with("Request") {
                    let api = &Api::$api;
                    for number in api.version_min..=api.version_max {
                        for _ in 0..12 {
                            let version = api.version(number).unwrap();
                            let message = <crate::codec::api::$module::$name as Wire>::sample(&mut seed, version);
                            let bytes = request(api, number, &message);
                            world.ask(bytes.clone());
                            // And with something wrong in it.
                            let mut wrong = BytesMut::from(&bytes[..]);
                            let place = 8 + (seed.draw() as usize) % (wrong.len() - 8);
                            wrong[place] = seed.draw() as u8;
                            world.ask(wrong.freeze());
                            world.check_answers();
                        }
                    }
                }
            )*
        };
    }
    each_message!(run);
    drop(world.session);
    world.log.shutdown().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_are_survived(requests in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 1..20)) {
        let mut world = world();
        for mut bytes in requests {
            // A known kind, so that it gets further than its header.
            if let Some([high, low]) = bytes.first_chunk_mut() {
                (*high, *low) = (0, *low % 80);
            }
            world.ask(bytes.into());
        }
        world.check_answers();
    }
}
