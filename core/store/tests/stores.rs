//! One suite for every store, the faults of the one in memory, and what a check says of stores that do something wrong.
#![allow(clippy::unwrap_used, reason = "a test's own helpers")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use inver_store::testing::{Defect, Fake, Faults, Service};
use inver_store::{
    Checked, Credentials, Failure, Folder, Listed, PAGE_OBJECTS_MAX, RACERS, Refusal, S3, S3Options, Store,
    StoreError, WHOLE_BYTES_MAX, check,
};

const NO_FAULTS: Faults = Faults { busy: 0, conflict: 0, lost: 0, late: 0, never: 0 };
const FAULTS: Faults = Faults { busy: 5, conflict: 5, lost: 10, late: 10, never: 5 };

fn body(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

async fn keys(store: &dyn Store, prefix: &str, after: Option<&str>, limit: usize) -> (Vec<String>, bool) {
    let page = store.list(prefix, after, limit).await.unwrap();
    (page.objects.into_iter().map(|object| object.key).collect(), page.has_more)
}

/// What every store does.
async fn suite(store: Arc<dyn Store>) {
    let findings = check(store.clone(), "check/suite").await;
    assert_eq!(findings.len(), Checked::ALL.len());
    assert!(findings.iter().all(|finding| finding.result.is_ok()), "{findings:?}");
    assert_eq!(keys(&*store, "", None, 10).await, (vec![], false), "a check leaves nothing");

    // Names.
    for key in ["", "a//b", "../x", "a b", ".new/x"] {
        let refused = |error| matches!(error, StoreError::Refused(Refusal::Request, _));
        assert!(refused(store.get(key).await.unwrap_err()), "{key}");
        assert!(refused(store.get_range(key, 0..1).await.unwrap_err()), "{key}");
        assert!(refused(store.put(key, body("x")).await.unwrap_err()), "{key}");
        assert!(refused(store.create(key, body("x")).await.unwrap_err()), "{key}");
        assert!(refused(store.delete(key).await.unwrap_err()), "{key}");
    }

    // Bodies: empty ones, and ones of many frames.
    let long = Bytes::from(vec![7; 3 << 20]);
    for (key, body) in [("bodies/empty", Bytes::new()), ("bodies/long", long.clone())] {
        store.create(key, body.clone()).await.unwrap();
        assert_eq!(store.get(key).await.unwrap(), body);
        assert_eq!(store.create(key, body).await, Err(StoreError::AlreadyExists));
    }

    // Ranges.
    assert_eq!(store.get_range("bodies/long", 1..4).await.unwrap().len(), 3);
    assert_eq!(store.get_range("bodies/long", (3 << 20) - 1..4 << 20).await.unwrap().len(), 1);
    assert_eq!(store.get_range("absent", 0..1).await, Err(StoreError::NotFound));
    for range in [5..5, 0..WHOLE_BYTES_MAX + 1, 3 << 20..4 << 20] {
        let error = store.get_range("bodies/long", range.clone()).await.unwrap_err();
        assert!(matches!(error, StoreError::Refused(Refusal::Request, _)), "{range:?}: {error}");
    }

    // Lists: prefixes within a segment, names with equal beginnings, pages.
    for key in ["l/ab", "l/a-", "l/a.b", "l/b", "n/a/b", "m"] {
        store.put(key, body(key)).await.unwrap();
    }
    let named = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(keys(&*store, "l/a", None, 10).await.0, named(&["l/a-", "l/a.b", "l/ab"]));
    assert_eq!(keys(&*store, "n/", None, 10).await.0, named(&["n/a/b"]));
    assert_eq!(keys(&*store, "l", Some("l/a.b"), 1).await, (named(&["l/ab"]), true));
    assert_eq!(keys(&*store, "l", Some("l/ab"), 10).await, (named(&["l/b"]), false));
    assert_eq!(keys(&*store, "l", Some("l/b"), 10).await, (vec![], false));
    assert_eq!(keys(&*store, "nothing", None, usize::MAX).await, (vec![], false));
    let listed = store.list("m", None, 1).await.unwrap().objects;
    assert_eq!(listed, [Listed { key: "m".into(), bytes: 1 }]);

    // Deletes, of what is there and of what is not.
    for _ in 0..2 {
        store.delete("m").await.unwrap();
        assert_eq!(store.get("m").await, Err(StoreError::NotFound));
    }
    store.create("m", body("again")).await.unwrap();
}

#[tokio::test]
async fn a_folder_refuses_a_name_that_is_both_object_and_folder() {
    let folder = tempfile::tempdir().unwrap();
    let store = Folder::open(&folder.path().join("new/deep")).unwrap();
    store.create("a", body("x")).await.unwrap();
    store.create("b/c", body("x")).await.unwrap();
    for refused in [store.put("a/b", body("x")).await, store.create("b", body("x")).await] {
        assert!(matches!(refused, Err(StoreError::Refused(Refusal::Request, _))), "{refused:?}");
    }
    std::fs::remove_dir_all(folder.path().join("new")).unwrap();
    for refused in [store.list("", None, 1).await.map(|_| ()), store.create("d", body("x")).await] {
        assert!(matches!(refused, Err(StoreError::Refused(Refusal::Bucket, _))), "{refused:?}");
    }
}

#[tokio::test]
async fn options_that_no_header_can_hold_are_refused() {
    let service = Service::start(Arc::new(Fake::new(1, NO_FAULTS))).await.unwrap();
    let refused =
        |options: S3Options| matches!(S3::new(options), Err(StoreError::Refused(Refusal::Request, _)));
    assert!(refused(S3Options { bucket: "my bucket".into(), ..service.options() }));
    assert!(refused(S3Options { region: "a\nb".into(), ..service.options() }));
    for (access_key_id, session_token) in [("a\u{1}", None), ("a", Some("t\n".to_owned()))] {
        let credentials = Credentials {
            access_key_id: access_key_id.into(),
            session_token,
            ..service.options().credentials
        };
        assert!(refused(S3Options { credentials, ..service.options() }));
    }
}

#[tokio::test]
async fn a_store_in_memory() {
    suite(Arc::new(Fake::new(1, NO_FAULTS))).await;
}

#[tokio::test]
async fn a_bucket() {
    let service = Service::start(Arc::new(Fake::new(1, NO_FAULTS))).await.unwrap();
    suite(Arc::new(S3::new(service.options()).unwrap())).await;
}

#[tokio::test]
async fn a_bucket_without_a_prefix() {
    let service = Service::start(Arc::new(Fake::new(1, NO_FAULTS))).await.unwrap();
    suite(Arc::new(S3::new(S3Options { prefix: String::new(), ..service.options() }).unwrap())).await;
}

#[tokio::test]
async fn a_folder() {
    let folder = tempfile::tempdir().unwrap();
    suite(Arc::new(Folder::open(folder.path()).unwrap())).await;
}

#[tokio::test]
async fn folders_of_several_processes_race_for_a_name() {
    let folder = tempfile::tempdir().unwrap();
    let stores: Vec<Folder> = (0..RACERS).map(|_| Folder::open(folder.path()).unwrap()).collect();
    let created = join_all(stores.iter().map(|store| store.create("log/reg/1", body("x")))).await;
    assert_eq!(created.iter().filter(|created| created.is_ok()).count(), 1, "{created:?}");
    let left = std::fs::read_dir(folder.path().join(".new")).unwrap().count();
    assert_eq!(left, 0, "no half written file is left");
}

#[tokio::test]
async fn pages_have_a_limit() {
    let store = Fake::new(1, NO_FAULTS);
    for number in 0..=PAGE_OBJECTS_MAX {
        store.put(&format!("n/{number:04}"), Bytes::new()).await.unwrap();
    }
    let (first, has_more) = keys(&store, "n/", None, usize::MAX).await;
    assert_eq!((first.len(), has_more), (PAGE_OBJECTS_MAX, true));
    let (rest, has_more) = keys(&store, "n/", first.last().map(String::as_str), usize::MAX).await;
    assert_eq!((rest, has_more), (vec!["n/1000".to_owned()], false));
}

async fn read_surely(store: &dyn Store, key: &str) -> Bytes {
    loop {
        match store.get(key).await {
            Ok(stored) => return stored,
            Err(error) => assert!(matches!(error, StoreError::Again(_)), "{error}"),
        }
    }
}

/// Creates an object as a caller does that must know the outcome: it repeats, and reads what is there.
async fn create_surely(store: &dyn Store, key: &str, own: &Bytes) -> bool {
    loop {
        match store.create(key, own.clone()).await {
            Ok(()) => return true,
            Err(StoreError::AlreadyExists) => return read_surely(store, key).await == *own,
            Err(error) => assert!(error.is_worth_repeating(), "{error}"),
        }
    }
}

async fn faults_leave_one_winner(store: &dyn Store, key: &str) {
    let bodies: Vec<Bytes> = (0..4).map(|racer| body(&format!("racer {racer}"))).collect();
    let won = join_all(bodies.iter().map(|body| create_surely(store, key, body))).await;
    assert_eq!(won.iter().filter(|won| **won).count(), 1, "{key}: {won:?}");
}

#[tokio::test]
async fn a_caller_that_repeats_and_reads_knows_who_created_an_object() {
    for seed in 0..300 {
        let store = Fake::new(seed, FAULTS);
        faults_leave_one_winner(&store, "log/reg/1").await;
        let stored = read_surely(&store, "log/reg/1").await;
        store.settle();
        assert_eq!(read_surely(&store, "log/reg/1").await, stored, "a late create changes nothing");
    }
}

#[tokio::test]
async fn a_bucket_tells_the_faults_of_its_service_apart() {
    let faults = |of: Faults| async move {
        let service = Service::start(Arc::new(Fake::new(1, of))).await.unwrap();
        let store = S3::new(service.options()).unwrap();
        let created = store.create("x", body("x")).await;
        (created, store.get("x").await, service)
    };
    let (created, read, _service) = faults(Faults { busy: 100, ..NO_FAULTS }).await;
    assert!(matches!(created, Err(StoreError::Again(text)) if text.starts_with("503 SlowDown")));
    assert!(matches!(read, Err(StoreError::Again(_))));
    let (created, read, _service) = faults(Faults { conflict: 100, ..NO_FAULTS }).await;
    assert!(matches!(created, Err(StoreError::Conflict(text)) if text.starts_with("409 Conditional")));
    assert_eq!(read, Err(StoreError::NotFound));
    let (created, read, _service) = faults(Faults { lost: 100, ..NO_FAULTS }).await;
    assert!(matches!(created, Err(StoreError::Unknown(_))), "{created:?}");
    assert_eq!(read, Ok(body("x")));
    let (created, read, _service) = faults(Faults { never: 100, ..NO_FAULTS }).await;
    assert!(matches!(created, Err(StoreError::Unknown(_))), "{created:?}");
    assert_eq!(read, Err(StoreError::NotFound));
}

#[tokio::test]
async fn one_create_wins_in_a_bucket_whose_service_fails() {
    for seed in 0..10 {
        let service = Service::start(Arc::new(Fake::new(seed, FAULTS))).await.unwrap();
        faults_leave_one_winner(&S3::new(service.options()).unwrap(), "log/reg/1").await;
    }
}

#[tokio::test]
async fn a_bucket_says_what_must_change() {
    let service = Service::start(Arc::new(Fake::new(1, NO_FAULTS))).await.unwrap();
    let refusal = |options: S3Options| async move {
        match S3::new(options).unwrap().put("x", body("x")).await {
            Err(StoreError::Refused(refusal, _)) => refusal,
            other => panic!("{other:?}"),
        }
    };
    let bucket = S3Options { bucket: "other".into(), ..service.options() };
    assert_eq!(refusal(bucket).await, Refusal::Bucket);
    let credentials = Credentials { access_key_id: "other".into(), ..service.options().credentials };
    assert_eq!(refusal(S3Options { credentials, ..service.options() }).await, Refusal::Credentials);
    assert!(matches!(
        S3::new(S3Options { prefix: "/x/".into(), ..service.options() }),
        Err(StoreError::Refused(..))
    ));
}

#[tokio::test]
async fn a_service_that_cannot_be_reached_was_asked_nothing() {
    let service = Service::start(Arc::new(Fake::new(1, NO_FAULTS))).await.unwrap();
    // It is bound, and does not listen.
    let bound = tokio::net::TcpSocket::new_v4().unwrap();
    bound.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = bound.local_addr().unwrap().port();
    let endpoint = Some(format!("http://127.0.0.1:{port}"));
    let store = S3::new(S3Options { endpoint, ..service.options() }).unwrap();
    assert!(matches!(store.create("x", body("x")).await, Err(StoreError::Again(_))));
    let endpoint = Some(format!("https://127.0.0.1:{port}"));
    let store = S3::new(S3Options { endpoint, ..service.options() }).unwrap();
    assert!(matches!(store.create("x", body("x")).await, Err(StoreError::Again(_))));
}

#[tokio::test]
async fn a_service_that_is_silent_leaves_the_outcome_of_a_write_open() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let service = Service::start(Arc::new(Fake::new(1, NO_FAULTS))).await.unwrap();
    let endpoint = Some(format!("http://{}", silent.local_addr().unwrap()));
    let timeout = Duration::from_millis(300);
    let store = S3::new(S3Options { endpoint, timeout, ..service.options() }).unwrap();
    let (created, read) = tokio::join!(store.create("x", body("x")), store.get("x"));
    assert_eq!(created, Err(StoreError::Unknown("no answer within 300 ms".into())));
    assert_eq!(read, Err(StoreError::Again("no answer within 300 ms".into())));
}

