//! A secret through every error path: whatever goes wrong between a gateway and its lake, and at every level
//! of the log, the lake's credentials are not told.
//!
//! The real binary runs at `RUST_LOG=trace`, with canaries for credentials, against servers that refuse, vanish,
//! talk nonsense and send back all that they were sent. The last test is the canary of this one.

#[path = "common/canary.rs"]
mod canary;

use canary::{Talking, config, ended, said};
use tjern_gateway::upload::UploadSettings;
use tjern_readings::store::{Access, LakeUrl, Store};
use tjern_testing::canary::{Server, leak};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const KEY_ID: &str = "CANARYKEYID1234";
const SECRET: &str = "canary/secret+key==";
const TOKEN: &str = "canarySessionToken567";
/// As it is, and as a URL has it.
const SIGNATURE: &str = "canary+sig/nature=";
const SIGNATURE_IN_URL: &str = "canary%2Bsig%2Fnature%3D";

/// One way to fail: the server, the scheme before its address, and what the gateway has to say of it.
async fn fail_at(server: Server, scheme: &str, in_file: bool, expected: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let started = server.start().await;
    let endpoint = format!("{scheme}://127.0.0.1:{}", started.port);
    let variables = [
        ("AWS_ENDPOINT", endpoint.as_str()),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_ACCESS_KEY_ID", KEY_ID),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_SESSION_TOKEN", TOKEN),
    ];
    let file = folder.path().join("lake.env");
    let lines: Vec<String> = variables.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    std::fs::write(&file, lines.concat()).expect("written");
    let more = if in_file { format!("credentials_file = \"{}\"\n", file.display()) } else { String::new() };
    let path = folder.path().join("gateway.toml");
    std::fs::write(&path, config(folder.path(), "s3://bucket/prefix", &more)).expect("written");
    let environment = if in_file { &[][..] } else { &variables[..] };
    let said = said(&path, environment, "nothing can be uploaded").await;
    let line = said.lines().find(|line| line.contains("nothing can be uploaded")).expect("said");
    assert!(line.contains(expected), "{server:?}: no {expected:?} in {line}");
    assert_eq!(leak(&said), None, "{server:?}, in a file: {in_file}");
    for sent in started.credentials() {
        assert!(!said.contains(&sent), "{server:?}: what signs a request is told as well: {sent}");
    }
    if in_file {
        assert!(said.contains("others may read the lake's credentials"), "{said}");
    }
}

#[tokio::test]
async fn no_failure_of_an_s3_lake_tells_its_credentials() {
    let failures = [
        (Server::Echoes(403), "http", "the store refuses these credentials"),
        (Server::Echoes(401), "http", "the store refuses these credentials"),
        (Server::Echoes(404), "http", "does the bucket exist"),
        (Server::Echoes(400), "http", "cannot put"),
        (Server::Echoes(500), "http", "cannot put"),
        (Server::Echoes(200), "http", "cannot put"),
        (Server::Echoes(302), "http", "cannot put"),
        (Server::Babbles, "http", "cannot put"),
        (Server::HangsUp, "http", "cannot put"),
        (Server::Missing, "http", "cannot put"),
        // TLS with what does not speak it.
        (Server::Echoes(403), "https", "cannot put"),
    ];
    let all = failures.into_iter().flat_map(|failure| [(failure, false), (failure, true)]);
    let running = all.map(|((server, scheme, expected), in_file)| fail_at(server, scheme, in_file, expected));
    futures::future::join_all(running).await;
}

/// A shared access signature travels in the URL, which errors show.
#[tokio::test]
async fn no_failure_of_an_azure_lake_tells_its_signature() {
    for server in [Server::Echoes(403), Server::Echoes(500), Server::Missing] {
        let folder = tempfile::tempdir().expect("a folder");
        let endpoint = server.start().await.url();
        let sas = format!("?sv=2024-01-01&sp=rw&sig={SIGNATURE_IN_URL}");
        let variables = [
            ("AZURE_STORAGE_ACCOUNT_NAME", "account"),
            ("AZURE_STORAGE_ENDPOINT", endpoint.as_str()),
            ("AZURE_ALLOW_HTTP", "true"),
            ("AZURE_STORAGE_SAS_TOKEN", sas.as_str()),
        ];
        let path = folder.path().join("gateway.toml");
        std::fs::write(&path, config(folder.path(), "az://container/prefix", "")).expect("written");
        let said = said(&path, &variables, "nothing can be uploaded").await;
        assert_eq!(leak(&said), None, "{server:?}");
    }
}

