//! Half a request at a listener that is told to end: a client that sends it and stays keeps no program from ending.
//!
//! The canary is the HTTP library's own listener and its own end, which waits for whoever has sent half a head.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use tjern_connections::limits::GOODBYE_MAX;
use tjern_connections::serve;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

fn routes() -> Router {
    Router::new().route("/", get(|| async { "here" }))
}

async fn listening() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    (listener, address)
}

/// Sends half of a request, and proves that others are answered after that.
async fn half_a_request(address: SocketAddr) -> TcpStream {
    let mut half = TcpStream::connect(address).await.expect("it listens");
    half.write_all(b"GET / HTTP/1.1\r\nHost: tj").await.expect("sent");
    let mut other = TcpStream::connect(address).await.expect("it listens");
    other.write_all(b"GET / HTTP/1.1\r\nHost: tjern\r\nConnection: close\r\n\r\n").await.expect("sent");
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, other.read_to_string(&mut answer)).await.expect("in time").expect("text");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("here"), "{answer}");
    half
}

async fn ends(served: JoinHandle<()>) -> bool {
    tokio::time::timeout(PATIENCE, served).await.is_ok_and(|ended| ended.is_ok())
}

/// Both are told to end at the same moment, and both clients stay. Ours has ended when the library's own has not.
#[tokio::test]
async fn half_a_request_that_stays_keeps_no_listener_from_ending() {
    let stop = CancellationToken::new();
    let (bounded, our_address) = listening().await;
    let ours = tokio::spawn(serve(bounded, routes(), stop.clone()));
    let (bare, its_address) = listening().await;
    let told = stop.clone();
    let its = tokio::spawn(async move {
        let served = axum::serve(bare, routes()).with_graceful_shutdown(told.cancelled_owned());
        served.await.expect("it listens");
    });
    let halves = [half_a_request(our_address).await, half_a_request(its_address).await];
    assert!(!GOODBYE_MAX.is_zero() && GOODBYE_MAX < PATIENCE);
    stop.cancel();
    assert!(ends(ours).await, "it waited for half a request");
    assert!(!its.is_finished(), "the canary is dead: a listener without bounds ends too");
    drop(halves);
    assert!(ends(its).await, "it waits for nothing else");
}
