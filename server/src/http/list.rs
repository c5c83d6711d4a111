//! Lists: pages, orders, filters and columns.
//!
//! A list by name is read from an index a part at a time. For another order every object is read, and those of the pages
//! up to the wanted one are kept in a heap: memory is bounded by [`ORDERED_MAX`].

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};

use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use inver_broker::Order;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::App;
use super::auth::Scope;
use super::problem::Problem;
use super::request::{Nothing, pairs, read, take_scope};

/// Items of the largest page.
const SIZE_MAX: u64 = 500;
/// Items that an order by something else than the name reaches.
const ORDERED_MAX: u64 = 100_000;
/// Objects read from an index at a time.
const PART: usize = 4096;
/// Bytes of a filter.
const FILTER_BYTES_MAX: usize = 1024;

/// Which page of a list, and what of it.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Number of the page, from 1.
    #[param(minimum = 1, default = 1)]
    page: u64,
    /// Items per page.
    #[param(minimum = 1, maximum = 500, default = 100)]
    size: u64,
    /// The column to order by; `-` before it for descending order. Without it, the name.
    #[param(max_length = 64)]
    sort: String,
    /// Only items whose name contains this text; with `*` (any text) or `?` (one character) a pattern of the whole name.
    #[param(max_length = 1024)]
    filter: String,
    /// The fields of the items to show, separated by commas; all without it.
    #[param(max_length = 1024)]
    columns: String,
}

impl Default for ListQuery {
    fn default() -> Self {
        ListQuery { page: 1, size: 100, sort: String::new(), filter: String::new(), columns: String::new() }
    }
}

/// The parameters of a list: namespace, page and filters of its own.
pub(super) struct Listing<F = Nothing>(pub(super) Scope, pub(super) ListQuery, pub(super) F);

impl ListQuery {
    fn take(all: &mut BTreeMap<String, String>) -> Result<ListQuery, Problem> {
        let names = ["page", "size", "sort", "filter", "columns"];
        let own = names.iter().filter_map(|name| all.remove_entry(*name)).collect();
        let query: ListQuery = read(own)?;
        if query.page == 0 {
            return Err(Problem::bad_request("page: pages are counted from 1"));
        }
        if !(1..=SIZE_MAX).contains(&query.size) {
            return Err(Problem::bad_request(format!("size is out of bounds: 1 to {SIZE_MAX}")));
        }
        if query.filter.len() > FILTER_BYTES_MAX || query.columns.len() > FILTER_BYTES_MAX {
            return Err(Problem::bad_request(format!(
                "filter and columns have at most {FILTER_BYTES_MAX} bytes"
            )));
        }
        Ok(query)
    }
}

/// The parameters of a list that is not that of one namespace: page and filters of its own.
pub(super) struct Listed<F>(pub(super) ListQuery, pub(super) F);

impl<S: Send + Sync, F: DeserializeOwned> FromRequestParts<S> for Listed<F> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let mut all = pairs(parts).await?;
        let query = ListQuery::take(&mut all)?;
        Ok(Listed(query, read(all)?))
    }
}

/// For lists that are not those of a namespace.
impl<S: Send + Sync> FromRequestParts<S> for ListQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let mut all = pairs(parts).await?;
        let query = ListQuery::take(&mut all)?;
        let Nothing {} = read(all)?;
        Ok(query)
    }
}

impl<F: DeserializeOwned> FromRequestParts<App> for Listing<F> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let mut all = pairs(parts).await?;
        let scope = take_scope(parts, &mut all, app)?;
        let query = ListQuery::take(&mut all)?;
        Ok(Listing(scope, query, read(all)?))
    }
}

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Page<T> {
    items: Vec<T>,
    /// Number of the page, from 1.
    page: u64,
    /// Items per page.
    size: u64,
    /// Items on all pages.
    total: u64,
    #[serde(skip)]
    columns: String,
}

impl<T: Serialize> IntoResponse for Page<T> {
    fn into_response(self) -> Response {
        if self.columns.is_empty() {
            return Json(self).into_response();
        }
        let columns: Vec<&str> = self.columns.split(',').map(str::trim).collect();
        let shown = |item: &T| {
            let mut shown = serde_json::to_value(item).unwrap_or_default();
            if let Value::Object(fields) = &mut shown {
                fields.retain(|name, _| columns.contains(&name.as_str()));
            }
            shown
        };
        let items: Vec<Value> = self.items.iter().map(shown).collect();
        Json(Page { items, page: self.page, size: self.size, total: self.total, columns: String::new() })
            .into_response()
    }
}

impl<T> Page<Result<T, Problem>> {
    /// The page, if all its items could be shown.
    pub(super) fn transposed(self) -> Result<Page<T>, Problem> {
        let items: Result<Vec<T>, Problem> = self.items.into_iter().collect();
        Ok(Page { items: items?, page: self.page, size: self.size, total: self.total, columns: self.columns })
    }
}

