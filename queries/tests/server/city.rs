//! A small city on disk, made through the lake's own writer, and a server before it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use arrow::json::ReaderBuilder;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tempfile::TempDir;
use tjern_lake::{Commit, Lake, Operation, Table, TableName, schema, write_file};
use tjern_queries::{ServeConfig, Server, ServerSettings, Tokens};
use tjern_readings::clock::Clock;
use tjern_readings::store::LakeUrl;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

pub(crate) const NOW: &str = "2026-07-01T12:00:00Z";
pub(crate) const TOKEN: &str = "0123456789abcdef0123";

pub(crate) struct City {
    folder: TempDir,
    pub(crate) lake: Lake,
}

/// A moment so many seconds before now.
pub(crate) fn before(seconds: i64) -> String {
    let now: Timestamp = NOW.parse().expect("a time");
    (now - SignedDuration::from_secs(seconds)).to_string()
}

pub(crate) fn site(id: &str, name: &str) -> Value {
    json!({ "site": id, "name_nb": name, "valid_from": "2026-01-01T00:00:00Z" })
}

pub(crate) fn sensor(id: &str, class: &str, interval: &str) -> Value {
    let (site, quantity) = (id.split('/').next(), id.rsplit('/').next());
    json!({
        "id": id, "site": site, "quantity": quantity, "unit": "Cel", "kind": "sample", "class": class,
        "interval": interval, "low": -2.0, "high": 40.0, "valid_from": "2026-01-01T00:00:00Z",
    })
}

pub(crate) fn reading(sensor: &str, seconds_ago: i64, value: Option<f64>, quality: i8, seq: i64) -> Value {
    json!({
        "sensor": sensor, "time": before(seconds_ago), "value": value, "quality": quality,
        "cause": value.is_none().then_some("timeout"), "source": "landfall-01", "epoch": "ab".repeat(16), "seq": seq,
        "revision": 0, "level": 0, "received": NOW,
    })
}

impl City {
    pub(crate) fn empty() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let now: Timestamp = NOW.parse().expect("a time");
        let url = LakeUrl::folder(&folder.path().canonicalize().expect("it is there")).expect("a lake");
        let lake = Lake::open(&url).expect("it opens").with_clock(Clock::manual(now.as_microsecond()));
        Self { folder, lake }
    }

    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Commits some rows to a table.
    pub(crate) async fn add(&self, name: TableName, rows: &[Value]) {
        let mut decoder = ReaderBuilder::new(schema::arrow(name)).build_decoder().expect("a decoder");
        decoder.serialize(rows).expect("rows of the table");
        let batch = decoder.flush().expect("columns").expect("rows");
        let file = write_file(&self.lake, name, &[batch]).await.expect("a file");
        let mut table = Table::open_or_create(&self.lake, name).await.expect("a table");
        let commit = Commit {
            operation: Operation::Ingest,
            add: vec![file],
            remove: Vec::new(),
            transactions: Vec::new(),
            notes: BTreeMap::new(),
        };
        table.commit(commit).await.expect("a commit");
    }

    /// Two tarns with public sensors, one late, one silent, one that measures nonsense, and things
    /// that are nobody's business.
    pub(crate) async fn drammen() -> Self {
        let city = Self::empty();
        let sites = ["landfalltjern", "goliaten", "blektjern", "svarttjern", "elva", "depot"];
        let names: Vec<_> = sites.iter().map(|id| site(id, &format!("{} <b>&", id.to_uppercase()))).collect();
        city.add(TableName::Sites, &names).await;
        let public = sites[..5].iter().map(|id| sensor(&format!("{id}/water_temperature"), "public", "5s"));
        let inside = [sensor("depot/energy", "internal", "1h"), sensor("elva/battery", "internal", "1h")];
        city.add(TableName::Sensors, &public.chain(inside).collect::<Vec<_>>()).await;
        let mut rows = Vec::new();
        let mut add = |sensor: &str, seconds_ago, value, quality| {
            let seq = i64::try_from(rows.len()).expect("few") + 1;
            rows.push(reading(sensor, seconds_ago, value, quality, seq));
        };
        for hour in (1..=30).rev() {
            add("landfalltjern/water_temperature", hour * 3600, Some(20.0 - 0.25 * hour as f64), 2);
        }
        add("landfalltjern/water_temperature", 4, Some(20.0), 2);
        add("goliaten/water_temperature", 4000, Some(17.5), 1);
        add("blektjern/water_temperature", 4000, Some(16.5), 1);
        add("blektjern/water_temperature", 4, None, 9);
        add("svarttjern/water_temperature", 4000, Some(15.5), 1);
        // Flagged as failed, and one that nobody has judged yet: the register says that it cannot be.
        add("svarttjern/water_temperature", 9, Some(-327.68), 4);
        add("svarttjern/water_temperature", 4, Some(-327.67), 2);
        add("depot/energy", 4, Some(4711.5), 1);
        add("elva/battery", 4, Some(77.125), 1);
        add("unlisted/water_temperature", 4, Some(88.375), 1);
        city.add(TableName::Readings, &rows).await;
        city
    }

    pub(crate) async fn serve(&self) -> Served {
        self.serve_with(|_| {}).await
    }

    pub(crate) async fn serve_with(&self, change: impl FnOnce(&mut ServerSettings)) -> Served {
        let tokens = self.folder.path().join("tokens");
        std::fs::write(&tokens, format!("# staff\nanalyst:{TOKEN}\n")).expect("written");
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let serve = ServeConfig { public: free, staff: free, tokens: Some(tokens.clone()), ..ServeConfig::default() };
        let oslo = TimeZone::get("Europe/Oslo").expect("known");
        let tokens = Tokens::read(&tokens).expect("tokens");
        let mut settings = ServerSettings::new(self.lake.clone(), oslo, &serve, tokens);
        change(&mut settings);
        let server = Server::bind(settings).await.expect("free ports");
        let (public, staff) = (server.public_address(), server.staff_address());
        let stop = CancellationToken::new();
        let running = AbortOnDropHandle::new(tokio::spawn(server.run(stop.clone())));
        Served { public, staff, stop, running }
    }
}

pub(crate) struct Served {
    pub(crate) public: SocketAddr,
    pub(crate) staff: SocketAddr,
    pub(crate) stop: CancellationToken,
    pub(crate) running: AbortOnDropHandle<()>,
}

/// The process's own metrics, with one of another part in it.
pub(crate) fn registry_with_a_guest() -> tjern_queries::SharedRegistry {
    let registry = tjern_queries::SharedRegistry::default();
    let guest = prometheus_client::metrics::counter::Counter::<u64>::default();
    Arc::clone(&registry).lock().expect("not poisoned").register("tjern_guest", "Of another part", guest);
    registry
}
