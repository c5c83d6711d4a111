//! Messages: as a publisher passes them, and in their stored form.
//!
//! A stored message is a record. One that the broker composed begins with an *origin* header, which tells how many
//! *properties* follow; all later headers are the user's own, in order, duplicates and null values kept. So a property is
//! never mistaken for a user's header. A record from a producer's batch has the user's headers only. The names that the
//! broker writes are [reserved](CLAIMED).
//!
//! This module owns the stored form: one codec for the origin, one for the [properties](Property), one for
//! [death records](Death). Protocols convert between it and their wire formats; they do not encode it themselves. The
//! names and values on disk do not change.

mod address;
mod deaths;
mod delayed;
mod headers;
mod lookup;
mod origin;
mod properties;
mod reserved;
mod trace;
mod view;

use inver_storage::batch::Record;

use crate::value::HeaderLookup;

pub use address::address_of;
pub use deaths::Death;
pub(crate) use delayed::{DELAYED_TO, DelayedTarget, DelayedTo, Rights};
pub use headers::{HeaderWriter, Headers};
pub(crate) use lookup::StoredLookup;
pub use origin::{HEADER as ORIGIN_HEADER, NEUTRAL_ORIGIN};
pub(crate) use properties::split_more_keys;
pub use properties::{Property, more_keys, name};
pub use reserved::CLAIMED;
pub use trace::{may_have_traces, traceparent};
pub(crate) use trace::{traceparent_of, with_traceparent};
pub(crate) use view::priority;
pub use view::{Header, HeaderView, RawHeaders, expires_ms, filter_value};

/// A message for the publisher. All parts are borrowed: they are copied once, into the batch that is written.
#[derive(Clone, Copy)]
pub struct Message<'a> {
    /// Milliseconds since 1970.
    pub timestamp_ms: i64,
    /// The record's key, where the route does not set one.
    pub key: Option<&'a [u8]>,
    /// The body. A null value deletes the key in compacted topics.
    pub value: Option<&'a [u8]>,
    /// The headers, as [`HeaderWriter`] wrote them.
    pub headers: Headers<'a>,
    /// Whether the publisher was promised that the message survives a crash where it is stored durably.
    pub guaranteed: bool,
    /// Typed headers, for exchanges that route by them.
    pub lookup: Option<&'a dyn HeaderLookup>,
}

