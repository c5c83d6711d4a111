//! Lists: pages, orders, filters and columns.
//!
//! A page by name is read from an index, where there is one. For a filter, another order, and a list without an index, the
//! list is [scanned](scan).

mod filter;
mod scan;

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use inver_broker::Order;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use self::filter::Filter;
pub(super) use self::scan::Scans;
use self::scan::{Found, Plan};
use super::App;
use super::auth::Scope;
use super::problem::Problem;
use super::request::{Nothing, pairs, read, take_scope};

/// Items of the largest page.
const SIZE_MAX: u64 = 500;
/// Items that an order by something else than the name, or a filter, reaches.
const REACHED_MAX: u64 = 100_000;
/// Items that a scan keeps at least, so that the next pages are found in its result.
const KEPT_MIN: u64 = 2000;
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
    /// False: the list is long, and `items` and `total` are of the part that was read so far. It is read on; ask again.
    complete: bool,
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
        Json(Page { items, columns: String::new(), ..self.emptied() }).into_response()
    }
}

impl<T> Page<T> {
    /// The page without its items.
    fn emptied<R>(self) -> Page<R> {
        let Page { page, size, total, complete, columns, .. } = self;
        Page { items: Vec::new(), page, size, total, complete, columns }
    }
}

impl<T> Page<Result<T, Problem>> {
    /// The page, if all its items could be shown.
    pub(super) fn transposed(mut self) -> Result<Page<T>, Problem> {
        let items: Result<Vec<T>, Problem> = std::mem::take(&mut self.items).into_iter().collect();
        Ok(Page { items: items?, ..self.emptied() })
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

/// By a text, and of equal ones by a number.
impl From<(&str, u64)> for SortKey {
    fn from((text, number): (&str, u64)) -> SortKey {
        SortKey::Text(format!("{text}\0{number:020}"))
    }
}

/// A column to order by, and its value of an object.
pub(super) type Column<T> = (&'static str, fn(&T) -> SortKey);

/// Where a list comes from.
pub(super) trait Source: Send + 'static {
    /// What it lists.
    type Object: Clone + Send + 'static;

    /// Where reading goes on.
    type Place: Default + Send + 'static;

    /// Reads on from a place: adds about `max` objects at most. False at the end. A list that has an [index](Self::page) is
    /// read in the order of names, others in any.
    fn read(&self, order: Order, place: &mut Self::Place, max: usize, found: &mut Vec<Self::Object>) -> bool;

    /// The objects of a page by name, without the first `skip` ones, and how many there are; from an index. None: there is
    /// none, and `name` is one of the columns.
    fn page(&self, order: Order, skip: usize, max: usize) -> Option<(Vec<Self::Object>, u64)>;

    /// The name of an object.
    fn name<'a>(&self, object: &'a Self::Object) -> &'a str;

    /// Columns to order by.
    fn columns(&self) -> &'static [Column<Self::Object>];

    /// Whether an object is listed, beside the filter of names.
    fn lists(&self, _object: &Self::Object) -> bool {
        true
    }

    /// Whether [`lists`](Self::lists) selects.
    fn selects(&self) -> bool {
        false
    }

    /// Names the list among all: two of the same name list the same. None: it is in memory as a whole.
    fn id(&self) -> Option<String>;
}

/// A list with an index by name.
pub(super) trait Indexed: Send + 'static {
    /// What it lists.
    type Object: Clone + Send + 'static;

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

    /// Names the list among all: two of the same name list the same.
    fn id(&self) -> String;
}

/// An indexed list as a source: it is read on behind the last name.
pub(super) struct ByName<L>(pub(super) L);

impl<L: Indexed> Source for ByName<L> {
    type Object = L::Object;
    type Place = Option<String>;

    fn read(&self, order: Order, place: &mut Option<String>, max: usize, found: &mut Vec<L::Object>) -> bool {
        let part = self.0.following(order, place.as_deref(), 0, max);
        let is_last = part.len() < max;
        *place = part.last().map(|last| self.0.name(last).to_owned());
        found.extend(part);
        !is_last
    }