/// What objects are ordered by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SortKey {
    Number(u64),
    Text(String),
}

impl From<u64> for SortKey {
    fn from(number: u64) -> SortKey {
        SortKey::Number(number)
    }
}

impl From<usize> for SortKey {
    fn from(number: usize) -> SortKey {
        SortKey::Number(number as u64)
    }
}

impl From<&str> for SortKey {
    fn from(text: &str) -> SortKey {
        SortKey::Text(text.to_owned())
    }
}

/// A column to order by, and its value of an object.
pub(super) type Column<T> = (&'static str, fn(&T) -> SortKey);

/// Where a list comes from.
pub(super) trait Source {
    /// What it lists.
    type Object: 'static;

    /// The number of objects.
    fn count(&self) -> u64;

    /// Up to `max` objects that follow the name `after` in this order, without the first `skip` of them.
    fn following(&self, order: Order, after: Option<&str>, skip: usize, max: usize) -> Vec<Self::Object>;

    /// The name of an object.
    fn name<'a>(&self, object: &'a Self::Object) -> &'a str;

    /// Columns to order by, beside the name.
    fn columns(&self) -> &'static [Column<Self::Object>];

    /// Whether an object is listed, beside the filter of names.
    fn lists(&self, _object: &Self::Object) -> bool {
        true
    }

    /// Whether [`lists`](Self::lists) selects.
    fn selects(&self) -> bool {
        false
    }
}

impl ListQuery {
    /// The page of a list. Only the items of the page are shown.
    pub(super) fn page<L: Source, R>(
        &self,
        list: &L,
        show: impl FnMut(&L::Object) -> R,
    ) -> Result<Page<R>, Problem> {
        let (order, column) = match self.sort.strip_prefix('-') {
            Some(column) => (Order::Descending, column),
            None => (Order::Ascending, self.sort.as_str()),
        };
        let (objects, total) = if column.is_empty() || column == "name" {
            self.by_name(list, order)
        } else {
            let found = list.columns().iter().find(|(name, _)| *name == column);
            let Some((_, key)) = found else {
                let names: Vec<&str> = list.columns().iter().map(|(name, _)| *name).collect();
                let names = names.join(", ");
                return Err(Problem::bad_request(format!("sort: `{column}` is none of name, {names}")));
            };
            self.by_key(list, order, *key)?
        };
        let items = objects.iter().map(show).collect();
        Ok(Page { items, page: self.page, size: self.size, total, columns: self.columns.clone() })
    }

    /// Whether the list is ordered by this column.
    pub(super) fn sorts_by(&self, column: &str) -> bool {
        self.sort.strip_prefix('-').unwrap_or(&self.sort) == column
    }

    fn first(&self) -> u64 {
        (self.page - 1).saturating_mul(self.size)
    }

    fn by_name<L: Source>(&self, list: &L, order: Order) -> (Vec<L::Object>, u64) {
        let (first, size) = (self.first(), self.size as usize);
        if self.filter.is_empty() && !list.selects() {
            let skip = usize::try_from(first).unwrap_or(usize::MAX);
            return (list.following(order, None, skip, size), list.count());
        }
        let (mut page, mut total) = (Vec::new(), 0);
        self.visit(list, order, |object| {
            if total >= first && page.len() < size {
                page.push(object);
            }
            total += 1;
        });
        (page, total)
    }

    fn by_key<L: Source>(
        &self,
        list: &L,
        order: Order,
        key: fn(&L::Object) -> SortKey,
    ) -> Result<(Vec<L::Object>, u64), Problem> {
        let end = self.first().saturating_add(self.size);
        if end > ORDERED_MAX {
            return Err(Problem::bad_request(format!(
                "an order by something else than the name reaches {ORDERED_MAX} items"
            )));
        }
        let (mut heap, mut total) = (BinaryHeap::new(), 0);
        self.visit(list, Order::Ascending, |object| {
            heap.push(Ranked {
                key: key(&object),
                place: total,
                descending: order == Order::Descending,
                object,
            });
            total += 1;
            if heap.len() as u64 > end {
                heap.pop();
            }
        });
        let ranked = heap.into_sorted_vec().into_iter().skip(self.first() as usize);
        Ok((ranked.map(|ranked| ranked.object).collect(), total))
    }

    /// Visits all objects that match the filter.
    fn visit<L: Source>(&self, list: &L, order: Order, mut found: impl FnMut(L::Object)) {
        let mut after: Option<String> = None;
        loop {
            let part = list.following(order, after.as_deref(), 0, PART);
            let Some(last) = part.last() else { return };
            let is_last = part.len() < PART;
            after = Some(list.name(last).to_owned());
            for object in part {
                if matches(&self.filter, list.name(&object)) && list.lists(&object) {
                    found(object);
                }
            }
            if is_last {
                return;
            }
        }
    }
}

