//! Every store that a lake can lie in, held against the same rules; and what becomes of a lake whose store
//! breaks the one that everything stands on.
//!
//! `TJERN_STORE` names one more, as a lake's URL, reached by what the environment says: `tests/peers/clouds`
//! runs it over servers that are not ours.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use axum::http::Method;
use futures::FutureExt;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use tjern_readings::keys;
use tjern_readings::store::{LakeUrl, ProofError, Store};
use tjern_testing::conformance::{Habits, MANY, conforms};
use tjern_testing::s3::{HttpFault, S3Server};

#[tokio::test]
async fn memory_conforms() {
    let store = Store::open(&"memory:///".parse().expect("a lake")).expect("opened");
    let habits = conforms("memory", &store, MANY).await;
    assert_eq!(habits, Habits { misses_what_it_deletes: false, replaces_known_versions: true });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_conforms() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = LakeUrl::folder(&folder.path().join("not/there/yet")).expect("absolute");
    let habits = conforms("folder", &Store::open(&url).expect("opened"), MANY).await;
    assert_eq!(habits, Habits { misses_what_it_deletes: true, replaces_known_versions: false });
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_conforms() {
    let server = S3Server::start(100).await;
    let habits = conforms("S3", &server.store("a/lake"), MANY).await;
    assert_eq!(habits, Habits { misses_what_it_deletes: false, replaces_known_versions: true });
}

/// Google's client against our reading of Google's words: no server of others that knows its conditions could be had.
#[tokio::test(flavor = "multi_thread")]
async fn google_conforms() {
    let server = S3Server::start(100).await;
    let habits = conforms("Google", &server.google_store("a/lake"), MANY).await;
    assert_eq!(habits, Habits { misses_what_it_deletes: false, replaces_known_versions: true });
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_of_the_environment_conforms() {
    let Ok(url) = std::env::var("TJERN_STORE") else {
        println!("SKIPPED: TJERN_STORE names no store (tests/peers/clouds/run does)");
        return;
    };
    let store = Store::open(&url.parse().expect("a lake")).expect("opened");
    println!("{url}: {:?}", conforms(&url, &store, MANY).await);
}

/// Without the refusal of a second create two pipelines commit under one number, and the rows of one are
/// gone. Such a store is found out at the start, before anything is written; and it is the canary of the
/// rules, which must notice it too.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_overlooks_conditions_is_refused() {
    let server = S3Server::start(100).await;
    server.overlook_conditions();
    let store = server.store("lake");
    let key = keys::jobs_proof();
    let refused = store.prove_create_only(&key).await.expect_err("it takes everything");
    assert!(matches!(refused, ProofError::NotCreateOnly { .. }), "{refused}");
    assert_eq!(
        refused.to_string(),
        "the store of the lake `s3://bucket/lake/` does not refuse to create `jobs/create-only` a second time: two who \
         write at once would overwrite one another's batches and commits; hint: use a store that honours \
         `If-None-Match: *` (and set no AWS_CONDITIONAL_PUT), or a folder on a disk"
    );
    assert!(store.prove_create_only(&key).await.is_err(), "nor does it pass the next time");
    let judged = AssertUnwindSafe(conforms("a careless store", &store, 10)).catch_unwind().await;
    assert!(judged.is_err(), "the rules do not notice a store that takes every create");
}

/// The proof is paid for at each start: two puts the first time, one ever after.
#[tokio::test(flavor = "multi_thread")]
async fn the_proof_costs_two_puts_once_and_one_after() {
    let server = S3Server::start(100).await;
    let store = server.store("lake");
    for (puts, so_far) in [(2, 2), (1, 3), (1, 4)] {
        assert_eq!(store.prove_create_only(&keys::jobs_proof()).await.expect("proven"), puts);
        assert_eq!(server.count(&Method::PUT), so_far);
    }
    assert_eq!(server.count(&Method::GET) + server.count(&Method::DELETE), 0);
}

/// A store that cannot be asked has proven nothing: what it says is told, and not a verdict.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_is_not_called_careless() {
    let server = S3Server::start(100).await;
    server.fail(&Method::PUT, [HttpFault::Refused(403)]);
    let refused = server.store("lake").prove_create_only(&keys::jobs_proof()).await.expect_err("refused");
    assert!(matches!(refused, ProofError::Open { hint: Some(_), .. }), "{refused}");
    let switched_off = server.access(None).with_variables([("aws_conditional_put".into(), "disabled".into())]);
    let store = Store::open_with(&server.lake("lake"), &switched_off).expect("opened");
    let refused = store.prove_create_only(&keys::jobs_proof()).await.expect_err("switched off");
    assert!(matches!(refused, ProofError::NotCreateOnly { .. }), "{refused}");
}

