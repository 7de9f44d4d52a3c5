//! The SQL functions that Tjern adds.
//!
//! `time_bucket(width, time)` is the start of the bucket that `time` lies in; buckets are counted
//! from 1970-01-01T00:00:00Z. It works on integer microseconds and keeps the order of its input, so
//! that sorted files can be grouped without a sort; `date_trunc` on zoned times does neither.
//!
//! `local_time(time)` is what a clock on the wall of the city shows: a time without a zone.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// An hour in microseconds.
const HOUR_US: i64 = 3_600_000_000;

/// All functions, for a city in this time zone.
#[must_use]
pub fn functions(timezone: &TimeZone) -> Vec<ScalarUDF> {
    vec![ScalarUDF::new_from_impl(TimeBucket::new()), ScalarUDF::new_from_impl(LocalTime::new(timezone.clone()))]
}

fn utc() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// `time_bucket('15min', time)`, `time_bucket(900000000, time)`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct TimeBucket {
    signature: Signature,
}

impl TimeBucket {
    fn new() -> Self {
        let texts = TypeSignature::Exact(vec![DataType::Utf8, utc()]);
        let micros = TypeSignature::Exact(vec![DataType::Int64, utc()]);
        Self { signature: Signature::one_of(vec![texts, micros], Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for TimeBucket {
    fn name(&self) -> &'static str {
        "time_bucket"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(utc())
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [width, time] = arguments.args.as_slice() else { return plan_err!("time_bucket takes a width and a time") };
        let width_us = width_us(width)?;
        map_times(time, Some("UTC"), |time_us| time_us.div_euclid(width_us) * width_us)
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        Ok(inputs.get(1).map_or(SortProperties::Unordered, |time| time.sort_properties))
    }

    fn preserves_lex_ordering(&self, inputs: &[ExprProperties]) -> Result<bool> {
        Ok(inputs.first().is_some_and(|width| width.sort_properties == SortProperties::Singleton))
    }
}

fn width_us(width: &ColumnarValue) -> Result<i64> {
    let ColumnarValue::Scalar(width) = width else { return exec_err!("the width of time_bucket is one for all rows") };
    let width_us = match width {
        ScalarValue::Int64(Some(width_us)) => *width_us,
        ScalarValue::Utf8(Some(text)) => match tjern_readings::configuration::parse_duration(text) {
            Ok(duration) => i64::try_from(duration.as_micros()).unwrap_or(i64::MAX),
            Err(error) => return exec_err!("time_bucket: {error}"),
        },
        other => return exec_err!("time_bucket: {other} is no width; hint: write '15min', or microseconds"),
    };
    if width_us > 0 { Ok(width_us) } else { exec_err!("time_bucket: the width must be positive") }
}

/// Applies `change` to every time that is not null.
fn map_times(time: &ColumnarValue, zone: Option<&str>, change: impl Fn(i64) -> i64) -> Result<ColumnarValue> {
    let on_array = |array: &ArrayRef| -> ArrayRef {
        let times = array.as_primitive::<TimestampMicrosecondType>();
        let changed: TimestampMicrosecondArray = times.unary(&change);
        Arc::new(changed.with_timezone_opt(zone))
    };
    match time {
        ColumnarValue::Array(array) => Ok(ColumnarValue::Array(on_array(array))),
        ColumnarValue::Scalar(scalar) => {
            let array = on_array(&scalar.to_array()?);
            debug_assert_eq!(array.len(), 1, "a scalar is one row");
            Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?))
        }
    }
}

/// `local_time(time)`.
#[derive(Debug, PartialEq, Eq)]
struct LocalTime {
    signature: Signature,
    timezone: TimeZone,
}

impl std::hash::Hash for LocalTime {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.timezone.iana_name().hash(state);
    }
}

impl LocalTime {
    fn new(timezone: TimeZone) -> Self {
        Self { signature: Signature::exact(vec![utc()], Volatility::Immutable), timezone }
    }
}

impl ScalarUDFImpl for LocalTime {
    fn name(&self) -> &'static str {
        "local_time"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Timestamp(TimeUnit::Microsecond, None))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [time] = arguments.args.as_slice() else { return plan_err!("local_time takes a time") };
        // Clocks change on whole quarters of an hour; rows come in order, so one offset serves many.
        let known = std::cell::Cell::new((i64::MIN, 0));
        map_times(time, None, |time_us| {
            let quarter = time_us.div_euclid(HOUR_US / 4);
            if known.get().0 != quarter {
                known.set((quarter, offset_us(&self.timezone, time_us)));
            }
            time_us.saturating_add(known.get().1)
        })
    }
}

/// How far the city's clocks are ahead of UTC.
fn offset_us(timezone: &TimeZone, time_us: i64) -> i64 {
    let offset = |time| i64::from(timezone.to_offset(time).seconds()) * 1_000_000;
    Timestamp::from_microsecond(time_us).map_or(0, offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::prelude::SessionContext;

    async fn answer(sql: &str) -> String {
        let context = SessionContext::new();
        let oslo = TimeZone::get("Europe/Oslo").expect("known");
        functions(&oslo).into_iter().for_each(|function| context.register_udf(function));
        let batches = context.sql(sql).await.expect("planned").collect().await.expect("answered");
        arrow::util::display::array_value_to_string(batches[0].column(0), 0).expect("shown")
    }

    #[tokio::test]
    async fn buckets_start_where_a_clock_says() {
        let time = |text: &str| format!("arrow_cast('{text}', 'Timestamp(Microsecond, Some(\"UTC\"))')");
        let bucket = |width: &str, text: &str| format!("SELECT time_bucket({width}, {})", time(text));
        assert_eq!(answer(&bucket("'15min'", "2026-07-01T10:29:59Z")).await, "2026-07-01T10:15:00Z");
        assert_eq!(answer(&bucket("'1d'", "1969-12-31T23:00:00Z")).await, "1969-12-31T00:00:00Z");
        assert_eq!(answer(&bucket("3600000000", "2026-07-01T10:00:00Z")).await, "2026-07-01T10:00:00Z");
    }

    /// On the last Sunday of October the hour from two to three comes twice.
    #[tokio::test]
    async fn local_time_follows_the_citys_clocks() {
        let local =
            |text: &str| format!("SELECT local_time(arrow_cast('{text}', 'Timestamp(Microsecond, Some(\"UTC\"))'))");
        assert_eq!(answer(&local("2026-10-25T00:30:00Z")).await, "2026-10-25T02:30:00");
        assert_eq!(answer(&local("2026-10-25T01:30:00Z")).await, "2026-10-25T02:30:00");
    }
}
