//! A secret through every program that reaches a lake: whatever its store does, and at every level of the log, no command, no
//! daemon and no server tells what lets it in. What a gateway tells is in `gateway/tests/secrets.rs` and `secrets_clouds.rs`.
//!
//! The real binary runs at `RUST_LOG=trace` with canaries for credentials. Its store is well for a while, and then sends back
//! all that it is sent: so each command fails at each of its steps. The last test is the canary of the others.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use object_store::ObjectStoreExt;
use object_store::aws::AmazonS3Builder;
use tjern_readings::keys;
use tjern_testing::canary::{Server, leak};
use tjern_testing::s3::S3Server;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::{interval, timeout};

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(120);

const LAKE: &str = "s3://bucket/lake";

/// Who may ask SQL. It is none of the lake's secrets.
const TOKEN: &str = "the-token-of-somebody-on-the-staff";

/// What S3 lends for an hour, on top of what a server of tests wants to be named.
const LENT: [(&str, &str); 2] =
    [("AWS_SECRET_ACCESS_KEY", "canary/secret+key=="), ("AWS_SESSION_TOKEN", "canarySessionToken567")];

/// Commands that look or work once. Each has a lake before it that is well, and empty.
const COMMANDS: [&str; 21] = [
    "pipeline ingest --json",
    "pipeline quality --json",
    "pipeline compact --json",
    "pipeline rollup --json",
    "pipeline vacuum --json",
    "pipeline checkpoint",
    "pipeline retention",
    "pipeline status",
    "pipeline status --json",
    "pipeline verify",
    "pipeline verify --json",
    "pipeline publish --json",
    "pipeline register --json",
    "pipeline watch --json",
    "pipeline quarantine ls",
    "pipeline holes ls",
    "pipeline configurations ls",
    "pipeline replay",
    "pipeline erase --continue",
    "pipeline backup --to s3://bucket/backup",
    "pipeline restore --list --from s3://bucket/backup",
];

/// What a text tells of what lets somebody in: a canary, the name of a key, or what signed a request.
fn told(text: &str) -> Option<String> {
    let others = ["AKIATJERNTEST", "Signature=", "signature="];
    let of_others = others.iter().find_map(|word| text.split_once(word));
    leak(text).or_else(|| of_others.map(|(before, after)| format!("{before}<here>{after}")))
}

/// A city's configuration over a lake.
fn configure(folder: &Path, lake: &str) -> PathBuf {
    let tokens = folder.join("tokens");
    std::fs::write(&tokens, format!("analyst:{TOKEN}\n")).expect("written");
    let path = folder.join("tjern.toml");
    let text = format!(
        "version = 1\nlake = \"{lake}\"\n[ingest]\nevery = \"1s\"\n[jobs]\nlisten = \"127.0.0.1:0\"\n\
         [serve]\npublic = \"127.0.0.1:0\"\nstaff = \"127.0.0.1:0\"\ntokens = \"tokens\"\n"
    );
    std::fs::write(&path, text).expect("written");
    path
}

