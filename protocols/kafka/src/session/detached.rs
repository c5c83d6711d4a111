//! Requests that may take longer than a turn. They are handled on a thread where blocking is allowed, while their connection
//! takes no other request, so that requests of a client take effect in their order and other clients are served meanwhile.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use inver_broker::{AppliedQuotas, Endpoints, Identity, Mailbox, QuotaKind};
use tokio::time::Instant;

use crate::access::Access;
use crate::api;
use crate::api::context::{RequestContext, TopicCache};
use crate::api::reply::Reply;
use crate::codec::frame::Frame;
use crate::codec::header::{self, RequestHeader, ResponseHeader};
use crate::codec::reader::Reader;
use crate::error::ConnectionError;
use crate::fetch::Fetcher;
use crate::node::Node;
use crate::sasl::Sasl;

/// A request with what its handler needs of the session.
pub(crate) struct Detached {
    pub(super) node: Arc<Node>,
    pub(super) endpoints: Endpoints,
    pub(super) access: Access,
    pub(super) identity: Option<Identity>,
    pub(super) quotas: Option<Arc<AppliedQuotas>>,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) request: Bytes,
    pub(super) header: ResponseHeader,
}

/// A request that was handled.
pub(crate) struct Handled {
    pub(super) reply: Result<Reply<Frame>, ConnectionError>,
    pub(super) header: ResponseHeader,
    pub(super) held_until: Option<Instant>,
}

impl Detached {
    /// The bytes of the request.
    pub(crate) fn bytes(&self) -> usize {
        self.request.len()
    }

    /// Handles the request. The time is the client's, as if it had been a turn.
    pub(crate) fn run(self) -> Handled {
        let Detached { node, endpoints, access, identity, quotas, mailbox, request, header } = self;
        let started = Instant::now();
        let request_bytes = request.len();
        let mut sasl = Sasl::new();
        identity.into_iter().for_each(|identity| sasl.accept(identity));
        let mut body = Reader::new(request);
        let read = header::read(&mut body, api::find);
        let client_id = match read {
            Ok(RequestHeader::Known { client_id, .. }) => client_id,
            _ => None,
        };
        let mut cx = RequestContext {
            header,
            client_id,
            node: &node,
            endpoints: &endpoints,
            access: &access,
            sasl: &mut sasl,
            fetcher: &mut Fetcher::new(node.clone(), access.clone(), mailbox.clone()),
            quotas: quotas.as_deref(),
            held_until: None,
            request_bytes,
            now: started,
            sharer: &mut None,
            topics: &mut TopicCache::default(),
            mailbox: &mailbox,
            is_detached: true,
        };
        let reply = api::handle(&mut cx, body, &mut BytesMut::new());
        let held_until = cx.held_until;
        if let Some(quotas) = &quotas {
            quotas.take(QuotaKind::RequestTime, started.elapsed().as_secs_f64(), Instant::now());
        }
        Handled { reply, header, held_until }
    }
}
