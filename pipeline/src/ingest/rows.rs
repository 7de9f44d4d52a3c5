//! A batch's rows as rows of `readings`: with who sent them, when they were received, and what the
//! register and the configuration say against them.
//!
//! Nothing is dropped. A reading from more than ten minutes ahead, from a source that the register
//! does not name for the sensor, or in another unit than the register's, is kept with its value and
//! fails, with the cause. "Ahead" is ahead of the moment when its batch landed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int8Array, Int16Array, Int32Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int8Type, TimestampMicrosecondType};
use arrow::error::ArrowError;
use tjern_lake::{TableName, schema};
use tjern_readings::batch::Batch;
use tjern_readings::reading::{Cause, Quality};

use crate::quality::{QualityError, evaluate};
use crate::register::{Register, Said};

/// How far ahead a reading may be before it fails.
const FUTURE_US: i64 = 10 * 60 * 1_000_000;

/// The unit of each sensor, as a gateway's configuration names it.
pub(super) type Units = HashMap<String, String>;

/// Why readings of a sensor fail, whatever their values are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Against {
    pub(super) sensor: String,
    pub(super) cause: Cause,
}

/// When a batch came, in microseconds since 1970.
#[derive(Debug, Clone, Copy)]
pub(super) struct Came {
    /// When it landed. A reading is of the future by this, and not by when ingest got to it: so it is judged the same
    /// when ingest had stood still, and in a replay years later. A store whose clock is ahead of ours is not believed.
    pub(super) landed_us: i64,
    /// When ingest takes it.
    pub(super) received_us: i64,
}

impl Came {
    fn judged_us(self) -> i64 {
        self.landed_us.min(self.received_us)
    }
}

/// A batch's rows, and how many of them something speaks against.
#[derive(Debug)]
pub(super) struct Rows {
    pub(super) batch: RecordBatch,
    pub(super) against: BTreeMap<Against, usize>,
}

/// The rows of `batch` for the table, evaluated.
pub(super) fn rows(batch: &Batch, said: &Said, units: &Units, came: Came) -> Result<Rows, QualityError> {
    let count = batch.rows.num_rows();
    let column = |index: usize, kind: &DataType| cast(batch.rows.column(index), kind);
    let sensors = column(0, &DataType::Utf8)?;
    let (quality, cause, against) = judge(batch, &sensors, &said.register, units, came)?;
    let same_text =
        |text: String| -> ArrayRef { Arc::new(StringArray::from_iter_values(std::iter::repeat_n(text, count))) };
    let columns: Vec<ArrayRef> = vec![
        sensors,
        column(1, &schema::time_type())?,
        column(2, &DataType::Float64)?,
        quality,
        cause,
        column(5, &DataType::Int32)?,
        same_text(batch.header.source.to_string()),
        same_text(batch.header.epoch.to_string()),
        column(6, &DataType::Int64)?,
        Arc::new(Int16Array::from(vec![0; count])),
        Arc::new(Int8Array::from(vec![0; count])),
        Arc::new(Int32Array::new_null(count)),
        Arc::new(TimestampMicrosecondArray::from(vec![came.received_us; count]).with_timezone("UTC")),
    ];
    let batch = RecordBatch::try_new(schema::arrow(TableName::Readings), columns)?;
    let batch = evaluate(&batch, said)?;
    Ok(Rows { batch, against })
}

/// Quality and cause of each row, after what speaks against it.
fn judge(
    batch: &Batch,
    sensors: &ArrayRef,
    register: &Register,
    units: &Units,
    came: Came,
) -> Result<(ArrayRef, ArrayRef, BTreeMap<Against, usize>), ArrowError> {
    let source = batch.header.source.as_str();
    let times = batch.rows.column(1).as_primitive::<TimestampMicrosecondType>();
    let values = batch.rows.column(2).as_primitive::<Float64Type>();
    let qualities = batch.rows.column(3).as_primitive::<Int8Type>();
    let causes = cast(batch.rows.column(4), &DataType::Utf8)?;
    let (sensors, causes) = (sensors.as_string::<i32>(), causes.as_string::<i32>());
    let against = |row: usize| {
        let registered = register.get(sensors.value(row));
        let unit = units.get(sensors.value(row));
        if registered.is_some_and(|sensor| !sensor.accepts(source)) {
            Some(Cause::NotAssigned)
        } else if registered.zip(unit).is_some_and(|(sensor, unit)| sensor.unit != *unit) {
            Some(Cause::Unit)
        } else if times.value(row) > came.judged_us().saturating_add(FUTURE_US) {
            Some(Cause::Future)
        } else {
            None
        }
    };
    let mut found: BTreeMap<Against, usize> = BTreeMap::new();
    let judged = (0..batch.rows.num_rows()).map(|row| {
        let came = (qualities.value(row), causes.is_valid(row).then(|| causes.value(row)));
        // A reading without a value says of its time and unit nothing that could be wrong; who sent it may be.
        let Some(cause) = against(row).filter(|cause| values.is_valid(row) || *cause == Cause::NotAssigned) else {
            return came;
        };
        *found.entry(Against { sensor: sensors.value(row).to_owned(), cause }).or_default() += 1;
        (if values.is_valid(row) { Quality::Fail.code() } else { came.0 }, Some(cause.word()))
    });
    let (quality, cause): (Vec<i8>, Vec<Option<&str>>) = judged.unzip();
    Ok((Arc::new(Int8Array::from(quality)), Arc::new(StringArray::from(cause)), found))
}
