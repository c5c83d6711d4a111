//! Bindings, which are named by what they lead from and to, and by a key of their routing key and arguments.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use data_encoding::BASE64URL_NOPAD;
use inver_broker::{Arguments, BindDestination, BindingInfo, Namespace};
use serde_json::{Value, json};

use super::error::Fault;
use super::list::{LISTED_MAX, ListQuery};
use super::request::{Names, Object, Params, durable, operator, scope, work};
use super::vhosts::seen;
use super::{exchanges, queues};
use crate::http::App;
use crate::http::api::values::arguments_to_json;
use crate::http::auth::Caller;

/// What a binding leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum To {
    Queue,
    Exchange,
}

impl To {
    fn name(self) -> &'static str {
        match self {
            To::Queue => "queue",
            To::Exchange => "exchange",
        }
    }

    fn destination(self, name: &str) -> BindDestination<'_> {
        match self {
            To::Queue => BindDestination::Queue(name),
            To::Exchange => BindDestination::Exchange(name),
        }
    }
}

/// Which bindings are listed.
#[derive(Debug, Default)]
struct BindingFilter {
    /// Only those from this exchange.
    source: Option<String>,
    /// Only those to the queue or exchange of this name.
    destination: Option<String>,
    /// Only those to queues, or to exchanges.
    to: Option<To>,
}

/// A binding as it is listed.
struct Listed {
    vhost: String,
    source: String,
    to: To,
    destination: String,
    key: String,
    /// Whether the key is UTF-8: else it is shown with replacement characters.
    is_text: bool,
    arguments: Arguments,
}

impl Listed {
    fn of(vhost: &str, to: To, destination: &str, binding: BindingInfo) -> Listed {
        let BindingInfo { source, key, arguments, .. } = binding;
        Listed {
            vhost: vhost.to_owned(),
            source: source.name().to_owned(),
            to,
            destination: destination.to_owned(),
            key: String::from_utf8_lossy(&key).into_owned(),
            is_text: std::str::from_utf8(&key).is_ok(),
            arguments,
        }
    }

    /// The binding to the default exchange, which every queue has.
    fn of_default(vhost: &str, queue: &str) -> Listed {
        Listed {
            vhost: vhost.to_owned(),
            source: String::new(),
            to: To::Queue,
            destination: queue.to_owned(),
            key: queue.to_owned(),
            is_text: true,
            arguments: Arguments::new(),
        }
    }

    fn shown(&self) -> Value {
        json!({
            "source": self.source,
            "vhost": self.vhost,
            "destination": self.destination,
            "destination_type": self.to.name(),
            "routing_key": self.key,
            "arguments": arguments_to_json(&self.arguments),
            "properties_key": properties_key(&self.key, &self.arguments),
        })
    }
}

/// The name of a binding among those between the same two ends: its routing key, percent-encoded, and a hash of its
/// arguments; `~` without either.
fn properties_key(key: &str, arguments: &Arguments) -> String {
    let quoted = quote(key);
    if arguments.is_empty() {
        return if quoted.is_empty() { "~".to_owned() } else { quoted };
    }
    let text = Value::Object(arguments_to_json(arguments)).to_string();
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    let start = digest.as_ref().get(..6).unwrap_or_default();
    format!("{quoted}~{}", BASE64URL_NOPAD.encode(start))
}

/// Percent-encodes all but letters, digits and `-_.`; a space is `+`.
fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' ' => quoted.push('+'),
            b'-' | b'_' | b'.' => quoted.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => quoted.push(char::from(byte)),
            byte => quoted.push_str(&format!("%{byte:02X}")),
        }
    }
    quoted
}

/// Everything that a filter selects in a virtual host, the bindings to the default exchange included.
fn found(namespace: &Namespace, filter: &BindingFilter) -> Result<Vec<Listed>, Fault> {
    let vhost = namespace.name().to_string();
    let wants = |to: To| filter.to.is_none_or(|wanted| wanted == to);
    let queues = match &filter.destination {
        _ if !wants(To::Queue) => Vec::new(),
        Some(name) => namespace.queue(name).into_iter().collect(),
        None => {
            queues::listed(std::slice::from_ref(namespace))?.into_iter().map(|(_, queue)| queue).collect()
        }
    };
    let exchanges = match &filter.destination {
        _ if !wants(To::Exchange) => Vec::new(),
        Some(name) => namespace.exchange(name).into_iter().collect(),
        None => namespace.exchanges(),
    };
    let mut listed = Vec::new();
    if filter.source.as_deref().is_none_or(str::is_empty) {
        listed.extend(queues.iter().map(|queue| Listed::of_default(&vhost, queue.name())));
    }
    let mut others = Vec::new();
    let mut add = |to: To, name: &str, (bindings, has_more): (Vec<BindingInfo>, bool)| {
        let selected = bindings
            .into_iter()
            .filter(|binding| filter.source.as_deref().is_none_or(|source| source == binding.source.name()));
        others.extend(selected.map(|binding| Listed::of(&vhost, to, name, binding)));
        if has_more || others.len() > LISTED_MAX {
            return Err(Fault::bad_request(format!("there are more than {LISTED_MAX} bindings")));
        }
        Ok(())
    };
    for queue in &queues {
        add(To::Queue, queue.name(), namespace.bindings_to_queue(queue, 0, LISTED_MAX))?;
    }
    for exchange in &exchanges {
        add(To::Exchange, exchange.name(), namespace.bindings_to_exchange(exchange, 0, LISTED_MAX))?;
    }
    others.sort_by(|a, b| (&a.source, &a.destination, &a.key).cmp(&(&b.source, &b.destination, &b.key)));
    listed.extend(others);
    Ok(listed)
}

