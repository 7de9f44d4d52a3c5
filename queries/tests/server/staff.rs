//! The staff's door: who is let in, what SQL is answered, how the server ends.

use tjern_queries::{ServeError, Server, Tokens};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::city::{City, Served, TOKEN, registry_with_a_guest};
use crate::client::{Reply, get, request, send};

pub(crate) async fn ask(served: &Served, sql: &str) -> Reply {
    let authorization = format!("Bearer {TOKEN}");
    request(served.staff, "POST", "/api/sql", &[("Authorization", &authorization)], sql).await
}

#[tokio::test]
async fn sql_is_for_those_with_a_token() {
    let city = City::drammen().await;
    let served = city.serve().await;
    for authorization in ["", "Bearer", "Bearer ", "Bearer wrong", "Basic 0123456789abcdef0123", "0123456789abcdef0123"]
    {
        let headers = [("Authorization", authorization)];
        let headers = if authorization.is_empty() { &[][..] } else { &headers[..] };
        let reply = request(served.staff, "POST", "/api/sql", headers, "SELECT 1").await;
        assert_eq!(reply.status, 401, "{authorization}: {reply:?}");
        assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
        assert!(reply.json()["hint"].is_string());
    }
    let reply = ask(&served, "SELECT value FROM readings WHERE sensor = 'depot/energy'").await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "[{\"value\":4711.5}]\n"));

    let nobody = city.serve_with(|settings| settings.tokens = Tokens::none()).await;
    let reply = ask(&nobody, "SELECT 1").await;
    assert!(reply.status == 401 && reply.body.contains("[serve] tokens"), "{reply:?}");
}

