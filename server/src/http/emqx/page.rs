//! Pages of lists as EMQX has them.

use serde_json::{Value, json};

use crate::http::problem::Problem;

/// Objects of one page.
const LIMIT_MAX: usize = 10_000;

/// Which part of a list.
#[derive(Debug, Clone, Copy)]
pub(super) struct PageQuery {
    /// From 1 on.
    page: u64,
    limit: u64,
}

impl PageQuery {
    /// The page of this number.
    pub(super) fn of(page: Option<u64>, limit: Option<u64>) -> PageQuery {
        PageQuery { page: page.unwrap_or(1), limit: limit.unwrap_or(100) }
    }

    /// Objects before the page, and on it.
    pub(super) fn bounds(self) -> Result<(usize, usize), Problem> {
        let (page, limit) = (usize::try_from(self.page), usize::try_from(self.limit));
        match (page, limit) {
            (Ok(page), Ok(limit)) if page > 0 && (1..=LIMIT_MAX).contains(&limit) => {
                Ok(((page - 1).saturating_mul(limit), limit))
            }
            _ => Err(Problem::bad_request(format!("page is at least 1, limit 1 to {LIMIT_MAX}"))),
        }
    }

    /// The answer with a page of so many objects.
    pub(super) fn answer(self, data: Vec<Value>, count: u64) -> Value {
        let hasnext = self.page.saturating_mul(self.limit) < count;
        let meta = json!({ "page": self.page, "limit": self.limit, "count": count, "hasnext": hasnext });
        json!({ "data": Value::Array(data), "meta": meta })
    }
}
