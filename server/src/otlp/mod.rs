//! Traces, exported by the OpenTelemetry protocol over HTTP (OTLP/HTTP, binary).
//!
//! Spans pass through a bounded queue to one task, which waits until what a span tells of is committed, gathers batches,
//! and hands them to another task, which sends them. Nobody waits for a collector: a span that finds the queue full, or
//! whose batch cannot be sent in time, is dropped and counted.

mod encode;

use std::time::Duration;

use bytes::Bytes;
use hyper::{Method, Request, StatusCode, Uri, header};
use inver_broker::{Clock, Completion, Span, SpanSink, Traces};
use inver_storage::Log;
use metrics::{Counter, Unit, counter, describe_counter};
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::{ConfigError, Problem, Tracing};
use crate::http_client;

/// The path of traces, of an endpoint without a path.
const PATH: &str = "/v1/traces";
/// Pauses between attempts to send a batch; after the last it is dropped.
const PAUSES: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];
/// The longest pause that a collector can ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);
/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Time for the last batches at the end.
const LAST_TIME: Duration = Duration::from_secs(2);

const EXPORTED: &str = "inver_trace_spans_exported_total";
const DROPPED: &str = "inver_trace_spans_dropped_total";

/// Counts spans that were not exported.
struct Drops {
    queue_full: Counter,
    failed: Counter,
    refused: Counter,
}

impl Drops {
    fn new() -> Drops {
        let [queue_full, failed, refused] =
            ["queue_full", "failed", "refused"].map(|reason| counter!(DROPPED, "reason" => reason));
        Drops { queue_full, failed, refused }
    }
}

/// The end of the queue where spans come in.
struct Queue {
    sender: mpsc::Sender<Span>,
    full: Counter,
}

impl SpanSink for Queue {
    fn accept(&self, span: Span) {
        if self.sender.try_send(span).is_err() {
            self.full.increment(1);
        }
    }
}

/// Exports spans.
pub(crate) struct Exporter {
    spans: mpsc::Receiver<Span>,
    settings: Tracing,
    target: Target,
}

/// Where batches are sent.
struct Target {
    uri: Uri,
    tls: Option<TlsConnector>,
    headers: Vec<(String, String)>,
    resource: Vec<(&'static str, String)>,
    timeout: Duration,
    exported: Counter,
    drops: Drops,
    /// The last batch could not be sent.
    is_failing: bool,
}

/// What became of an attempt.
enum Sent {
    /// All but so many spans were taken.
    Taken(u64),
    /// It makes sense to try again, after a pause if the collector named one.
    Retry(String, Option<Duration>),
    Refused(String),
}

/// What is wrong with the settings.
pub(crate) fn check(settings: &Tracing) -> Result<(), ConfigError> {
    let found = Target::new(settings).err();
    let problem = found.map(|error| Problem { place: "tracing".into(), what: format!("{error:#}") });
    problem.map_or(Ok(()), |problem| Err(ConfigError(vec![problem])))
}

/// The switch of tracing, and what exports the spans, if tracing is on.
pub(crate) fn start(settings: &Tracing) -> anyhow::Result<(Traces, Option<Exporter>)> {
    describe_counter!(EXPORTED, Unit::Count, "Spans that the collector of traces has taken.");
    describe_counter!(
        DROPPED,
        Unit::Count,
        "Spans that were not exported: the queue was full, sending failed, or the collector refused them."
    );
    let Some(target) = Target::new(settings)? else { return Ok((Traces::default(), None)) };
    let (sender, spans) = mpsc::channel(settings.queue_spans_max);
    let queue = Queue { sender, full: target.drops.queue_full.clone() };
    let traces = Traces::to(Box::new(queue), settings.sample_ratio.0);
    Ok((traces, Some(Exporter { spans, settings: settings.clone(), target })))
}

impl Exporter {
    /// Exports until `ended`, then what is left.
    pub(crate) async fn run(self, log: Log, clock: Clock, ended: CancellationToken) {
        let Exporter { mut spans, settings, mut target } = self;
        let Tracing { batch_spans_max, batch_interval, queue_spans_max, .. } = settings;
        info!(endpoint = %target.uri, sample_ratio = settings.sample_ratio.0, "exporting traces");
        let waiting = (queue_spans_max / batch_spans_max).max(1);
        let full = target.drops.queue_full.clone();
        let (batches, mut to_send) = mpsc::channel::<Vec<Span>>(waiting);
        let sender_clock = clock.clone();
        let sending = tokio::spawn(async move {
            while let Some(batch) = to_send.recv().await {
                target.send(&batch, &sender_clock).await;
            }
        });
        let mut batch: Vec<Span> = Vec::new();
        let mut due = clock.now();
        loop {
            tokio::select! {
                biased;
                span = spans.recv(), if batch.len() < batch_spans_max => {
                    let Some(span) = span else { break };
                    if batch.is_empty() {
                        due = clock.now() + batch_interval;
                    }
                    batch.push(committed(span, &log).await);
                }
                () = clock.sleep_until(due), if !batch.is_empty() && batch.len() < batch_spans_max => {
                    hand_over(&batches, &mut batch, &full);
                }
                () = ended.cancelled() => break,
                () = std::future::ready(()), if batch.len() >= batch_spans_max => {
                    hand_over(&batches, &mut batch, &full);
                }
            }
        }
        while let Ok(span) = spans.try_recv() {
            batch.push(committed(span, &log).await);
        }
        hand_over(&batches, &mut batch, &full);
        drop(batches);
        if tokio::time::timeout(LAST_TIME, sending).await.is_err() {
            warn!("the last spans were not exported in time");
        }
    }
}

/// The span, ended when what it tells of is committed.
async fn committed(mut span: Span, log: &Log) -> Span {
    if let Completion::At(lsn) = span.completion {
        match log.wait_committed(lsn).await {
            Ok(()) => span.ended_ns = span.ended_ns.max(inver_broker::now_ns()),
            Err(error) => span.about.error = Some(error.to_string()),
        }
    }
    span
}

fn hand_over(batches: &mpsc::Sender<Vec<Span>>, batch: &mut Vec<Span>, full: &Counter) {
    if batch.is_empty() {
        return;
    }
    let count = batch.len() as u64;
    if batches.try_send(std::mem::take(batch)).is_err() {
        full.increment(count);
    }
}

impl Target {
    /// None: tracing is off.
    fn new(settings: &Tracing) -> anyhow::Result<Option<Target>> {
        if settings.otlp_endpoint.is_empty() {
            return Ok(None);
        }
        let uri = http_client::check_url(&settings.otlp_endpoint)
            .map_err(|error| anyhow::anyhow!("otlp_endpoint: {error}"))?;
        let uri = match uri.path() {
            "" | "/" => {
                let base = settings.otlp_endpoint.trim_end_matches('/');
                format!("{base}{PATH}").parse()?
            }
            _ => uri,
        };
        let tls = match http_client::is_tls(&uri) {
            true => Some(http_client::tls(settings.otlp_ca.as_deref())?),
            false => None,
        };
        let mut headers = Vec::new();
        for pair in settings.otlp_headers.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let (name, value) = pair
                .split_once('=')
                .ok_or_else(|| anyhow::anyhow!("otlp_headers: a header is `name=value`"))?;
            let (name, value) = (name.trim().to_owned(), value.trim().to_owned());
            let is_valid =
                header::HeaderName::try_from(&name).is_ok() && header::HeaderValue::try_from(&value).is_ok();
            anyhow::ensure!(is_valid, "otlp_headers: `{name}` or its value cannot be sent");
            headers.push((name, value));
        }
        let resource = vec![
            ("service.name", settings.service_name.clone()),
            ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
            ("service.instance.id", rustix::system::uname().nodename().to_string_lossy().into_owned()),
        ];
        Ok(Some(Target {
            uri,
            tls,
            headers,
            resource,
            timeout: settings.otlp_timeout,
            exported: counter!(EXPORTED),
            drops: Drops::new(),
            is_failing: false,
        }))
    }

