//! What a lake has to hold after a life, reckoned from what was landed and from nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type, TimestampMicrosecondType};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tjern_lake::{Lake, Lease, Table, TableName};
use tjern_pipeline::compact::LEASE;
use tjern_readings::keys;

/// A number's reading: sensor, time, value to the bit.
pub(crate) type Told = (String, i64, Option<u64>);

/// Readings by source and number.
pub(crate) type Readings = BTreeMap<(String, i64), Told>;

/// Rows and sum of one sensor's window, all qualities together.
type Window = (i64, f64);

/// The batches of a table's newest version, read file by file.
async fn batches(lake: &Lake, name: TableName) -> Result<Vec<RecordBatch>, String> {
    let Some(table) = Table::open(lake, name).await.map_err(|error| error.to_string())? else {
        return Ok(Vec::new());
    };
    let mut batches = Vec::new();
    for file in table.files() {
        let key = keys::table(name.as_str()).join(file.path.as_str());
        let found = lake.objects().get(&key).await.map_err(|error| format!("a file of {name} is lost: {error}"))?;
        let bytes = found.bytes().await.map_err(|error| error.to_string())?;
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).and_then(|builder| builder.build());
        for batch in reader.map_err(|error| format!("{key}: {error}"))? {
            batches.push(batch.map_err(|error| format!("{key}: {error}"))?);
        }
    }
    Ok(batches)
}

fn text(batch: &RecordBatch, name: &str) -> Arc<dyn Array> {
    let column = batch.column_by_name(name).expect("a column of the table");
    arrow::compute::cast(column, &arrow::datatypes::DataType::Utf8).expect("text")
}

/// Every row of `readings`.
async fn stored(lake: &Lake) -> Result<Vec<((String, i64), Told)>, String> {
    let mut rows = Vec::new();
    for batch in batches(lake, TableName::Readings).await? {
        let (sensors, sources) = (text(&batch, "sensor"), text(&batch, "source"));
        let numbers = batch.column_by_name("seq").expect("a column").as_primitive::<Int64Type>();
        let times = batch.column_by_name("time").expect("a column").as_primitive::<TimestampMicrosecondType>();
        let values = batch.column_by_name("value").expect("a column").as_primitive::<Float64Type>();
        for row in 0..batch.num_rows() {
            let source = sources.as_string::<i32>().value(row).to_owned();
            let sensor = sensors.as_string::<i32>().value(row).to_owned();
            let value = values.is_valid(row).then(|| values.value(row).to_bits());
            rows.push(((source, numbers.value(row)), (sensor, times.value(row), value)));
        }
    }
    Ok(rows)
}

/// Every reading that landed stands in the table once, as it was.
pub(crate) async fn holds_each_once(lake: &Lake, wanted: &Readings) -> Result<(), String> {
    let mut seen = Readings::new();
    for (number, told) in stored(lake).await? {
        match wanted.get(&number) {
            None => return Err(format!("{number:?} is stored and never landed")),
            Some(landed) if *landed != told => return Err(format!("{number:?} was {landed:?} and is {told:?}")),
            Some(_) => {}
        }
        if seen.insert(number.clone(), told).is_some() {
            return Err(format!("{number:?} is there twice"));
        }
    }
    match wanted.keys().find(|number| !seen.contains_key(*number)) {
        Some(number) => Err(format!("{number:?} is lost; {} of {} are there", seen.len(), wanted.len())),
        None => Ok(()),
    }
}

