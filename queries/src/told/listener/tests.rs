//! Whoever answers at the pipeline's address, and with whatever: it does no harm, and what is right is heard afterwards.

use std::sync::{Arc, Mutex, PoisonError};

use tjern_lake::{TableName, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

use super::*;

const SHORT: Patience = Patience { wait: Duration::ZERO, answer: Duration::from_millis(200) };
const LONG: Patience = Patience { wait: Duration::ZERO, answer: Duration::from_secs(60) };

/// What the one at the address does with a connection.
#[derive(Debug, Clone)]
enum Answer {
    /// These bytes, and the end.
    Text(String),
    /// A head, and then this for ever, once in such a time.
    Endless(&'static str, Duration),
    /// Nothing, ever.
    Silence,
}

async fn answer(mut stream: TcpStream, answer: Answer) {
    let mut head = [0; 4096];
    let _ = stream.read(&mut head).await;
    match answer {
        Answer::Text(text) => {
            let _ = stream.write_all(text.as_bytes()).await;
        }
        Answer::Endless(text, every) => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            let mut rhythm = tokio::time::interval(every);
            while stream.write_all(text.as_bytes()).await.is_ok() {
                rhythm.tick().await;
            }
        }
        Answer::Silence => std::future::pending().await,
    }
}

/// Somebody who answers in this way, until he answers in another one.
async fn somebody(with: Answer) -> (Told, Arc<Mutex<Answer>>, AbortOnDropHandle<()>) {
    let with = Arc::new(Mutex::new(with));
    let answers = Arc::clone(&with);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("bound"));
    let serving = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, answers.lock().unwrap_or_else(PoisonError::into_inner).clone()));
        }
    });
    (Told::by(address.parse().expect("an address")), with, AbortOnDropHandle::new(serving))
}

fn reply(status: &str, body: &str) -> Answer {
    Answer::Text(format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len()))
}

async fn asked(with: Answer, patience: Patience) -> Result<Telling, ListenError> {
    let (told, _, _serving) = somebody(with).await;
    let listener = Listener::new(told).expect("a client");
    timeout(patience.wait + patience.answer, ask(&listener.client, &listener.told, patience, None))
        .await
        .unwrap_or(Err(ListenError::Late))
}

fn versions() -> Versions {
    [(TableName::Readings, Version { version: 7, digest: Some(900), id: None })].into_iter().collect()
}

#[tokio::test]
async fn nonsense_is_a_failure_within_its_bounds() {
    let said = |result: Result<Telling, ListenError>| result.expect_err("that was no telling").to_string();
    for (body, part) in [
        ("<html><body>Welcome</body></html>", "cannot be read"),
        ("", "cannot be read"),
        ("[1, 2]", "cannot be read"),
        (r#"{"format":1,"state":7,"tables":{}}"#, "cannot be read"),
        (r#"{"format":9,"state":"","tables":{}}"#, "format 9"),
        (r#"{"format":1,"state":"","tables":{"readings":{"version":"7","digest":1}}}"#, "cannot be read"),
    ] {
        let said = said(asked(reply("200 OK", body), LONG).await);
        assert!(said.contains(part), "{body}: {said}");
    }
    let long = format!(r#"{{"format":1,"state":"{}","tables":{{}}}}"#, "x".repeat(STATE_BYTES_MAX + 1));
    assert!(said(asked(reply("200 OK", &long), LONG).await).contains("longer"));
    assert!(said(asked(reply("404 Not Found", "no"), LONG).await).contains("status 404"));
    assert!(said(asked(reply("302 Found\r\nLocation: http://127.0.0.1:1/", ""), LONG).await).contains("status 302"));
    assert!(said(asked(Answer::Text("SSH-2.0-OpenSSH_9.9\r\n".into()), LONG).await).contains("cannot be reached"));
    // A body without an end is read to its bound, and one that drips until its time is over.
    assert!(said(asked(Answer::Endless("[[[[[[[[[[[[[[[[", Duration::from_nanos(1)), LONG).await).contains("longer"));
    assert!(said(asked(Answer::Endless(" ", Duration::from_millis(20)), SHORT).await).contains("in time"));
    assert!(said(asked(Answer::Silence, SHORT).await).contains("in time"));
    assert_eq!(asked(reply("200 OK", &versions().tell()), LONG).await.expect("told").versions, versions());
}

/// What is at the address changes: it is forgotten, asked for again, and heard again.
#[tokio::test]
async fn what_was_told_is_forgotten_when_it_ends_and_heard_when_it_is_back() {
    let good = reply("200 OK", &versions().tell());
    let (told, answers, _serving) = somebody(good.clone()).await;
    let answer = |with| *answers.lock().unwrap_or_else(PoisonError::into_inner) = with;
    let mut heard = told.versions();
    let listening = AbortOnDropHandle::new(tokio::spawn(
        Listener::new(told.clone()).expect("a client").listen(LONG, CancellationToken::new()),
    ));
    heard.wait_for(|heard| *heard == versions()).await.expect("told");
    assert!(told.is_told());
    answer(reply("503 Service Unavailable", ""));
    heard.wait_for(|heard| *heard == Versions::default()).await.expect("forgotten");
    assert!(!told.is_told() && told.report()["reason"].is_string(), "{}", told.report());
    answer(good);
    heard.wait_for(|heard| *heard == versions()).await.expect("heard again");
    drop(listening);
}