/// What a client of an S3 store does by itself with each fault of a line or a server, request by request:
/// the object is there once, whole, and what was not done is told.
#[tokio::test(flavor = "multi_thread")]
async fn faults_of_http_lose_and_tear_nothing() {
    let server = S3Server::start(100).await;
    let patient_for = |limit| {
        let access = server.access(Some(Duration::from_secs(limit)));
        Store::open_with(&server.lake("lake"), &access).expect("opened").objects()
    };
    // What answers is waited for, however busy the machine is; what never does, not for long.
    let (patient, hasty) = (patient_for(60), patient_for(3));
    let stall = HttpFault::Stall(Duration::from_secs(3_600));
    let of = |fault| if fault == stall { &hasty } else { &patient };
    let text = "a text that is long enough to be cut".repeat(10);
    let passing = [
        HttpFault::Refused(500),
        HttpFault::Refused(503),
        HttpFault::RefusedAfter(500),
        HttpFault::TooMany { retry_after_s: 1 },
        HttpFault::ResetBefore,
        HttpFault::ResetAfter,
        stall,
        HttpFault::Refused(409),
    ];
    for (number, fault) in passing.into_iter().enumerate() {
        let key = Path::from(format!("put/{number}"));
        server.fail(&Method::PUT, [fault]);
        let payload = PutPayload::from(text.clone().into_bytes());
        let put = of(fault).put_opts(&key, payload, PutMode::Create.into()).await;
        assert_eq!(server.faults_left(), 0, "{fault:?}");
        let there = match patient.get(&key).await {
            Ok(found) => Some(found.bytes().await.expect("read")),
            Err(Error::NotFound { .. }) => None,
            Err(error) => panic!("{fault:?}: {error}"),
        };
        assert!(there.as_ref().is_none_or(|there| *there == text), "{fault:?}: torn");
        match &put {
            Ok(_) => assert!(there.is_some(), "{fault:?}: it was told that the object is there"),
            // Not to be believed by anybody: 409 is told in the same words while nothing is there.
            Err(Error::AlreadyExists { .. }) => {}
            Err(_) => assert!(!matches!(fault, HttpFault::Refused(500 | 503)), "{fault:?}: it was not tried again"),
        }
        println!("put with {fault:?}: {}, {}", told(&put), if there.is_some() { "there" } else { "not there" });
    }
    let key = Path::from("get/one");
    patient.put(&key, PutPayload::from(text.clone().into_bytes())).await.expect("put");
    let reading = [HttpFault::Refused(503), HttpFault::ResetBefore, HttpFault::ResetMidway, stall];
    for fault in reading {
        server.fail(&Method::GET, [fault]);
        let read = async { of(fault).get(&key).await?.bytes().await }.await;
        println!("get with {fault:?}: {}", told(&read));
        assert!(read.as_ref().is_ok_and(|there| *there == text), "{fault:?}: {read:?}");
    }
    server.fail(&Method::GET, [HttpFault::Halved]);
    let range = patient.get_range(&key, 3..9).await;
    assert!(range.is_err(), "an answer that is no range was taken for one: {range:?}");
}

fn told<T>(result: &Result<T, Error>) -> String {
    match result {
        Ok(_) => "told that it was done".to_owned(),
        Err(Error::AlreadyExists { .. }) => "told that it exists".to_owned(),
        Err(_) => "told that it failed".to_owned(),
    }
}
