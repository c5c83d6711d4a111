//! Lists: pages, filters by name, orders and columns, by RabbitMQ's parameters.
//!
//! | parameter | meaning |
//! |---|---|
//! | `page`, `page_size` | a page of 1 to 500 items, 100 by default; without `page` the whole list |
//! | `name`, `use_regex` | with `page`: only items whose name contains this text, or matches this expression |
//! | `sort`, `sort_reverse` | the field to order by, with `.` within objects |
//! | `columns` | the fields to show, separated by commas, with `.` within objects |

use std::cmp::Ordering;

use axum::Json;
use axum::response::{IntoResponse, Response};
use inver_access::dialect::check_expression;
use regex::Regex;
use serde_json::{Map, Value, json};

use super::error::Fault;
use super::request::Params;

/// Items of a page without `page_size`.
const PAGE_SIZE: usize = 100;
/// Items of the largest page.
const PAGE_SIZE_MAX: usize = 500;
/// Items of a list without pages, and of one that is ordered by something else than the name.
const SHOWN_MAX: usize = 20_000;
/// Objects that a list goes through.
pub(super) const LISTED_MAX: usize = 1_000_000;
/// Bytes of an expression.
const EXPRESSION_BYTES_MAX: usize = 1024;

/// Which part of a list is shown, and how.
pub(super) struct ListQuery {
    page: Option<(usize, usize)>,
    name: Option<Matcher>,
    sort: Option<String>,
    reversed: bool,
    columns: Columns,
}

enum Matcher {
    Contains(String),
    Regex(Regex),
}

impl Matcher {
    fn matches(&self, name: &str) -> bool {
        match self {
            Matcher::Contains(text) => name.to_lowercase().contains(text),
            Matcher::Regex(regex) => regex.is_match(name),
        }
    }
}

/// The fields that are shown; all if there are none.
#[derive(Debug, Default, Clone)]
pub(super) struct Columns(Vec<Vec<String>>);

impl Columns {
    pub(super) fn of(params: &Params) -> Columns {
        let paths = params.0.get("columns").map_or("", String::as_str).split(',').map(str::trim);
        let paths = paths.filter(|path| !path.is_empty());
        Columns(paths.map(|path| path.split('.').map(str::to_owned).collect()).collect())
    }

    /// The value with these fields only.
    pub(super) fn of_value(&self, value: Value) -> Value {
        if self.0.is_empty() {
            return value;
        }
        let mut shown = Map::new();
        for path in &self.0 {
            if let Some(found) = at(&value, path) {
                put(&mut shown, path, found.clone());
            }
        }
        Value::Object(shown)
    }
}

/// The value at a path.
fn at<'a>(value: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, name| value.get(name))
}

fn put(into: &mut Map<String, Value>, path: &[String], value: Value) {
    let Some((first, rest)) = path.split_first() else { return };
    if rest.is_empty() {
        into.insert(first.clone(), value);
        return;
    }
    let inner = into.entry(first.clone()).or_insert_with(|| json!({}));
    if let Value::Object(inner) = inner {
        put(inner, rest, value);
    }
}

impl ListQuery {
    pub(super) fn of(params: &Params) -> Result<ListQuery, Fault> {
        let get = |name: &str| params.0.get(name).filter(|text| !text.is_empty());
        let invalid = || {
            let shown = |name: &str| get(name).map_or("undefined", String::as_str);
            Fault::named(
                "invalid_pagination_parameters",
                format!(
                    "Invalid pagination parameters: page number {}, page size {}",
                    shown("page"),
                    shown("page_size")
                ),
            )
        };
        let number = |text: &String| text.parse::<usize>().map_err(|_| invalid());
        let page = get("page").map(number).transpose()?;
        let size = get("page_size").map(number).transpose()?.unwrap_or(PAGE_SIZE);
        if page == Some(0) || !(1..=PAGE_SIZE_MAX).contains(&size) {
            return Err(invalid());
        }
        let name = match get("name").filter(|_| page.is_some()) {
            None => None,
            Some(text) if text.len() > EXPRESSION_BYTES_MAX => {
                return Err(Fault::bad_request("Pagination parameters are invalid"));
            }
            Some(text) if params.is_set("use_regex") => {
                let invalid = || Fault::bad_request("Pagination parameters are invalid");
                check_expression(text).map_err(|_| invalid())?;
                Some(Matcher::Regex(Regex::new(text).map_err(|_| invalid())?))
            }
            Some(text) => Some(Matcher::Contains(text.to_lowercase())),
        };
        Ok(ListQuery {
            page: page.map(|page| (page, size)),
            name,
            sort: get("sort").cloned(),
            reversed: params.is_set("sort_reverse"),
            columns: Columns::of(params),
        })
    }