#[tokio::test]
async fn sql_comes_as_text_or_json_and_goes_as_json_or_csv() {
    let city = City::drammen().await;
    let served = city.serve().await;
    let authorization = format!("Bearer {TOKEN}");
    let post = async |path: &str, more: (&str, &str), body: &str| {
        request(served.staff, "POST", path, &[("authorization", &authorization), more], body).await
    };
    let json = ("Content-Type", "application/json");
    assert_eq!(post("/api/sql", json, r#"{"sql": "SELECT 1 AS a"}"#).await.body, "[{\"a\":1}]\n");
    assert_eq!(post("/api/sql?format=csv", json, r#"{"sql": "SELECT 1 AS a"}"#).await.body, "a\n1\n");
    assert_eq!(post("/api/sql", ("Accept", "text/csv"), "SELECT 1 AS a WHERE 1 = 2").await.body, "a\n");
    for (path, kind, body) in [
        ("/api/sql", json, "{"),
        ("/api/sql", json, r#"{"query": "SELECT 1"}"#),
        ("/api/sql?format=xml", ("X-A", "b"), "SELECT 1"),
        ("/api/sql?q=SELECT", ("X-A", "b"), "SELECT 1"),
        ("/api/sql", ("X-A", "b"), ""),
    ] {
        let reply = post(path, kind, body).await;
        assert!(reply.status == 400 && reply.json()["hint"].is_string(), "{path} {body}: {reply:?}");
    }
    let large = post("/api/sql", ("X-A", "b"), &"x".repeat((1 << 20) + 1)).await;
    assert_eq!(large.status, 413, "{large:?}");
    assert_eq!(get(served.staff, "/api/sql").await.status, 405);
}

/// Whatever is asked, nothing is written, and nothing outside of the lake's tables is read.
#[tokio::test]
async fn hostile_sql_is_refused() {
    let city = City::drammen().await;
    let secret = city.folder().join("secret.csv");
    std::fs::write(&secret, "a\nTOP-SECRET\n").expect("written");
    let (secret, out) = (secret.display(), city.folder().join("out.csv"));
    let served = city.serve().await;
    for sql in [
        format!("SELECT * FROM '{secret}'"),
        format!("SELECT * FROM \"{secret}\""),
        format!("SELECT * FROM \"file://{secret}\""),
        format!("SELECT * FROM read_csv('{secret}')"),
        format!("SELECT * FROM csv_scan('{secret}')"),
        format!("SELECT pg_read_file('{secret}')"),
        format!("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '{secret}'"),
        format!("EXPLAIN ANALYZE CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '{secret}'"),
        format!("COPY readings TO '{}'", out.display()),
        format!("COPY (SELECT 1) TO '{}' STORED AS CSV", out.display()),
        format!("EXPLAIN ANALYZE COPY (SELECT 1) TO '{}'", out.display()),
        format!("WITH a AS (SELECT 1) SELECT * INTO b FROM a; SELECT * FROM '{secret}'"),
        "SELECT * FROM '/etc/passwd'".to_owned(),
        "INSERT INTO readings SELECT * FROM readings".to_owned(),
        "DELETE FROM readings".to_owned(),
        "UPDATE readings SET value = 0".to_owned(),
        "DROP TABLE readings".to_owned(),
        "DROP VIEW observations".to_owned(),
        "CREATE OR REPLACE VIEW observations AS SELECT 1".to_owned(),
        "CREATE SCHEMA s".to_owned(),
        "CREATE DATABASE d".to_owned(),
        "SET datafusion.execution.target_partitions = 1".to_owned(),
        "PREPARE p AS SELECT 1".to_owned(),
        "BEGIN; SELECT 1".to_owned(),
        "SELECT 1; DROP TABLE readings".to_owned(),
        "SELECT * FROM all_readings".to_owned(),
        format!("SELECT {}1{}", "(".repeat(3000), ")".repeat(3000)),
    ] {
        let reply = ask(&served, &sql).await;
        assert!([400, 403].contains(&reply.status), "{sql}: {reply:?}");
        assert!(!reply.body.contains("TOP-SECRET") && !reply.body.contains("root:"), "{sql}: {reply:?}");
        assert!(reply.json()["hint"].is_string(), "{sql}: {reply:?}");
    }
    assert!(!out.exists(), "something was written");
    let reply = ask(&served, "SELECT count(*) AS n FROM observations").await;
    assert_eq!(reply.status, 200, "it still answers: {reply:?}");
}

#[tokio::test]
async fn an_answer_too_large_is_an_error_and_not_a_part_of_it() {
    let served = City::empty().serve().await;
    let reply = ask(&served, "SELECT * FROM generate_series(1, 1000001)").await;
    assert!(reply.status == 413 && reply.body.contains("1000000 rows"), "{reply:?}");
}

/// A text of some kilobytes once ended the process: a stack that overflows cannot be caught.
#[tokio::test]
async fn a_chain_without_end_is_refused_and_the_server_goes_on() {
    let city = City::drammen().await;
    let served = city.serve().await;
    for (start, link, count, status) in [
        ("SELECT 1", "+1", 30_000, 400),
        ("SELECT 1", "+1", 40_000, 413),
        ("SELECT 1 WHERE 1=1", " OR 1=2", 8_000, 400),
        ("SELECT 1", " UNION ALL SELECT 1", 3_000, 400),
        ("SELECT 1 FROM sites a", ", sites", 3_000, 400),
    ] {
        let sql = format!("{start}{}", link.repeat(count));
        let reply = ask(&served, &sql).await;
        assert_eq!(reply.status, status, "{link}: {reply:?}");
        assert!(reply.json()["hint"].is_string(), "{link}: {reply:?}");
    }
    let reply = ask(&served, &format!("SELECT count(*) FROM observations WHERE 1=1{}", " OR 1=2".repeat(60))).await;
    assert_eq!(reply.status, 200, "what people write is answered: {reply:?}");
}

/// Constants are computed while a query is planned, and no memory limit counts them.
#[tokio::test]
async fn functions_that_make_much_of_little_are_not_there() {
    let city = City::drammen().await;
    let served = city.serve().await;
    for (name, arguments) in [
        ("repeat", "'x', 700000000"),
        ("lpad", "'x', 700000000"),
        ("rpad", "'x', 700000000"),
        ("array_repeat", "1, 700000000"),
        ("list_repeat", "1, 700000000"),
        ("array_resize", "[1], 700000000"),
        ("list_resize", "[1], 700000000"),
        ("range", "1, 700000000"),
        ("generate_series", "1, 700000000"),
    ] {
        let reply = ask(&served, &format!("SELECT {name}({arguments})")).await;
        assert!(reply.status == 400 && reply.body.contains(name), "{name}: {} {}", reply.status, reply.head);
    }
    let reply = ask(&served, "SELECT count(*) AS n FROM generate_series(1, 1000)").await;
    assert_eq!(reply.body, "[{\"n\":1000}]\n", "rows are made as they are asked for");
}

/// Half requests of one peer leave places for everybody's whole ones.
#[tokio::test]
async fn one_peer_does_not_take_every_place() {
    let city = City::drammen().await;
    let served = city.serve().await;
    let mut half = Vec::new();
    for _ in 0..tjern_connections::limits::CONNECTIONS_OF_LOOPBACK_MAX {
        let mut stream = tokio::net::TcpStream::connect(served.public).await.expect("it listens");
        stream.write_all(b"GET / HT").await.expect("sent");
        half.push(stream);
    }
    let mut one_more = tokio::net::TcpStream::connect(served.public).await.expect("the system takes it");
    let (mut answer, mut of_half) = (Vec::new(), Vec::new());
    let patience = std::time::Duration::from_secs(60);
    // One that was taken would be ended after the first half ones, which have waited longer.
    let ended = async {
        tokio::select! {
            biased;
            ended = one_more.read_to_end(&mut answer) => ended,
            half = half[0].read_to_end(&mut of_half) => panic!("half a request was ended first: {half:?}"),
        }
    };
    let ended = tokio::time::timeout(patience, ended).await;
    assert!(ended.is_ok() && answer.is_empty(), "one connection too many is ended at once: {ended:?}");
    // Nobody waits longer than for a head: then there are places again.
    let freed = tokio::time::timeout(patience, half[0].read_to_end(&mut answer));
    freed.await.expect("half a request is ended").expect("closed");
    let health = request(served.public, "GET", "/health", &[], "").await;
    assert_eq!(health.status, 200, "{health:?}");
}

#[tokio::test]
async fn tools_find_their_way() {
    let city = City::drammen().await;
    let served = city.serve().await;
    for sql in ["SHOW TABLES", "DESCRIBE observations", "EXPLAIN SELECT * FROM latest", "SHOW COLUMNS FROM sites"] {
        assert_eq!(ask(&served, sql).await.status, 200, "{sql}");
    }
    let wrong = ask(&served, "SELECT * FROM reedings").await;
    assert!(wrong.status == 400 && wrong.body.contains("reedings") && wrong.body.contains("SHOW TABLES"), "{wrong:?}");
}

#[tokio::test]
async fn metrics_and_health_are_for_the_staffs_network() {
    let city = City::drammen().await;
    let served = city
        .serve_with(|settings| {
            settings.metrics = registry_with_a_guest();
            settings.status = Some(std::sync::Arc::new(|| serde_json::json!({ "ingest": "ok" })));
        })
        .await;
    get(served.public, "/").await;
    get(served.public, "/no/such/path").await;
    let metrics = get(served.staff, "/metrics").await;
    for part in [
        "tjern_http_requests_total{listener=\"public\",route=\"/\",status=\"200\"} 1",
        "tjern_http_requests_total{listener=\"public\",route=\"other\",status=\"404\"} 1",
        "tjern_http_request_duration_seconds_count",
        "tjern_newest_reading_age_seconds 4.0",
        "tjern_guest_total 0",
        "tjern_commits_told 0",
        "# EOF",
    ] {
        assert!(metrics.body.contains(part), "no {part:?} in {}", metrics.body);
    }
    let health = get(served.staff, "/health").await.json();
    assert_eq!((&health["status"], &health["parts"]["ingest"]), (&"ok".into(), &"ok".into()));
    assert_eq!(health["newest_reading_age_s"], 4);
    assert_eq!(health["commits"], serde_json::json!({ "how": "asked" }));
    for path in ["/", "/sted/landfalltjern", "/api/latest", "/api/query/latest"] {
        assert_eq!(get(served.staff, path).await.status, 404, "{path}");
    }
}

/// Nobody is at the pipeline's address: the pages are there all the same, and the staff sees why they may be older.
#[tokio::test]
async fn a_pipeline_that_cannot_be_reached_is_told_and_keeps_nobody_waiting() {
    let city = City::drammen().await;
    let nobody = "http://127.0.0.1:1".parse().expect("an address");
    let served = city.serve_with(|settings| settings.pipeline = Some(nobody)).await;
    assert_eq!(get(served.public, "/").await.status, 200);
    let reason = loop {
        let health = get(served.staff, "/health").await.json();
        assert_eq!((&health["status"], &health["commits"]["how"]), (&"ok".into(), &"asked".into()), "{health}");
        if let Some(reason) = health["commits"]["reason"].as_str() {
            break reason.to_owned();
        }
    };
    assert!(reason.contains("cannot be reached"), "{reason}");
    assert!(!get(served.public, "/health").await.body.contains("127.0.0.1:1"), "where the pipeline is is the staff's");
}

/// A lake that can no longer be read: the last numbers are shown on, and health says so.
#[tokio::test]
async fn a_lost_lake_is_told_and_survived() {
    let city = City::drammen().await;
    let served = city.serve().await;
    assert_eq!(get(served.public, "/health").await.status, 200);
    let log = city.folder().join("tables/readings/_delta_log");
    for entry in std::fs::read_dir(&log).expect("a log") {
        std::fs::write(entry.expect("an entry").path(), "nonsense").expect("written");
    }
    let patience = std::time::Duration::from_secs(30);
    let noticed = tokio::time::timeout(patience, async {
        loop {
            let health = get(served.public, "/health").await;
            if health.status == 503 {
                return health;
            }
        }
    });
    let health = noticed.await.expect("it is noticed");
    assert!(health.json()["error"].is_string() && !health.body.contains("nonsense"), "{health:?}");
    let page = get(served.public, "/").await;
    assert!(page.status == 200 && page.body.contains("20,0<span"), "{page:?}");
    // One that never could read it says so, too.
    let late = city.serve().await;
    let page = get(late.public, "/").await;
    assert!(page.status == 503 && page.body.contains("ikke tilgjengelig"), "{page:?}");
    assert_eq!(get(late.public, "/api/latest").await.status, 503);
}

/// A lake that is not where it was looks like one that nothing was written to: it must not be shown so.
#[tokio::test]
async fn a_lake_that_went_away_is_no_empty_lake() {
    let city = City::drammen().await;
    let served = city.serve().await;
    assert!(get(served.public, "/").await.body.contains("20,0<span"));
    assert_eq!(ask(&served, "SELECT 1").await.status, 200);
    let (here, away) = (city.folder().join("tables"), city.folder().join("tables.away"));
    std::fs::rename(&here, &away).expect("moved");
    for (listener, word) in [(served.public, "stale"), (served.staff, "unavailable")] {
        let health = health_of(listener, 503).await;
        assert_eq!(health["status"], word, "{health}");
    }
    let page = get(served.public, "/").await;
    assert!(page.status == 200 && page.body.contains("20,0<span"), "{page:?}");
    let latest = get(served.public, "/api/latest").await;
    assert!(latest.status == 200 && latest.body.contains("landfalltjern"), "{latest:?}");
    std::fs::rename(&away, &here).expect("moved back");
    for listener in [served.public, served.staff] {
        assert_eq!(health_of(listener, 200).await["status"], "ok");
    }
}

/// What `/health` says as soon as it has this status.
async fn health_of(listener: std::net::SocketAddr, status: u16) -> serde_json::Value {
    let patience = std::time::Duration::from_secs(30);
    let asked = tokio::time::timeout(patience, async {
        loop {
            let health = get(listener, "/health").await;
            if health.status == status {
                return health.json();
            }
        }
    });
    asked.await.expect("it is noticed")
}

#[tokio::test]
async fn malformed_requests_do_no_harm() {
    let served = City::empty().serve().await;
    for request in [
        &b"\r\n\r\n\r\n"[..],
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
    ] {
        let mut stream = tokio::net::TcpStream::connect(served.public).await.expect("it listens");
        stream.write_all(request).await.expect("sent");
        stream.shutdown().await.expect("half closed");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP/1.1 5"), "{request:?}: {answer:?}");
    }
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "x".repeat(70_000));
    assert!([404, 414, 431].contains(&send(served.public, long.as_bytes()).await.status));
    assert_eq!(get(served.public, "/health").await.status, 200);
}

#[tokio::test]
async fn it_ends_when_told_even_with_a_connection_that_says_nothing() {
    let served = City::empty().serve().await;
    let idle = tokio::net::TcpStream::connect(served.public).await.expect("it listens");
    assert_eq!(get(served.public, "/health").await.status, 200);
    served.stop.cancel();
    let patience = tjern_connections::limits::GOODBYE_MAX * 3;
    tokio::time::timeout(patience, served.running).await.expect("it ends").expect("without a panic");
    drop(idle);
}

#[tokio::test]
async fn a_port_in_use_is_one_clear_line() {
    let city = City::empty();
    let served = city.serve().await;
    let taken = served.staff;
    let free = std::net::SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, 0));
    let serve = tjern_queries::ServeConfig { public: free, staff: taken, ..Default::default() };
    let settings =
        tjern_queries::ServerSettings::new(city.lake.clone(), jiff::tz::TimeZone::UTC, &serve, Tokens::none());
    let error = Server::bind(settings).await.expect_err("the port is taken");
    let ServeError::Bind { which, .. } = &error else { panic!("{error}") };
    assert_eq!(*which, "staff");
    let text = error.to_string();
    assert!(text.contains(&taken.to_string()) && text.contains("hint: ") && !text.contains('\n'), "{text}");
}
