//! Writes the points: once a layout, and once as plain Parquet.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Float64Array, Int8Array, Int16Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray, UInt32Array,
};
use arrow::datatypes::{DataType, Field, Float64Type, Schema, TimestampMicrosecondType};
use object_store::ObjectStoreExt;
use parquet::arrow::ArrowWriter;
use tjern_lake::{Commit, DataFile, FileWriter, Lake, Operation, Table, TableName, schema};
use tjern_readings::store::LakeUrl;

use crate::layouts::{Files, Foreign, LAYOUTS, Layout, Shape, properties};
use crate::readings::{Columns, Family, Knobs, START_US, Wanted, one, received};
use crate::{Failure, Size};

const DAY_US: i64 = 86_400_000_000;

/// All layouts of the points.
pub(crate) async fn make(folder: &Path, size: Size) -> Result<(), Failure> {
    std::fs::create_dir_all(folder)?;
    let mut writing = Vec::new();
    for layout in LAYOUTS.iter().filter(|layout| layout.files_of().name == layout.name) {
        writing.push(Writing::begin(folder, *layout)?);
    }
    let plain = std::fs::File::create(folder.join("plain.parquet"))?;
    let mut plain = ArrowWriter::try_new(plain, schema::arrow(TableName::Readings), None)?;
    let wanted = Wanted {
        family: Family::River,
        stations: size.stations,
        sensors: size.sensors,
        days: size.days,
        knobs: Knobs::default(),
        seed: 7,
    };
    let mut rows = 0;
    for station in 0..size.stations {
        let received = received(wanted, station);
        for sensor in 0..size.sensors {
            let mut columns = Columns::default();
            one(&mut columns, wanted, (station, sensor), &received);
            let batch = batch_of(&columns)?;
            rows += batch.num_rows();
            plain.write(&batch)?;
            for layout in &mut writing {
                layout.put(&batch, station, station * size.sensors + sensor)?;
            }
        }
        eprintln!("{} of {} stations", station + 1, size.stations);
    }
    plain.close()?;
    for layout in writing {
        layout.end(size, rows).await?;
    }
    size.keep(folder)
}

fn batch_of(columns: &Columns) -> Result<RecordBatch, Failure> {
    let rows = columns.sensor.len();
    let times = |values: &[i64]| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from(values.to_vec()).with_timezone("UTC"))
    };
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(&columns.sensor)),
        times(&columns.time_us),
        Arc::new(Float64Array::from(columns.value.clone())),
        Arc::new(Int8Array::from(columns.quality.clone())),
        Arc::new(StringArray::from(columns.cause.clone())),
        Arc::new(Int32Array::from(columns.lag_ms.clone())),
        Arc::new(StringArray::from_iter_values(&columns.source)),
        Arc::new(StringArray::from_iter_values(&columns.epoch)),
        Arc::new(Int64Array::from(columns.seq.clone())),
        Arc::new(Int16Array::from(vec![0; rows])),
        Arc::new(Int8Array::from(vec![1; rows])),
        Arc::new(Int32Array::from(columns.tests.clone())),
        times(&columns.received_us),
    ];
    Ok(RecordBatch::try_new(schema::arrow(TableName::Readings), arrays)?)
}

/// A moment of a station, and what its sensors said then.
type WideRow = (i64, Vec<Option<f64>>);

/// A layout that is being written.
struct Writing {
    layout: Layout,
    folder: std::path::PathBuf,
    files: BTreeMap<usize, File>,
    wide: HashMap<usize, Vec<WideRow>>,
}

struct File {
    writer: Writer,
    sensors: Option<(String, String)>,
    times_us: Option<(i64, i64)>,
    rows: i64,
}

enum Writer {
    Ours(Box<FileWriter>),
    Theirs(Box<ArrowWriter<Vec<u8>>>),
}

impl Writing {
    fn begin(folder: &Path, layout: Layout) -> Result<Self, Failure> {
        let folder = folder.join(layout.folder());
        std::fs::create_dir_all(&folder)?;
        Ok(Self { layout, folder, files: BTreeMap::new(), wide: HashMap::new() })
    }

