//! Whether the tables are what their logs say: every file is read, whole.
//!
//! Of each file that the newest version names: whether it is there and is Parquet; whether it has as many bytes and rows
//! as the log says; whether its least and greatest text and time are what the log says, since queries leave files out
//! by them, and what the file itself says of its row groups and pages, which are left out in the same way
//! ([`claims`]); whether it is sorted, and its keys unique, where our tags claim so; whether a query opens it, which asks
//! more of a footer than reading its columns does. And whether the log's versions are contiguous, and each of its commits is
//! what a writer makes, also those that nobody needs any more to read the newest version. And whether what was erased can be
//! read: where it cannot, nothing is ingested. Nothing is changed.
//!
//! A bit that turned over may leave all of that as it was, with another value in a row. So each file's bytes are held
//! against the SHA-256 in its tags, which reads them a second time. Files of earlier versions and of other writers have none:
//! they are counted.
//!
//! One batch of one file is in memory at a time.

mod claims;

use std::panic::AssertUnwindSafe;

use arrow::array::{Array, ArrayAccessor, AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, TimestampMicrosecondType};
use futures::{FutureExt, StreamExt};
use tjern_lake::read::sha256_of;
use tjern_lake::{Damage, DataFile, FileReader, Lake, LakeError, Table, TableName};
use tjern_readings::keys::ERASURES;

use claims::Claims;

use crate::erase::{Erasures, ErasuresError};

/// Rows that are looked at together.
const BATCH_ROWS: usize = 8 << 10;

/// Something that is not what the log says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The object.
    pub key: String,
    /// What is wrong with it.
    pub what: String,
}

/// What was looked at, and what is wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Files that were read.
    pub files: usize,
    /// Rows that were read.
    pub rows: i64,
    /// Bytes that were read.
    pub bytes: i64,
    /// Files of which the log has no SHA-256: a value in them that is another one now is not seen.
    pub without_sha256: usize,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

/// Reads every file of every table. `watcher` hears how many bytes were read, and how many there are.
///
/// # Errors
/// [`LakeError`] where the store fails; what is wrong with a log or a file is in the verdict.
pub async fn verify(lake: &Lake, watcher: &mut (dyn FnMut(u64, u64) + Send)) -> Result<Verdict, LakeError> {
    let mut verdict = Verdict::default();
    let mut tables = Vec::new();
    for name in TableName::ALL {
        tables.extend(opened(lake, name, &mut verdict.problems).await?);
    }
    verdict.problems.extend(erasures(lake).await?);
    let files = || tables.iter().flat_map(|table| table.files().into_iter().map(move |file| (table, file)));
    let bytes = |size: i64| u64::try_from(size).unwrap_or(0);
    let total = files().map(|(_, file)| bytes(file.size)).sum();
    let mut done = 0;
    for (table, file) in files() {
        // A decoder may panic at a bit that turned over: that is this file's trouble, and the others are still to be read.
        let found = AssertUnwindSafe(read(table, &file)).catch_unwind().await;
        verdict.files += 1;
        verdict.bytes += file.size;
        verdict.without_sha256 += usize::from(file.sha256.is_none());
        let mut problems = match found {
            Ok(Ok(content)) => {
                verdict.rows += content.rows;
                content.against(&file)
            }
            Ok(Err(error)) => vec![error.to_string()],
            Err(_) => vec!["it cannot be read: decoding it panicked".to_owned()],
        };
        // What is wrong with it in particular says more than that something is.
        if problems.is_empty() {
            problems.extend(changed(table, &file).await);
        }
        let key = format!("tables/{}/{}", table.name(), file.path);
        verdict.problems.extend(problems.into_iter().map(|what| Problem { key: key.clone(), what }));
        done += bytes(file.size);
        watcher(done, total);
    }
    Ok(verdict)
}

/// A table whose log can be read, and what is damaged in the log. A damaged one keeps nobody from looking at the others.
async fn opened(lake: &Lake, name: TableName, problems: &mut Vec<Problem>) -> Result<Option<Table>, LakeError> {
    let damages = Table::damage_of_log(lake, name).await?;
    let is_known = |place: &str| damages.iter().any(|damage| damage.key == place);
    let table = match Table::open(lake, name).await {
        Ok(table) => table,
        Err(LakeError::Log { place, .. }) if is_known(&place) => None,
        Err(error @ LakeError::Log { .. }) => {
            let key = format!("tables/{name}/_delta_log");
            problems.push(Problem { key, what: error.to_string() });
            None
        }
        Err(error) => return Err(error),
    };
    if let Some(table) = table.as_ref().filter(|_| damages.is_empty()) {
        match table.refuse_restrictions().await {
            Err(error @ LakeError::Restricted { .. }) => {
                problems.push(Problem { key: format!("tables/{name}/_delta_log"), what: error.to_string() });
            }
            looked => looked?,
        }
    }
    problems.extend(damages.into_iter().map(|Damage { key, what }| Problem { key, what }));
    Ok(table)
}