    fn page(&self, order: Order, skip: usize, max: usize) -> Option<(Vec<L::Object>, u64)> {
        Some((self.0.following(order, None, skip, max), self.0.count()))
    }

    fn name<'a>(&self, object: &'a L::Object) -> &'a str {
        self.0.name(object)
    }

    fn columns(&self) -> &'static [Column<L::Object>] {
        self.0.columns()
    }

    fn lists(&self, object: &L::Object) -> bool {
        self.0.lists(object)
    }

    fn selects(&self) -> bool {
        self.0.selects()
    }

    fn id(&self) -> Option<String> {
        Some(self.0.id())
    }
}

impl ListQuery {
    /// The page of a list. Only the items of the page are shown.
    pub(super) fn page<L: Source, R>(
        &self,
        app: &App,
        list: L,
        show: impl FnMut(&L::Object) -> R,
    ) -> Result<Page<R>, Problem> {
        let found = self.find(&app.scans, list)?;
        let items = found.items.iter().map(show).collect();
        let (total, complete) = (found.total, found.is_complete);
        Ok(Page { items, page: self.page, size: self.size, total, complete, columns: self.columns.clone() })
    }

    /// Whether the list is ordered by this column.
    pub(super) fn sorts_by(&self, column: &str) -> bool {
        self.sort.strip_prefix('-').unwrap_or(&self.sort) == column
    }

    fn find<L: Source>(&self, scans: &Scans, list: L) -> Result<Found<L::Object>, Problem> {
        let (order, column) = match self.sort.strip_prefix('-') {
            Some(column) => (Order::Descending, column),
            None => (Order::Ascending, self.sort.as_str()),
        };
        let column = if column.is_empty() { "name" } else { column };
        let key = list.columns().iter().find(|(name, _)| *name == column).map(|(_, key)| *key);
        if key.is_none() && column != "name" {
            let names = list.columns().iter().map(|(name, _)| *name).filter(|name| *name != "name");
            let names: Vec<&str> = std::iter::once("name").chain(names).collect();
            let names = names.join(", ");
            return Err(Problem::bad_request(format!("sort: `{column}` is none of {names}")));
        }
        let filter = Filter::new(&self.filter);
        let first = (self.page - 1).saturating_mul(self.size);
        let (skip, size) = (usize::try_from(first).unwrap_or(usize::MAX), self.size as usize);
        if key.is_none()
            && filter.is_all()
            && !list.selects()
            && let Some((items, total)) = list.page(order, skip, size)
        {
            return Ok(Found { items, total, is_complete: true });
        }
        let end = first.saturating_add(self.size);
        if end > REACHED_MAX {
            return Err(Problem::bad_request(format!(
                "with a filter, or an order by something else than the name, pages reach {REACHED_MAX} items"
            )));
        }
        let kept = end.max(KEPT_MIN).next_power_of_two();
        let id = list.id().map(|id| format!("{id}\n{}\n{}\n{kept}", self.sort, self.filter));
        Ok(scans.read(id, list, Plan { filter, order, key, kept: kept as usize }, (skip, size)))
    }
}

/// The place in a list whose handles are taken all at once, when reading begins.
pub(super) struct Snapshot<T>(Option<std::vec::IntoIter<T>>);

impl<T> Default for Snapshot<T> {
    fn default() -> Self {
        Snapshot(None)
    }
}

impl<T> Snapshot<T> {
    /// Reads `max` handles on. False at the end.
    pub(super) fn read(
        &mut self,
        take: impl FnOnce() -> Vec<T>,
        max: usize,
        mut each: impl FnMut(T),
    ) -> bool {
        let left = self.0.get_or_insert_with(|| take().into_iter());
        for handle in left.by_ref().take(max) {
            each(handle);
        }
        left.len() > 0
    }
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

impl<T: Clone> Whole<T> {
    fn part(&self, order: Order, skip: usize, max: usize) -> Vec<T> {
        match order {
            Order::Ascending => self.objects.iter().skip(skip).take(max).cloned().collect(),
            Order::Descending => self.objects.iter().rev().skip(skip).take(max).cloned().collect(),
        }
    }
}

impl<T: Clone + Send + 'static> Source for Whole<T> {
    type Object = T;
    type Place = usize;

