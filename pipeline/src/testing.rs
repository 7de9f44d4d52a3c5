//! What the tests of several rooms need: a real lake in a temporary folder, registered sensors, and
//! readings committed as ingest commits them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int8Array, Int16Array, Int32Array, Int64Array, StringArray,
    TimestampMicrosecondArray,
};
use arrow::compute::concat_batches;
use arrow::datatypes::{Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use tempfile::TempDir;
use tjern_lake::{Commit, FileWriter, Lake, Operation, Table, TableName, schema, write_file};
use tjern_readings::clock::Clock;
use tjern_readings::reading::Cause;
use tjern_readings::store::{LakeUrl, Store};

use crate::register::{OptionalFile, Register, RegisterFiles, load, register};
use crate::tables::{collect, conform, engine};

/// 2026-07-01T06:00:00Z.
pub(crate) const NOW_US: i64 = 1_782_885_600_000_000;

/// A lake on disk, and the clock by which it lives.
pub(crate) struct Place {
    pub(crate) lake: Lake,
    pub(crate) clock: Clock,
    pub(crate) folder: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let clock = Clock::manual(NOW_US);
        Self { lake: Self::open(folder.path()).with_clock(clock.clone()), clock, folder }
    }

    fn open(folder: &Path) -> Lake {
        let url: LakeUrl = format!("file://{}/lake", folder.display()).parse().expect("a lake");
        Lake::over(Store::open(&url).expect("opened"))
    }

    /// The same lake as another process would open it: nothing is known of it yet.
    pub(crate) fn reopened(&self) -> Lake {
        Self::open(self.folder.path()).with_clock(self.clock.clone())
    }

    /// Commits a file that is written as compaction seals it.
    pub(crate) async fn seal(&self, rows: &[Row]) {
        let mut table = Table::open_or_create(&self.lake, TableName::Readings).await.expect("a table");
        let rows = crate::tables::sorted(&batch_of(rows), &["sensor", "time"]).expect("sorted");
        let mut writer = FileWriter::sealed(TableName::Readings).expect("a writer");
        writer.write(&rows).expect("written");
        let file = writer.finish(&self.lake).await.expect("finished");
        table.commit(commit(Operation::Ingest, vec![file], vec![])).await.expect("committed");
    }

    /// The register's files, with these texts.
    pub(crate) fn files(&self, sites: &str, sensors: &str) -> RegisterFiles {
        let path = |name: &str| self.folder.path().join(name);
        std::fs::write(path("sites.csv"), sites).expect("written");
        std::fs::write(path("sensors.csv"), sensors).expect("written");
        let optional = |name: &str| OptionalFile { path: path(name), required: false };
        RegisterFiles {
            sites: path("sites.csv"),
            sensors: path("sensors.csv"),
            required: true,
            installations: optional("installations.csv"),
            events: optional("events.csv"),
            rules: optional("quality.csv"),
            timezone: jiff::tz::TimeZone::get("Europe/Oslo").expect("known"),
            may_end_all: false,
        }
    }

    /// Registers sensors at one site, given as lines `id-without-site,unit,kind,class,low,high` or the same with `,wraps_at`.
    pub(crate) async fn register(&self, lines: &[&str]) -> Register {
        let mut sensors = "id,site,quantity,unit,kind,class,low,high,wraps_at\n".to_owned();
        for line in lines {
            let (quantity, rest) = line.split_once(',').expect("a quantity first");
            let rest = if rest.split(',').count() == 5 { format!("{rest},") } else { rest.to_owned() };
            sensors.push_str(&format!("tjern/{quantity},tjern,{quantity},{rest}\n"));
        }
        let files = self.files("site,name_nb,latitude,longitude\ntjern,\"Tjernet, det lille\",59.7,10.2\n", &sensors);
        register(&self.lake, &files).await.expect("registered");
        load(&self.lake).await.expect("loaded")
    }

    /// Commits rows as ingest does.
    pub(crate) async fn ingest(&self, rows: &[Row]) {
        let mut table = Table::open_or_create(&self.lake, TableName::Readings).await.expect("a table");
        let file = write_file(&self.lake, TableName::Readings, &[batch_of(rows)]).await.expect("written");
        table.commit(commit(Operation::Ingest, vec![file], vec![])).await.expect("committed");
    }

    /// Puts all files of `readings` into one, as compaction does.
    pub(crate) async fn compact(&self) {
        let mut table = Table::open(&self.lake, TableName::Readings).await.expect("opened").expect("there");
        let rows = crate::tables::sorted(&self.rows(TableName::Readings).await, &["sensor", "time"]).expect("sorted");
        let file = write_file(&self.lake, TableName::Readings, &[rows]).await.expect("written");
        let files = table.files();
        table.commit(commit(Operation::Compact, vec![file], files)).await.expect("committed");
    }

    /// All rows of a table, with the columns of its files.
    pub(crate) async fn rows(&self, name: TableName) -> RecordBatch {
        let schema = schema::arrow(name);
        let Some(table) = Table::open(&self.lake, name).await.expect("opened") else {
            return RecordBatch::new_empty(schema);
        };
        let context = engine(&self.lake).expect("an engine");
        let batches = collect(&context, table.provider()).await.expect("read");
        let batches: Vec<_> =
            batches.iter().map(|batch| conform(batch, &schema).expect("the table's columns")).collect();
        concat_batches(&schema, &batches).expect("one schema")
    }

    pub(crate) async fn readings(&self) -> Vec<Row> {
        rows_of(&self.rows(TableName::Readings).await)
    }

    pub(crate) async fn version(&self, name: TableName) -> Option<i64> {
        Table::open(&self.lake, name).await.expect("opened").map(|table| table.version())
    }
}

