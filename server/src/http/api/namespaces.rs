//! Namespaces.

use axum::Json;
use axum::extract::State;

use super::overview::NamespaceCounts;
use super::{answer, blocking};
use crate::http::App;
use crate::http::auth::Caller;
use crate::http::auth::Scope;
use crate::http::list::{Column, ListQuery, Page, Whole};
use crate::http::problem::Problem;
use crate::http::request::Name;

/// Lists the namespaces.
#[utoipa::path(get, path = "/namespaces", tag = "namespaces", params(ListQuery),
    responses((status = 200, body = Page<NamespaceCounts>)))]
pub(in crate::http) async fn list(
    State(app): State<App>,
    caller: Caller,
    query: ListQuery,
) -> Result<Page<NamespaceCounts>, Problem> {
    blocking(&app, move |app| {
        let all = app.broker.namespaces();
        let all = all.iter().filter(|namespace| caller.sees(&app.broker, namespace.name()));
        let all = all.map(|namespace| NamespaceCounts::of(app, namespace)).collect();
        let columns: &[Column<NamespaceCounts>] = &[
            ("topics", |counts| counts.topics.into()),
            ("queues", |counts| counts.queues.into()),
            ("sessions", |counts| counts.sessions.into()),
        ];
        query.page(&Whole::new(all, |counts: &NamespaceCounts| &counts.name, columns), Clone::clone)
    })
    .await
}

/// A namespace.
#[utoipa::path(get, path = "/namespaces/{name}", tag = "namespaces",
    params(("name" = String, Path, description = "The namespace's name")),
    responses((status = 200, body = NamespaceCounts)))]
pub(in crate::http) async fn get(
    State(app): State<App>,
    caller: Caller,
    Name(name): Name,
) -> Result<Json<NamespaceCounts>, Problem> {
    answer(&app, move |app| {
        let scope = Scope::of(&app.broker, &caller, Some(&name))?;
        Ok(NamespaceCounts::of(app, scope.namespace()))
    })
    .await
}
