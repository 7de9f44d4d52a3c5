//! A data file of `readings` written anew, batch by batch: the same rows in the same order, with other flags.
//!
//! **No other column changes**: the multiset of what was read and that of what was written are the same but for the columns
//! that were named, or nothing is handed out. What is held is the batch under way and the encoded file, which ends
//! when it has [`Bounds::file_bytes`]; so a file of any size can be written anew. Nothing is committed here.

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use tjern_lake::{DataFile, FileWriter, Lake, LakeError, TableName, schema};

use crate::bounds::Bounds;
use crate::compact::Multiset;
use crate::tables::conform;

/// Rows that are read together.
pub(crate) const BATCH_ROWS: usize = 8 << 10;

/// Why a file was not written anew. Nothing names what was written of it.
#[derive(Debug, thiserror::Error)]
pub enum AnewError {
    /// The lake failed.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// Arrow refused.
    #[error("arrow: {0}")]
    Arrow(#[from] ArrowError),
    /// What was written is not what was read.
    #[error(
        "`{path}` has {read} rows and {written} were written anew, or one was changed: nothing was committed; hint: run it again, and report it with the log"
    )]
    Changed {
        /// Which file.
        path: String,
        /// Rows read.
        read: i64,
        /// Rows written.
        written: i64,
    },
}

/// A file that is being written anew.
pub(crate) struct Anew {
    path: String,
    /// The columns that are to stay, by their places.
    stay: Vec<usize>,
    file_bytes: usize,
    /// What a row group under way may take.
    group_bytes: u64,
    read: Multiset,
    written: Multiset,
    open: Option<FileWriter>,
    files: Vec<DataFile>,
}

impl Anew {
    /// In place of this file, of which these columns may change.
    pub(crate) fn of(file: &DataFile, may_change: &[&str], bounds: &Bounds) -> Self {
        let columns = schema::arrow(TableName::Readings);
        let names = columns.fields().iter().map(|field| field.name().as_str()).enumerate();
        let stay = names.filter(|(_, name)| !may_change.contains(name)).map(|(place, _)| place).collect();
        Self {
            path: file.path.clone(),
            stay,
            file_bytes: usize::try_from(bounds.file_bytes).unwrap_or(usize::MAX),
            group_bytes: bounds.memory_bytes / 4,
            read: Multiset::default(),
            written: Multiset::default(),
            open: None,
            files: Vec::new(),
        }
    }

    /// Takes rows that were read.
    pub(crate) fn read(&mut self, rows: &RecordBatch) -> Result<(), ArrowError> {
        self.read.add_dictionaries(&rows.project(&self.stay)?);
        Ok(())
    }

    /// Writes rows as they shall be.
    pub(crate) async fn write(&mut self, lake: &Lake, rows: &RecordBatch) -> Result<(), AnewError> {
        let rows = conform(rows, &schema::arrow(TableName::Readings))?;
        self.written.add_dictionaries(&rows.project(&self.stay)?);
        let open = match &mut self.open {
            Some(open) => open,
            // What is rewritten may have been sealed, and compaction has no reason to write it again.
            None => self.open.insert(FileWriter::sealed_within(TableName::Readings, self.group_bytes)?),
        };
        open.write(&rows)?;
        if open.bytes() >= self.file_bytes {
            self.end_file(lake).await?;
        }
        // Encoding waits for nothing, and others share this thread.
        tokio::task::yield_now().await;
        Ok(())
    }

    async fn end_file(&mut self, lake: &Lake) -> Result<(), LakeError> {
        if let Some(full) = self.open.take() {
            self.files.push(full.finish(lake).await?);
        }
        Ok(())
    }

    /// The new files, once it is shown that their rows are those that were read.
    pub(crate) async fn finish(mut self, lake: &Lake) -> Result<Vec<DataFile>, AnewError> {
        let stored: i64 = self.files.iter().filter_map(|file| file.rows).sum();
        let stored = stored + self.open.as_ref().map_or(0, FileWriter::rows);
        if self.read != self.written || stored != self.read.rows() {
            return Err(AnewError::Changed { path: self.path, read: self.read.rows(), written: stored });
        }
        self.end_file(lake).await?;
        Ok(self.files)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{NOW_US, Place, Row, batch_of};

    /// A mistake in what writes files anew would lose or double readings for good: the old file is removed. This is what would
    /// notice it.
    #[tokio::test]
    async fn a_lost_a_doubled_and_a_changed_row_are_refused() {
        let place = Place::new();
        let row = |seq: i64, value: f64| Row { seq, ..Row::new("t", NOW_US + seq, value) };
        let read = [row(0, 1.0), row(1, 2.0)];
        place.ingest(&read).await;
        let table = tjern_lake::Table::open(&place.lake, TableName::Readings).await.expect("opened").expect("there");
        let file = table.files().remove(0);
        let tried = async |written: &[Row]| {
            let mut anew = Anew::of(&file, &["quality"], &Bounds::default());
            anew.read(&batch_of(&read)).expect("rows");
            anew.write(&place.lake, &batch_of(written)).await.expect("written");
            anew.finish(&place.lake).await
        };
        for wrong in [&read[..1], &[read[0].clone(), read[1].clone(), row(2, 2.0)], &[row(0, 1.0), row(1, 2.5)]] {
            assert!(matches!(tried(wrong).await, Err(AnewError::Changed { .. })), "{wrong:?}");
        }
        let flagged = [read[0].clone().quality(4), read[1].clone()];
        assert_eq!(tried(&flagged).await.expect("only a flag is another").len(), 1);
    }
}
