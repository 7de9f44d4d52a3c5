//! The table `readings`: files that hold erased rows are written again without them.
//!
//! File by file, batch by batch: a file's other rows stay as they are and in their order. **No other row changes**: what
//! was written is read back before it is committed, and is the multiset of the rows that were to stay. The commit
//! removes files, so it is made on the version whose files were read, under the fence; where somebody replaced one of
//! them meanwhile everything is looked at again, until no file of the newest version holds an erased row.
//!
//! A damaged file says nothing of whose rows it has. All others are done, and then it is an error that names it: the erasure is
//! remembered, and not complete.

use std::collections::{BTreeMap, HashMap, HashSet};

use futures::StreamExt;
use tjern_lake::read::refuse_altered;
use tjern_lake::rollup::TOUCHED_NOTE;
use tjern_lake::{
    Commit, CommitError, DataFile, FileReader, FileWriter, Lake, LakeError, Operation, Table, TableName, schema,
};

use super::known::Erasures;
use super::{EraseError, Found};
use crate::compact::{CompactSettings, Multiset};
use crate::rollup::spans_of;
use crate::tables::{ATTEMPTS_MAX, conform};

/// Rows that are read together.
const BATCH_ROWS: usize = 8 << 10;

/// So many files, and bytes of files, are replaced by one commit.
const COMMIT_FILES_MAX: usize = 64;
const COMMIT_BYTES_MAX: i64 = 256 << 20;

/// A sorted file of this size is written to stay.
const SEALED_BYTES_MIN: i64 = 1 << 20;

/// What was done to a table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Rewritten {
    pub(super) files: usize,
    pub(super) rows: usize,
}

/// How many erased rows a file has, whoever names it.
pub(super) async fn count(
    lake: &Lake,
    table: TableName,
    file: &DataFile,
    erasures: &Erasures,
) -> Result<usize, LakeError> {
    let mut rows = FileReader::open(lake, table, file).await?.places(BATCH_ROWS)?;
    let mut count = 0;
    while let Some(batch) = rows.next().await {
        count += erasures.count(&batch?);
    }
    Ok(count)
}

/// Whether a file may hold erased rows, by what the log says of it.
fn may_hold(file: &DataFile, erasures: &Erasures) -> bool {
    erasures.all().iter().any(|erasure| {
        let sensor = erasure.sensor.as_str();
        let sensors = file.sensor.as_ref().is_none_or(|(low, high)| low.as_str() <= sensor && sensor <= high.as_str());
        sensors && file.time_us.is_none_or(|(first, last)| first < erasure.to.0 && erasure.from.0 <= last)
    })
}

/// The files of a version that hold erased rows.
pub(super) async fn find(table: &Table, erasures: &Erasures) -> Result<Vec<Found>, LakeError> {
    let mut found = Vec::new();
    for file in table.files().into_iter().filter(|file| may_hold(file, erasures)) {
        let rows = count(table.lake(), TableName::Readings, &file, erasures).await?;
        if rows > 0 {
            let key = tjern_readings::keys::table(TableName::Readings.as_str()).join(file.path.as_str());
            found.push(Found::new("file of readings", key, Some(rows)));
        }
    }
    Ok(found)
}

/// A file that holds erased rows, and what takes its place.
struct Replacement {
    old: DataFile,
    new: Vec<DataFile>,
    erased: usize,
}

