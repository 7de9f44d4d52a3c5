//! Which lake a sensor's readings may be in: those of the class `personal` never share a file with others.
//!
//! A batch with a personal sensor that lands in the common lake is set aside as it came, whole: its rows are in no table, and
//! nothing of it is lost. What is not known to be personal may be in the lake of personal readings (an unknown sensor
//! may be anybody's), and stays there: it is told, and neither served nor published.

use std::collections::BTreeSet;

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use tjern_readings::batch::Batch;

use crate::register::{Class, Register};

/// The sensors of a batch that are so.
fn sensors(batch: &Batch, is_so: impl Fn(&str) -> bool) -> Result<BTreeSet<String>, ArrowError> {
    let sensors = cast(batch.rows.column(0), &DataType::Utf8)?;
    Ok(sensors.as_string::<i32>().iter().flatten().filter(|sensor| is_so(sensor)).map(str::to_owned).collect())
}

/// Why a batch may not be taken into the common lake, if it may not.
pub(super) fn objection(batch: &Batch, register: &Register) -> Result<Option<String>, ArrowError> {
    let personal = sensors(batch, |sensor| register.is_personal(sensor))?;
    let named: Vec<_> = personal.iter().map(|sensor| format!("`{sensor}`")).collect();
    Ok((!named.is_empty()).then(|| {
        format!(
            "it has readings of {}, registered as `personal`, and this is the common lake; hint: a gateway of its own sends them \
             to the `personal_lake`, see docs/personal.md",
            named.join(", ")
        )
    }))
}

/// The sensors of a batch that do not belong into a lake of personal readings. Those that the register does not know may be anybody's.
pub(super) fn strangers(batch: &Batch, register: &Register) -> Result<BTreeSet<String>, ArrowError> {
    sensors(batch, |sensor| register.get(sensor).is_some_and(|row| row.class != Class::Personal))
}