    /// The answer: `items` come in the order of their names, and only those of the page are shown.
    pub(super) fn answer<T>(
        &self,
        mut items: Vec<T>,
        name: impl Fn(&T) -> String,
        show: impl Fn(&T) -> Value,
    ) -> Result<Response, Fault> {
        let total = items.len();
        if let Some(matcher) = &self.name {
            items.retain(|item| matcher.matches(&name(item)));
        }
        let filtered = items.len();
        let sort = self.sort.as_deref().filter(|sort| *sort != "name");
        let is_whole = self.page.is_none() || sort.is_some();
        if is_whole && filtered > SHOWN_MAX {
            return Err(Fault::bad_request(format!(
                "the list has more than {SHOWN_MAX} items: ask for a page, ordered by name"
            )));
        }
        if self.sort.is_some() && sort.is_none() {
            // Those of several virtual hosts come one after the other.
            items.sort_by_cached_key(|item| name(item));
        }
        if sort.is_none() && self.reversed {
            items.reverse();
        }
        let mut sorted = match sort {
            None => None,
            Some(sort) => {
                let path: Vec<String> = sort.split('.').map(str::to_owned).collect();
                let mut values: Vec<Value> = items.iter().map(&show).collect();
                values.sort_by(|a, b| compare(at(a, &path), at(b, &path)));
                if self.reversed {
                    values.reverse();
                }
                Some(values)
            }
        };
        let shown = |from: usize, count: usize, sorted: &mut Option<Vec<Value>>| -> Vec<Value> {
            let values: Vec<Value> = match sorted {
                Some(values) => values.drain(..).skip(from).take(count).collect(),
                None => items.iter().skip(from).take(count).map(&show).collect(),
            };
            values.into_iter().map(|value| self.columns.of_value(value)).collect()
        };
        let Some((page, size)) = self.page else {
            return Ok(Json(shown(0, usize::MAX, &mut sorted)).into_response());
        };
        let pages = filtered.div_ceil(size).max(1);
        if page > pages {
            let reason = format!("Page out of range, page: {page} page size: {size}, len: {filtered}");
            return Err(Fault::named("page_out_of_range", reason));
        }
        let items = shown((page - 1) * size, size, &mut sorted);
        Ok(Json(json!({
            "filtered_count": filtered,
            "item_count": items.len(),
            "items": items,
            "page": page,
            "page_count": pages,
            "page_size": size,
            "total_count": total,
        }))
        .into_response())
    }
}

/// The order of two fields: absent ones first, then numbers, then texts.
fn compare(a: Option<&Value>, b: Option<&Value>) -> Ordering {
    let rank = |value: Option<&Value>| match value {
        None | Some(Value::Null) => 0,
        Some(Value::Bool(_)) => 1,
        Some(Value::Number(_)) => 2,
        Some(_) => 3,
    };
    let by_content = match (a, b) {
        (Some(Value::Number(a)), Some(Value::Number(b))) => {
            a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal)
        }
        (Some(Value::String(a)), Some(Value::String(b))) => a.cmp(b),
        (Some(Value::Bool(a)), Some(Value::Bool(b))) => a.cmp(b),
        _ => Ordering::Equal,
    };
    rank(a).cmp(&rank(b)).then(by_content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(query: &[(&str, &str)]) -> Params {
        Params(query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    async fn ask(query: &[(&str, &str)]) -> Result<Value, String> {
        let items: Vec<Value> =
            (0..5).map(|n| json!({"name": format!("q{n}"), "n": 10 - n, "o": {"a": n, "b": 1}})).collect();
        let query = ListQuery::of(&params(query)).map_err(Fault::into_reason)?;
        let name = |item: &Value| item["name"].as_str().unwrap_or_default().to_owned();
        let answer = query.answer(items, name, Clone::clone).map_err(Fault::into_reason)?;
        let body = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        Ok(serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn pages_filters_orders_and_columns() {
        let page = ask(&[("page", "2"), ("page_size", "2"), ("columns", "name,o.a")]).await.unwrap();
        assert_eq!(page["items"], json!([{"name": "q2", "o": {"a": 2}}, {"name": "q3", "o": {"a": 3}}]));
        let counts = ["filtered_count", "item_count", "page", "page_count", "page_size", "total_count"];
        assert_eq!(counts.map(|name| page[name].as_u64().unwrap()), [5, 2, 2, 3, 2, 5]);
        let names = |list: Value| -> Vec<String> {
            let list = list.get("items").cloned().unwrap_or(list);
            list.as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(names(ask(&[("sort", "n")]).await.unwrap()), ["q4", "q3", "q2", "q1", "q0"]);
        let query = [("sort", "o.a"), ("sort_reverse", "true"), ("page", "1"), ("page_size", "1")];
        assert_eq!(names(ask(&query).await.unwrap()), ["q4"]);
        let query = [("page", "1"), ("name", "^q[12]$"), ("use_regex", "true")];
        assert_eq!(names(ask(&query).await.unwrap()), ["q1", "q2"]);
        assert_eq!(names(ask(&[("page", "1"), ("name", "Q3")]).await.unwrap()), ["q3"]);
    }

    #[tokio::test]
    async fn wrong_pages_are_refused_in_rabbitmqs_words() {
        let reason = async |query: &[(&str, &str)]| ask(query).await.unwrap_err();
        assert_eq!(
            reason(&[("page", "9"), ("page_size", "1")]).await,
            "Page out of range, page: 9 page size: 1, len: 5"
        );
        assert_eq!(
            reason(&[("page", "0")]).await,
            "Invalid pagination parameters: page number 0, page size undefined"
        );
        assert_eq!(
            reason(&[("page", "1"), ("page_size", "501")]).await,
            "Invalid pagination parameters: page number 1, page size 501"
        );
        let query = [("page", "1"), ("name", "("), ("use_regex", "true")];
        assert_eq!(reason(&query).await, "Pagination parameters are invalid");
    }
}