/// The bindings of a namespace that an export has: not those to the default exchange, nor to what belongs to a connection.
pub(super) fn exported(namespace: &Namespace) -> Result<Vec<Value>, Fault> {
    let lasts = |binding: &Listed| match binding.to {
        To::Exchange => true,
        To::Queue => namespace
            .queue(&binding.destination)
            .is_some_and(|queue| queue.spec().owner.is_none() && !queue.spec().hidden),
    };
    let all = found(namespace, &BindingFilter::default())?;
    let all = all.iter().filter(|binding| !binding.source.is_empty() && lasts(binding));
    Ok(all.map(Listed::shown).collect())
}

fn answer(listed: Vec<Listed>, query: &ListQuery) -> Result<Response, Fault> {
    query.answer(listed, |binding| binding.source.clone(), Listed::shown)
}

async fn filtered(
    app: App,
    caller: Caller,
    vhost: String,
    params: Params,
    filter: BindingFilter,
) -> Result<Response, Fault> {
    let query = ListQuery::of(&params)?;
    work(&app, move |app| {
        let scope = scope(app, &caller, &vhost)?;
        answer(found(scope.namespace(), &filter)?, &query)
    })
    .await
}

pub(super) async fn all(State(app): State<App>, caller: Caller, params: Params) -> Result<Response, Fault> {
    let query = ListQuery::of(&params)?;
    work(&app, move |app| {
        let mut listed = Vec::new();
        for namespace in seen(app, &caller) {
            listed.extend(found(&namespace, &BindingFilter::default())?);
        }
        answer(listed, &query)
    })
    .await
}

pub(super) async fn of_vhost(
    State(app): State<App>,
    caller: Caller,
    Names(vhost): Names<String>,
    params: Params,
) -> Result<Response, Fault> {
    filtered(app, caller, vhost, params, BindingFilter::default()).await
}

pub(super) async fn of_queue(
    State(app): State<App>,
    caller: Caller,
    Names((vhost, queue)): Names<(String, String)>,
    params: Params,
) -> Result<Response, Fault> {
    queues::find(scope(&app, &caller, &vhost)?.namespace(), &queue)?;
    filtered(app, caller, vhost, params, between(None, To::Queue, Some(queue))).await
}

pub(super) async fn of_source(
    State(app): State<App>,
    caller: Caller,
    Names((vhost, exchange)): Names<(String, String)>,
    params: Params,
) -> Result<Response, Fault> {
    let source = exchanges::find(scope(&app, &caller, &vhost)?.namespace(), &exchange)?;
    let source = source.map_or_else(String::new, |source| source.name().to_owned());
    let filter = BindingFilter { source: Some(source), ..BindingFilter::default() };
    filtered(app, caller, vhost, params, filter).await
}

pub(super) async fn of_destination_exchange(
    State(app): State<App>,
    caller: Caller,
    Names((vhost, exchange)): Names<(String, String)>,
    params: Params,
) -> Result<Response, Fault> {
    exchanges::find(scope(&app, &caller, &vhost)?.namespace(), &exchange)?;
    filtered(app, caller, vhost, params, between(None, To::Exchange, Some(exchange))).await
}

/// The name of an exchange in a path.
fn exchange_of_path(name: String) -> String {
    if name == exchanges::DEFAULT { String::new() } else { name }
}

fn between(source: Option<String>, to: To, destination: Option<String>) -> BindingFilter {
    let source = source.map(exchange_of_path);
    BindingFilter { source, destination, to: Some(to) }
}

pub(super) async fn between_queue(
    State(app): State<App>,
    caller: Caller,
    Names((vhost, source, queue)): Names<(String, String, String)>,
    params: Params,
) -> Result<Response, Fault> {
    filtered(app, caller, vhost, params, between(Some(source), To::Queue, Some(queue))).await
}

pub(super) async fn between_default_and_queue(
    State(app): State<App>,
    caller: Caller,
    Names((vhost, queue)): Names<(String, String)>,
    params: Params,
) -> Result<Response, Fault> {
    filtered(app, caller, vhost, params, between(Some(String::new()), To::Queue, Some(queue))).await
}

