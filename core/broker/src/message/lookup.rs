//! The headers of a message in its stored form, for exchanges that route by them.

use std::cell::OnceCell;

use super::headers::Headers;
use crate::spec::StoredHeaders;
use crate::value::{Arguments, HeaderLookup, Value};

/// Reads the headers when the first of them is asked for.
pub(crate) struct StoredLookup<'a> {
    headers: Headers<'a>,
    read: StoredHeaders,
    found: OnceCell<Arguments>,
}

impl<'a> StoredLookup<'a> {
    pub(crate) fn new(headers: Headers<'a>, read: StoredHeaders) -> StoredLookup<'a> {
        StoredLookup { headers, read, found: OnceCell::new() }
    }
}

impl HeaderLookup for StoredLookup<'_> {
    fn get(&self, name: &str) -> Option<Value> {
        let read = || (self.read)(self.headers.bytes, self.headers.count);
        self.found.get_or_init(read).get(name).cloned()
    }
}
