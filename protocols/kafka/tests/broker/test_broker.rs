//! A broker in a temporary folder, and a client that sends declared messages.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use inver_broker::{
    Arguments, Authenticator, BindDestination, Broker, BrokerConfig, ClientCertificate, Clock, Connection,
    HUB, ListenerInfo, ProtocolPlugin, QueueSpec,
};
use inver_kafka::api::create_topics::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest, CreateTopicsResponse,
};
use inver_kafka::api::fetch::{FetchPartition, FetchRequest, FetchResponse, FetchTopic};
use inver_kafka::api::produce::{
    PartitionProduceData, PartitionProduceResponse, ProduceRequest, ProduceResponse, TopicProduceData,
};
use inver_kafka::codec::api::Api;
use inver_kafka::codec::error_code::ErrorCode;
use inver_kafka::codec::reader::Reader;
use inver_kafka::codec::wire::{Version, Wire};
use inver_kafka::{Kafka, KafkaConfig};
use inver_storage::batch::{Batch, BatchBuilder};
use inver_storage::{Log, LogOptions};
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};

/// A broker that runs until it is dropped.
pub(crate) struct TestBroker {
    pub(crate) address: SocketAddr,
    broker: Broker,
    /// What connections say of their listener.
    listener: Arc<Mutex<Arc<ListenerInfo>>>,
    shutdown: Option<DropGuard>,
    thread: Option<JoinHandle<()>>,
    folder: Option<TempDir>,
}

impl TestBroker {
    pub(crate) fn new() -> TestBroker {
        TestBroker::with(KafkaConfig::default())
    }

    pub(crate) fn with(config: KafkaConfig) -> TestBroker {
        TestBroker::open(TempDir::new().unwrap(), config, BrokerConfig::default())
    }

    /// With clients that proved to have the certificate of this user.
    pub(crate) fn with_certificate(user: &str, authenticator: Arc<dyn Authenticator>) -> TestBroker {
        let model = BrokerConfig { authenticator, ..BrokerConfig::default() };
        let certificate = ClientCertificate { user: Some(user.into()), ..ClientCertificate::default() };
        let folder = TempDir::new().unwrap();
        TestBroker::open_for(folder, KafkaConfig::default(), model, Some(Arc::new(certificate)))
    }

    pub(crate) fn with_users(config: KafkaConfig, authenticator: Arc<dyn Authenticator>) -> TestBroker {
        let model = BrokerConfig { authenticator, ..BrokerConfig::default() };
        TestBroker::open(TempDir::new().unwrap(), config, model)
    }

    /// With a manual clock, by which groups and retention go.
    pub(crate) fn with_clock(config: KafkaConfig, clock: &Clock) -> TestBroker {
        let model = BrokerConfig { clock: clock.clone(), ..BrokerConfig::default() };
        TestBroker::open(TempDir::new().unwrap(), config, model)
    }

    /// Where records name their address in the header `mqtt-topic`.
    pub(crate) fn with_addresses() -> TestBroker {
        let model = BrokerConfig { address_header: "mqtt-topic".into(), ..BrokerConfig::default() };
        TestBroker::open(TempDir::new().unwrap(), KafkaConfig::default(), model)
    }

    /// Has a queue hear addresses in the hub.
    pub(crate) fn hear(&self, pattern: &str) {
        let namespace = self.broker.default_namespace();
        let to = BindDestination::Queue("hearing");
        namespace.declare_queue("hearing", QueueSpec::default()).unwrap();
        let _at_once = namespace.bind(HUB, to, pattern.as_bytes(), &Arguments::default()).unwrap();
    }

    fn open(folder: TempDir, config: KafkaConfig, model: BrokerConfig) -> TestBroker {
        TestBroker::open_for(folder, config, model, None)
    }

