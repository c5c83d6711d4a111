//! Rows of the model's tables.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use inver_access::Tags;
use serde::{Deserialize, Serialize};

use crate::access::{PermissionScope, Permissions};
use crate::spec::{Mode, NamespaceSpec, PolicyKind, QueueSpec, SubscriptionOptions, TopicConfig, TopicKind};
use crate::tables;
use crate::value::Arguments;

pub use crate::tables::RowError;
pub(crate) use crate::tables::{
    BINDINGS, CLOCK, COMMITTED_OFFSETS, DELIVERED, EXCHANGES, NAMESPACE_IDS, NAMESPACES, OPAQUE, POLICIES,
    PUBLISHER_SEQUENCES, RETAINED, SESSION_FILTERS, SESSION_STATE, SESSIONS, SPILLS, SUBSCRIPTIONS, TOPICS,
    TRANSACTION_PARTS, TRANSACTIONS, WILLS, counted, decode, encode, key, split_counted, split_key,
};

/// Version of the rows of namespaces; those of version 1 have a number only.
const NAMESPACE_VERSION: u8 = 2;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct NamespaceRow {
    pub(crate) id: u32,
    pub(crate) spec: NamespaceSpec,
}

impl NamespaceRow {
    pub(crate) fn encode(&self) -> Bytes {
        tables::encode_as(NAMESPACE_VERSION, self)
    }

