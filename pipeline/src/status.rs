//! How the lake is: its tables, what waits to be done, what is missing, and how each job ran last.
//!
//! Only reads: the log of each table, a listing of the landing zone, and the records of the jobs. No data file is
//! opened; [`crate::verify`] does that.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};
use tjern_lake::{DataFile, Lake, LakeError, Table, TableName};

use crate::compact::{self, CompactSettings};
use crate::erase::{Erasure, Erasures};
use crate::ingest::{self, Missing, MissingConfiguration, StrayObjects, Waiting, missing, waiting};
use crate::jobs::Run;
use crate::jobs::record::{self, Moment};

/// How the lake is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// Every table that is there.
    pub tables: Vec<TableStatus>,
    /// Tables that cannot be opened, and why: all the rest is told without them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub damaged: BTreeMap<String, String>,
    /// Tables that are read and not written to, and why: another program gave them what keeps others from it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub restricted: BTreeMap<String, String>,
    /// Batches that landed and are not in `readings`.
    pub landed: Landed,
    /// What compaction would do now.
    pub compaction: Backlog,
    /// Numbers that were passed and have not come.
    pub missing: Vec<Missing>,
    /// Configurations that are not in the lake, and that readings wait for which were taken without them.
    pub unchecked: Vec<Unchecked>,
    /// Erasures of which something is left.
    pub erasures: Vec<Erasure>,
    /// Erasures that cannot be read, and what to do: nothing is added to `readings` meanwhile.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unreadable_erasures: Vec<String>,
    /// What keeps erasures from being complete, since nobody knows what it holds or only a person can remove it: keys, and why.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub not_looked_at: BTreeMap<String, String>,
    /// How each job ran last.
    pub jobs: Vec<Run>,
}

/// How a table is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableStatus {
    /// Which table.
    #[serde(serialize_with = "name")]
    pub table: TableName,
    /// Its newest version.
    pub version: i64,
    /// Commits since the newest checkpoint of its log.
    pub commits_since_checkpoint: i64,
    /// How many files it has.
    pub files: usize,
    /// How many of them are not sorted.
    pub unsorted_files: usize,
    /// Their bytes.
    pub bytes: i64,
    /// Their rows, as far as the log says.
    pub rows: i64,
    /// The bytes of the smallest file.
    pub smallest_bytes: Option<i64>,
    /// The bytes of the largest file.
    pub largest_bytes: Option<i64>,
}

/// Batches that landed and were not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Landed {
    /// How many.
    pub batches: usize,
    /// When the first of them landed.
    pub since: Option<Moment>,
    /// Folders of sources that cannot be read: what waits there is not counted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unreadable: Vec<String>,
    /// Objects that will never be taken, since their keys are no batches', by source, as far as the listing came across them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub strays: Vec<StrayObjects>,
}

/// A configuration that is not in the lake, while readings name it: their units are not held against the register's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unchecked {
    /// Whose it is.
    pub source: String,
    /// The SHA-256 of its text.
    pub configuration: String,
    /// When the first of these readings was taken.
    pub since: Moment,
    /// Whether a person said that it will never come: nobody is told of it.
    pub accepted: bool,
}

impl From<MissingConfiguration> for Unchecked {
    fn from(MissingConfiguration { source, sha256, since_us, accepted }: MissingConfiguration) -> Self {
        Self { source: source.to_string(), configuration: sha256, since: Moment(since_us), accepted }
    }
}

/// What compaction would do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Backlog {
    /// Merges that are worth their work.
    pub merges: usize,
    /// The bytes of their files.
    pub bytes: u64,
    /// The start of the oldest window whose files are not as few, sorted and apart as they will be.
    pub oldest_unsealed: Option<Moment>,
}

fn name<S: Serializer>(table: &TableName, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(table.as_str())
}