pub(crate) fn commit(
    operation: Operation,
    add: Vec<tjern_lake::DataFile>,
    remove: Vec<tjern_lake::DataFile>,
) -> Commit {
    Commit { operation, add, remove, transactions: vec![], notes: BTreeMap::new() }
}

/// A row of `readings`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    pub(crate) sensor: String,
    pub(crate) time_us: i64,
    pub(crate) value: Option<f64>,
    pub(crate) quality: i8,
    /// Why ingest refused it, where it did.
    pub(crate) refused: Option<Cause>,
    pub(crate) tests: Option<i32>,
    pub(crate) seq: i64,
    pub(crate) revision: i16,
    pub(crate) received_us: i64,
}

impl Row {
    /// As a gateway sends it.
    pub(crate) fn new(quantity: &str, time_us: i64, value: impl Into<Option<f64>>) -> Self {
        let value = value.into();
        let quality = if value.is_some() { 2 } else { 9 };
        let sensor = format!("tjern/{quantity}");
        Self { sensor, time_us, value, quality, refused: None, tests: None, seq: 1, revision: 0, received_us: NOW_US }
    }

    pub(crate) fn quality(self, quality: i8) -> Self {
        Self { quality, ..self }
    }

    pub(crate) fn revision(self, revision: i16) -> Self {
        Self { revision, ..self }
    }

    /// As ingest keeps what it refuses.
    pub(crate) fn refused(self, cause: Cause) -> Self {
        let quality = if self.value.is_some() { 4 } else { 9 };
        Self { refused: Some(cause), quality, ..self }
    }
}

pub(crate) fn batch_of(rows: &[Row]) -> RecordBatch {
    fn all<A: FromIterator<T> + Array + 'static, T>(rows: &[Row], get: impl Fn(&Row) -> T) -> ArrayRef {
        Arc::new(rows.iter().map(get).collect::<A>())
    }
    let times = |get: fn(&Row) -> i64| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(get)).with_timezone("UTC"))
    };
    let columns = vec![
        all::<StringArray, _>(rows, |row| Some(row.sensor.clone())),
        times(|row| row.time_us),
        all::<Float64Array, _>(rows, |row| row.value),
        all::<Int8Array, _>(rows, |row| Some(row.quality)),
        all::<StringArray, _>(rows, |row| {
            row.refused.map(Cause::word).or_else(|| row.value.is_none().then_some("timeout"))
        }),
        all::<Int32Array, _>(rows, |_| None::<i32>),
        all::<StringArray, _>(rows, |_| Some("landfall-01")),
        all::<StringArray, _>(rows, |_| Some("0123456789abcdef0123456789abcdef")),
        all::<Int64Array, _>(rows, |row| Some(row.seq)),
        all::<Int16Array, _>(rows, |row| Some(row.revision)),
        all::<Int8Array, _>(rows, |_| Some(0_i8)),
        all::<Int32Array, _>(rows, |row| row.tests),
        times(|row| row.received_us),
    ];
    RecordBatch::try_new(schema::arrow(TableName::Readings), columns).expect("the table's columns")
}

pub(crate) fn rows_of(batch: &RecordBatch) -> Vec<Row> {
    let column = |name: &str| batch.column_by_name(name).expect("a column");
    let (values, tests) = (column("value").as_primitive::<Float64Type>(), column("tests").as_primitive::<Int32Type>());
    let time = |name: &str, row: usize| column(name).as_primitive::<TimestampMicrosecondType>().value(row);
    let causes = column("cause").as_string::<i32>();
    let refused = |row: usize| {
        let cause = causes.is_valid(row).then(|| causes.value(row).parse().expect("a known word"));
        cause.filter(|cause| matches!(cause, Cause::NotAssigned | Cause::Unit | Cause::Future))
    };
    let row = |row: usize| Row {
        sensor: column("sensor").as_string::<i32>().value(row).to_owned(),
        time_us: time("time", row),
        value: values.is_valid(row).then(|| values.value(row)),
        quality: column("quality").as_primitive::<Int8Type>().value(row),
        refused: refused(row),
        tests: tests.is_valid(row).then(|| tests.value(row)),
        seq: column("seq").as_primitive::<Int64Type>().value(row),
        revision: column("revision").as_primitive::<Int16Type>().value(row),
        received_us: time("received", row),
    };
    (0..batch.num_rows()).map(row).collect()
}
