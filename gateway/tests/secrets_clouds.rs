//! The same as `secrets.rs` for the clouds that lend: Google's keys and tokens, Azure's keys, secrets and signatures, the
//! tokens that a cloud's own machines get; and for all that a gateway tells besides its log: `/status`, `/health`,
//! `/metrics`, `doctor`, `check`, `plan`, and the configuration in the lake.
//!
//! What lets somebody in is looked for in all of it: what was configured, in each form, and what was sent.

#[path = "common/canary.rs"]
mod canary;

use std::path::{Path, PathBuf};

use canary::{PATIENCE, Talking, config, ended, said};
use tjern_gateway::status::client::{StatusAddress, get_within};
use tjern_testing::canary::{Server, Started, leak};

/// A key that was made for this test (PKCS #8, without its head and foot). It opens nothing.
const PRIVATE_KEY: &str = "\
    MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQDKnizkFPQ/SAkdiuFLdLbaJ/6sk6xSHJiEJCyFD3AZPXOEVqSq\
    laOAQ5/D5e2bvrv1N9UaLSvOVzo0aByntecMX28JuyDXd5rHzP1/+nhMdrguHUT1WPIb9hh1rr1LCTZvmnj+MjbMB4ffwuK2vzAr\
    KqLSKkrPW+2pPdOMMs2KiDdAfu9dA+UIrpnjUZvx4Y2uUMC1wyJN3c7cNBiXYnGYaKBdn3HzWak30GBDeAwolP8NT9swW60T7Ova\
    ljbrsfN+qQZ9pJ/x/Nib3I/fnRt3YkLdglnbozLFrBpRBlHFcnO5TWbhRDIYfTeo5+QZVFSpg++w+FnNv9Am6JWkKejTAgMBAAEC\
    ggEAVtN5gTPJhuSjo1lEOkWFpe7Fn8aYbYd7hATMXyjCbM58lhVa8w60xd40tInvTHJrsSV/2HvK7d1LP/HtdaDppc+vkYfzBuJm\
    HYCmkRUQQBQP0RMR3eGDvp+y05tR2rnT7fdQKf3ypXQEscqdxJohVh4rL8yXykwmiAPKh6WtltML+9hGCLGnUcUYdVmFlrq6+apX\
    AxD3ky9AKvfF9UL717VTUb1YfoJuiztYvFtr+mP7ZS6swTrkRFovhvXcOcddbHx6HXqzOw6ibikrE6BL6LEVJ5hcYNdASXod8GJv\
    DRTWwL9keirpuDdz5fBq0fmvM+FwIadivoSZFtGc2DsvwQKBgQD/ljWFQuCD5ad9SUSr2M8g9aYwRriWLKJsssV+K0YiXygOOwxg\
    Oy4oAff0hFSKyWSPppt3WH5hxAMlvzrUzWji5QdQNjtNWF6NHFkLwLoBl7APN0T4M0i6Te2QWWVO3BxCRGJ7PoO44IM3LK6Y/pEY\
    0umx2X+yaeHQoqjZvOcPqwKBgQDK8gquwFXFFaR2Kq1qwQNjBNLP5r8MADVDg3UVw5MOZ/MPuAa+L6p0uaNxG/g4y7ywOFevk2RW\
    AJ9RyFH7xcu3MlFAx8luHOax6aiM3ULayRSh54eLpqSfxGbtDF9ZL2GbeU9cug6A2N903AG34q3t3kDyJ56Ix/Yjuo2Cts2DeQKB\
    gCSlsBTkiva+li5ztAID+2cZcfPYIB2AVuXJGGJH6C2DgWXQ96xQsASSi7AmzUx9Jgsm84HAUZbJGT5vVgsvTMvD1TGeJRCpDB2l\
    o+r4fnM+AcOcxCnmiJYWGGsrNkiBbRffYFOVmiOHJaliocJUNg/eJh4XNqUpY3Sb7iQSXvszAoGBALlVtV/Fkg58J0cqzlgxkDA7\
    VXI7nbkN75aKVMDdbEy5rYVrX+0LhrU2WwaOrm7f0J91tM5I4laQFu8O65/sEJBqyT1JtrBygFN1uVF7NvSqscbxtB1av/iP2hcd\
    N24xEQh1Dn72Awy0Ac2spX0S7BfQ4qrCd8seIbCbS2RWIPSxAoGAUyu+Nxj9CSYVPmqe+rqs0BPTs4tFToa8FKmRx6gjWmDWAtob\
    0AhIvhpw97W4qsQ1omUB7SNnbE/bE/EZ1pJhNv29b1GZg8VIyhnXeL++5EGML3CixUtKrVhR+d3RF4pstNoM7CYvvW/Kpy0p5iSg\
    2sqnNxNLsHXBTF216FmJ7Ck=";

