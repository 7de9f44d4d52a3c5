//! What a folder's store does besides what every store must (`tests/stores.rs`), and what a lake's URL may be.

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, PutMode, PutPayload};

use super::*;

fn put_payload(text: &'static str) -> PutPayload {
    PutPayload::from_static(text.as_bytes())
}

/// Two gateways with one name must not overwrite one another's batch: of many puts of one key at
/// once, one is first.
#[tokio::test]
async fn of_many_creators_one_wins() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(&LakeUrl::folder(folder.path()).expect("absolute")).expect("opened");
    let key = Path::from("landing/x");
    let puts = (0..32).map(|_| {
        let (objects, key) = (store.objects(), key.clone());
        async move { objects.put_opts(&key, put_payload("mine"), PutMode::Create.into()).await.is_ok() }
    });
    let won = futures::future::join_all(puts).await;
    assert_eq!(won.into_iter().filter(|won| *won).count(), 1);
    for (place, files) in [("landing", 1), (".staged", 0)] {
        let entries = std::fs::read_dir(folder.path().join(place)).expect("a folder").flatten();
        let left: Vec<_> = entries.filter(|entry| entry.path().is_file()).collect();
        assert_eq!(left.len(), files, "files under way were left behind in {place}");
    }
}

/// A process that is killed while it writes leaves its file; somebody has to take it away.
#[tokio::test]
async fn what_a_killed_process_left_is_removed_a_day_later() {
    let folder = tempfile::tempdir().expect("a folder");
    let staged = folder.path().join(".staged");
    std::fs::create_dir(&staged).expect("a folder");
    for (name, age_s) in [("1#1", 2 * 86_400), ("1#2", 60)] {
        let file = std::fs::File::create(staged.join(name)).expect("a file");
        let now_us = u64::try_from(crate::clock::Clock::system().now_us()).expect("after 1970");
        let then =
            std::time::UNIX_EPOCH + std::time::Duration::from_micros(now_us) - std::time::Duration::from_secs(age_s);
        file.set_modified(then).expect("set");
    }
    let store = Store::open(&LakeUrl::folder(folder.path()).expect("absolute")).expect("opened");
    assert!(!staged.join("1#1").exists() && staged.join("1#2").exists());
    let listed: Vec<_> = store.objects().list(None).try_collect().await.expect("listed");
    assert_eq!(listed.len(), 0, "{listed:?}");
}

#[test]
fn a_lakes_url_is_absolute_and_holds_no_secret() {
    for text in ["file:///var/lib/tjern/lake", "s3://bucket/prefix", "az://container/a/b", "gs://bucket", "memory:///"]
    {
        let url: LakeUrl = text.parse().expect(text);
        assert!(url.to_string().ends_with('/'), "{url}");
    }
    for text in ["", "lake", "/var/lake", "file://lake", "ftp://host/x", "s3:///prefix", "http://x/y"] {
        assert!(text.parse::<LakeUrl>().is_err(), "{text} was accepted");
    }
    let error = "s3://key:hunter2@bucket/x?secret=hunter2".parse::<LakeUrl>().expect_err("credentials");
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

fn access(endpoint: &str, allow_http: &str) -> Access {
    let variables = [
        ("AWS_ENDPOINT", endpoint),
        ("AWS_ALLOW_HTTP", allow_http),
        ("AWS_ACCESS_KEY_ID", "nobody"),
        ("AWS_SECRET_ACCESS_KEY", "none"),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Access::default().with_variables(variables)
}

/// A listing fails with these variables: the error's text, and what a person is told to do.
async fn failure(endpoint: &str, allow_http: &str) -> (String, String) {
    let access = access(endpoint, allow_http);
    let store = Store::open_with(&"s3://lake/here".parse().expect("a lake"), &access).expect("opened");
    let error = store.objects().list(None).try_next().await.expect_err("nobody answers as a store does");
    (error.to_string(), hint(&error).unwrap_or_default().to_owned())
}

/// A certificate that ended, a port that is wrong and a cable that is out were one text: “error sending request; is the
/// network up?”, and the technician looked for a cable.
#[tokio::test]
async fn an_error_tells_what_went_wrong_and_what_to_do() {
    let silent = tjern_testing::ports::SilentPort::take();
    let (text, told) = failure(&format!("http://{}", silent.address()), "true").await;
    assert!(text.contains("Connection refused") && told.contains("nobody listens there"), "{text}; {told}");

    let (text, told) = failure(&format!("http://{}", silent.address()), "false").await;
    assert!(text.contains("URL scheme is not allowed") && told.contains("AWS_ALLOW_HTTP=true"), "{text}; {told}");

    let plain = axum::serve(tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound"), axum::Router::new());
    let address = plain.local_addr().expect("an address");
    let serving = tokio::spawn(plain.into_future());
    let (text, told) = failure(&format!("https://{address}"), "false").await;
    assert!(told.contains("does not speak TLS there"), "{text}; {told}");
    serving.abort();
}

/// A gateway that kept to a rate had its batch put five times in a row by the cloud's client, and counted one.
#[tokio::test]
async fn who_keeps_to_a_rate_is_told_of_each_request() {
    let requests = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    let busy = axum::Router::new().fallback(move || {
        counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        async { axum::http::StatusCode::SERVICE_UNAVAILABLE }
    });
    let server = axum::serve(tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound"), busy);
    let endpoint = format!("http://{}", server.local_addr().expect("an address"));
    let serving = tokio::spawn(server.into_future());
    for (asks_once, expected) in [(true, 1), (false, 5)] {
        let access = access(&endpoint, "true").asking_once(asks_once);
        let store = Store::open_with(&"s3://lake/here".parse().expect("a lake"), &access).expect("opened");
        let key = Path::from("landing/x");
        let put = store.objects().put_opts(&key, put_payload("a batch"), PutMode::Create.into()).await;
        put.expect_err("it is busy");
        assert_eq!(requests.swap(0, std::sync::atomic::Ordering::Relaxed), expected);
    }
    serving.abort();
}
