//! Pages of lists.

use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use serde::{Deserialize, Serialize};

use super::problem::Problem;

/// Items of the largest page.
const SIZE_MAX: usize = 500;

/// Which page of a list, from the query of a request.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct PageQuery {
    /// Number of the page, from 1.
    page: usize,
    /// Items per page.
    size: usize,
    /// `name`, or `-name` for descending order.
    sort: Sort,
    /// Only items whose name contains this text.
    filter: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum Sort {
    #[serde(rename = "name")]
    Ascending,
    #[serde(rename = "-name")]
    Descending,
}

impl Default for PageQuery {
    fn default() -> Self {
        PageQuery { page: 1, size: 100, sort: Sort::Ascending, filter: String::new() }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for PageQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query = Query::<PageQuery>::from_request_parts(parts, state).await;
        let Query(query) = query.map_err(|error: QueryRejection| Problem::bad_request(error.body_text()))?;
        if query.page == 0 {
            return Err(Problem::bad_request("page: pages are counted from 1"));
        }
        if !(1..=SIZE_MAX).contains(&query.size) {
            return Err(Problem::bad_request(format!("size is out of bounds: 1 to {SIZE_MAX}")));
        }
        Ok(query)
    }
}

/// One page of a list.
#[derive(Debug, Serialize)]
pub(super) struct Page<T> {
    items: Vec<T>,
    page: usize,
    size: usize,
    /// Items on all pages.
    total: usize,
}

impl PageQuery {
    /// The page of `all`, which is in ascending order of names. Only the items of the page are shown.
    pub(super) fn page<T, R>(
        &self,
        all: Vec<T>,
        name: impl Fn(&T) -> &str,
        show: impl Fn(&T) -> R,
    ) -> Page<R> {
        let mut matching = all;
        if !self.filter.is_empty() {
            matching.retain(|item| name(item).contains(&self.filter));
        }
        if self.sort == Sort::Descending {
            matching.reverse();
        }
        let first = (self.page - 1).saturating_mul(self.size);
        let items = matching.iter().skip(first).take(self.size).map(show).collect();
        Page { items, page: self.page, size: self.size, total: matching.len() }
    }
}
