//! The address that a stored message was published at.

use std::borrow::Cow;

use inver_storage::batch::Record;

use super::properties::Property;
use super::view::HeaderView;
use crate::address::{Form, rewrite};

/// The slashed address of a record: its property of that name, its routing key, or, in a producer's batch, the header
/// that names one, else that of the log topic it was produced to. None if it has none.
#[must_use]
pub fn address_of<'a>(
    record: &'a Record,
    topic: Option<&'a str>,
    address_header: &[u8],
) -> Option<Cow<'a, [u8]>> {
    let view = HeaderView::of(record);
    let mut dotted = None;
    if view.origin().is_none() {
        let named = view.user().find(|(name, _)| !name.is_empty() && *name == address_header);
        if let Some(address) = named.and_then(|(_, value)| value) {
            return Some(Cow::Borrowed(address));
        }
    }
    for property in view.typed_properties() {
        match property {
            Property::Address(address) => return Some(Cow::Borrowed(address)),
            Property::RoutingKey(key) => dotted = Some(key),
            _ => {}
        }
    }
    dotted.or(topic.map(str::as_bytes)).map(|dotted| rewrite(Form::Dotted, Form::Slashed, dotted))
}

#[cfg(test)]
mod tests {
    use inver_storage::batch::{BatchBuilder, records};

    use super::*;
    use crate::message::HeaderWriter;

    fn record(write: impl FnOnce(&mut HeaderWriter)) -> Record {
        let mut headers = HeaderWriter::default();
        write(&mut headers);
        let mut builder = BatchBuilder::new(0);
        let headers = headers.headers();
        builder.push_with(7, None, headers.count as usize, headers.bytes, Some(b"v"));
        records(builder.finish().bytes()).unwrap().next().unwrap().unwrap()
    }

    #[test]
    fn the_address_is_found_wherever_the_publisher_put_it() {
        let address = |record: &Record, topic| {
            address_of(record, topic, b"to").map(|address| String::from_utf8_lossy(&address).into_owned())
        };
        let slashed = record(|writer| {
            writer.begin("p", None);
            writer.put(Property::RoutingKey(b"x.y"));
            writer.put(Property::Address(b"a/b"));
            writer.user(b"to", Some(b"c/d"));
        });
        assert_eq!(address(&slashed, None).as_deref(), Some("a/b"), "a user's header names no address");
        let dotted = record(|writer| {
            writer.begin("p", None);
            writer.put(Property::RoutingKey(b"x.y"));
        });
        assert_eq!(address(&dotted, Some("t")).as_deref(), Some("x/y"));
        let produced = record(|writer| writer.user(b"to", Some(b"c/d")));
        assert_eq!(address(&produced, Some("t.u")).as_deref(), Some("c/d"));
        let plain = record(|writer| writer.user(b"other", None));
        assert_eq!(address(&plain, Some("t.u")).as_deref(), Some("t/u"));
        assert_eq!(address(&plain, None), None);
    }
}