/// The hours and days (UTC) are those of the readings.
pub(crate) async fn sums_up(lake: &Lake, wanted: &Readings) -> Result<(), String> {
    for (name, length_us) in [(TableName::Hourly, 3_600_000_000), (TableName::Daily, 86_400_000_000)] {
        let mut expected: BTreeMap<(String, i64), Window> = BTreeMap::new();
        for (sensor, time_us, value) in wanted.values() {
            let window = expected.entry((sensor.clone(), time_us - time_us.rem_euclid(length_us))).or_default();
            window.0 += 1;
            window.1 += value.map_or(0.0, f64::from_bits);
        }
        let found = windows(lake, name).await?;
        if expected.keys().ne(found.keys()) {
            return Err(format!("{name} has {} windows of {}", found.len(), expected.len()));
        }
        for (window, (count, sum)) in &expected {
            let (counted, summed) = found[window];
            if counted != *count || (summed - sum).abs() > 1e-9 {
                return Err(format!(
                    "{name} {window:?} has {counted} readings, sum {summed}; {count}, sum {sum} landed"
                ));
            }
        }
    }
    Ok(())
}

async fn windows(lake: &Lake, name: TableName) -> Result<BTreeMap<(String, i64), Window>, String> {
    let mut windows: BTreeMap<(String, i64), Window> = BTreeMap::new();
    for batch in batches(lake, name).await? {
        let sensors = text(&batch, "sensor");
        let times = batch.column_by_name("time").expect("a column").as_primitive::<TimestampMicrosecondType>();
        let counts = batch.column_by_name("count").expect("a column").as_primitive::<Int64Type>();
        let sums = batch.column_by_name("sum").expect("a column").as_primitive::<Float64Type>();
        for row in 0..batch.num_rows() {
            let sensor = sensors.as_string::<i32>().value(row).to_owned();
            let window = windows.entry((sensor, times.value(row))).or_default();
            window.0 += counts.value(row);
            window.1 += if sums.is_valid(row) { sums.value(row) } else { 0.0 };
        }
    }
    Ok(windows)
}

/// What could not be read lies in quarantine as it came, and nothing else does.
pub(crate) async fn keeps_what_is_bad(lake: &Lake, bad: &BTreeMap<Path, Vec<u8>>) -> Result<(), String> {
    let mut kept: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    for key in under(lake, keys::QUARANTINE).await? {
        if !key.as_ref().ends_with(".reason.json") {
            let bytes = lake.objects().get(&key).await.map_err(|error| error.to_string())?.bytes().await;
            *kept.entry(bytes.map_err(|error| error.to_string())?.to_vec()).or_default() += 1;
        }
    }
    for (key, bytes) in bad {
        if kept.remove(bytes).is_none() {
            return Err(format!("`{key}` could not be read and is lost"));
        }
    }
    if kept.is_empty() { Ok(()) } else { Err(format!("{} good objects are in quarantine", kept.len())) }
}

/// Nothing is left that somebody would have to clean up.
pub(crate) async fn left_nothing_behind(lake: &Lake) -> Result<(), String> {
    // A lease that could not be given back is the next one's, once it has run out.
    let lease = Lease::take(lake, "compact", LEASE).await.map_err(|error| error.to_string())?;
    if lease.is_none() {
        return Err("a lease that has run out is nobody's".to_owned());
    }
    for name in [TableName::Readings, TableName::Hourly, TableName::Daily] {
        let folder = keys::table(name.as_str());
        let Some(table) = Table::open(lake, name).await.map_err(|error| error.to_string())? else { continue };
        let active: Vec<_> = table.files().iter().map(|file| folder.clone().join(file.path.as_str())).collect();
        let there = under(lake, folder.as_ref()).await?;
        let orphan = there.iter().find(|key| {
            key.as_ref().ends_with(".parquet") && !key.as_ref().contains("_delta_log") && !active.contains(key)
        });
        if let Some(orphan) = orphan {
            return Err(format!("vacuum leaves `{orphan}`, which nobody names"));
        }
    }
    Ok(())
}

async fn under(lake: &Lake, folder: &str) -> Result<Vec<Path>, String> {
    let objects = lake.objects();
    let listed = objects.list(Some(&Path::from(folder))).map_ok(|meta| meta.location);
    listed.try_collect().await.map_err(|error| error.to_string())
}
