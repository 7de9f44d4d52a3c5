//! The views of a session, from the tables of one version each.
//!
//! `observations` is what people and tools should use: one row per `(sensor, time)`, the one that counts
//! ([`crate::precedence`]), of quality
//! 1 to 3 and within what the register calls plausible, with the names of its place and sensor. The
//! second guard matters where a range was registered after its readings came, until quality control has looked at them: a value that fails is
//! never shown as one. What a person validated stands over it, here as in quality control, and so in hours and days.
//!
//! Files in which `(sensor, time)` is unique and which overlap no other file are passed through;
//! only the rest is sifted. `latest` does not read them again: [`crate::precedence`] keeps what each said.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::error::Result;
use datafusion::prelude::{DataFrame, SessionContext};

use crate::{DataFile, TableName};

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

/// The columns of a reading, as the views name them.
const COLUMNS: &str =
    "sensor, time, value, quality, cause, lag_ms, source, epoch, seq, revision, level, tests, received";

/// The files of `readings`, by what sifting they need.
#[derive(Debug, Clone, Default)]
pub(crate) struct Parted {
    /// None: a key comes once.
    pub(crate) settled: Vec<DataFile>,
    /// By themselves: a key comes more than once, as after a correction, but in no other file.
    pub(crate) corrected: Vec<DataFile>,
    /// All together.
    pub(crate) open: Vec<DataFile>,
}

impl Parted {
    pub(crate) fn of(files: Vec<DataFile>) -> Self {
        let (alone, open) = alone(files);
        let (settled, corrected) = alone.into_iter().partition(|file| file.unique);
        Self { settled, corrected, open }
    }

    /// The files that share no key with another and end by a moment; and all the others, parted as they were.
    pub(crate) fn ended_by(self, now_us: i64) -> (Vec<DataFile>, Self) {
        let ended = |file: &DataFile| file.time_us.is_some_and(|(_, last)| last <= now_us);
        let (mut past, settled): (Vec<_>, _) = self.settled.into_iter().partition(ended);
        let (past_corrected, corrected): (Vec<_>, _) = self.corrected.into_iter().partition(ended);
        past.extend(past_corrected);
        (past, Self { settled, corrected, open: self.open })
    }
}

/// `readings` without what a later revision or a second copy replaced.
pub(crate) async fn newest_revisions(tables: &SessionContext, parted: Parted) -> Result<DataFrame> {
    sifted(tables, parted, "readings").await
}

/// The rows of some files without what a later revision or a second copy replaced; `word` names the tables that are
/// registered for it.
pub(crate) async fn sifted(tables: &SessionContext, parted: Parted, word: &str) -> Result<DataFrame> {
    let provider = |files| crate::scan::LakeTable::new(TableName::Readings, files);
    let register =
        |name: String, files| tables.register_table(name, Arc::new(provider(files)) as Arc<dyn TableProvider>);
    register(format!("settled_{word}"), parted.settled)?;
    register(format!("open_{word}"), [parted.corrected, parted.open].concat())?;
    let newest_first = crate::precedence::first_in_sql();
    let sql = format!(
        "SELECT {COLUMNS} FROM settled_{word} UNION ALL \
         SELECT {COLUMNS} FROM (SELECT {COLUMNS}, row_number() OVER (PARTITION BY sensor, time \
             ORDER BY {newest_first}) AS place \
             FROM open_{word}) WHERE place = 1"
    );
    tables.sql(&sql).await
}

/// Parts files into those that need no sifting and the others.
pub(crate) fn settled(files: Vec<DataFile>) -> (Vec<DataFile>, Vec<DataFile>) {
    let Parted { settled, corrected, open } = Parted::of(files);
    (settled, [corrected, open].concat())
}

