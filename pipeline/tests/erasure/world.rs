//! A lake in which a sensor's readings of a week have gone everywhere.

use std::path::{Path as FilePath, PathBuf};

use futures::TryStreamExt;
use jiff::tz::TimeZone;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tjern_lake::{Lake, Table, TableName, write_file};
use tjern_pipeline::compact::{CompactSettings, compact};
use tjern_pipeline::correct::Author;
use tjern_pipeline::correct::revise::{ReviseLayout, revise};
use tjern_pipeline::erase::{EraseSettings, Request};
use tjern_pipeline::import::{BadLine, ColumnMap, Decimal, ImportMap, ImportProgress, Listener, import};
use tjern_pipeline::ingest::ingest;
use tjern_pipeline::publish::{Dataset, Licence, publish};
use tjern_pipeline::quality::control;
use tjern_pipeline::register::{OptionalFile, RegisterFiles, register};
use tjern_pipeline::rollup::rollup;
use tjern_readings::batch::encode;
use tjern_readings::keys::Landed;
use tjern_readings::reading::Reading;
use tokio_util::sync::CancellationToken;

use crate::scan::{Erased, Traces};
use crate::support::{EPOCH, HOUR_US, NOW_US, Place, SETTINGS, source};

/// Whose readings are erased; its name stands between the others'.
pub(crate) const SENSOR: &str = "home-7/indoor_temperature";
pub(crate) const OTHERS: [&str; 2] = ["elva/level", "tarn/water_temperature"];

/// A value that only an erased reading has: as measured, as corrected, as imported.
pub(crate) const MEASURED: f64 = 21.734_375;
pub(crate) const CORRECTED: f64 = 22.734_375;
pub(crate) const IMPORTED: f64 = 20.734_375;

/// 2026-06-08T00:00:00Z, and a week later.
pub(crate) const FROM_US: i64 = NOW_US - 23 * 24 * HOUR_US;
pub(crate) const TO_US: i64 = FROM_US + 7 * 24 * HOUR_US;

pub(crate) const GATEWAY: &str = "landfall-01";

/// The lake, and the folder for files beside it.
pub(crate) struct World {
    pub(crate) place: Place,
    pub(crate) folder: tempfile::TempDir,
}

struct Quiet;

impl Listener for Quiet {
    fn bad(&mut self, line: &BadLine) {
        panic!("a bad line: {line:?}");
    }

    fn progress(&mut self, _progress: ImportProgress) {}
}

/// What was asked for.
pub(crate) fn request() -> Request {
    let sensor = SENSOR.parse().expect("valid");
    Request { sensor, from_us: FROM_US, to_us: TO_US, reason: "the resident asked".into(), by: "an officer".into() }
}

pub(crate) fn erased() -> Erased {
    Erased { sensor: SENSOR, from_us: FROM_US, to_us: TO_US, values: vec![MEASURED, CORRECTED, IMPORTED] }
}

pub(crate) fn dataset() -> Dataset {
    Dataset {
        name: "innetemperatur".into(),
        title: "Temperaturer".into(),
        title_en: None,
        description: None,
        publisher: None,
        licence: Licence::default(),
        quantity: None,
        sensors: None,
    }
}

/// Readings of twelve hours from a moment on: all three sensors, the erased one only where it is wanted.
pub(crate) fn half_a_day(from_us: i64, with_erased: bool) -> Vec<Reading> {
    let hours = (0..12).map(|hour| from_us + hour * HOUR_US);
    let of_hour = |time_us: i64| {
        let within = (FROM_US..TO_US).contains(&time_us);
        let value = if within { MEASURED } else { 19.5 };
        let measured = (!within || with_erased).then(|| Reading::of(SENSOR.parse().expect("valid"), time_us, value));
        let hour = time_us / HOUR_US % 24;
        let other = |(place, name): (usize, &str)| {
            let value = f64::from(i32::try_from(hour).expect("small")) / 8.0 + if place == 0 { 0.0 } else { 10.0 };
            Reading::of(name.parse().expect("valid"), time_us, value)
        };
        OTHERS.into_iter().enumerate().map(other).chain(measured).collect::<Vec<_>>()
    };
    hours.flat_map(of_hour).collect()
}