    /// All rows of one sensor.
    fn put(&mut self, batch: &RecordBatch, station: usize, number: usize) -> Result<(), Failure> {
        let times = batch.column(1).as_primitive::<TimestampMicrosecondType>().values().clone();
        if self.layout.shape == Shape::Foreign(Foreign::Wide) {
            let values = batch.column(2).as_primitive::<Float64Type>();
            let rows = times.iter().zip(values.iter()).map(|(time_us, value)| (*time_us, value));
            spread(self.wide.entry(station).or_default(), rows);
            return Ok(());
        }
        let mut start = 0;
        while start < times.len() {
            let place = self.place(times[start]);
            let end = start + times[start..].partition_point(|time_us| self.place(*time_us) == place);
            let rows = batch.slice(start, end - start);
            self.put_into(place, &rows, number)?;
            start = end;
        }
        Ok(())
    }

    /// Which file a moment's rows go into.
    const fn place(&self, time_us: i64) -> usize {
        let days = match self.layout.files {
            Files::Months => 31,
            Files::Days => 1,
        };
        ((time_us - START_US) / (days * DAY_US)).cast_unsigned() as usize
    }

    fn put_into(&mut self, place: usize, rows: &RecordBatch, number: usize) -> Result<(), Failure> {
        let shaped = shaped(self.layout.shape, rows, number)?;
        let file = match self.files.entry(place) {
            std::collections::btree_map::Entry::Occupied(there) => there.into_mut(),
            std::collections::btree_map::Entry::Vacant(free) => {
                let writer = match self.layout.shape {
                    Shape::Sealed => Writer::Ours(Box::new(FileWriter::sealed(TableName::Readings)?)),
                    _ => {
                        let properties = Some(properties(self.layout.groups())?);
                        Writer::Theirs(Box::new(ArrowWriter::try_new(Vec::new(), shaped.schema(), properties)?))
                    }
                };
                free.insert(File { writer, sensors: None, times_us: None, rows: 0 })
            }
        };
        file.note(rows);
        let groups = self.layout.groups();
        match &mut file.writer {
            Writer::Ours(writer) => writer.write(&shaped)?,
            Writer::Theirs(writer) => {
                let mut start = 0;
                while start < shaped.num_rows() {
                    let free = groups.rows - writer.in_progress_rows();
                    let count = free.min(shaped.num_rows() - start);
                    writer.write(&shaped.slice(start, count))?;
                    start += count;
                    if writer.in_progress_rows() >= groups.rows {
                        writer.flush()?;
                    }
                }
                if groups.cut {
                    writer.flush()?;
                }
            }
        }
        Ok(())
    }

    async fn end(mut self, size: Size, rows: usize) -> Result<(), Failure> {
        if self.layout.shape == Shape::Foreign(Foreign::Wide) {
            for (station, rows) in std::mem::take(&mut self.wide) {
                let path = self.folder.join(format!("station-{station:02}.parquet"));
                let batch = wide(&rows, station, size.sensors)?;
                let mut writer = ArrowWriter::try_new(
                    std::fs::File::create(path)?,
                    batch.schema(),
                    Some(properties(self.layout.groups())?),
                )?;
                writer.write(&batch)?;
                writer.close()?;
            }
        } else if let Shape::Foreign(_) = self.layout.shape {
            for (place, file) in std::mem::take(&mut self.files) {
                let Writer::Theirs(writer) = file.writer else { continue };
                std::fs::write(self.folder.join(format!("{place:03}.parquet")), writer.into_inner()?)?;
            }
        } else {
            self.commit().await?;
        }
        let bytes = bytes_of(&self.folder)?;
        #[expect(clippy::cast_precision_loss, reason = "shown to three decimals")]
        let each = bytes as f64 / rows as f64;
        std::fs::write(self.folder.join("bytes-a-reading"), format!("{each:.3}"))?;
        eprintln!("{}: {rows} readings, {each:.3} bytes each", self.layout.name);
        Ok(())
    }

