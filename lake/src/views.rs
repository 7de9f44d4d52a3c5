//! The views of a session, from the tables of one version each.
//!
//! `observations` is what people and tools should use: one row per `(sensor, time)`, the highest
//! revision (among equals the latest received, then the highest source, epoch and number), of quality
//! 1 to 3 and within what the register calls plausible, with the names of its place and sensor. The
//! second guard matters where a range was registered after its readings came: a value that fails is
//! never shown as one.
//!
//! Files in which `(sensor, time)` is unique and which overlap no other file are passed through;
//! only the rest is sifted.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::error::Result;
use datafusion::prelude::{DataFrame, SessionContext};

use crate::{DataFile, Table, TableName};

/// The register's rows that hold now.
pub(crate) async fn register(tables: &SessionContext, table: TableName, public: bool) -> Result<DataFrame> {
    let valid = format!("SELECT * FROM all_{table} WHERE valid_to IS NULL");
    let sql = match (table, public) {
        (_, false) => valid,
        (TableName::Sensors, true) => format!("{valid} AND class = 'public'"),
        (TableName::Sites, true) => {
            format!("{valid} AND site IN (SELECT site FROM all_sensors WHERE valid_to IS NULL AND class = 'public')")
        }
        // Instruments and vandalism are the city's own business.
        (_, true) => format!("{valid} AND false"),
    };
    tables.sql(&sql).await
}

/// Rows of sensors that the view `sensors` has; all rows for staff.
pub(crate) async fn of_known_sensors(tables: &SessionContext, name: &str, public: bool) -> Result<DataFrame> {
    let filter = if public { " WHERE sensor IN (SELECT id FROM sensors)" } else { "" };
    tables.sql(&format!("SELECT * FROM all_{name}{filter}")).await
}

/// `readings` without what a later revision or a second copy replaced.
pub(crate) async fn newest_revisions(tables: &SessionContext, readings: Option<&Table>) -> Result<DataFrame> {
    let files = readings.map(Table::files).unwrap_or_default();
    let (settled, open) = settled(files);
    let provider = |files| crate::scan::LakeTable::new(TableName::Readings, files);
    tables.register_table("settled_readings", Arc::new(provider(settled)) as Arc<dyn TableProvider>)?;
    tables.register_table("open_readings", Arc::new(provider(open)) as Arc<dyn TableProvider>)?;
    let columns = "sensor, time, value, quality, cause, lag_ms, source, epoch, seq, revision, level, tests, received";
    let sql = format!(
        "SELECT {columns} FROM settled_readings UNION ALL \
         SELECT {columns} FROM (SELECT {columns}, row_number() OVER (PARTITION BY sensor, time \
             ORDER BY revision DESC, received DESC, source DESC, epoch DESC, seq DESC) AS place \
             FROM open_readings) WHERE place = 1"
    );
    tables.sql(&sql).await
}

/// Parts files into those that need no sifting and the others. In the order of their times a file is
/// held only against those that begin before it ends.
pub(crate) fn settled(mut files: Vec<DataFile>) -> (Vec<DataFile>, Vec<DataFile>) {
    // Files of unknown times come first, and may share a key with any.
    files.sort_by_key(|file| file.time_us);
    let mut alone: Vec<bool> = files.iter().map(|file| file.unique).collect();
    for (index, file) in files.iter().enumerate() {
        let ends_us = file.time_us.map_or(i64::MAX, |(_, last)| last);
        for (other, it) in files.iter().enumerate().skip(index + 1) {
            if it.time_us.is_some_and(|(first, _)| first > ends_us) {
                break;
            }
            if may_share_a_key(file, it) {
                (alone[index], alone[other]) = (false, false);
            }
        }
    }
    let (settled, open): (Vec<_>, Vec<_>) = files.into_iter().zip(alone).partition(|(_, alone)| *alone);
    let files = |parted: Vec<(DataFile, bool)>| parted.into_iter().map(|(file, _)| file).collect();
    (files(settled), files(open))
}

fn may_share_a_key(one: &DataFile, other: &DataFile) -> bool {
    let times = match (one.time_us, other.time_us) {
        (Some((low, high)), Some((other_low, other_high))) => low <= other_high && other_low <= high,
        _ => true,
    };
    let sensors = match (&one.sensor, &other.sensor) {
        (Some((low, high)), Some((other_low, other_high))) => low <= other_high && other_low <= high,
        _ => true,
    };
    times && sensors
}

/// `observations`.
pub(crate) async fn observations(tables: &SessionContext, public: bool) -> Result<DataFrame> {
    // A reading of an unknown sensor is internal: it has no place in what the public sees.
    let join = if public { "JOIN" } else { "LEFT JOIN" };
    let sql = format!(
        "SELECT r.sensor, r.time, r.value, r.quality, r.cause, r.lag_ms, r.source, r.epoch, r.seq, r.revision, \
             r.level, r.tests, r.received, coalesce(s.site, split_part(r.sensor, '/', 1)) AS site, s.quantity, \
             p.name_nb AS site_name, s.name_nb AS sensor_name, s.unit, s.kind, coalesce(s.class, 'internal') AS class, \
             local_time(r.time) AS local_time \
         FROM newest_revisions r {join} sensors s ON s.id = r.sensor LEFT JOIN sites p ON p.site = s.site \
         WHERE r.quality BETWEEN 1 AND 3 AND r.value IS NOT NULL \
             AND (s.low IS NULL OR r.value >= s.low) AND (s.high IS NULL OR r.value <= s.high)"
    );
    tables.sql(&sql).await
}

/// `latest`: a row per sensor that is registered or was heard of, from one pass over the readings.
pub(crate) async fn latest(tables: &SessionContext, public: bool, now_us: i64) -> Result<DataFrame> {
    let now = format!("arrow_cast({now_us}, 'Timestamp(Microsecond, Some(\"UTC\"))')");
    // Who is not registered has no plausible range, and for the public does not exist.
    let join = if public { "RIGHT JOIN" } else { "FULL JOIN" };
    let sql = format!(
        "WITH judged AS (SELECT r.sensor, r.time, r.value, r.quality, r.cause, \
                 r.quality BETWEEN 1 AND 3 AND r.value IS NOT NULL AND (s.low IS NULL OR r.value >= s.low) \
                     AND (s.high IS NULL OR r.value <= s.high) AS good \
             FROM newest_revisions r LEFT JOIN sensors s ON s.id = r.sensor WHERE r.time <= {now}), \
         heard AS (SELECT sensor, max(time) AS heard_time, \
                 last_value(quality ORDER BY time) AS heard_quality, last_value(cause ORDER BY time) AS heard_cause, \
                 max(time) FILTER (WHERE good) AS time, last_value(value ORDER BY time) FILTER (WHERE good) AS value, \
                 last_value(quality ORDER BY time) FILTER (WHERE good) AS quality \
             FROM judged GROUP BY sensor) \
         SELECT coalesce(h.sensor, s.id) AS sensor, h.time, h.value, h.quality, h.heard_time, h.heard_quality, \
             h.heard_cause, coalesce(s.site, split_part(h.sensor, '/', 1)) AS site, s.quantity, \
             p.name_nb AS site_name, s.name_nb AS sensor_name, s.unit, s.kind, \
             coalesce(s.class, 'internal') AS class, s.interval \
         FROM heard h {join} sensors s ON s.id = h.sensor LEFT JOIN sites p ON p.site = s.site"
    );
    tables.sql(&sql).await
}