/// Records of erasures that cannot be read: nothing is ingested meanwhile.
async fn erasures(lake: &Lake) -> Result<Vec<Problem>, LakeError> {
    let damaged = Erasures::look(lake).await?.1.into_iter();
    let problem = |error: ErasuresError| match &error {
        ErasuresError::Damaged { key, .. } => Problem { key: key.to_string(), what: error.to_string() },
        _ => Problem { key: ERASURES.to_owned(), what: error.to_string() },
    };
    Ok(damaged.map(problem).collect())
}

/// That a file's bytes are not those that were written, where the log says which those are.
async fn changed(table: &Table, file: &DataFile) -> Option<String> {
    let written = file.sha256?;
    match sha256_of(table.lake(), table.name(), file).await {
        Ok(found) if found == written => None,
        Ok(found) => {
            let hex = |bytes: [u8; 32]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            let (found, written) = (hex(found), hex(written));
            Some(format!("its bytes are not those that were written: SHA-256 {found}, and the log says {written}"))
        }
        Err(error) => Some(error.to_string()),
    }
}

/// What is in a file.
#[derive(Debug, Default)]
struct Content {
    rows: i64,
    footer_rows: i64,
    claims: Claims,
    text: Option<(String, String)>,
    time_us: Option<(i64, i64)>,
    last: Option<(String, i64)>,
    unsorted: bool,
    doubled: bool,
}

async fn read(table: &Table, file: &DataFile) -> Result<Content, LakeError> {
    let mut reader = FileReader::open(table.lake(), table.name(), file).await?;
    reader.opens_for_a_query()?;
    let metadata = reader.metadata_of_pages().await?;
    let claims = Claims::of(&metadata, table.name().sort_columns());
    let footer_rows = metadata.file_metadata().num_rows();
    let mut content = Content { footer_rows, claims, ..Content::default() };
    let mut rows = reader.rows(BATCH_ROWS)?;
    while let Some(batch) = rows.next().await {
        content.take(&batch?, table.name());
    }
    Ok(content)
}

impl Content {
    fn take(&mut self, batch: &RecordBatch, table: TableName) {
        let [text, time] = table.sort_columns().map(|name| batch.column_by_name(name).expect("a column"));
        let texts = text.as_dictionary::<Int32Type>();
        let texts = texts.downcast_dict::<arrow::array::StringArray>().expect("texts");
        let times = time.as_primitive::<TimestampMicrosecondType>();
        self.rows += i64::try_from(batch.num_rows()).unwrap_or(i64::MAX);
        for row in 0..batch.num_rows() {
            let text = texts.is_valid(row).then(|| ArrayAccessor::value(&texts, row));
            let time_us = times.is_valid(row).then(|| times.value(row));
            self.claims.take(text, time_us);
            if let Some((text, time_us)) = text.zip(time_us) {
                self.step(text, time_us);
            }
        }
    }

    fn step(&mut self, text: &str, time_us: i64) {
        let (least_us, greatest_us) = self.time_us.get_or_insert((time_us, time_us));
        (*least_us, *greatest_us) = (time_us.min(*least_us), time_us.max(*greatest_us));
        match &mut self.last {
            Some((last, last_us)) if last == text => {
                self.unsorted |= *last_us > time_us;
                self.doubled |= *last_us == time_us;
                *last_us = time_us;
                return;
            }
            last => {
                self.unsorted |= last.as_ref().is_some_and(|(last, _)| last.as_str() > text);
                *last = Some((text.to_owned(), time_us));
            }
        }
        let (least, greatest) = self.text.get_or_insert_with(|| (text.to_owned(), text.to_owned()));
        if text < least.as_str() {
            text.clone_into(least);
        }
        if text > greatest.as_str() {
            text.clone_into(greatest);
        }
    }

    /// What the log says otherwise.
    fn against(&self, file: &DataFile) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.rows != self.footer_rows {
            wrong.push(format!("it has {} rows, and its footer says {}", self.rows, self.footer_rows));
        }
        if let Some(rows) = file.rows.filter(|rows| *rows != self.rows) {
            wrong.push(format!("it has {} rows, and the log says {rows}", self.rows));
        }
        if let Some(((least, greatest), (low, high))) = self.text.as_ref().zip(file.sensor.as_ref())
            && (low > least || high < greatest)
        {
            wrong.push(format!("it holds `{least}` to `{greatest}`, and the log says `{low}` to `{high}`"));
        }
        if let Some(((least, greatest), (low, high))) = self.time_us.zip(file.time_us)
            && (low > least || high < greatest)
        {
            let (least, greatest, low, high) = (shown(least), shown(greatest), shown(low), shown(high));
            wrong.push(format!("it holds {least} to {greatest}, and the log says {low} to {high}"));
        }
        if file.sorted && self.unsorted {
            wrong.push("it is tagged as sorted, and is not".to_owned());
        }
        if file.unique && (self.doubled || self.unsorted) {
            wrong.push("it is tagged as free of doubles, and is not".to_owned());
        }
        wrong.extend(self.claims.wrong());
        wrong
    }
}

fn shown(time_us: i64) -> String {
    jiff::Timestamp::from_microsecond(time_us).map_or_else(|_| format!("{time_us} us"), |time| time.to_string())
}

#[cfg(test)]
mod tests;