    fn read(&self, order: Order, place: &mut usize, max: usize, found: &mut Vec<T>) -> bool {
        found.extend(self.part(order, *place, max));
        *place += max;
        *place < self.objects.len()
    }

    fn page(&self, order: Order, skip: usize, max: usize) -> Option<(Vec<T>, u64)> {
        Some((self.part(order, skip, max), self.objects.len() as u64))
    }

    fn name<'a>(&self, object: &'a T) -> &'a str {
        (self.name)(object)
    }

    fn columns(&self) -> &'static [Column<T>] {
        self.columns
    }

    fn id(&self) -> Option<String> {
        None
    }
}

#[cfg(test)]
mod tests {
    use inver_broker::Clock;

    use super::*;

    fn numbers() -> Whole<(String, u64)> {
        let objects = (0..10_000).map(|n| (format!("n{n:05}"), n % 100)).collect();
        Whole::new(objects, |o| &o.0, &[("value", |o| SortKey::Number(o.1))])
    }

    fn query(page: u64, size: u64, sort: &str, filter: &str) -> ListQuery {
        ListQuery { page, size, sort: sort.into(), filter: filter.into(), columns: String::new() }
    }

    fn names(query: &ListQuery) -> (Vec<String>, u64) {
        let found = query.find(&Scans::new(Clock::system()), numbers()).unwrap();
        assert!(found.is_complete);
        (found.items.into_iter().map(|(name, _)| name).collect(), found.total)
    }

    #[test]
    fn pages_follow_the_order() {
        assert_eq!(names(&query(2, 2, "", "")), (vec!["n00002".into(), "n00003".into()], 10_000));
        assert_eq!(names(&query(1, 1, "-name", "")), (vec!["n09999".into()], 10_000));
        assert_eq!(names(&query(1, 1, "-name", "n0")), (vec!["n09999".into()], 10_000));
        assert_eq!(names(&query(2, 1, "value", "")), (vec!["n00100".into()], 10_000));
        assert_eq!(names(&query(1, 2, "-value", "n000")), (vec!["n00099".into(), "n00098".into()], 100));
        assert_eq!(names(&query(1, 2, "", "n0????")).1, 10_000);
        assert_eq!(names(&query(u64::MAX, 500, "", "")).0.len(), 0);
        let is_refused = |query: &ListQuery| query.find(&Scans::new(Clock::system()), numbers()).is_err();
        assert!(is_refused(&query(1, 1, "age", "")));
        assert!(is_refused(&query(1000, 101, "value", "")));
    }

    /// Numbers whose parts take long to read, by a clock that each of them advances; who holds the list holds the second field.
    #[derive(Clone)]
    struct Slow(u64, std::sync::Arc<()>, Clock);

    fn slow(count: u64, clock: &Clock) -> Slow {
        Slow(count, std::sync::Arc::default(), clock.clone())
    }

    fn slow_scans() -> (Scans, Clock) {
        let clock = Clock::manual(1);
        (Scans::new(clock.clone()), clock)
    }

    impl Indexed for Slow {
        type Object = String;

        fn count(&self) -> u64 {
            self.0
        }

        fn following(&self, _: Order, after: Option<&str>, _: usize, max: usize) -> Vec<String> {
            self.2.advance(std::time::Duration::from_millis(20));
            let from = after.map_or(0, |name| name.parse::<u64>().unwrap() + 1);
            (from..self.0).take(max).map(|number| format!("{number:06}")).collect()
        }