/// What people write into a configuration by mistake is not shown with the mistake.
#[tokio::test]
async fn a_wrong_configuration_does_not_show_the_secrets_in_it() {
    let s3 = "s3://bucket/prefix";
    for (lake, more, expected) in [
        ("s3://key:canary/secret@bucket/x?sig=canary", "", "is no lake"),
        ("s3://key:canary-secret@bucket/x?sig=canary", "", "credentials and options come from the environment"),
        ("s3://canary:canary@bucket:port/x", "", "is no lake"),
        ("s3:// canary:canary@bucket", "", "is no lake"),
        ("http://canary@bucket", "", "credentials and options come from the environment"),
        (s3, "secret_access_key = \"canary\"\n", "unknown field"),
        (s3, "aws_session_token = 'canary' = x\n", "hint"),
        (s3, "in_flight = 0 # token = canary\n", "in_flight"),
        (s3, "max_rate = \"s3://canary@x\"\n", "is no rate"),
        (s3, "password = \"canary\npassword = 1\n", "gateway.toml"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("gateway.toml");
        std::fs::write(&path, config(folder.path(), lake, more)).expect("written");
        let mut said = said(&path, &[], expected).await;
        for command in ["check", "plan", "doctor"] {
            let told = ended(&[command], &path, &[]).await;
            assert!(told.contains(expected), "{command}: no {expected:?} in {told}");
            said += &told;
        }
        assert_eq!(leak(&said), None, "{lake} {more}:\n{said}");
    }
}

#[tokio::test]
async fn a_wrong_file_of_credentials_does_not_show_what_is_in_it() {
    for wrong in ["canary-secret\n", "CANARY=canary\n", "AWS_SECRET_KEY_OF_OURS=canary\n", "aws canary=canary\n"] {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, file) = (folder.path().join("gateway.toml"), folder.path().join("lake.env"));
        std::fs::write(&file, wrong).expect("written");
        let more = format!("credentials_file = \"{}\"\n", file.display());
        std::fs::write(&path, config(folder.path(), "s3://bucket/prefix", &more)).expect("written");
        let said = said(&path, &[], "nothing can be uploaded").await;
        assert!(said.contains("line 1 of"), "{said}");
        assert_eq!(leak(&said), None, "{wrong}");
    }
}

/// A store that knows one key: what is signed with another is refused.
async fn store_that_knows(key_id: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 64 << 10];
            let length = stream.read(&mut request).await.unwrap_or(0);
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            let (status, body) = match request.contains(&format!("Credential={key_id}/")) {
                false => ("403 Forbidden", "<Error><Code>InvalidAccessKeyId</Code></Error>"),
                true if request.starts_with("GET") => (
                    "200 OK",
                    "<ListBucketResult><Name>bucket</Name><IsTruncated>false</IsTruncated></ListBucketResult>",
                ),
                // What the gateway creates first to see it refused.
                true if request.contains("/create-only ") => ("412 Precondition Failed", ""),
                true => ("200 OK", ""),
            };
            let answer = format!(
                "HTTP/1.1 {status}\r\nETag: \"x\"\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            // Whoever asked may have gone.
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    port
}

/// A key that was revoked and replaced in the file is taken up without a restart.
#[tokio::test]
async fn credentials_are_rotated_while_the_gateway_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, file) = (folder.path().join("gateway.toml"), folder.path().join("lake"));
    let port = store_that_knows("NEWKEY").await;
    let text = |key: &str| {
        format!(
            "AWS_ENDPOINT=http://127.0.0.1:{port}\nAWS_ALLOW_HTTP=true\nAWS_ACCESS_KEY_ID={key}\nAWS_SECRET_ACCESS_KEY=canary\n"
        )
    };
    std::fs::write(&file, text("OLDKEY")).expect("written");
    std::fs::write(&path, config(folder.path(), "s3://bucket/prefix", "")).expect("written");
    // systemd's store has it.
    let store = folder.path().display().to_string();
    let variables = [("CREDENTIALS_DIRECTORY", store.as_str())];
    let mut gateway = Talking::start(&path, &variables);
    gateway.until("nothing can be uploaded").await;
    std::fs::write(&file, text("NEWKEY")).expect("written");
    gateway.until("the lake is reached").await;
    let said = gateway.end().await;
    assert!(said.contains("the store refuses these credentials"), "{said}");
    assert!(!said.contains("others may read"), "systemd sees to the permissions of its store: {said}");
    assert_eq!(leak(&said), None);
}

/// A lake in a cloud and no credentials at all: what is missing is said, and where it goes.
#[tokio::test]
async fn missing_credentials_are_asked_for_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("gateway.toml");
    std::fs::write(&path, config(folder.path(), "s3://bucket/prefix", "")).expect("written");
    // The service that lends a cloud's own machines theirs is not there.
    let nowhere = Server::Missing.start().await.url();
    let said = said(&path, &[("AWS_METADATA_ENDPOINT", &nowhere)], "nothing can be uploaded").await;
    let line = said.lines().find(|line| line.contains("nothing can be uploaded")).expect("said");
    assert!(line.contains("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"), "{line}");
}

/// What is printed while debugging has no secrets either.
#[test]
fn what_holds_credentials_does_not_show_them() {
    let variables = [("AWS_ACCESS_KEY_ID", "known"), ("AWS_SECRET_ACCESS_KEY", SECRET), ("AWS_SESSION_TOKEN", TOKEN)];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let access = Access::default().with_variables(variables);
    let lake: LakeUrl = "s3://bucket/prefix".parse().expect("a lake");
    let store = Store::open_with(&lake, &access).expect("opened");
    let settings =
        UploadSettings { store: Some(store.clone()), ..UploadSettings::new(lake, "site-01".parse().expect("valid")) };
    assert_eq!(leak(&format!("{access:?} {store:?} {settings:?}")), None);
}

/// The canary of all of these: each form in which a secret could stand in a log is seen.
#[test]
fn a_leak_is_seen() {
    let told = [
        "Y2FuYXJ5c2VjcmV0",
        "eGNhbmFyeXNlY3JldA==",
        "eHhjYW5hcnlzZWNyZXQ=",
        "[1, 99, 97, 110, 97, 114, 121]",
        "63616E617279",
    ];
    for told in told {
        assert!(leak(&format!("a line with {told} in it")).is_some(), "{told}");
    }
    for secret in [KEY_ID, SECRET, TOKEN, SIGNATURE, SIGNATURE_IN_URL] {
        let line = format!("æøå WARN nothing can be uploaded error=\"GET https://x/?a={secret}\" æøå");
        assert!(leak(&line).is_some(), "{secret} in {line}");
    }
    assert_eq!(leak("nothing"), None);
}
