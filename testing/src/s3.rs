//! An S3 server in the test's own process, over HTTP on loopback, as far as a lake needs one.
//!
//! It knows what `object_store` asks: put (with `If-None-Match: *` and `If-Match`), get with a range, head,
//! copy, delete of one and of many, listings (version 2) in pages, uploads in parts. It keeps objects in memory,
//! under one bucket, in the order of their keys, and answers in S3's words. Requests have to name its access
//! key; signatures are not checked, and nothing of versions, rights, tags or encryption is known.
//!
//! Google's client speaks to it too, since the two protocols differ in little but the names of their headers.
//!
//! It fails on order ([`S3Server::fail`]), in the ways of servers and lines ([`HttpFault`]), and can be made
//! one that overlooks conditions, as some stores do. It is our own reading of the protocol: that `object_store`
//! and servers of others agree is shown by the same rules over moto, in `tests/peers`.
//!
//! Reference: Amazon S3 API Reference, 2006-03-01; Google Cloud Storage, XML API.

mod answer;
mod fault;
mod listing;
mod objects;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{HeaderMap, Method, Uri};
use axum::response::Response;
use object_store::path::Path;
use tjern_readings::store::{Access, LakeUrl, Store};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use answer::{Reply, refused};
pub use fault::HttpFault;
use fault::{Echo, Storm};
use objects::{COPY_SOURCES, Objects};

/// The one bucket.
const BUCKET: &str = "bucket";
const KEY_ID: &str = "AKIATJERNTEST";

/// How long a client waits for an answer, unless it is told otherwise.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server that runs until it is dropped.
#[derive(Debug)]
pub struct S3Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

/// What the requests share.
#[derive(Debug, Default)]
struct Shared {
    objects: Mutex<Objects>,
    faults: Mutex<HashMap<Method, VecDeque<HttpFault>>>,
    storm: Mutex<Option<Storm>>,
    echo: Mutex<Option<Echo>>,
    /// How many requests failed.
    failed: AtomicU64,
    counts: Mutex<BTreeMap<String, u64>>,
    overlooks_conditions: AtomicBool,
    lets_anybody_in: AtomicBool,
}

/// A request, as far as it matters.
#[derive(Debug)]
struct Request {
    method: Method,
    /// Empty where the bucket itself is meant.
    key: String,
    query: HashMap<String, String>,
    headers: HeaderMap,
    body: Bytes,
}

impl S3Server {
    /// Starts a server whose listings have pages of so many keys.
    ///
    /// # Panics
    /// Where no port can be had.
    pub async fn start(page: usize) -> Self {
        let shared = Arc::new(Shared { objects: Mutex::new(Objects::new(page)), ..Shared::default() });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let router = Router::new().fallback(serve).layer(DefaultBodyLimit::disable()).with_state(Arc::clone(&shared));
        let serving = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Self { address, shared, serving }
    }

    /// From now on conditions of puts are overlooked, and each put is taken.
    pub fn overlook_conditions(&self) {
        self.shared.overlooks_conditions.store(true, Ordering::Relaxed);
    }

    /// From now on they are kept again.
    pub fn mind_conditions(&self) {
        self.shared.overlooks_conditions.store(false, Ordering::Relaxed);
    }

    /// The next requests of a method fail, each in one way, in this order; repeated requests count.
    pub fn fail(&self, method: &Method, faults: impl IntoIterator<Item = HttpFault>) {
        locked(&self.shared.faults).entry(method.clone()).or_default().extend(faults);
    }

    /// From now on `per_mille` of a thousand requests fail, by a seed; none where that is 0.
    pub fn storm(&self, seed: u64, per_mille: u64) {
        *locked(&self.shared.storm) = (per_mille > 0).then(|| Storm::new(seed, per_mille));
    }

    /// After so many more requests each is answered with this status, and with all that it brought as the answer's text:
    /// what let it in, too.
    pub fn echo_after(&self, requests: u64, status: u16) {
        *locked(&self.shared.echo) = Some(Echo { requests, status });
    }

    /// From now on it is well again.
    pub fn echo_no_more(&self) {
        *locked(&self.shared.echo) = None;
    }