fn program(words: &[&str], config: &Path, variables: &[(String, String)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tjern"));
    command.args(words).arg("--config").arg(config).env("RUST_LOG", "trace").env("NO_COLOR", "1").kill_on_drop(true);
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A command to its end: whether it was well, and all that it said.
async fn ended(words: &[&str], config: &Path, variables: &[(String, String)]) -> (bool, String) {
    let output = timeout(PATIENCE, program(words, config, variables).output()).await;
    let Output { status, stdout, stderr } = output.expect("it ends in time").expect("it starts");
    (status.success(), String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr))
}

/// An S3 server with a lake in it that is well, and the variables by which it is reached.
async fn lake(config: &Path) -> (S3Server, Vec<(String, String)>) {
    let server = S3Server::start(100).await;
    let mut variables = server.variables();
    variables.retain(|(name, _)| LENT.iter().all(|(lent, _)| name != lent));
    variables.extend(LENT.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let (is_well, said) = ended(&["pipeline", "ingest"], config, &variables).await;
    assert!(is_well, "{said}");
    assert_eq!(told(&said), None, "where all is well");
    (server, variables)
}

/// Each command, with a store that sends back what it is sent from its first request on, from its second, and so on.
#[tokio::test(flavor = "multi_thread")]
async fn no_command_tells_what_a_store_sends_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = configure(folder.path(), LAKE);
    let (server, variables) = lake(&config).await;
    let query = ["query", "SELECT count(*) FROM readings"];
    let commands = COMMANDS.iter().map(|line| line.split(' ').collect::<Vec<_>>()).chain([query.to_vec()]);
    for words in commands {
        let mut failed = 0;
        for requests in [0, 1, 2, 3, 5, 8, 13, 21, 34, 55] {
            server.echo_after(requests, 403);
            let (is_well, said) = ended(&words, &config, &variables).await;
            server.echo_no_more();
            assert_eq!(told(&said), None, "{words:?} after {requests} requests");
            if is_well {
                break;
            }
            failed += 1;
        }
        assert!(failed > 0, "{words:?} never failed");
        println!("{words:?}: failed {failed} times");
    }
}

/// Where the commands that change readings have some to change.
const SENSOR: &str = "landfalltjern/water_temperature";

/// Where the backups lie that are made and brought back.
const BACKUP: &str = "s3://bucket/kept";

/// A file of history, and what a person says of one of its readings.
fn files(folder: &Path) -> [String; 2] {
    let history: String = (0..24).map(|hour| format!("{SENSOR},2026-07-01T{hour:02}:00:00Z,{hour}\n")).collect();
    let word = format!("sensor,time,value\n{SENSOR},2026-07-01T03:00:00Z,18.5\n");
    let texts = [("history.csv", format!("sensor,time,value\n{history}")), ("word.csv", word)];
    texts.map(|(name, text)| {
        let path = folder.join(name);
        std::fs::write(&path, text).expect("written");
        path.to_str().expect("text").to_owned()
    })
}

/// The commands that change what is stored, each with a store that fails from its first request on, from its second, and so
/// on until it is well: in the order in which a person does it, so that each has something to do.
#[tokio::test(flavor = "multi_thread")]
async fn no_command_that_changes_readings_tells_what_a_store_sends_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = configure(folder.path(), LAKE);
    let (server, variables) = lake(&config).await;
    let [history, word] = files(folder.path());
    let period = format!("--sensor {SENSOR} --from 2026-07-01T00:00:00Z --to 2026-07-01T12:00:00Z");
    let lines = [
        format!("pipeline import {history} --source import:history --land-only"),
        format!("pipeline import {history} --source import:history"),
        format!("pipeline recompute {period} --scale 2 --by somebody --dry-run"),
        format!("pipeline recompute {period} --scale 2 --by somebody"),
        format!("pipeline revise {word} --by somebody"),
        format!("pipeline validate {period} --by somebody"),
        format!("pipeline validate {period} --by somebody --undo"),
        format!("pipeline backup --to {BACKUP}"),
        format!("pipeline erase {period} --by somebody --reason asked --dry-run"),
        format!("pipeline erase {period} --by somebody --reason asked --json"),
        "pipeline erase --again --json".to_owned(),
    ];
    for line in &lines {
        fails_at_each_step(line, &config, &variables, &server).await;
    }
    let left = ended(&["query", "SELECT count(*) FROM readings"], &config, &variables).await.1;
    assert!(left.contains("| 12 "), "twelve of twenty-four hours were erased, with all that was said of them: {left}");
    let gone = configure(folder.path(), "s3://bucket/anew");
    for line in [format!("pipeline restore --from {BACKUP} --dry-run"), format!("pipeline restore --from {BACKUP}")] {
        fails_at_each_step(&line, &gone, &variables, &server).await;
    }
}

/// A command until it does its work.
async fn fails_at_each_step(line: &str, config: &Path, variables: &[(String, String)], server: &S3Server) {
    let words: Vec<&str> = line.split(' ').collect();
    // Each erasure that failed is remembered, and done with the next one: those need ever more.
    let steps = [0, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, u64::MAX];
    for (failed, requests) in steps.into_iter().enumerate() {
        server.echo_after(requests, 403);
        let before = server.failed();
        let (is_well, said) = ended(&words, config, variables).await;
        server.echo_no_more();
        assert_eq!(told(&said), None, "{line} after {requests} requests");
        // One that failed could not give its leases back: a few minutes go by.
        for job in ["erase", "rollup", "compact", "quality"] {
            let _ = server.store("lake").objects().delete(&keys::lease(job)).await;
        }
        // Of its requests none was sent back.
        if server.failed() == before {
            println!("{line}: failed {failed} times");
            let reason = said.lines().find(|text| text.starts_with("error")).unwrap_or_default();
            assert!(is_well && failed > 0, "{line}: {reason}");
            return;
        }
    }
    unreachable!("{line}: none fails of all requests");
}