    fn open_for(
        folder: TempDir,
        config: KafkaConfig,
        model: BrokerConfig,
        certificate: Option<Arc<ClientCertificate>>,
    ) -> TestBroker {
        let log = Log::open(folder.path(), LogOptions::default()).unwrap();
        let broker = Broker::open(log, model).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let guard = shutdown.clone().drop_guard();
        let served = broker.clone();
        let info = Arc::<Mutex<Arc<ListenerInfo>>>::default();
        let told = info.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(serve(listener, served, config, (certificate, told), shutdown));
        });
        TestBroker {
            address,
            broker,
            listener: info,
            shutdown: Some(guard),
            thread: Some(thread),
            folder: Some(folder),
        }
    }

    /// With another listener, for connections from now on.
    pub(crate) fn listening(self, listener: ListenerInfo) -> TestBroker {
        *self.listener.lock().unwrap() = Arc::new(listener);
        self
    }

    /// Restarts the broker on the same folder, with the same clock.
    pub(crate) fn restart(mut self, config: KafkaConfig) -> TestBroker {
        let folder = self.folder.take().unwrap();
        let model = BrokerConfig { clock: self.broker.clock().clone(), ..BrokerConfig::default() };
        drop(self);
        TestBroker::open(folder, config, model)
    }

    pub(crate) fn client(&self) -> Client {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_nodelay(true).unwrap();
        Client { stream, correlation_id: 0 }
    }

    /// Creates a topic, and returns a client.
    pub(crate) fn with_topic(&self, name: &str, partitions: i32, configs: &[(&str, &str)]) -> Client {
        let mut client = self.client();
        let configs = configs
            .iter()
            .map(|(name, value)| CreatableTopicConfig { name: (*name).into(), value: Some((*value).into()) });
        let topic = CreatableTopic {
            name: name.into(),
            num_partitions: partitions,
            replication_factor: 1,
            configs: configs.collect(),
            ..CreatableTopic::default()
        };
        let request = CreateTopicsRequest { topics: vec![topic], ..CreateTopicsRequest::default() };
        let response: CreateTopicsResponse = client.call(&Api::CreateTopics, 5, &request);
        assert_eq!(response.topics[0].error_code, ErrorCode::NONE, "{response:?}");
        client
    }
}

impl Drop for TestBroker {
    fn drop(&mut self) {
        drop(self.shutdown.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
        self.broker.log().shutdown().unwrap();
    }
}

async fn serve(
    listener: TcpListener,
    broker: Broker,
    config: KafkaConfig,
    (certificate, info): (Option<Arc<ClientCertificate>>, Arc<Mutex<Arc<ListenerInfo>>>),
    shutdown: CancellationToken,
) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let kafka = Arc::new(Kafka::new(config));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (io, peer) = accepted.unwrap();
                io.set_nodelay(true).unwrap();
                let local = io.local_addr().unwrap();
                let listener = info.lock().unwrap().clone();
                let connection = Connection {
                    certificate: certificate.clone(),
                    listener,
                    ..Connection::plain(io, peer, local, shutdown.clone())
                };
                let (kafka, broker) = (kafka.clone(), broker.clone());
                connections.spawn(async move { kafka.serve(connection, broker).await });
            }
            () = shutdown.cancelled() => break,
        }
    }
    while connections.join_next().await.is_some() {}
}

/// A connection to the broker.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    correlation_id: i32,
}

impl Client {
    /// Sends a request and waits for the response.
    pub(crate) fn call<Q: Wire, A: Wire>(&mut self, api: &Api, version: i16, request: &Q) -> A {
        self.send(api, version, request);
        self.receive(api, version)
    }

    pub(crate) fn send<Q: Wire>(&mut self, api: &Api, version: i16, request: &Q) {
        self.correlation_id += 1;
        let frame = encode(api, version, self.correlation_id, request);
        self.stream.write_all(&frame).unwrap();
    }

    /// The next response, which must be of this API and version.
    pub(crate) fn receive<A: Wire>(&mut self, api: &Api, version: i16) -> A {
        let version = any_version(api, version);
        let mut reader = Reader::new(self.receive_frame().expect("the broker closed the connection"));
        reader.i32().unwrap();
        if version.flexible && api.key != Api::ApiVersions.key {
            reader.skip_tagged_fields().unwrap();
        }
        let answer = A::read(&mut reader, version).unwrap();
        assert_eq!(reader.remaining(), 0, "{} v{}", api.name, version.number);
        answer
    }