    /// How many requests failed so far.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.shared.failed.load(Ordering::Relaxed)
    }

    /// How many faults are still to come.
    #[must_use]
    pub fn faults_left(&self) -> usize {
        locked(&self.shared.faults).values().map(VecDeque::len).sum()
    }

    /// How many requests of a method have come, the failed ones too.
    #[must_use]
    pub fn count(&self, method: &Method) -> u64 {
        locked(&self.shared.counts).get(method.as_str()).copied().unwrap_or_default()
    }

    /// The same, of each method by its name.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<String, u64> {
        locked(&self.shared.counts).clone()
    }

    /// How to reach it, with requests that may take so long.
    #[must_use]
    pub fn access(&self, patience: Option<Duration>) -> Access {
        Access::default().with_variables(self.variables()).with_timeout(patience.unwrap_or(PATIENCE))
    }

    /// The same as variables of an environment.
    #[must_use]
    pub fn variables(&self) -> Vec<(String, String)> {
        let variables = [
            ("AWS_ENDPOINT", format!("http://{}", self.address)),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_REGION", "eu-north-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", KEY_ID.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "secret-of-a-test".to_owned()),
        ];
        variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// A store in it by Google's client, which speaks the same language with conditions of its own (Cloud Storage
    /// XML API). From now on nobody needs a key: without a server for tokens that client brings none.
    ///
    /// # Panics
    /// Where it cannot be opened.
    #[must_use]
    pub fn google_store(&self, prefix: &str) -> Store {
        self.shared.lets_anybody_in.store(true, Ordering::Relaxed);
        let account = format!(
            r#"{{"private_key": "none", "private_key_id": "none", "client_email": "none", "disable_oauth": true, "gcs_base_url": "http://{}"}}"#,
            self.address
        );
        let variables = [("google_service_account_key", account), ("google_allow_http", "true".to_owned())];
        let variables = variables.into_iter().map(|(name, value)| (name.to_owned(), value));
        let access = Access::default().with_variables(variables).with_timeout(PATIENCE);
        let url: LakeUrl = format!("gs://{BUCKET}/{prefix}").parse().expect("a lake");
        Store::open_with(&url, &access).expect("opened")
    }

    /// A lake in it.
    ///
    /// # Panics
    /// Where the prefix makes no URL.
    #[must_use]
    pub fn lake(&self, prefix: &str) -> LakeUrl {
        format!("s3://{BUCKET}/{prefix}").parse().expect("a lake")
    }

    /// A store in it, opened as every program of Tjern opens one.
    ///
    /// # Panics
    /// Where it cannot be opened.
    #[must_use]
    pub fn store(&self, prefix: &str) -> Store {
        Store::open_with(&self.lake(prefix), &self.access(None)).expect("opened")
    }
}

impl Shared {
    /// What befalls the next request of a method: what was ordered for it, then what the storm brings.
    fn fault(&self, method: &Method) -> Option<HttpFault> {
        let ordered = locked(&self.faults).get_mut(method).and_then(VecDeque::pop_front);
        let is_read = matches!(*method, Method::GET | Method::HEAD);
        let fault = ordered.or_else(|| locked(&self.storm).as_mut().and_then(|storm| storm.next(is_read)));
        self.failed.fetch_add(u64::from(fault.is_some()), Ordering::Relaxed);
        fault
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    *locked(&shared.counts).entry(method.as_str().to_owned()).or_default() += 1;
    let echoed = locked(&shared.echo).as_mut().and_then(Echo::next);
    if let Some(status) = echoed {
        shared.failed.fetch_add(1, Ordering::Relaxed);
        return fault::echo(status, &method, &uri, &headers);
    }
    let knows_us = headers.get("authorization").and_then(|value| value.to_str().ok());
    let named = format!("Credential={KEY_ID}/");
    let is_let_in = shared.lets_anybody_in.load(Ordering::Relaxed) || knows_us.is_some_and(|it| it.contains(&named));
    if !is_let_in {
        return refused(403, "AccessDenied", "no access key that is known").into_response();
    }
    let Some(key) = key_of(uri.path()) else {
        return refused(404, "NoSuchBucket", "there is one bucket only").into_response();
    };
    let request = Request { method, key, query, headers, body };
    let fault = shared.fault(&request.method);
    fault::answer(fault, || perform(&shared, &request)).await
}

/// The key in a path; `None` where the bucket is another one.
fn key_of(path: &str) -> Option<String> {
    let path = Path::from_url_path(path).ok()?;
    let text = path.as_ref();
    let rest = text.strip_prefix(BUCKET)?;
    if rest.is_empty() { Some(String::new()) } else { rest.strip_prefix('/').map(str::to_owned) }
}

/// Does what is asked.
fn perform(shared: &Shared, request: &Request) -> Reply {
    let mut objects = locked(&shared.objects);
    let has = |name: &str| request.query.contains_key(name);
    let minds = !shared.overlooks_conditions.load(Ordering::Relaxed);
    match request.method {
        Method::GET if request.key.is_empty() => listing::list(&objects, &request.query),
        Method::GET | Method::HEAD => objects.read(request),
        Method::PUT if has("partNumber") => objects.put_part(request),
        Method::PUT if COPY_SOURCES.iter().any(|name| request.headers.contains_key(*name)) => objects.copy(request),
        Method::PUT => objects.put(request, minds),
        Method::POST if has("uploads") => objects.begin_parts(request),
        Method::POST if has("uploadId") => objects.complete_parts(request),
        Method::POST if has("delete") => objects.delete_many(request),
        Method::DELETE if has("uploadId") => objects.abort_parts(request),
        Method::DELETE => objects.delete(request),
        _ => refused(501, "NotImplemented", "no such request is known here"),
    }
}