        fn name<'a>(&self, object: &'a String) -> &'a str {
            object
        }

        fn columns(&self) -> &'static [Column<String>] {
            &[("number", |name| name.as_str().into())]
        }

        fn id(&self) -> String {
            format!("slow {}", self.0)
        }
    }

    #[tokio::test]
    async fn a_long_list_is_answered_in_part_and_read_on() {
        let (scans, clock) = slow_scans();
        let ask = |sort: &str, filter: &str| {
            query(1, 2, sort, filter).find(&scans, ByName(slow(100_000, &clock))).unwrap()
        };
        let part = ask("-number", "");
        assert!(!part.is_complete && part.total < 100_000 && part.items.len() == 2);
        let by_name = ask("", "1");
        assert!(!by_name.is_complete);
        assert_eq!(by_name.items, ["000001", "000010"], "the first ones do not change");
        let whole = |sort: &str, filter: &str| {
            std::iter::repeat_with(|| ask(sort, filter)).take(1000).find(|found| found.is_complete).unwrap()
        };
        let found = whole("-number", "");
        assert_eq!((found.items, found.total), (vec!["099999".into(), "099998".into()], 100_000));
        assert_eq!(
            whole("", "1").total,
            (0..100_000).filter(|n| format!("{n:06}").contains('1')).count() as u64
        );
    }

    /// Numbers without an index, in no order.
    #[derive(Clone)]
    struct Unordered(u64);

    impl Source for Unordered {
        type Object = String;
        type Place = Snapshot<u64>;

        fn read(&self, _: Order, place: &mut Snapshot<u64>, max: usize, found: &mut Vec<String>) -> bool {
            let take = || (0..self.0).map(|n| n * 7919 % self.0).collect();
            place.read(take, max, |number| found.push(format!("{number:06}")))
        }

        fn page(&self, _: Order, _: usize, _: usize) -> Option<(Vec<String>, u64)> {
            None
        }

        fn name<'a>(&self, object: &'a String) -> &'a str {
            object
        }

        fn columns(&self) -> &'static [Column<String>] {
            &[("name", |name| name.as_str().into())]
        }

        fn id(&self) -> Option<String> {
            Some(format!("unordered {}", self.0))
        }
    }

    #[tokio::test]
    async fn a_list_without_an_index_is_ordered_by_reading_all_of_it() {
        let scans = Scans::new(Clock::system());
        let whole = |query: ListQuery| {
            let asked = std::iter::repeat_with(|| query.find(&scans, Unordered(10_000)).unwrap());
            let found = asked.take(1000).find(|found| found.is_complete).unwrap();
            (found.items, found.total)
        };
        assert_eq!(whole(query(2, 2, "", "")), (vec!["000002".into(), "000003".into()], 10_000));
        assert_eq!(whole(query(1, 1, "-name", "")), (vec!["009999".into()], 10_000));
        assert_eq!(whole(query(1, 1, "", "9999")), (vec!["009999".into()], 1));
        assert_eq!(whole(query(5000, 2, "name", "")), (vec!["009998".into(), "009999".into()], 10_000));
        let refused = query(1, 1, "age", "").find(&scans, Unordered(1)).map(drop).unwrap_err();
        assert!(format!("{refused:?}").contains("none of name"), "{refused:?}");
        assert_eq!(whole(query(1, 1, "", "x")), (vec![], 0));
    }

    #[tokio::test]
    async fn scans_that_go_on_are_bounded() {
        let (scans, clock) = slow_scans();
        for number in 0..12 {
            let found =
                query(1, 2, "number", "").find(&scans, ByName(slow(1_000_000 + number, &clock))).unwrap();
            assert!(!found.is_complete);
        }
        assert_eq!(scans.len(), 8);
    }

    #[tokio::test]
    async fn a_scan_that_goes_on_ends_with_the_server() {
        let (scans, clock) = slow_scans();
        let list = slow(u64::MAX, &clock);
        assert!(!query(1, 2, "number", "").find(&scans, ByName(list.clone())).unwrap().is_complete);
        assert_eq!(std::sync::Arc::strong_count(&list.1), 2);
        drop(scans);
        let ended = async {
            while std::sync::Arc::strong_count(&list.1) > 1 {
                Clock::system().sleep(std::time::Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), ended).await.unwrap();
    }
}
