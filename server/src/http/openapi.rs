//! The OpenAPI document (3.1) of the API, generated from the handlers.

use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use utoipa::OpenApi;
use utoipa::openapi::OpenApi as Document;

use super::{api, problem};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Inver",
        description = "Administration of the broker: what clients of every protocol created, in one model.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    servers((url = "/api/v1")),
    components(schemas(problem::Body))
)]
struct Base;

/// The document of these paths, as served.
pub(super) fn document(paths: Document) -> String {
    let mut all = Base::openapi();
    all.merge(paths);
    let mut json = serde_json::to_value(&all).unwrap_or_default();
    complete(&mut json);
    json.to_string()
}

/// Adds what every operation has: the problem that it may answer with. Takes out what an item of a list may lack.
fn complete(document: &mut Value) {
    let problem = json!({
        "description": "A problem (RFC 9457)",
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    });
    let paths = document.get_mut("paths").and_then(Value::as_object_mut);
    for operations in paths.into_iter().flat_map(|paths| paths.values_mut()) {
        for operation in operations.as_object_mut().into_iter().flat_map(|all| all.values_mut()) {
            if let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) {
                responses.insert("default".into(), problem.clone());
            }
        }
    }
    let schemas = document.pointer_mut("/components/schemas").and_then(Value::as_object_mut);
    let Some(schemas) = schemas else { return };
    // An item has the fields that `columns` names.
    let whole = schemas.clone();
    let pages = schemas.iter_mut().filter(|(name, _)| name.starts_with("Page_"));
    for item in pages.filter_map(|(_, page)| page.pointer_mut("/properties/items/items")) {
        for part in item.get_mut("allOf").and_then(Value::as_array_mut).into_iter().flatten() {
            let name = part.get("$ref").and_then(Value::as_str).and_then(|path| path.rsplit('/').next());
            if let Some(named) = name.and_then(|name| whole.get(name)) {
                *part = named.clone();
            }
            part.as_object_mut().into_iter().for_each(|part| drop(part.remove("required")));
        }
        item.as_object_mut().into_iter().for_each(|item| drop(item.remove("required")));
    }
}

/// Answers with the document, which is made then: it takes megabytes.
pub(super) async fn answer() -> Response {
    let document = || {
        let [all, open] = api::documentation();
        document(all.merge_from(open))
    };
    ([(header::CONTENT_TYPE, "application/json")], document()).into_response()
}