    /// The next frame without its length prefix; `None` if the broker has closed the connection.
    pub(crate) fn receive_frame(&mut self) -> Option<Bytes> {
        let mut length = [0; 4];
        if self.stream.read_exact(&mut length).is_err() {
            return None;
        }
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut frame).ok()?;
        Some(frame.into())
    }

    /// Whether the broker closes the connection without sending anything more.
    pub(crate) fn is_disconnected(&mut self) -> bool {
        self.receive_frame().is_none()
    }

    /// Produces records to a partition.
    pub(crate) fn produce(
        &mut self,
        version: i16,
        topic: &str,
        index: i32,
        batch: Bytes,
    ) -> PartitionProduceResponse {
        let request = produce_request(topic, index, -1, batch);
        let response: ProduceResponse = self.call(&Api::Produce, version, &request);
        response.responses[0].partition_responses[0].clone()
    }

    /// Fetches from one partition, without a session.
    pub(crate) fn fetch(&mut self, version: i16, topic: &str, index: i32, offset: i64) -> FetchResponse {
        self.call(&Api::Fetch, version, &fetch_request(topic, &[(index, offset)]))
    }

    /// The values from an offset of a partition on.
    pub(crate) fn values(&mut self, topic: &str, index: i32, offset: i64) -> Vec<String> {
        let response = self.fetch(12, topic, index, offset);
        values(response.responses[0].partitions[0].records.as_ref().unwrap())
    }
}

pub(crate) fn any_version(api: &Api, number: i16) -> Version {
    Version { number, flexible: number >= api.flexible_from }
}

/// A request with its length prefix.
pub(crate) fn encode<Q: Wire>(api: &Api, version: i16, correlation_id: i32, request: &Q) -> BytesMut {
    let version = any_version(api, version);
    let header = Version { number: 0, flexible: false };
    let mut frame = BytesMut::from(&[0; 4][..]);
    api.key.write(&mut frame, header);
    version.number.write(&mut frame, header);
    correlation_id.write(&mut frame, header);
    inver_kafka::codec::text::Str::from("test").write(&mut frame, header);
    if version.flexible {
        0i8.write(&mut frame, header);
    }
    request.write(&mut frame, version);
    let length = (frame.len() - 4) as u32;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame
}

pub(crate) fn produce_request(topic: &str, index: i32, acks: i16, batch: Bytes) -> ProduceRequest {
    let partition_data = vec![PartitionProduceData { index, records: Some(batch) }];
    let data = TopicProduceData { name: topic.into(), partition_data, ..TopicProduceData::default() };
    ProduceRequest { acks, timeout_ms: 1000, topic_data: vec![data], ..ProduceRequest::default() }
}

pub(crate) fn fetch_request(topic: &str, partitions: &[(i32, i64)]) -> FetchRequest {
    let partition = |(partition, fetch_offset): &(i32, i64)| FetchPartition {
        partition: *partition,
        fetch_offset: *fetch_offset,
        partition_max_bytes: 1 << 20,
        ..FetchPartition::default()
    };
    let partitions = partitions.iter().map(partition).collect();
    FetchRequest {
        max_wait_ms: 0,
        min_bytes: 1,
        max_bytes: 50 << 20,
        topics: vec![FetchTopic { topic: topic.into(), partitions, ..FetchTopic::default() }],
        ..FetchRequest::default()
    }
}

/// A batch of these values, with key `k` and timestamps 1000, 1001, …
pub(crate) fn batch(values: &[&str]) -> Batch {
    let mut builder = BatchBuilder::new(1024);
    for (number, value) in values.iter().enumerate() {
        builder.push(1000 + number as i64, Some(b"k"), &[], Some(value.as_bytes()));
    }
    builder.finish()
}

/// The values in a record set.
pub(crate) fn values(records: &Bytes) -> Vec<String> {
    let mut rest = records.clone();
    let mut values = Vec::new();
    while !rest.is_empty() {
        let batch = Batch::split_first(&mut rest).unwrap();
        for record in inver_storage::batch::records(batch.bytes()).unwrap() {
            values.push(String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap());
        }
    }
    values
}