/// Parts files into those that share no key with another, and the others. In the order of their times a file is held only
/// against those that begin before it ends.
fn alone(mut files: Vec<DataFile>) -> (Vec<DataFile>, Vec<DataFile>) {
    // Files of unknown times come first, and may share a key with any.
    files.sort_by_key(|file| file.time_us);
    let mut alone = vec![true; files.len()];
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
    let (alone, shared): (Vec<_>, Vec<_>) = files.into_iter().zip(alone).partition(|(_, alone)| *alone);
    let files = |parted: Vec<(DataFile, bool)>| parted.into_iter().map(|(file, _)| file).collect();
    (files(alone), files(shared))
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

/// Whether a value is one that counts: it has not failed, and a person answers for it or the register calls it plausible. `r` is the
/// reading, and `s` its sensor's line, if it has one.
const COUNTS: &str = "r.quality BETWEEN 1 AND 3 AND r.value IS NOT NULL AND (r.level >= 2 OR \
    (s.low IS NULL OR r.value >= s.low) AND (s.high IS NULL OR r.value <= s.high))";

/// `observations`.
pub(crate) async fn observations(tables: &SessionContext, public: bool) -> Result<DataFrame> {
    // A reading of an unknown sensor is internal: it has no place in what the public sees.
    let join = if public { "JOIN" } else { "RIGHT JOIN" };
    // The register comes first: what comes first is held in memory, and the readings pass by it.
    let sql = format!(
        "SELECT r.sensor, r.time, r.value, r.quality, r.cause, r.lag_ms, r.source, r.epoch, r.seq, r.revision, \
             r.level, r.tests, r.received, coalesce(s.site, split_part(r.sensor, '/', 1)) AS site, s.quantity, \
             s.site_name, s.name_nb AS sensor_name, s.unit, s.kind, coalesce(s.class, 'internal') AS class, \
             local_time(r.time) AS local_time \
         FROM (SELECT s.*, p.name_nb AS site_name FROM sensors s LEFT JOIN sites p ON p.site = s.site) s \
             {join} newest_revisions r ON s.id = r.sensor \
         WHERE {COUNTS}"
    );
    tables.sql(&sql).await
}

/// What the rows of a table say of their sensors: the newest word, and the newest good value; a row per sensor. The context
/// has the register's `all_sensors`.
pub(crate) async fn heard_in(tables: &SessionContext, rows: &str) -> Result<DataFrame> {
    // Who is not registered has no plausible range.
    let sql = format!(
        "WITH judged AS (SELECT r.sensor, r.time, r.value, r.quality, r.cause, \
                 {COUNTS} AS good \
             FROM (SELECT id, low, high FROM all_sensors WHERE valid_to IS NULL) s RIGHT JOIN {rows} r ON s.id = r.sensor) \
         SELECT sensor, max(time) AS heard_time, \
                 last_value(quality ORDER BY time) AS heard_quality, last_value(cause ORDER BY time) AS heard_cause, \
                 max(time) FILTER (WHERE good) AS time, last_value(value ORDER BY time) FILTER (WHERE good) AS value, \
                 last_value(quality ORDER BY time) FILTER (WHERE good) AS quality \
             FROM judged GROUP BY sensor"
    );
    tables.sql(&sql).await
}

/// `latest`: a row per sensor that is registered or was heard of. What files say that share no key is in the table `newest_of_files`;
/// `others` are the files that are read each time.
pub(crate) async fn latest(tables: &SessionContext, public: bool, others: Parted, now_us: i64) -> Result<DataFrame> {
    let now = format!("arrow_cast({now_us}, 'Timestamp(Microsecond, Some(\"UTC\"))')");
    let rest = sifted(tables, others, "rest").await?;
    tables.register_table("rest", rest.into_view())?;
    tables.register_table(
        "rest_by_now",
        tables.sql(&format!("SELECT * FROM rest WHERE time <= {now}")).await?.into_view(),
    )?;
    tables.register_table("newest_of_rest", heard_in(tables, "rest_by_now").await?.into_view())?;
    // Who is not registered does not exist for the public.
    let join = if public { "RIGHT JOIN" } else { "FULL JOIN" };
    let sql = format!(
        "WITH said AS (SELECT * FROM newest_of_files UNION ALL SELECT * FROM newest_of_rest), \
         heard AS (SELECT sensor, max(heard_time) AS heard_time, \
                 last_value(heard_quality ORDER BY heard_time) AS heard_quality, \
                 last_value(heard_cause ORDER BY heard_time) AS heard_cause, \
                 max(time) AS time, last_value(value ORDER BY time) FILTER (WHERE time IS NOT NULL) AS value, \
                 last_value(quality ORDER BY time) FILTER (WHERE time IS NOT NULL) AS quality \
             FROM said GROUP BY sensor) \
         SELECT coalesce(h.sensor, s.id) AS sensor, h.time, h.value, h.quality, h.heard_time, h.heard_quality, \
             h.heard_cause, coalesce(s.site, split_part(h.sensor, '/', 1)) AS site, s.quantity, \
             p.name_nb AS site_name, s.name_nb AS sensor_name, s.unit, s.kind, \
             coalesce(s.class, 'internal') AS class, s.interval \
         FROM heard h {join} sensors s ON s.id = h.sensor LEFT JOIN sites p ON p.site = s.site"
    );
    tables.sql(&sql).await
}
