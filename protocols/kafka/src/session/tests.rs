//! Requests of every API and version with arbitrary contents: no panic, and complete responses.

mod sasl;

use std::time::Duration;

use inver_broker::BrokerConfig;
use inver_storage::{Log, LogOptions};
use proptest::prelude::*;

use super::*;
use crate::api::for_each_api;
use crate::api::handler::Handler;
use crate::codec::text::Str;
use crate::codec::wire::{Seed, Wire};
use crate::config::KafkaConfig;

struct TestSession {
    session: Session,
    output: Output,
    runtime: tokio::runtime::Runtime,
    log: Log,
    _folder: tempfile::TempDir,
}

fn test_session() -> TestSession {
    session_of(BrokerConfig::default(), Some(Identity::anonymous()))
}

fn session_of(config: BrokerConfig, identity: Option<Identity>) -> TestSession {
    let folder = tempfile::tempdir().unwrap();
    let log = Log::open(folder.path(), LogOptions::default()).unwrap();
    let broker = inver_broker::Broker::open(log.clone(), config).unwrap();
    for name in ["", "é", "ééé"] {
        // Sample strings consist of é; some of them should name a topic.
        let spec = inver_broker::TopicSpec { partitions: 3, config: Default::default() };
        let _ = broker.default_namespace().create_topic(&format!("t{name}"), &spec);
        let _ = broker.default_namespace().create_topic(name, &spec);
    }
    let node = Arc::new(Node::new(broker, KafkaConfig::default(), Api::ALL).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let address: SocketAddr = "127.0.0.1:9092".parse().unwrap();
    let endpoints = Endpoints { peer: address, local: address, encrypted: false, listener: Arc::default() };
    let mut session = Session::new(node, endpoints, Mailbox::new());
    let entered = runtime.enter();
    identity.into_iter().for_each(|identity| session.admit(identity).unwrap());
    drop(entered);
    TestSession { session, output: Output::default(), runtime, log, _folder: folder }
}

impl TestSession {
    fn send(&mut self, request: Bytes) {
        let _entered = self.runtime.enter();
        let now = Instant::now();
        match self.session.handle(request, now) {
            Ok(Next::Check(credentials)) => {
                let _ = self.session.authenticated(&credentials, Ok(Identity::anonymous()));
            }
            Ok(Next::Run(detached)) => {
                let _ = self.session.handled(detached.run(), now);
            }
            Ok(Next::Go) | Err(_) => {}
        }
        self.session.wake(&[0, 1, 2, 1 << 62, 1 << 63], now + Duration::from_secs(600));
        let _ = self.session.advance(&mut self.output);
    }

    /// Checks that every response has the length in its prefix.
    fn check_output(&mut self) {
        let _ = self.responses();
    }

    /// The responses written since the last call, each without its length.
    fn responses(&mut self) -> Vec<Bytes> {
        let mut written = Vec::new();
        while self.output.pending_bytes() > 0 {
            let mut slices = [std::io::IoSlice::new(&[]); 8];
            let count = self.output.slices(&mut slices);
            let bytes: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
            self.output.advance(bytes.len());
            written.extend(bytes);
        }
        let (mut rest, mut responses) = (&written[..], Vec::new());
        while let Some((length, after)) = rest.split_first_chunk() {
            let (response, after) = after.split_at(u32::from_be_bytes(*length) as usize);
            responses.push(Bytes::copy_from_slice(response));
            rest = after;
        }
        assert!(rest.is_empty());
        responses
    }
}

fn request<T: Wire>(api: &Api, number: i16, message: &T) -> Bytes {
    request_of("client", api, number, message)
}

fn request_of<T: Wire>(client_id: &str, api: &Api, number: i16, message: &T) -> Bytes {
    let version = api.version(number).unwrap();
    let mut bytes = BytesMut::new();
    let plain = Version { number: 0, flexible: false };
    api.key.write(&mut bytes, plain);
    number.write(&mut bytes, plain);
    7i32.write(&mut bytes, plain);
    Str::from(client_id).write(&mut bytes, plain);
    if version.flexible {
        0i8.write(&mut bytes, plain);
    }
    message.write(&mut bytes, version);
    bytes.freeze()
}

fn send_samples<H: Handler>(api: &Api, test: &mut TestSession, seed: &mut Seed) {
    for number in api.version_min..=api.version_max {
        for _ in 0..12 {
            let message = H::Request::sample(seed, api.version(number).unwrap());
            let bytes = request(api, number, &message);
            test.send(bytes.clone());
            // The same with one byte changed.
            let mut wrong = BytesMut::from(&bytes[..]);
            let place = 8 + (seed.draw() as usize) % (wrong.len() - 8);
            wrong[place] = seed.draw() as u8;
            test.send(wrong.freeze());
            test.check_output();
        }
    }
}

#[test]
fn requests_of_every_version_with_arbitrary_contents_never_panic() {
    let mut test = test_session();
    let mut seed = Seed(7);
    macro_rules! run {
        ($($module:ident::$name:ident;)*) => {
            $( send_samples::<crate::api::$module::$name>(&Api::$name, &mut test, &mut seed); )*
        };
    }
    for_each_api!(run);
    drop(test.session);
    test.log.shutdown().unwrap();
}

#[test]
fn responses_keep_the_order_of_their_requests() {
    use crate::api::fetch::{FetchPartition, FetchRequest, FetchTopic};
    use crate::api::heartbeat::HeartbeatRequest;
    let mut test = test_session();
    let partition = FetchPartition { partition_max_bytes: 1000, ..FetchPartition::default() };
    let topic = FetchTopic { topic: "t".into(), partitions: vec![partition], ..FetchTopic::default() };
    let fetch =
        FetchRequest { max_wait_ms: 1000, min_bytes: 1, topics: vec![topic], ..FetchRequest::default() };
    let now = Instant::now();
    let _entered = test.runtime.enter();
    test.session.handle(request(&Api::Fetch, 12, &fetch), now).unwrap();
    test.session.handle(request(&Api::Heartbeat, 4, &HeartbeatRequest::default()), now).unwrap();
    test.session.advance(&mut test.output).unwrap();
    assert_eq!(test.output.pending_bytes(), 0, "the heartbeat waits for the fetch");
    let deadline = test.session.deadline().unwrap();
    test.session.wake(&[], deadline);
    test.session.advance(&mut test.output).unwrap();
    assert!(test.output.pending_bytes() > 0);
    assert_eq!(test.session.deadline(), None);
}

#[test]
fn the_client_id_is_that_of_the_first_request_in_rules_and_of_each_in_quotas() {
    use crate::api::heartbeat::HeartbeatRequest;
    use inver_broker::{EntityName, QuotaEntity, QuotaKind, QuotaLimits};
    let mut test = test_session();
    let quotas = test.session.node.broker.quotas().clone();
    let entity = QuotaEntity::Client { user: None, client_id: Some(EntityName::Named("second".to_owned())) };
    let limited = quotas.update(&entity, |limits| *limits = QuotaLimits { bytes_in: Some(1), ..*limits });
    limited.unwrap();
    let mut send = |client_id: &str| {
        test.send(request_of(client_id, &Api::Heartbeat, 4, &HeartbeatRequest::default()));
        let place = test.session.place().unwrap();
        let is_limited = place.quotas().is_some_and(|quotas| quotas.limits(QuotaKind::BytesIn));
        (place.name().to_string(), is_limited)
    };
    assert_eq!(send("first"), ("first".to_owned(), false));
    assert_eq!(send("second"), ("second".to_owned(), true));
    assert_eq!(send("first"), ("first".to_owned(), false));
    assert_eq!(test.session.access.permissions.who().client_id, Some("first"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn arbitrary_requests_never_panic(requests in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 1..20)) {
        let mut test = test_session();
        for mut bytes in requests {
            // Small api keys, so that most requests get past their header.
            if let Some([high, low]) = bytes.first_chunk_mut() {
                (*high, *low) = (0, *low % 80);
            }
            test.send(bytes.into());
        }
        test.check_output();
    }
}