impl World {
    /// An empty lake with the three sensors registered.
    pub(crate) async fn empty() -> Self {
        let world = Self { place: Place::new(), folder: tempfile::tempdir().expect("a folder") };
        Table::create_all(&world.lake()).await.expect("created");
        register(&world.lake(), &world.files("public")).await.expect("registered");
        world
    }

    pub(crate) fn lake(&self) -> Lake {
        self.place.lake()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The register's files, with the class of the sensor.
    pub(crate) fn files(&self, class: &str) -> RegisterFiles {
        let write = |name: &str, text: String| {
            std::fs::write(self.path(name), text).expect("written");
            self.path(name)
        };
        let optional = |name: &str| OptionalFile { path: self.path(name), required: false };
        let sites = "site,name_nb\nelva,Elva\nhome-7,Et hjem\ntarn,Tjernet\n".to_owned();
        let sensors = format!(
            "id,site,quantity,unit,kind,class\nelva/level,elva,level,m,sample,public\n\
             {SENSOR},home-7,indoor_temperature,Cel,sample,{class}\n\
             tarn/water_temperature,tarn,water_temperature,Cel,sample,public\n"
        );
        RegisterFiles {
            sites: write("sites.csv", sites),
            sensors: write("sensors.csv", sensors),
            required: true,
            installations: optional("installations.csv"),
            events: optional("events.csv"),
            rules: optional("quality.csv"),
            timezone: TimeZone::UTC,
            may_end_all: false,
        }
    }

    pub(crate) fn settings(&self) -> EraseSettings {
        let compact = CompactSettings { spill_folder: self.folder.path().to_owned(), ..CompactSettings::default() };
        EraseSettings { ingest: SETTINGS, register: None, compact, datasets: vec![dataset()], timezone: TimeZone::UTC }
    }

    /// Lands half days of the gateway, from its `first` number on. Returns the next number.
    pub(crate) async fn land(&self, first: i64, half_days: impl IntoIterator<Item = i64>, with_erased: bool) -> i64 {
        let mut next = first;
        for half_day in half_days {
            let readings = half_a_day(FROM_US + half_day * 12 * HOUR_US, with_erased);
            self.place.land_readings(GATEWAY, next, &readings, None).await;
            next += i64::try_from(readings.len()).expect("small");
        }
        next
    }

    pub(crate) async fn ingest(&self) {
        ingest(&self.lake(), &SETTINGS).await.expect("ingested");
    }

    pub(crate) async fn sum_up(&self) {
        rollup(&self.lake(), &TimeZone::UTC).await.expect("summed up");
    }

    pub(crate) async fn publish(&self) {
        publish(&self.lake(), &dataset(), &TimeZone::UTC).await.expect("published");
    }

    pub(crate) async fn merge(&self) {
        let settings = self.settings().compact;
        compact(&self.lake(), &settings, &CancellationToken::new(), &mut |_| ()).await.expect("compacted");
    }

    async fn revise(&self, lines: &str, reason: &str) {
        let file = self.path("better.csv");
        std::fs::write(&file, format!("sensor,time,value\n{lines}")).expect("written");
        let layout = ReviseLayout { separator: b',', decimal: Decimal::Point, zone: TimeZone::UTC };
        let author = Author { by: "a technician".into(), reason: Some(reason.into()) };
        revise(&self.lake(), &file, &layout, &author, false).await.expect("revised");
    }

    /// Imports a file of the sensor alone, under a map whose column has this unit's scale.
    pub(crate) async fn import(&self, name: &str) {
        let file = self.path("history.csv");
        let lines = (0..5).map(|hour| format!("{},{IMPORTED}\n", time(FROM_US + hour * HOUR_US + 60_000_000)));
        std::fs::write(&file, format!("time,t\n{}", lines.collect::<String>())).expect("written");
        self.import_file(&file, name).await;
    }

    pub(crate) async fn import_file(&self, file: &FilePath, name: &str) {
        let column =
            ColumnMap { name: "t".into(), sensor: SENSOR.into(), unit: Some("Cel".into()), scale: 1.0, offset: 0.0 };
        let map = ImportMap { column: vec![column], ..ImportMap::of(name) };
        let map = map.check("UTC").expect("a map");
        import(&self.lake(), file, &map, false, &mut Quiet).await.expect("imported");
    }

    /// Everything: the readings go to every place that there is.
    pub(crate) async fn full() -> Self {
        let world = Self::empty().await;
        world.everything().await;
        world
    }

    async fn everything(&self) {
        // Two days before the week, and half of it.
        let next = self.land(1, -4..4, true).await;
        self.ingest().await;
        self.import("import:old-logger").await;
        self.ingest().await;
        self.checkpoint(TableName::Readings).await;
        control(&self.lake()).await.expect("tested");
        self.sum_up().await;
        self.publish().await;
        let within = time(FROM_US + HOUR_US);
        let (outside, other) = (time(FROM_US - HOUR_US), OTHERS[0]);
        self.revise(&format!("{SENSOR},{within},{CORRECTED}\n"), &format!("it was {CORRECTED}")).await;
        self.revise(
            &format!("{SENSOR},{outside},18.5\n{SENSOR},{},{CORRECTED}\n", time(FROM_US + 2 * HOUR_US)),
            &format!("it was {CORRECTED} later"),
        )
        .await;
        self.revise(&format!("{other},{within},3.5\n"), "the level was 3.5").await;
        self.place.ahead(2 * HOUR_US);
        self.merge().await;
        self.sum_up().await;
        for name in [TableName::Readings, TableName::Hourly] {
            self.checkpoint(name).await;
        }
        // The other half, in files of their own; the last batch is the newest of its epoch.
        let next = self.land(next, 4..7, true).await;
        self.ingest().await;
        self.sum_up().await;
        self.place.ahead(HOUR_US);
        self.publish().await;
        self.set_aside(next).await;
        self.leave_behind().await;
        self.tell().await;
    }

    async fn checkpoint(&self, name: TableName) {
        let mut table = Table::open(&self.lake(), name).await.expect("opened").expect("there");
        table.write_checkpoint().await.expect("written");
    }

    /// A clone's batch that overlaps, and one that broke on its way.
    async fn set_aside(&self, next: i64) {
        let readings = half_a_day(FROM_US, true);
        self.place.land_readings(GATEWAY, 5, &readings, None).await;
        let (bytes, batch) = encode(&source("elva-01"), EPOCH, 1, &readings, None).expect("encoded");
        let key = Landed::Batch(EPOCH, batch.header.bounds).key(&source("elva-01"));
        self.place.put(&key, bytes.to_vec()).await;
        self.ingest().await;
        // The gateway wrote the sensor, so what is broken may hold its readings.
        let (bytes, batch) = encode(&source(GATEWAY), EPOCH, next + 1_000, &readings, None).expect("encoded");
        let key = Landed::Batch(EPOCH, batch.header.bounds).key(&source(GATEWAY));
        let broken = Path::from(key.as_ref().replacen("landing/", "quarantine/", 1));
        self.place.put(&broken, bytes[..bytes.len() * 2 / 3].to_vec()).await;
        // Somebody else's, who never wrote the sensor.
        let key = Path::from(format!("quarantine/tarn-09/{EPOCH}/{:020}-{:020}.arrow", 1, 2));
        self.place.put(&key, b"no batch at all".to_vec()).await;
    }

    /// A file that a killed compaction left, which no version names.
    async fn leave_behind(&self) {
        write_file(&self.lake(), TableName::Readings, &self.rows().await).await.expect("written");
    }

    /// All rows of `readings`, to be written.
    pub(crate) async fn rows(&self) -> Vec<arrow::array::RecordBatch> {
        let table = Table::open(&self.lake(), TableName::Readings).await.expect("opened").expect("there");
        let mut rows = Vec::new();
        for file in table.files() {
            let opened = tjern_lake::FileReader::open(&self.lake(), TableName::Readings, &file).await.expect("opened");
            let batches: Vec<_> = opened.rows(8_192).expect("rows").try_collect().await.expect("read");
            rows.extend(batches);
        }
        let wanted = tjern_lake::schema::arrow(TableName::Readings);
        rows.iter()
            .map(|rows| {
                let columns = wanted.fields().iter().zip(rows.columns());
                let columns = columns.map(|(field, column)| arrow::compute::cast(column, field.data_type()));
                let columns = columns.collect::<Result<_, _>>().expect("cast");
                arrow::array::RecordBatch::try_new(std::sync::Arc::clone(&wanted), columns).expect("the columns")
            })
            .collect()
    }

    /// The watch and a job have said something.
    async fn tell(&self) {
        let alert = format!("{{\"kind\":\"limit\",\"subject\":\"{SENSOR}\",\"text\":\"{SENSOR} is {MEASURED}\"}}");
        let state = format!(
            "{{\"format\":1,\"born\":\"2026-01-01T00:00:00Z\",\"alerts\":{{\"limit:{SENSOR}\":{alert}}},\"queues\":{{\"mail\":{{\"events\":[{alert}]}}}},\"sources\":{{}}}}"
        );
        self.place.put(&Path::from("jobs/watch/state.json"), state.into_bytes()).await;
        let run =
            format!("{{\"format\":1,\"job\":\"publish-x\",\"error\":\"{MEASURED} of `{SENSOR}` has quality 4\"}}");
        self.place.put(&Path::from("jobs/runs/publish-x.json"), run.into_bytes()).await;
    }

    /// Where erased readings are found. What nobody can read and a source sent that never wrote the sensor is left alone.
    pub(crate) async fn traces(&self) -> Traces {
        let mut traces = erased().scan(&self.place.store.inner()).await;
        traces.retain(|(key, _)| !key.contains("/tarn-09/"));
        traces
    }

    /// Every row that is not erased, as it stands.
    pub(crate) async fn others(&self) -> String {
        self.place
            .ask(&format!(
                "SELECT sensor, time, value, quality, cause, source, epoch, seq, revision, received FROM readings \
                 WHERE NOT (sensor = '{SENSOR}' AND time >= '{}' AND time < '{}') \
                 ORDER BY sensor, time, revision, source, epoch, seq",
                time(FROM_US),
                time(TO_US)
            ))
            .await
    }

    pub(crate) async fn sums(&self) -> String {
        let of = |table: &str| {
            format!("SELECT sensor, time, quality, count, sum, min, max, first, last FROM {table} ORDER BY 1, 2, 3")
        };
        format!("{}\n{}", self.place.ask(&of("hourly")).await, self.place.ask(&of("daily")).await)
    }

    /// All objects, as they are.
    pub(crate) async fn objects(&self) -> Vec<(Path, bytes::Bytes)> {
        let objects = self.place.store.inner();
        let metas: Vec<_> = objects.list(None).try_collect().await.expect("listed");
        let mut all = Vec::new();
        for meta in metas {
            let bytes = objects.get(&meta.location).await.expect("there").bytes().await.expect("read");
            all.push((meta.location, bytes));
        }
        all
    }

    /// A lake with these objects, and nothing known of it.
    pub(crate) async fn of(objects: &[(Path, bytes::Bytes)], now_us: i64) -> Self {
        let world = Self { place: Place::new(), folder: tempfile::tempdir().expect("a folder") };
        world.place.clock.set_us(now_us);
        for (key, bytes) in objects {
            world.place.put(key, bytes.to_vec()).await;
        }
        world
    }
}

pub(crate) fn time(time_us: i64) -> String {
    jiff::Timestamp::from_microsecond(time_us).expect("a time").to_string()
}
