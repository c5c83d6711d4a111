//! The configuration is read again.

use axum::extract::State;
use axum::{Extension, Json};
use inver_broker::AuditKind;

use crate::http::App;
use crate::http::auth::Caller;
use crate::http::problem::Problem;
use crate::reload::Report;

/// Read the configuration again; a mistake in it changes nothing.
#[utoipa::path(post, path = "/reload", tag = "node",
    responses((status = 200, body = Report), (status = 422, body = crate::http::problem::Body)))]
pub(in crate::http) async fn reload(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Report>, Problem> {
    caller.check_administers()?;
    caller.did(AuditKind::Access, "reload", "configuration", "");
    match app.node.reload.reload().await {
        Some(Ok(report)) => Ok(Json(report)),
        Some(Err(reasons)) => Err(Problem::unprocessable(reasons)),
        None => Err(Problem::unavailable("the broker is starting or stopping")),
    }
}