/// The ways to fail at the first request.
const FAILURES: [Server; 9] = [
    Server::Echoes(401),
    Server::Echoes(400),
    Server::Echoes(404),
    Server::Echoes(500),
    Server::Echoes(200),
    Server::Echoes(302),
    Server::Babbles,
    Server::HangsUp,
    Server::Missing,
];

/// Lakes at a server, and how each is reached.
fn lakes(url: &str) -> [(&'static str, Vec<(String, String)>); 4] {
    let owned = |variables: &[(&str, &str)]| {
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<Vec<_>>()
    };
    let s3 = [("AWS_ENDPOINT", url), ("AWS_ALLOW_HTTP", "true"), ("AWS_ACCESS_KEY_ID", "CANARYKEYID1234")];
    let azure =
        [("AZURE_STORAGE_ENDPOINT", url), ("AZURE_ALLOW_HTTP", "true"), ("AZURE_STORAGE_ACCOUNT_NAME", "account")];
    // A shared access signature travels in the URL, which errors show.
    let signature = [("AZURE_STORAGE_SAS_TOKEN", "?sv=2024-01-01&sp=rw&sig=canary%2Bsig%2Fnature%3D")];
    // `canary/account+key`, as Azure has keys: in Base64.
    let key = [("AZURE_STORAGE_ACCOUNT_KEY", "Y2FuYXJ5L2FjY291bnQra2V5")];
    // What cannot be parsed is shown by many a parser.
    let google = "{\"type\": \"service_account\", \"private_key\": \"canary-key\", \"private_key_id\": \"canary-id\", \
                  \"client_email\": \"a@example.org\"}";
    [
        (LAKE, owned(&[&s3[..], &LENT].concat())),
        ("az://container/sas", owned(&[&azure[..], &signature].concat())),
        ("az://container/key", owned(&[&azure[..], &key].concat())),
        ("gs://bucket/lake", owned(&[("GOOGLE_SERVICE_ACCOUNT_KEY", google)])),
    ]
}

/// Every way to fail, with every kind of credentials.
#[tokio::test(flavor = "multi_thread")]
async fn no_command_tells_how_its_store_failed() {
    let folder = tempfile::tempdir().expect("a folder");
    for server in FAILURES {
        let endpoint = server.start().await;
        for (lake, variables) in lakes(&endpoint.url()) {
            let config = configure(folder.path(), lake);
            let commands = [
                &["pipeline", "ingest", "--json"][..],
                &["pipeline", "status"],
                &["pipeline", "verify"],
                &["query", "SELECT 1"],
                &["serve"],
            ];
            let running = commands.map(|words| ended(words, &config, &variables));
            for (words, (is_well, said)) in commands.iter().zip(futures::future::join_all(running).await) {
                // A query of a lake that has no tables yet is none that fails.
                let may_be_well = matches!(server, Server::Echoes(404));
                assert!(may_be_well || !is_well, "{words:?}, {lake}, {server:?}: {said}");
                assert_eq!(told(&said), None, "{words:?}, {lake}, {server:?}");
                for sent in endpoint.credentials() {
                    assert!(
                        !said.contains(&sent),
                        "{words:?}, {lake}, {server:?}: what signs a request is told: {sent}"
                    );
                }
            }
        }
    }
}

/// A program that is listened to.
struct Talking {
    child: Child,
    log: BufReader<ChildStderr>,
    said: String,
}

impl Talking {
    fn start(words: &[&str], config: &Path, variables: &[(String, String)]) -> Self {
        let mut child = program(words, config, variables).spawn().expect("it starts");
        let log = BufReader::new(child.stderr.take().expect("piped"));
        Self { child, log, said: String::new() }
    }

    /// Listens until a line has these words in it; the address behind them.
    async fn address_after(&mut self, words: &str) -> String {
        let said = &mut self.said;
        let reading = async {
            let mut line = Vec::new();
            while self.log.read_until(b'\n', &mut line).await.expect("readable") > 0 {
                let text = String::from_utf8_lossy(&line).into_owned();
                said.push_str(&text);
                if let Some((_, rest)) = text.split_once(words) {
                    return rest.split('/').next().map(str::to_owned);
                }
                line.clear();
            }
            None
        };
        match timeout(PATIENCE, reading).await.ok().flatten() {
            Some(address) => address,
            None => panic!("it did not say {words:?}:\n{said}"),
        }
    }

    /// Goes on listening while this is done, lest what is not read hold it up; ends it, and gives all that it said.
    async fn end_after(mut self, work: impl Future<Output = String>) -> String {
        let mut rest = Vec::new();
        let listening = async {
            let _ = self.log.read_to_end(&mut rest).await;
        };
        let done = async {
            let done = work.await;
            // It may have ended by itself.
            let _ = self.child.kill().await;
            done
        };
        let (done, ()) = tokio::join!(done, listening);
        self.said + &String::from_utf8_lossy(&rest) + &done
    }
}

/// The body of whatever is there.
async fn ask(address: &str, head: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("somebody listens");
    let text = format!(
        "{head} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(text.as_bytes()).await.expect("asked");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("answered");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Asks until an answer has these words in it; all answers.
async fn ask_until(address: &str, head: &str, words: &str) -> String {
    let mut answers = String::new();
    let asking = async {
        let mut looks = interval(Duration::from_millis(100));
        loop {
            looks.tick().await;
            let answer = ask(address, head, "").await;
            answers.push_str(&answer);
            if answer.contains(words) {
                return;
            }
        }
    };
    assert!(timeout(PATIENCE, asking).await.is_ok(), "{head} never had {words:?}: {answers}");
    answers
}

/// The lake is lost while the server runs: what residents and the staff are answered, and the log.
#[tokio::test(flavor = "multi_thread")]
async fn no_answer_of_the_server_tells_what_a_store_sends_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = configure(folder.path(), LAKE);
    let (server, variables) = lake(&config).await;
    let mut serving = Talking::start(&["serve"], &config, &variables);
    let public = serving.address_after("residents: http://").await;
    let staff = serving.address_after("staff: http://").await;
    server.echo_after(0, 403);
    let asking = async {
        let mut answers = ask_until(&staff, "GET /health", "403 Forbidden").await;
        for head in ["GET /", "GET /api/latest", "GET /health", "GET /open/", "GET /api/queries"] {
            answers += &ask(&public, head, "").await;
        }
        for sql in ["SELECT * FROM readings", "SELECT * FROM latest", "EXPLAIN ANALYZE SELECT * FROM daily"] {
            answers += &ask(&staff, "POST /api/sql", sql).await;
        }
        answers + &ask(&staff, "GET /metrics", "").await
    };
    let said = serving.end_after(asking).await;
    assert!(said.matches("403 Forbidden").count() > 1, "{said}");
    assert_eq!(told(&said), None);
}

/// The lake is lost while the jobs run.
#[tokio::test(flavor = "multi_thread")]
async fn no_job_of_the_daemon_tells_what_a_store_sends_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = configure(folder.path(), LAKE);
    let (server, variables) = lake(&config).await;
    let mut running = Talking::start(&["pipeline", "run"], &config, &variables);
    let door = running.address_after("the jobs: http://").await;
    server.echo_after(0, 403);
    let asking = async {
        let answers = ask_until(&door, "GET /health/ingest", "403 Forbidden").await;
        answers + &ask(&door, "GET /health", "").await + &ask(&door, "GET /metrics", "").await
    };
    let said = running.end_after(asking).await;
    assert_eq!(told(&said), None);
}

/// The canary: the client of the cloud tells it all, unless it is gone over.
#[tokio::test(flavor = "multi_thread")]
async fn an_error_that_nobody_went_over_is_seen() {
    let server = S3Server::start(100).await;
    server.echo_after(0, 403);
    let variables = server.variables().into_iter().chain(LENT.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let client = variables
        .filter_map(|(name, value)| Some((name.to_ascii_lowercase().parse().ok()?, value)))
        .fold(AmazonS3Builder::new().with_url(LAKE), |builder, (key, value)| builder.with_config(key, value))
        .build()
        .expect("built");
    let error = client.get(&"lake/x".into()).await.expect_err("refused");
    let (shown, debug) = (error.to_string(), format!("{error:?}"));
    for shown in [&shown, &debug] {
        assert!(leak(shown).is_some() && shown.contains("Signature="), "{shown}");
        assert!(told(&shown.replace("canary", "")).is_some_and(|found| found.contains("<here>")), "{shown}");
    }
}