/// Finds out how the lake is.
///
/// # Errors
/// [`LakeError`], also where the log of `readings` is damaged.
pub async fn status(lake: &Lake, settings: &CompactSettings) -> Result<Status, LakeError> {
    let mut tables = Vec::new();
    let mut landed = Waiting::default();
    let mut compaction = Backlog { merges: 0, bytes: 0, oldest_unsealed: None };
    let (mut holes, mut unchecked) = (Vec::new(), Vec::new());
    let (mut damaged, mut restricted) = (BTreeMap::new(), BTreeMap::new());
    for name in TableName::ALL {
        let table = match Table::open(lake, name).await {
            Err(error @ LakeError::Log { .. }) if name != TableName::Readings => {
                damaged.insert(name.to_string(), error.to_string());
                continue;
            }
            opened => opened?,
        };
        let Some(table) = table else { continue };
        if let Err(error @ LakeError::Restricted { .. }) = table.refuse_restrictions().await {
            restricted.insert(name.to_string(), error.to_string());
        }
        tables.push(of_table(&table).await?);
        if name == TableName::Readings {
            landed = waiting(lake, &table).await?;
            holes = missing(&table);
            unchecked = ingest::missing_configurations(&table);
            let (merges, bytes) = compact::backlog(&table, settings);
            let oldest_unsealed = compact::oldest_unsealed_us(&table, settings).map(Moment);
            compaction = Backlog { merges, bytes, oldest_unsealed };
        }
    }
    let Waiting { batches, since_us, unreadable, strays } = landed;
    let landed = Landed { batches, since: since_us.map(Moment), unreadable, strays };
    let (known, unreadable) = Erasures::look(lake).await?;
    let not_looked_at = known.not_looked_at().map(|(key, why)| (key.to_owned(), why.to_owned())).collect();
    let erasures: Vec<_> = known.all().iter().filter(|erasure| !known.is_done(erasure)).cloned().collect();
    let unreadable_erasures = unreadable.iter().map(ToString::to_string).collect();
    let unchecked = unchecked.into_iter().map(Unchecked::from).collect();
    let jobs = record::read_all(lake).await?;
    Ok(Status {
        tables,
        damaged,
        restricted,
        landed,
        compaction,
        missing: holes,
        unchecked,
        erasures,
        unreadable_erasures,
        not_looked_at,
        jobs,
    })
}

async fn of_table(table: &Table) -> Result<TableStatus, LakeError> {
    let files = table.files();
    let sizes = || files.iter().map(|file| file.size);
    Ok(TableStatus {
        table: table.name(),
        version: table.version(),
        commits_since_checkpoint: table.version() - table.newest_checkpoint().await?.unwrap_or(-1),
        files: files.len(),
        unsorted_files: files.iter().filter(|file: &&DataFile| !file.sorted).count(),
        bytes: sizes().sum(),
        rows: files.iter().filter_map(|file| file.rows).sum(),
        smallest_bytes: sizes().min(),
        largest_bytes: sizes().max(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::Outcome;
    use crate::testing::{NOW_US, Place, Row, commit};
    use tjern_lake::Operation;

    #[tokio::test]
    async fn a_lake_says_how_it_is() {
        let place = Place::new();
        for round in 0..6 {
            place.ingest(&[Row::new("sample", NOW_US + round, 1.0), Row::new("state", NOW_US + round, 1.0)]).await;
        }
        let mut table = Table::open(&place.lake, TableName::Readings).await.expect("opened").expect("there");
        let mut hole = commit(Operation::Ingest, vec![], vec![]);
        let epoch = "0123456789abcdef0123456789abcdef";
        let run = |kind, from: i64| (format!(":open/landfall-01/{epoch}/{from:020}-{:020}", from + 2), kind);
        hole.transactions = vec![run(1, 3), run(0, 10), run(2, 20)];
        let unchecked = |sha256: &str, since_us| (format!(":unchecked/landfall-01/{sha256}/since"), since_us);
        let (missing_one, came) = ("ab".repeat(32), "cd".repeat(32));
        hole.transactions.extend([unchecked(&missing_one, NOW_US), unchecked(&came, 0)]);
        table.commit(hole).await.expect("committed");
        record::write(&place.lake, &Run::new("compact", 1, 2, Outcome::Done)).await.expect("written");
        let found = status(&place.lake, &CompactSettings::default()).await.expect("found");
        let readings = &found.tables[0];
        assert_eq!((readings.version, readings.files, readings.rows, readings.unsorted_files), (7, 6, 12, 0));
        assert!(readings.smallest_bytes <= readings.largest_bytes && readings.bytes > 0);
        assert_eq!(
            (found.compaction.merges, found.compaction.bytes),
            (1, u64::try_from(readings.bytes).expect("small"))
        );
        let midnight = NOW_US / 86_400_000_000 * 86_400_000_000;
        assert_eq!(found.compaction.oldest_unsealed, Some(Moment(midnight)));
        let missing: Vec<_> = found.missing.iter().map(|run| (run.first, run.last, run.gap)).collect();
        assert_eq!(missing, [(3, 5, false), (20, 22, true)], "what was filled is not missing");
        let (source, since) = ("landfall-01".to_owned(), Moment(NOW_US));
        let wanted = Unchecked { source, configuration: missing_one, since, accepted: false };
        assert_eq!(found.unchecked, [wanted], "what came is not missing");
        assert_eq!(found.jobs.len(), 1);
        let shown = serde_json::to_value(&found).expect("JSON");
        assert_eq!((&shown["tables"][0]["table"], &shown["landed"]["batches"]), (&"readings".into(), &0.into()));
    }
}