/// The places that answer wrongly, and unless they are not there, have seen what was sent.
const FAILURES: [Server; 8] = [
    Server::Echoes(401),
    Server::Echoes(403),
    Server::Echoes(404),
    Server::Echoes(500),
    Server::Echoes(200),
    Server::Babbles,
    Server::HangsUp,
    Server::Missing,
];

/// A lake in a cloud, and how it is reached.
struct Cloud {
    lake: &'static str,
    variables: Vec<(&'static str, String)>,
}

impl Cloud {
    /// Google, with the key of a service account in a file, or in a variable.
    fn google(folder: &Path, store: &Started, in_file: bool) -> Self {
        let body: Vec<&str> =
            PRIVATE_KEY.as_bytes().chunks(64).map(|line| str::from_utf8(line).expect("ASCII")).collect();
        let pem = format!("-----BEGIN PRIVATE KEY-----\\n{}\\n-----END PRIVATE KEY-----\\n", body.join("\\n"));
        let account = account(&pem, "");
        let file = folder.join("account.json");
        std::fs::write(&file, &account).expect("written");
        let key = match in_file {
            true => ("GOOGLE_SERVICE_ACCOUNT", file.display().to_string()),
            false => ("GOOGLE_SERVICE_ACCOUNT_KEY", account),
        };
        Self::google_with(folder, store, vec![key])
    }