impl<'a> Message<'a> {
    /// A stored record as a message, its headers unchanged.
    #[must_use]
    pub fn of_record(record: &'a Record, guaranteed: bool) -> Message<'a> {
        Message {
            timestamp_ms: record.timestamp_ms,
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: Headers {
                count: record.header_count,
                bytes: &record.headers,
                expires_ms: expires_ms(record),
            },
            guaranteed,
            lookup: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use inver_storage::batch::{BatchBuilder, records};

    fn record(write: impl FnOnce(&mut HeaderWriter)) -> Record {
        let mut headers = HeaderWriter::default();
        write(&mut headers);
        let mut builder = BatchBuilder::new(0);
        let h = headers.headers();
        builder.push_with(7, None, h.count as usize, h.bytes, Some(b"v"));
        records(builder.finish().bytes()).unwrap().next().unwrap().unwrap()
    }

    #[test]
    fn properties_and_user_headers_are_kept_apart() {
        let r = record(|w| {
            w.begin("protocol", Some(1234));
            w.put(Property::ContentType(b"text/plain"));
            w.user(b"content-type", Some(b"mine"));
            w.user(b"content-type", None);
        });
        let view = HeaderView::of(&r);
        assert_eq!((view.origin(), view.properties().left()), (Some(&b"protocol"[..]), 2));
        assert_eq!(expires_ms(&r), Some(1234));
        let properties: Vec<_> = view.typed_properties().collect();
        assert_eq!(properties, [Property::ExpiresMs(1234), Property::ContentType(b"text/plain")]);
        let written = [(&b"content-type"[..], Some(&b"mine"[..])), (b"content-type", None)];
        assert_eq!(view.written().collect::<Vec<_>>(), written);
        let names: Vec<_> = RawHeaders::of(&r).map(|(name, _)| name).collect();
        let stored = [&b"inver-origin"[..], b"expires", b"content-type"];
        assert_eq!(names[..3], stored);
        assert_eq!(names[3..], [b"claimed-content-type"; 2], "looked up by its name, the property is found");
    }

    #[test]
    fn user_headers_survive_being_composed_again() {
        let headers: [Header<'_>; 4] = [
            (b"user-id", Some(b"a")),
            (b"claimed-user-id", Some(b"b")),
            (b"plain", None),
            (b"inver-origin", Some(b"x/09")),
        ];
        let first = record(|w| {
            w.begin("protocol", None);
            headers.iter().for_each(|(name, value)| w.user(name, *value));
        });
        let again = record(|w| {
            w.begin_like(&HeaderView::of(&first), Some(5));
            w.user_of(&HeaderView::of(&first));
        });
        assert_eq!(HeaderView::of(&again).written().collect::<Vec<_>>(), headers);
        // Those of a producer's record get the prefix then.
        let mut builder = BatchBuilder::new(0);
        builder.push(0, None, &headers, None);
        let producers = records(builder.finish().bytes()).unwrap().next().unwrap().unwrap();
        let again = record(|w| {
            w.begin_like(&HeaderView::of(&producers), None);
            w.user_of(&HeaderView::of(&producers));
        });
        let view = HeaderView::of(&again);
        assert_eq!(view.origin(), Some(NEUTRAL_ORIGIN.as_bytes()));
        assert_eq!(view.written().collect::<Vec<_>>(), headers);
        let shown =
            |view: HeaderView<'_>| view.shown().map(|(name, _)| name.into_owned()).collect::<Vec<_>>();
        assert_eq!(shown(view), shown(HeaderView::of(&producers)));
    }

    #[test]
    fn a_marked_record_has_no_origin_whatever_it_begins_with() {
        let mut builder = BatchBuilder::new(0);
        let headers: [Header<'_>; 3] =
            [(ORIGIN_HEADER, Some(b"x/01")), (name::EXPIRES, Some(b"1")), (name::ADDRESS, Some(b"a/b"))];
        builder.push(0, None, &headers, None);
        let mut r = records(builder.finish().bytes()).unwrap().next().unwrap().unwrap();
        assert_eq!((HeaderView::of(&r).origin(), expires_ms(&r)), (Some(&b"x"[..]), Some(1)));
        r.is_marked = true;
        let view = HeaderView::of(&r);
        assert_eq!((view.origin(), expires_ms(&r), view.named_address()), (None, None, Some(&b"a/b"[..])));
        let shown: Vec<_> = view.shown().map(|(name, _)| name.into_owned()).collect();
        assert_eq!(shown, [&b"claimed-inver-origin"[..], b"expires"]);
        // A copy in a batch of the broker is not marked.
        let copy = {
            let mut writer = HeaderWriter::default();
            writer.copy(&r);
            let headers = writer.headers();
            let mut builder = BatchBuilder::new(0);
            builder.push_with(0, None, headers.count as usize, headers.bytes, None);
            records(builder.finish().bytes()).unwrap().next().unwrap().unwrap()
        };
        let view = HeaderView::of(&copy);
        assert_eq!((view.origin(), view.named_address()), (None, Some(&b"a/b"[..])));
        assert_eq!(view.shown().count(), 2);
    }

    #[test]
    fn properties_beyond_the_most_are_left_out() {
        let r = record(|w| {
            w.begin("protocol", None);
            (0..150).for_each(|_| w.property(b"p", b"v"));
            w.user(b"u", None);
        });
        let view = HeaderView::of(&r);
        assert_eq!((view.properties().count(), view.user().count()), (99, 1));
    }

    #[test]
    fn a_record_of_a_producers_batch_has_user_headers_only() {
        let mut builder = BatchBuilder::new(0);
        builder.push(0, None, &[(b"expires", Some(b"5")), (origin::HEADER, Some(b"x/01"))], Some(b""));
        let r = records(builder.finish().bytes()).unwrap().next().unwrap().unwrap();
        let view = HeaderView::of(&r);
        assert!(view.origin().is_none());
        assert_eq!(view.properties().count(), 0);
        assert_eq!(expires_ms(&r), None);
        assert_eq!(view.user().count(), 2);
    }
}