#[tokio::test]
async fn a_check_names_what_a_store_does_wrong() {
    let cases = [
        (Defect::CreateReplaces, vec![Checked::Create, Checked::RacingCreates]),
        (Defect::RefusedCreateDeletes, vec![Checked::Create, Checked::RacingCreates]),
        (Defect::ListIsBehind, vec![Checked::List]),
        (Defect::ListFromTheStart, vec![Checked::List]),
        (Defect::RangeToTheEnd, vec![Checked::RangedGet]),
        (Defect::DeleteKeeps, vec![Checked::Delete]),
    ];
    for (defect, expected) in cases {
        let findings = check(Arc::new(Fake::with_defect(defect)), "check/x").await;
        let wrong: Vec<Checked> = findings
            .iter()
            .filter(|finding| finding.result.is_err())
            .map(|finding| finding.checked)
            .collect();
        assert_eq!(wrong, expected, "{defect:?}: {findings:?}");
    }
}

#[tokio::test]
async fn a_check_ends_where_nothing_can_be_stored() {
    let service = Service::start(Arc::new(Fake::new(1, NO_FAULTS))).await.unwrap();
    let options = S3Options { bucket: "other".into(), ..service.options() };
    let findings = check(Arc::new(S3::new(options).unwrap()), "check/x").await;
    assert_eq!(findings.len(), 1);
    let error = findings[0].result.clone();
    assert!(matches!(error, Err(Failure::Error(StoreError::Refused(Refusal::Bucket, _)))), "{error:?}");
}

#[tokio::test]
async fn a_check_is_patient_with_a_busy_store() {
    let faults = Faults { busy: 10, conflict: 10, lost: 5, ..NO_FAULTS };
    for seed in 0..5 {
        let findings = check(Arc::new(Fake::new(seed, faults)), "check/x").await;
        assert!(findings.iter().all(|finding| finding.result.is_ok()), "{seed}: {findings:?}");
    }
}