    /// Sends a batch, again after a pause where that makes sense.
    async fn send(&mut self, batch: &[Span], clock: &Clock) {
        let body = Bytes::from(encode::request(&self.resource, batch));
        let count = batch.len() as u64;
        let mut pauses = PAUSES.into_iter();
        loop {
            let (error, drops, retry) = match self.attempt(body.clone()).await {
                Sent::Taken(refused) => {
                    self.exported.increment(count.saturating_sub(refused));
                    self.drops.refused.increment(refused.min(count));
                    if std::mem::take(&mut self.is_failing) {
                        info!(endpoint = %self.uri, "exporting traces again");
                    }
                    return;
                }
                Sent::Refused(error) => (error, &self.drops.refused, None),
                Sent::Retry(error, wanted) => {
                    let pause = pauses.next().map(|pause| wanted.unwrap_or(pause).min(RETRY_AFTER_MAX));
                    (error, &self.drops.failed, pause)
                }
            };
            if !std::mem::replace(&mut self.is_failing, true) {
                warn!(endpoint = %self.uri, error, "failed to export traces; spans are dropped until it works again");
            }
            match retry {
                Some(pause) => clock.sleep(pause).await,
                None => return drops.increment(count),
            }
        }
    }

    async fn attempt(&self, body: Bytes) -> Sent {
        let mut request =
            Request::builder().method(Method::POST).header(header::CONTENT_TYPE, "application/x-protobuf");
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let send = http_client::send(&self.uri, self.tls.as_ref(), request, body, ANSWER_BYTES_MAX);
        let response = match tokio::time::timeout(self.timeout, send).await {
            Err(_) => return Sent::Retry("no answer in time (tracing.otlp_timeout_ms)".into(), None),
            Ok(Err(error)) => return Sent::Retry(format!("{error:#}"), None),
            Ok(Ok(response)) => response,
        };
        match response.status() {
            status if status.is_success() => Sent::Taken(encode::refused(response.body())),
            // The statuses that the protocol lets a client try again after.
            status @ (StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT) => {
                let seconds =
                    response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
                let pause = seconds.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
                Sent::Retry(format!("the answer is {status}"), pause)
            }
            status => Sent::Refused(format!("the answer is {status}")),
        }
    }
}