/// Writes `readings` again without erased rows.
pub(super) async fn rewrite(
    table: &mut Table,
    settings: &CompactSettings,
    erasures: &Erasures,
) -> Result<Rewritten, EraseError> {
    let mut done = Rewritten::default();
    let mut clean: HashSet<String> = HashSet::new();
    let mut damaged: HashMap<String, LakeError> = HashMap::new();
    loop {
        table.refresh().await?;
        let (mut group, mut bytes) = (Vec::new(), 0);
        let files = table.files();
        for file in files.into_iter().filter(|file| may_hold(file, erasures)) {
            if clean.contains(&file.path) || damaged.contains_key(&file.path) {
                continue;
            }
            match refuse_altered(table.lake(), TableName::Readings, &file).await {
                Err(error) if error.damaged_file().is_some() => {
                    damaged.insert(file.path, error);
                    continue;
                }
                looked => looked?,
            }
            if count(table.lake(), TableName::Readings, &file, erasures).await? == 0 {
                clean.insert(file.path);
                continue;
            }
            bytes += file.size;
            group.push(replacement(table, file, settings, erasures).await?);
            if group.len() == COMMIT_FILES_MAX || bytes >= COMMIT_BYTES_MAX {
                break;
            }
        }
        if group.is_empty() {
            // One that somebody took away meanwhile is in nobody's way.
            damaged.retain(|path, _| table.files().iter().any(|file| file.path == *path));
            return damaged.into_values().next().map_or(Ok(done), |error| Err(error.into()));
        }
        clean.extend(group.iter().flat_map(|one| &one.new).map(|file| file.path.clone()));
        if replace(table, &group, erasures).await? {
            done.files += group.len();
            done.rows += group.iter().map(|one| one.erased).sum::<usize>();
        }
    }
}

/// Writes the rows of a file that stay.
async fn replacement(
    table: &Table,
    old: DataFile,
    settings: &CompactSettings,
    erasures: &Erasures,
) -> Result<Replacement, EraseError> {
    let (lake, wanted) = (table.lake(), schema::arrow(TableName::Readings));
    let (mut kept, mut erased, mut new) = (Multiset::default(), 0, Vec::new());
    let mut writer: Option<FileWriter> = None;
    let mut rows = FileReader::open(lake, TableName::Readings, &old).await?.rows(BATCH_ROWS)?;
    while let Some(batch) = rows.next().await {
        let (rest, gone) = erasures.without(&batch?)?;
        erased += gone;
        if rest.num_rows() == 0 {
            continue;
        }
        kept.add_dictionaries(&rest);
        let open = match writer.as_mut() {
            Some(open) => open,
            None if old.sorted && old.size >= SEALED_BYTES_MIN => {
                writer.insert(FileWriter::sealed(TableName::Readings)?)
            }
            None => writer.insert(FileWriter::new(TableName::Readings)?),
        };
        open.write(&conform(&rest, &wanted)?)?;
        if u64::try_from(open.bytes()).unwrap_or(u64::MAX) >= settings.file_bytes()
            && let Some(full) = writer.take()
        {
            new.push(full.finish(lake).await?);
        }
        // Encoding waits for nothing, and others share this thread.
        tokio::task::yield_now().await;
    }
    if let Some(last) = writer {
        new.push(last.finish(lake).await?);
    }
    let mut written = Multiset::default();
    for file in &new {
        let mut rows = FileReader::open(lake, TableName::Readings, file).await?.rows(BATCH_ROWS)?;
        while let Some(batch) = rows.next().await {
            written.add_dictionaries(&batch?);
        }
    }
    if written != kept {
        return Err(EraseError::Changed { kept: kept.rows(), written: written.rows() });
    }
    Ok(Replacement { old, new, erased })
}

/// Commits replacements. Returns false where somebody else replaced one of the files.
async fn replace(table: &mut Table, group: &[Replacement], erasures: &Erasures) -> Result<bool, EraseError> {
    let ids: Vec<&str> = erasures.all().iter().map(|erasure| erasure.id.as_str()).collect();
    let mut notes = BTreeMap::from([("tjern.erasures".to_owned(), ids.into())]);
    // Of hours and days too nothing is left, from this commit on. Too many periods are not named: the rollup of the erasure
    // is told all of them, and until then others take every row of these files for a new one.
    notes.extend(spans_of(&erasures.periods()).note_exactly().map(|note| (TOUCHED_NOTE.to_owned(), note)));
    let commit = Commit {
        operation: Operation::Erase,
        add: group.iter().flat_map(|one| one.new.clone()).collect(),
        remove: group.iter().map(|one| one.old.clone()).collect(),
        transactions: Vec::new(),
        notes,
    };
    for _ in 0..ATTEMPTS_MAX {
        match table.commit(commit.clone()).await {
            Ok(_) => return Ok(true),
            Err(CommitError::Conflict { .. }) => {
                table.refresh().await?;
                if !commit.remove.iter().all(|file| table.is_active(file)) {
                    return Ok(false);
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(EraseError::Contended { table: TableName::Readings })
}
