//! Streams: creating, deleting, and what is known of them.

use inver_access::{Operation, ResourceKind};
use inver_broker::{
    Arguments, Completion, Endpoints, LoggedClient, QueueError, QueueSpec, STREAM_FILTER_BYTES,
    STREAM_SEGMENT_BYTES_MAX, Value, stream_age_ms,
};

use super::handshake::advertised;
use super::{Opened, Reply};
use crate::codec::frame::{Code, VERSIONS};
use crate::codec::wire::put_string;
use crate::watch::Watchers;

/// The number of the one broker in metadata.
const BROKER: u16 = 0;

/// The arguments of a queue that is a stream; none if one of them is not what it should be.
fn queue_arguments(arguments: &[(&str, &str)]) -> Option<Arguments> {
    let mut all = Arguments::from([("x-queue-type".to_owned(), Value::Text(b"stream".to_vec()))]);
    for (name, value) in arguments {
        let number = || value.parse::<i64>().ok().map(i128::from).filter(|number| *number >= 0);
        let value = match *name {
            "max-length-bytes" => Value::Int(number()?),
            "max-age" => stream_age_ms(value).map(|_| Value::Text(value.as_bytes().to_vec()))?,
            "stream-max-segment-size-bytes" => {
                Value::Int(number().filter(|bytes| *bytes <= STREAM_SEGMENT_BYTES_MAX.into())?)
            }
            "stream-filter-size-bytes" => {
                Value::Int(number().filter(|bytes| STREAM_FILTER_BYTES.contains(bytes))?)
            }
            "initial-cluster-size" => Value::Int(number().filter(|size| *size > 0)?),
            "queue-leader-locator"
                if matches!(*value, "client-local" | "balanced" | "random" | "least-leaders") =>
            {
                Value::Text(value.as_bytes().to_vec())
            }
            _ => return None,
        };
        all.insert(format!("x-{name}"), value);
    }
    Some(all)
}

impl Opened {
    /// Creates a stream.
    pub(super) fn create(&self, name: &str, arguments: &[(&str, &str)], client: &LoggedClient) -> Reply {
        match self.declare(name, arguments, client) {
            Ok(done) => Reply::after(done),
            Err(code) => code.into(),
        }
    }

    pub(super) fn declare(
        &self,
        name: &str,
        arguments: &[(&str, &str)],
        client: &LoggedClient,
    ) -> Result<Completion, Code> {
        if name.trim().is_empty() {
            return Err(Code::PreconditionFailed);
        }
        if !self.may(ResourceKind::Topic, name, Operation::Create) {
            return Err(Code::AccessRefused);
        }
        let arguments = queue_arguments(arguments).ok_or(Code::PreconditionFailed)?;
        let spec = QueueSpec { durable: true, arguments, ..QueueSpec::default() };
        let declared = self.namespace.declare_queue(name, spec.clone());
        let declared = declared.map_err(|error| {
            client.request_refused("Create", &error);
            match error {
                QueueError::IsLogTopic(_) => Code::StreamAlreadyExists,
                QueueError::Log(_) => Code::InternalError,
                _ => Code::PreconditionFailed,
            }
        })?;
        match declared.created {
            true => Ok(declared.completion),
            false if declared.it.spec().arguments == spec.arguments => Err(Code::StreamAlreadyExists),
            false => Err(Code::PreconditionFailed),
        }
    }

    /// Deletes a stream that was declared as one.
    pub(super) fn delete(&self, name: &str, watchers: &Watchers, client: &LoggedClient) -> Reply {
        let queue = self.namespace.queue(name).filter(|queue| queue.spec().is_stream());
        let Some((queue, stream)) = queue.zip(self.stream(name)) else {
            return Code::StreamDoesNotExist.into();
        };
        if !self.may(ResourceKind::Topic, queue.name(), Operation::Delete) {
            return Code::AccessRefused.into();
        }
        match self.namespace.delete_queue(name, false, false) {
            Ok((_, done)) => {
                watchers.deleted(stream.partition.stream().id());
                Reply::after(done)
            }
            Err(QueueError::Unknown(_)) => Code::StreamDoesNotExist.into(),
            Err(error) => {
                client.request_refused("Delete", &error);
                Code::InternalError.into()
            }
        }
    }

    /// Appends where streams are: all on this broker.
    pub(super) fn put_metadata(&self, out: &mut Vec<u8>, names: &[&str], endpoints: &Endpoints) {
        let (host, port) = advertised(endpoints);
        out.extend_from_slice(&1_u32.to_be_bytes());
        out.extend_from_slice(&BROKER.to_be_bytes());
        put_string(out, &host);
        out.extend_from_slice(&u32::from(port).to_be_bytes());
        out.extend_from_slice(&(names.len() as u32).to_be_bytes());
        for name in names {
            let code = match self.stream(name) {
                None => Code::StreamDoesNotExist,
                Some(_) if !self.may(ResourceKind::Topic, name, Operation::Describe) => Code::AccessRefused,
                Some(_) => Code::Ok,
            };
            put_string(out, name);
            out.extend_from_slice(&(code as u16).to_be_bytes());
            let leader = if code == Code::Ok { BROKER } else { u16::MAX };
            out.extend_from_slice(&leader.to_be_bytes());
            // No replicas beside the leader.
            out.extend_from_slice(&0_u32.to_be_bytes());
        }
    }

    /// Figures of a stream.
    pub(super) fn stats(&self, name: &str) -> Reply {
        // Clients read the number of figures whatever the code.
        let refused = |code: Code| Reply { content: vec![0; 4], ..code.into() };
        let Some(stream) = self.stream(name) else { return refused(Code::StreamDoesNotExist) };
        if !self.may(ResourceKind::Topic, name, Operation::Read) {
            return refused(Code::AccessRefused);
        }
        let stream = stream.partition.stream();
        let (start, end) = (stream.start().0, stream.high_watermark().0);
        // -1 where there is no message, as in RabbitMQ.
        let last = if end > start { i64::try_from(end - 1).unwrap_or(i64::MAX) } else { -1 };
        let first = if end > start { i64::try_from(start).unwrap_or(i64::MAX) } else { -1 };
        let figures = [
            ("first_chunk_id", first),
            ("last_chunk_id", last),
            ("committed_chunk_id", last),
            ("committed_offset", last),
        ];
        let mut content = (figures.len() as u32).to_be_bytes().to_vec();
        for (name, value) in figures {
            put_string(&mut content, name);
            content.extend_from_slice(&value.to_be_bytes());
        }
        Reply::of(content)
    }
}

/// The versions of commands that are served.
pub(super) fn command_versions() -> Vec<u8> {
    let mut content = (VERSIONS.len() as u32).to_be_bytes().to_vec();
    for (command, lowest, highest) in VERSIONS {
        for field in [command, lowest, highest] {
            content.extend_from_slice(&field.to_be_bytes());
        }
    }
    content
}