    fn google_with(folder: &Path, store: &Started, more: Vec<(&'static str, String)>) -> Self {
        let mut variables = vec![
            ("GOOGLE_BASE_URL", store.url()),
            ("GOOGLE_ALLOW_HTTP", "true".to_owned()),
            // Where Google's tools leave what they know.
            ("HOME", folder.display().to_string()),
        ];
        variables.extend(more);
        Self { lake: "gs://bucket/prefix", variables }
    }

    fn azure(store: &Started, more: Vec<(&'static str, String)>) -> Self {
        let mut variables = vec![
            ("AZURE_STORAGE_ACCOUNT_NAME", "account".to_owned()),
            ("AZURE_STORAGE_ENDPOINT", store.url()),
            ("AZURE_ALLOW_HTTP", "true".to_owned()),
        ];
        variables.extend(more);
        Self { lake: "az://container/prefix", variables }
    }

    fn azure_key(store: &Started) -> Self {
        // `canary/account+key`, as Azure has keys: in Base64.
        Self::azure(store, vec![("AZURE_STORAGE_ACCOUNT_KEY", "Y2FuYXJ5L2FjY291bnQra2V5".to_owned())])
    }

    fn azure_secret(store: &Started, authority: &Started) -> Self {
        let more = [
            ("AZURE_STORAGE_CLIENT_ID", "a-client".to_owned()),
            ("AZURE_STORAGE_CLIENT_SECRET", "canary+secret/of~a client".to_owned()),
            ("AZURE_STORAGE_TENANT_ID", "a-tenant".to_owned()),
            ("AZURE_STORAGE_AUTHORITY_HOST", authority.url()),
        ];
        Self::azure(store, more.into())
    }

    fn variables(&self) -> Vec<(&str, &str)> {
        self.variables.iter().map(|(name, value)| (*name, value.as_str())).collect()
    }

    /// The configuration of a gateway with this lake, which tells how it is at a socket.
    fn config(&self, folder: &Path) -> PathBuf {
        let path = folder.join("gateway.toml");
        let listen = format!("[status]\nlisten = \"unix:{}/status.sock\"\n", folder.display());
        std::fs::write(&path, config(folder, self.lake, &listen)).expect("written");
        path
    }
}

/// A service account's document, with a key as JSON has it.
fn account(key: &str, more: &str) -> String {
    format!(
        "{{\"type\": \"service_account\", \"private_key\": \"{key}\", \"private_key_id\": \"canary-key-id\", \
         \"client_email\": \"gateway@example.org\"{more}}}"
    )
}

/// What a text gives away: a canary, a part of the private key, or what a server was sent to be let in.
fn gives_away(text: &str, servers: &[&Started]) -> Option<String> {
    let of_key = PRIVATE_KEY.as_bytes().chunks(32).map(|part| str::from_utf8(part).expect("ASCII").to_owned());
    let sent = servers.iter().flat_map(|server| server.credentials());
    leak(text).or_else(|| of_key.chain(sent).find(|secret| text.contains(secret.as_str())))
}

/// Runs a gateway until it cannot reach its lake, and looks at all that it says.
async fn fail(what: &str, folder: &Path, cloud: Cloud, servers: &[&Started]) {
    let said = said(&cloud.config(folder), &cloud.variables(), "nothing can be uploaded").await;
    assert_eq!(gives_away(&said, servers), None, "{what}");
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

#[tokio::test]
async fn no_failure_of_a_google_lake_tells_its_key() {
    let all = FAILURES.into_iter().flat_map(|server| [(server, false), (server, true)]);
    futures::future::join_all(all.map(|(server, in_file)| async move {
        let (folder, store) = (folder(), server.start().await);
        let cloud = Cloud::google(folder.path(), &store, in_file);
        fail(&format!("{server:?}, in a file: {in_file}"), folder.path(), cloud, &[&store]).await;
        if matches!(server, Server::Echoes(_)) {
            assert!(!store.credentials().is_empty(), "{server:?}: nothing was signed, and so nothing shown");
        }
    }))
    .await;
}

/// A token that somebody else lent is in no variable.
#[tokio::test]
async fn no_failure_tells_a_token_that_was_lent() {
    const GOOGLE: &str = "{\"access_token\": \"ya29.canary-token\", \"expires_in\": 3600, \"token_type\": \"Bearer\"}";
    const AZURE: &str = "{\"access_token\": \"canary.token-of_azure\", \"expires_in\": 3600}";
    futures::future::join_all(FAILURES.map(|server| async move {
        let (folder, store, lender) = (folder(), server.start().await, Server::Says(GOOGLE).start().await);
        let place = format!("127.0.0.1:{}", lender.port);
        let more = vec![("GCE_METADATA_HOST", place.clone()), ("GCE_METADATA_IP", place)];
        let cloud = Cloud::google_with(folder.path(), &store, more);
        fail(&format!("Google, {server:?}"), folder.path(), cloud, &[&store]).await;
    }))
    .await;
    futures::future::join_all(FAILURES.map(|server| async move {
        let (folder, store, lender) = (folder(), server.start().await, Server::Says(AZURE).start().await);
        let cloud = Cloud::azure_secret(&store, &lender);
        fail(&format!("Azure, {server:?}"), folder.path(), cloud, &[&store]).await;
    }))
    .await;
}

/// Whoever lends is asked with a secret, and answers with one.
#[tokio::test]
async fn no_failure_of_a_lender_tells_what_it_was_asked_with() {
    let nonsense = [
        Server::Says("{\"access_token\": \"canary-token\", \"expires_in\": \"canary-soon\"}"),
        Server::Says("{\"access_token\": \"canary-token"),
        Server::Says("canary-token"),
    ];
    futures::future::join_all(FAILURES.into_iter().chain(nonsense).map(|server| async move {
        let (store, lender) = (Server::Echoes(403).start().await, server.start().await);
        let place = format!("127.0.0.1:{}", lender.port);
        let azure = folder();
        fail(&format!("Azure, {server:?}"), azure.path(), Cloud::azure_secret(&store, &lender), &[&store, &lender])
            .await;
        let google = folder();
        let more = vec![("GCE_METADATA_HOST", place.clone()), ("GCE_METADATA_IP", place)];
        let cloud = Cloud::google_with(google.path(), &store, more);
        fail(&format!("Google, {server:?}"), google.path(), cloud, &[&store, &lender]).await;
        let aws = folder();
        let variables = vec![
            ("AWS_ENDPOINT", store.url()),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_METADATA_ENDPOINT", lender.url()),
        ];
        let cloud = Cloud { lake: "s3://bucket/prefix", variables };
        fail(&format!("S3, {server:?}"), aws.path(), cloud, &[&store, &lender]).await;
    }))
    .await;
}

#[tokio::test]
async fn no_failure_of_an_azure_lake_tells_its_account_key() {
    futures::future::join_all(FAILURES.map(|server| async move {
        let (folder, store) = (folder(), server.start().await);
        fail(&format!("{server:?}"), folder.path(), Cloud::azure_key(&store), &[&store]).await;
        if matches!(server, Server::Echoes(_)) {
            assert!(!store.credentials().is_empty(), "{server:?}: nothing was signed, and so nothing shown");
        }
    }))
    .await;
}

/// What cannot be parsed is shown by many a parser.
#[tokio::test]
async fn credentials_that_are_malformed_are_not_shown() {
    let in_one_line = "-----BEGIN PRIVATE KEY-----\\\\ncanarycanarycanary\\\\n-----END PRIVATE KEY-----\\\\n";
    let documents = [
        "canary-key".to_owned(),
        "\"canary-key\"".to_owned(),
        "{\"private_key\": \"canary-key\"".to_owned(),
        "{\"type\": \"canary-key\"}".to_owned(),
        account("canary-key", ""),
        account("canary-key", ", \"disable_oauth\": \"canary-secret\""),
        account(in_one_line, ""),
        account("-----BEGIN PRIVATE KEY-----\\ncanarycanarycanary\\n", ""),
    ];
    for document in &documents {
        for name in ["GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_KEY", "GOOGLE_APPLICATION_CREDENTIALS"] {
            let (folder, store) = (folder(), Server::Echoes(403).start().await);
            let file = folder.path().join("account.json");
            std::fs::write(&file, document).expect("written");
            let is_key = name.ends_with("_KEY");
            let value = if is_key { document.clone() } else { file.display().to_string() };
            let cloud = Cloud::google_with(folder.path(), &store, vec![(name, value)]);
            fail(&format!("{name}: {document}"), folder.path(), cloud, &[&store]).await;
        }
        // Pasted in the place of the file's name.
        let (folder, store) = (folder(), Server::Echoes(403).start().await);
        let cloud = Cloud::google_with(folder.path(), &store, vec![("GOOGLE_SERVICE_ACCOUNT", document.clone())]);
        fail(&format!("pasted: {document}"), folder.path(), cloud, &[&store]).await;
    }
    for (name, value) in [
        ("AZURE_STORAGE_ACCOUNT_KEY", "canary, and no Base64"),
        ("AZURE_STORAGE_SAS_TOKEN", "canary&no=%FFsignature&canary"),
        ("AZURE_STORAGE_TOKEN", "canary\u{7f}token"),
    ] {
        let (folder, store) = (folder(), Server::Echoes(403).start().await);
        fail(name, folder.path(), Cloud::azure(&store, vec![(name, value.to_owned())]), &[&store]).await;
    }
    // The end of a line behind a key ended the gateway, and each one that was started after it.
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN"] {
        let (folder, store) = (folder(), Server::Echoes(403).start().await);
        let mut variables = vec![("AWS_ENDPOINT", store.url()), ("AWS_ALLOW_HTTP", "true".to_owned())];
        variables
            .extend([("AWS_ACCESS_KEY_ID", "a-key".to_owned()), ("AWS_SECRET_ACCESS_KEY", "canary-key".to_owned())]);
        variables.retain(|(known, _)| *known != name);
        variables.push((name, "canary-key\n".to_owned()));
        fail(name, folder.path(), Cloud { lake: "s3://bucket/prefix", variables }, &[&store]).await;
    }
}

/// All that a gateway tells of itself, and the commands about it.
#[tokio::test]
async fn no_page_and_no_command_tells_a_secret() {
    let folders = [folder(), folder(), folder(), folder()];
    let stores = futures::future::join_all([(); 4].map(|()| Server::Echoes(403).start())).await;
    let s3 = vec![
        ("AWS_ENDPOINT", stores[0].url()),
        ("AWS_ALLOW_HTTP", "true".to_owned()),
        ("AWS_ACCESS_KEY_ID", "CANARYKEYID1234".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "canary/secret+key==".to_owned()),
        ("AWS_SESSION_TOKEN", "canarySessionToken567".to_owned()),
    ];
    let signature = "?sv=2024-01-01&sp=rw&sig=canary%2Bsig%2Fnature%3D".to_owned();
    let clouds = [
        Cloud { lake: "s3://bucket/prefix", variables: s3 },
        Cloud::google(folders[1].path(), &stores[1], true),
        Cloud::azure_key(&stores[2]),
        Cloud::azure(&stores[3], vec![("AZURE_STORAGE_SAS_TOKEN", signature)]),
    ];
    for ((cloud, store), folder) in clouds.iter().zip(&stores).zip(&folders) {
        let path = cloud.config(folder.path());
        let mut gateway = Talking::start(&path, &cloud.variables());
        gateway.until("nothing can be uploaded").await;
        let address = StatusAddress::Unix(folder.path().join("status.sock"));
        let mut told = String::new();
        for page in ["/status", "/health", "/metrics"] {
            let body = get_within(PATIENCE, &address, page).await.unwrap_or_else(|error| panic!("{page}: {error}"));
            told += &String::from_utf8(body).expect("text");
        }
        assert!(told.contains("the store refuses these credentials"), "the error is not among it: {told}");
        told += &gateway.end().await;
        let commands = [&["doctor"][..], &["doctor", "--format", "json"], &["check"], &["plan"]];
        for words in commands {
            told += &ended(words, &path, &cloud.variables()).await;
        }
        assert!(told.matches("the store refuses these credentials").count() >= 4, "doctor says what is wrong: {told}");
        assert_eq!(gives_away(&told, &[store]), None, "{}", cloud.lake);
    }
}

/// A secret that somebody left in a configuration, which is good otherwise, is neither shown nor sent.
#[tokio::test]
async fn the_configuration_in_the_lake_has_no_secrets() {
    let folder = folder();
    let lake = folder.path().join("lake");
    let url = format!("file://{}", lake.display());
    let more = "# was s3://key:canary-secret@bucket/x?sig=canary\n# AWS_SECRET_ACCESS_KEY=canary/secret\n\
                # token = \"canary\"  # password: see the safe\n";
    let path = folder.path().join("gateway.toml");
    std::fs::write(&path, config(folder.path(), &url, more)).expect("written");
    let mut told = said(&path, &[], "the lake is reached").await;
    let mut uploaded = Vec::new();
    for file in files(&lake) {
        let text = String::from_utf8_lossy(&std::fs::read(&file).expect("readable")).into_owned();
        if text.contains("gateway = \"site-01\"") {
            uploaded.push(text);
        }
    }
    assert_eq!(uploaded.len(), 1, "its configuration landed: {:?}", files(&lake));
    told += &uploaded.concat();
    for words in [&["check"][..], &["plan"], &["doctor"]] {
        told += &ended(words, &path, &[]).await;
    }
    assert_eq!(leak(&told), None);
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The canary of these: a part of the key, and a token that was sent.
#[tokio::test]
async fn a_key_and_a_token_are_seen() {
    let store = Server::Echoes(403).start().await;
    assert_eq!(gives_away("nothing", &[&store]), None);
    let key = format!("error: {}", &PRIVATE_KEY[100..180]);
    assert!(gives_away(&key, &[&store]).is_some());
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", store.port)).await.expect("it listens");
    let request = b"GET / HTTP/1.1\r\nAuthorization: Bearer a-token-of-an-hour\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut stream, request).await.expect("sent");
    let mut answer = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut answer).await.expect("an answer");
    assert!(gives_away(&answer, &[&store]).is_some(), "{answer}");
}
