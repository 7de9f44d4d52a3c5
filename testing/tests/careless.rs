//! A store that overlooks `If-None-Match`: what writes to a lake finds that out before it writes anything.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use futures::TryStreamExt;
use object_store::ObjectStore;
use tjern_gateway::spool::{Spool, SpoolSettings};
use tjern_gateway::upload::{self, UploadSettings};
use tjern_lake::{Lake, Table};
use tjern_readings::clock::Clock;
use tjern_readings::keys;
use tjern_readings::reading::Reading;
use tjern_readings::sensor::SourceName;
use tjern_readings::store::Store;
use tjern_testing::s3::S3Server;
use tokio_util::sync::CancellationToken;

async fn keys_in(store: &Store) -> Vec<String> {
    let listed = store.objects().list(None).map_ok(|meta| meta.location.to_string()).try_collect();
    listed.await.expect("listed")
}

/// Two pipelines on such a store would commit under one number, and the rows of one be gone.
#[tokio::test(flavor = "multi_thread")]
async fn the_pipeline_makes_no_table_in_it() {
    let server = S3Server::start(100).await;
    let lake = Lake::over(server.store("lake"));
    server.overlook_conditions();
    let refused = Table::create_all(&lake).await.expect_err("refused").to_string();
    assert!(refused.contains("does not refuse to create `jobs/create-only` a second time"), "{refused}");
    assert_eq!(keys_in(lake.store()).await, ["jobs/create-only"]);
}

/// Two gateways of one name would overwrite one another's batches, each of which had left its spool: nothing is
/// sent, what waits stays, and the state says why. Over a store that keeps its word the same spool is emptied.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_keeps_its_readings() {
    let server = S3Server::start(100).await;
    server.overlook_conditions();
    let place = tempfile::tempdir().expect("a folder");
    let source: SourceName = "landfall-01".parse().expect("a source");
    let spool = Spool::open(
        SpoolSettings {
            dir: place.path().join("spool"),
            max_bytes: 1 << 28,
            sync_every: Duration::from_secs(5),
            source: source.clone(),
            configuration: None,
        },
        Clock::manual(0),
    );
    let spool = spool.expect("opened");
    let reading = Reading::of("landfalltjern/water_temperature".parse().expect("a sensor"), 0, 17.5);
    spool.append(vec![reading]).await;
    assert!(spool.seal().await);
    let mut settings = UploadSettings::new(server.lake("lake"), source.clone());
    settings.every = Duration::from_millis(20);
    settings.credentials_file = Some(credentials(place.path(), &server));
    let state = settings.state.clone();
    let stop = CancellationToken::new();
    let running = tokio::spawn(upload::run(spool.clone(), settings, stop.clone()));
    until(async || state.snapshot().last_error.is_some_and(|error| error.contains("does not refuse to create"))).await;
    assert_eq!(spool.status().sealed_count, 1);
    let store = server.store("lake");
    assert_eq!(keys_in(&store).await, [keys::source_proof(&source).to_string()]);
    server.mind_conditions();
    until(async || spool.sealed().await.is_empty()).await;
    assert_eq!(keys_in(&store).await.len(), 2, "the batch has landed beside the proof");
    stop.cancel();
    running.await.expect("ended");
    spool.close().await;
}

fn credentials(folder: &std::path::Path, server: &S3Server) -> std::path::PathBuf {
    let path = folder.join("credentials");
    let lines: Vec<String> = server.variables().iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    fs::write(&path, lines.concat()).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
    path
}

/// Waits until something holds, within a minute.
async fn until(what: impl AsyncFn() -> bool) {
    let looking = async {
        let mut looks = tokio::time::interval(Duration::from_millis(5));
        while !what().await {
            looks.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), looking).await.expect("it comes to hold within a minute");
}