/// An object with what it is ordered by; of equal keys, the one visited first comes first.
struct Ranked<T> {
    key: SortKey,
    place: u64,
    descending: bool,
    object: T,
}

impl<T> Ord for Ranked<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_key = self.key.cmp(&other.key);
        let by_key = if self.descending { by_key.reverse() } else { by_key };
        by_key.then(self.place.cmp(&other.place))
    }
}

impl<T> PartialOrd for Ranked<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Ranked<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Ranked<T> {}

/// Whether a name matches a filter: it contains the text, or is of the pattern as a whole.
pub(super) fn matches(filter: &str, name: &str) -> bool {
    if !filter.contains(['*', '?']) {
        return name.contains(filter);
    }
    let (filter, name): (Vec<char>, Vec<char>) = (filter.chars().collect(), name.chars().collect());
    let (mut f, mut n) = (0, 0);
    // Where the last `*` was, and which part of the name it takes so far.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match filter.get(f) {
            Some('*') => {
                star = Some((f, n));
                f += 1;
            }
            Some(c) if *c == '?' || Some(c) == name.get(n) => {
                f += 1;
                n += 1;
            }
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    f = at + 1;
                    n = taken + 1;
                }
                None => return false,
            },
        }
    }
    filter.iter().skip(f).all(|c| *c == '*')
}

/// A list in memory.
pub(super) struct Whole<T: 'static> {
    objects: Vec<T>,
    name: fn(&T) -> &str,
    columns: &'static [Column<T>],
}

impl<T> Whole<T> {
    /// A list of objects, in any order.
    pub(super) fn new(mut objects: Vec<T>, name: fn(&T) -> &str, columns: &'static [Column<T>]) -> Whole<T> {
        objects.sort_by(|a, b| name(a).cmp(name(b)));
        Whole { objects, name, columns }
    }
}

impl<T: Clone + 'static> Source for Whole<T> {
    type Object = T;

    fn count(&self) -> u64 {
        self.objects.len() as u64
    }

    fn following(&self, order: Order, after: Option<&str>, skip: usize, max: usize) -> Vec<T> {
        // A list with a name twice is read as a whole.
        if after.is_some() {
            return Vec::new();
        }
        let max = if max == PART { usize::MAX } else { max };
        match order {
            Order::Ascending => self.objects.iter().skip(skip).take(max).cloned().collect(),
            Order::Descending => self.objects.iter().rev().skip(skip).take(max).cloned().collect(),
        }
    }

    fn name<'a>(&self, object: &'a T) -> &'a str {
        (self.name)(object)
    }

    fn columns(&self) -> &'static [Column<T>] {
        self.columns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_texts_or_patterns() {
        for (filter, name, expected) in [
            ("", "anything", true),
            ("b", "abc", true),
            ("bd", "abc", false),
            ("b*", "abc", false),
            ("*b*", "abc", true),
            ("a?c", "abc", true),
            ("a?c", "abbc", false),
            ("a*c*e", "abcde", true),
            ("a*ce", "abcbce", true),
            ("*", "", true),
            ("?", "", false),
            ("ü?", "üö", true),
        ] {
            assert_eq!(matches(filter, name), expected, "{filter} {name}");
        }
    }

    fn numbers() -> Whole<(String, u64)> {
        let objects = (0..10_000).map(|n| (format!("n{n:05}"), n % 100)).collect();
        Whole::new(objects, |o| &o.0, &[("value", |o| SortKey::Number(o.1))])
    }

    fn query(page: u64, size: u64, sort: &str, filter: &str) -> ListQuery {
        ListQuery { page, size, sort: sort.into(), filter: filter.into(), columns: String::new() }
    }

    fn names(query: &ListQuery) -> (Vec<String>, u64) {
        let page = query.page(&numbers(), |o| o.0.clone()).unwrap();
        (page.items, page.total)
    }

    #[test]
    fn pages_follow_the_order() {
        assert_eq!(names(&query(2, 2, "", "")), (vec!["n00002".into(), "n00003".into()], 10_000));
        assert_eq!(names(&query(1, 1, "-name", "")), (vec!["n09999".into()], 10_000));
        assert_eq!(names(&query(2, 1, "value", "")), (vec!["n00100".into()], 10_000));
        assert_eq!(names(&query(1, 2, "-value", "n000")), (vec!["n00099".into(), "n00098".into()], 100));
        assert_eq!(names(&query(1, 2, "", "n0????")).1, 10_000);
        assert_eq!(names(&query(u64::MAX, 500, "", "")).0.len(), 0);
        assert!(query(1, 1, "age", "").page(&numbers(), |_| ()).is_err());
        assert!(query(1000, 101, "value", "").page(&numbers(), |_| ()).is_err());
    }
}