    /// Makes a table of a lake of its files.
    async fn commit(&mut self) -> Result<(), Failure> {
        let lake = Lake::open(&LakeUrl::folder(&self.folder)?)?;
        let mut table = Table::open_or_create(&lake, TableName::Readings).await?;
        let mut add = Vec::new();
        for (place, file) in std::mem::take(&mut self.files) {
            match file.writer {
                Writer::Ours(writer) => add.push(writer.finish(&lake).await?),
                Writer::Theirs(writer) => {
                    let bytes = writer.into_inner()?;
                    let path = format!("{place:03}.parquet");
                    let size = i64::try_from(bytes.len())?;
                    lake.objects()
                        .put(&tjern_readings::keys::table("readings").join(path.as_str()), bytes.into())
                        .await?;
                    add.push(DataFile {
                        path,
                        size,
                        modified_ms: 0,
                        rows: Some(file.rows),
                        sensor: file.sensors,
                        time_us: file.times_us,
                        sorted: true,
                        unique: true,
                        sha256: None,
                    });
                }
            }
        }
        let commit =
            Commit { operation: Operation::Ingest, add, remove: vec![], transactions: vec![], notes: BTreeMap::new() };
        table.commit(commit).await?;
        Ok(())
    }
}

impl File {
    fn note(&mut self, rows: &RecordBatch) {
        let sensor = rows.column(0).as_string::<i32>().value(0).to_owned();
        let times = rows.column(1).as_primitive::<TimestampMicrosecondType>().values();
        let (first, last) = (times[0], times[times.len() - 1]);
        self.rows += i64::try_from(rows.num_rows()).unwrap_or(i64::MAX);
        self.sensors = Some(match self.sensors.take() {
            Some((least, _)) => (least, sensor),
            None => (sensor.clone(), sensor),
        });
        let (least, greatest) = self.times_us.unwrap_or((first, last));
        self.times_us = Some((least.min(first), greatest.max(last)));
    }
}

/// The rows with the columns that a shape has.
fn shaped(shape: Shape, rows: &RecordBatch, number: usize) -> Result<RecordBatch, Failure> {
    match shape {
        Shape::Foreign(Foreign::Numbers) => {
            let numbers: ArrayRef = Arc::new(UInt32Array::from(vec![u32::try_from(number)?; rows.num_rows()]));
            let mut fields: Vec<_> = rows.schema().fields().iter().cloned().collect();
            fields[0] = Arc::new(Field::new("sensor", DataType::UInt32, false));
            let columns = std::iter::once(numbers).chain(rows.columns().iter().skip(1).cloned()).collect();
            Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
        }
        Shape::Foreign(Foreign::Anonymous) => {
            let schema = rows.schema();
            let kept = |name: &String| !["source", "epoch", "seq"].contains(&name.as_str());
            let kept: Vec<usize> =
                (0..rows.num_columns()).filter(|column| kept(schema.field(*column).name())).collect();
            Ok(rows.project(&kept)?)
        }
        _ => Ok(rows.clone()),
    }
}

/// Adds a column to rows that are in the order of their times.
fn spread(rows: &mut Vec<(i64, Vec<Option<f64>>)>, column: impl Iterator<Item = (i64, Option<f64>)>) {
    let width = rows.iter().map(|(_, values)| values.len()).max().unwrap_or(0);
    let mut merged: BTreeMap<i64, Vec<Option<f64>>> = std::mem::take(rows).into_iter().collect();
    for (time_us, value) in column {
        let values = merged.entry(time_us).or_default();
        values.resize(width, None);
        values.push(value);
    }
    merged.values_mut().for_each(|values| values.resize(width + 1, None));
    *rows = merged.into_iter().collect();
}

fn wide(rows: &[(i64, Vec<Option<f64>>)], station: usize, sensors: usize) -> Result<RecordBatch, Failure> {
    let times = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|(time_us, _)| *time_us));
    let mut fields = vec![Field::new("time", schema::time_type(), false)];
    let mut columns: Vec<ArrayRef> = vec![Arc::new(times.with_timezone("UTC"))];
    for sensor in 0..sensors {
        fields.push(Field::new(crate::readings::name(station, sensor), DataType::Float64, true));
        columns.push(Arc::new(rows.iter().map(|(_, values)| values[sensor]).collect::<Float64Array>()));
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// The bytes of all Parquet files in a folder and below it.
fn bytes_of(folder: &Path) -> Result<u64, Failure> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if path.is_dir() {
            bytes += bytes_of(&path)?;
        } else if path.extension().is_some_and(|end| end == "parquet") {
            bytes += entry.metadata()?.len();
        }
    }
    Ok(bytes)
}