    pub(crate) fn decode(row: &[u8]) -> Result<NamespaceRow, RowError> {
        #[derive(Deserialize)]
        struct Version1 {
            id: u32,
        }
        if row.first() == Some(&1) {
            let Version1 { id } = tables::decode_as(1, NAMESPACES, row)?;
            return Ok(NamespaceRow { id, spec: NamespaceSpec::default() });
        }
        tables::decode_as(NAMESPACE_VERSION, NAMESPACES, row)
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct TopicRow {
    pub(crate) id: u128,
    pub(crate) kind: TopicKind,
    pub(crate) streams: Vec<u64>,
    pub(crate) config: TopicConfig,
    /// For queues: what it was declared as, and its cursor.
    pub(crate) queue: Option<(QueueSpec, u64)>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct BindingRow {
    pub(crate) source: String,
    pub(crate) to_exchange: bool,
    pub(crate) destination: String,
    pub(crate) key: Vec<u8>,
    /// The key is a slashed filter; else its form is that of the exchange's kind.
    pub(crate) slashed: bool,
    pub(crate) arguments: Arguments,
}

/// The client that made a binding: what it may read is what the binding passes on of log topics.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct BindingOwner {
    /// None: an anonymous client.
    user: Option<String>,
    /// Tags of a user who is not one of the broker's.
    external_tags: Option<Tags>,
}

impl BindingOwner {
    pub(crate) fn of(permissions: &Permissions) -> BindingOwner {
        let scope = permissions.scope();
        BindingOwner {
            user: scope.user.as_deref().map(str::to_owned),
            external_tags: scope.external_tags.clone(),
        }
    }

    /// Whose permissions decide: those of the client without a client id and address, which it may have changed.
    pub(crate) fn scope(&self, namespace: &str) -> PermissionScope {
        PermissionScope {
            user: self.user.as_deref().map(Arc::from),
            external_tags: self.external_tags.clone(),
            client_id: Arc::from(""),
            namespace: namespace.into(),
            protocol: "",
            peer: SocketAddr::from(([0, 0, 0, 0], 0)),
        }
    }
}

/// The version of a row of a binding with its owner; without one it has version 1.
const OWNED_BINDING_VERSION: u8 = 2;
/// The version of a row of a binding with several owners.
const SHARED_BINDING_VERSION: u8 = 3;

pub(crate) fn encode_binding(row: &BindingRow, owners: &[BindingOwner]) -> Bytes {
    match owners {
        [] => encode(row),
        [owner] => tables::encode_as(OWNED_BINDING_VERSION, &(row, owner)),
        owners => tables::encode_as(SHARED_BINDING_VERSION, &(row, owners)),
    }
}

pub(crate) fn decode_binding(row: &[u8]) -> Result<(BindingRow, Vec<BindingOwner>), RowError> {
    match row.first() {
        Some(&OWNED_BINDING_VERSION) => {
            let (row, owner) = tables::decode_as(OWNED_BINDING_VERSION, BINDINGS, row)?;
            Ok((row, vec![owner]))
        }
        Some(&SHARED_BINDING_VERSION) => tables::decode_as(SHARED_BINDING_VERSION, BINDINGS, row),
        _ => Ok((decode(BINDINGS, row)?, Vec::new())),
    }
}

/// What of a cursor's stream may have been delivered and was not acknowledged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeliveredRow {
    /// Messages below this offset may be with consumers.
    pub(crate) out_to: u64,
    /// First offset, the one after the last, and how often messages of this range were delivered before.
    pub(crate) counted: Vec<(u64, u64, u32)>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct SubscriptionRow {
    pub(crate) mode: Mode,
    pub(crate) cursors: Vec<u64>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SessionRow {
    pub(crate) stream: u64,
    pub(crate) cursor: u64,
    /// Seconds that it outlives its connection; none: never expires.
    pub(crate) expiry_s: Option<u32>,
    /// When its connection ended, milliseconds since 1970; none while it has one.
    pub(crate) detached_ms: Option<i64>,
    /// The user that it belongs to; none: nobody.
    pub(crate) owner: Option<String>,
}

/// The version of [`SessionRow`]. Rows of version 1 lack the owner.
const SESSION_VERSION: u8 = 2;

pub(crate) fn encode_session(row: &SessionRow) -> Bytes {
    tables::encode_as(SESSION_VERSION, row)
}

pub(crate) fn decode_session(row: &[u8]) -> Result<SessionRow, RowError> {
    if row.first() != Some(&1) {
        return tables::decode_as(SESSION_VERSION, SESSIONS, row);
    }
    let (stream, cursor, expiry_s, detached_ms) = decode(SESSIONS, row)?;
    Ok(SessionRow { stream, cursor, expiry_s, detached_ms, owner: None })
}

#[derive(Serialize, Deserialize)]
struct SessionFilterRow {
    guaranteed: bool,
    no_local: bool,
    opaque: Vec<u8>,
}

/// The version of a row of an exclusive subscription; others have version 1.
const EXCLUSIVE_FILTER_VERSION: u8 = 2;

pub(crate) fn encode_filter(options: &SubscriptionOptions) -> Bytes {
    let row = SessionFilterRow {
        guaranteed: options.guaranteed,
        no_local: options.no_local,
        opaque: options.opaque.to_vec(),
    };
    match options.exclusive {
        true => tables::encode_as(EXCLUSIVE_FILTER_VERSION, &row),
        false => encode(&row),
    }
}

pub(crate) fn decode_filter(row: &[u8]) -> Result<SubscriptionOptions, RowError> {
    let exclusive = row.first() == Some(&EXCLUSIVE_FILTER_VERSION);
    let row: SessionFilterRow = match exclusive {
        true => tables::decode_as(EXCLUSIVE_FILTER_VERSION, SESSION_FILTERS, row)?,
        false => decode(SESSION_FILTERS, row)?,
    };
    let SessionFilterRow { guaranteed, no_local, opaque } = row;
    Ok(SubscriptionOptions { guaranteed, no_local, exclusive, opaque: opaque.into() })
}

/// The key of a policy's row.
pub(crate) fn policy_key(namespace: u32, kind: PolicyKind, name: &str) -> Bytes {
    key(namespace, &[&[kind as u8], name.as_bytes()])
}

/// The kind and the name in what follows the namespace in such a key.
pub(crate) fn split_policy_key(key: &[u8]) -> Option<(PolicyKind, String)> {
    let (kind, name) = key.split_first()?;
    let kind = PolicyKind::ALL.into_iter().find(|of| *of as u8 == *kind)?;
    Some((kind, String::from_utf8_lossy(name).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{AppliesTo, NamespaceLimits, PolicySpec};
    use crate::value::Value;

    #[test]
    fn policies_are_kept_in_this_form() {
        let key = policy_key(1, PolicyKind::Operator, "p");
        assert_eq!(&key[..], b"\0\0\0\x01\x01p");
        assert_eq!(split_policy_key(b"\x01p"), Some((PolicyKind::Operator, "p".to_owned())));
        assert_eq!(split_policy_key(b"\x00p"), Some((PolicyKind::Ordinary, "p".to_owned())));
        assert_eq!((split_policy_key(b"\x02p"), split_policy_key(b"")), (None, None));
        let definition = [
            ("max-length".to_owned(), Value::Int(5)),
            ("overflow".to_owned(), Value::Text(b"drop-head".to_vec())),
        ];
        let row = PolicySpec {
            pattern: "^q".into(),
            applies_to: AppliesTo::QuorumQueues,
            priority: -1,
            definition: definition.into(),
        };
        let bytes = b"\x01\x02^q\x04\x01\x02\x0amax-length\x02\x0a\x08overflow\x05\x09drop-head";
        assert_eq!(&encode(&row)[..], bytes);
        assert_eq!(decode::<PolicySpec>(POLICIES, bytes).unwrap(), row);
        assert!(decode::<PolicySpec>(POLICIES, b"\x02").is_err());
    }

    #[test]
    fn namespaces_of_both_versions_are_read() {
        let read = NamespaceRow::decode(&[1, 0x85, 0x02]).unwrap();
        assert_eq!(read, NamespaceRow { id: 261, spec: NamespaceSpec::default() });
        let spec = NamespaceSpec {
            description: "d".into(),
            tags: vec!["t".into()],
            default_queue_type: Some("q".into()),
            limits: NamespaceLimits { queues_max: Some(3), ..NamespaceLimits::default() },
            is_protected: true,
        };
        let bytes = [2, 0x85, 0x02, 1, b'd', 1, 1, b't', 1, 1, b'q', 0, 1, 3, 0, 0, 0, 1];
        let row = NamespaceRow { id: 261, spec };
        assert_eq!(row.encode(), bytes.as_slice());
        assert_eq!(NamespaceRow::decode(&bytes).unwrap(), row);
        assert!(NamespaceRow::decode(&[3, 0]).is_err() && NamespaceRow::decode(&[]).is_err());
    }

    #[test]
    fn rows_of_subscriptions_of_both_versions_are_read() {
        for (exclusive, version) in [(false, 1), (true, 2)] {
            let opaque = Bytes::from_static(b"x");
            let options = SubscriptionOptions { guaranteed: true, no_local: false, exclusive, opaque };
            let row = encode_filter(&options);
            assert_eq!(row, [version, 1, 0, 1, b'x'].as_slice());
            assert_eq!(decode_filter(&row).unwrap(), options);
        }
        assert!(decode_filter(&[3, 1, 0, 0]).is_err() && decode_filter(&[]).is_err());
    }

    #[test]
    fn binding_rows_of_all_versions_are_read() {
        let row = || BindingRow {
            source: "x".into(),
            to_exchange: false,
            destination: "q".into(),
            key: b"k".to_vec(),
            slashed: true,
            arguments: Arguments::new(),
        };
        let plain = b"\x01\x01x\x00\x01q\x01k\x01\x00";
        assert_eq!(&encode_binding(&row(), &[])[..], plain);
        let (read, owners) = decode_binding(plain).unwrap();
        assert_eq!((read.key, read.slashed, owners), (b"k".to_vec(), true, vec![]));
        let owner = |user: &str| BindingOwner { user: Some(user.into()), external_tags: None };
        let owned = b"\x02\x01x\x00\x01q\x01k\x01\x00\x01\x03ann\x00";
        assert_eq!(&encode_binding(&row(), &[owner("ann")])[..], owned);
        let (read, owners) = decode_binding(owned).unwrap();
        assert_eq!((read.destination.as_str(), owners), ("q", vec![owner("ann")]));
        let shared = b"\x03\x01x\x00\x01q\x01k\x01\x00\x02\x01\x03ann\x00\x01\x03bob\x00";
        assert_eq!(&encode_binding(&row(), &[owner("ann"), owner("bob")])[..], shared);
        assert_eq!(decode_binding(shared).unwrap().1, vec![owner("ann"), owner("bob")]);
        assert!(decode_binding(b"\x04").is_err() && decode_binding(b"").is_err());
    }

    #[test]
    fn session_rows_of_both_versions_are_read() {
        let row = SessionRow {
            stream: 3,
            cursor: 300,
            expiry_s: Some(60),
            detached_ms: None,
            owner: Some("ann".into()),
        };
        let bytes = encode_session(&row);
        assert_eq!(&bytes[..], b"\x02\x03\xac\x02\x01\x3c\x00\x01\x03ann");
        assert_eq!(decode_session(&bytes).unwrap(), row);
        let old = decode_session(b"\x01\x03\xac\x02\x01\x3c\x00").unwrap();
        assert_eq!(old, SessionRow { owner: None, ..row });
        assert!(decode_session(b"\x03\x03").is_err() && decode_session(b"").is_err());
    }
}