pub(super) async fn between_exchange(
    State(app): State<App>,
    caller: Caller,
    Names((vhost, source, exchange)): Names<(String, String, String)>,
    params: Params,
) -> Result<Response, Fault> {
    filtered(app, caller, vhost, params, between(Some(source), To::Exchange, Some(exchange))).await
}

/// The binding with this properties key.
fn find(namespace: &Namespace, filter: &BindingFilter, key: &str) -> Result<Listed, Fault> {
    let mut all = found(namespace, filter)?;
    let at = all.iter().position(|binding| properties_key(&binding.key, &binding.arguments) == key);
    at.map(|at| all.swap_remove(at)).ok_or_else(Fault::not_found)
}

type Named = (String, String, String, String);

async fn single(
    app: App,
    caller: Caller,
    (vhost, source, destination, key): Named,
    to: To,
) -> Result<Json<Value>, Fault> {
    work(&app, move |app| {
        let scope = scope(app, &caller, &vhost)?;
        let filter = between(Some(source), to, Some(destination));
        Ok(Json(find(scope.namespace(), &filter, &key)?.shown()))
    })
    .await
}

pub(super) async fn get_of_queue(
    State(app): State<App>,
    caller: Caller,
    Names(named): Names<Named>,
) -> Result<Json<Value>, Fault> {
    single(app, caller, named, To::Queue).await
}

pub(super) async fn get_of_exchange(
    State(app): State<App>,
    caller: Caller,
    Names(named): Names<Named>,
) -> Result<Json<Value>, Fault> {
    single(app, caller, named, To::Exchange).await
}

async fn bind(
    app: App,
    caller: Caller,
    (vhost, source, destination): (String, String, String),
    to: To,
    body: Object,
) -> Result<Response, Fault> {
    let location = durable(&app, move |app| {
        let scope = scope(app, &caller, &vhost)?;
        let (key, arguments) = (body.text("routing_key")?.unwrap_or_default(), body.arguments()?);
        let source = exchange_of_path(source);
        let done = operator(&scope).bind(&source, to.destination(&destination), key, &arguments)?;
        Ok((format!("{}/{}", quote(&destination), quote_key(key, &arguments)), done))
    })
    .await?;
    let mut answer = StatusCode::CREATED.into_response();
    if let Ok(location) = HeaderValue::from_str(&location) {
        answer.headers_mut().insert(header::LOCATION, location);
    }
    Ok(answer)
}

/// A properties key within a URL.
fn quote_key(key: &str, arguments: &Arguments) -> String {
    let key = properties_key(key, arguments);
    key.split('~').map(quote).collect::<Vec<_>>().join("~")
}

pub(super) async fn bind_queue(
    State(app): State<App>,
    caller: Caller,
    Names(ends): Names<(String, String, String)>,
    body: Object,
) -> Result<Response, Fault> {
    bind(app, caller, ends, To::Queue, body).await
}

pub(super) async fn bind_exchange(
    State(app): State<App>,
    caller: Caller,
    Names(ends): Names<(String, String, String)>,
    body: Object,
) -> Result<Response, Fault> {
    bind(app, caller, ends, To::Exchange, body).await
}

async fn unbind(
    app: App,
    caller: Caller,
    (vhost, source, destination, key): Named,
    to: To,
) -> Result<StatusCode, Fault> {
    durable(&app, move |app| {
        let scope = scope(app, &caller, &vhost)?;
        let source = exchange_of_path(source);
        let filter = between(Some(source.clone()), to, Some(destination.clone()));
        let binding = find(scope.namespace(), &filter, &key)?;
        if !binding.is_text {
            return Err(Fault::bad_request(
                "the routing key is not UTF-8: only an AMQP client can unbind it",
            ));
        }
        let to = to.destination(&destination);
        let done = operator(&scope).unbind(&source, to, &binding.key, &binding.arguments)?;
        Ok((StatusCode::NO_CONTENT, done))
    })
    .await
}

pub(super) async fn unbind_queue(
    State(app): State<App>,
    caller: Caller,
    Names(named): Names<Named>,
) -> Result<StatusCode, Fault> {
    unbind(app, caller, named, To::Queue).await
}

pub(super) async fn unbind_exchange(
    State(app): State<App>,
    caller: Caller,
    Names(named): Names<Named>,
) -> Result<StatusCode, Fault> {
    unbind(app, caller, named, To::Exchange).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_keys_name_routing_key_and_arguments() {
        let none = Arguments::new();
        assert_eq!(properties_key("", &none), "~");
        assert_eq!(properties_key("a.b", &none), "a.b");
        assert_eq!(properties_key("k k/%~", &none), "k+k%2F%25%7E");
        assert_eq!(quote_key("k k/%", &none), "k%2Bk%252F%2525");
        let some = Arguments::from([("k".to_owned(), inver_broker::Value::Int(1))]);
        let key = properties_key("a.b", &some);
        assert!(key.starts_with("a.b~") && key.len() == 4 + 8, "{key}");
        assert_ne!(key, properties_key("a.b", &Arguments::from([("k".into(), inver_broker::Value::Int(2))])));
    }
}
