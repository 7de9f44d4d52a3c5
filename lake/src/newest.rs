//! What each file that shares no key with another says of the newest of its sensors: read once, and kept.
//!
//! `latest` is asked every few seconds, and what it answers is nearly always in the newest file. But a sensor may have been
//! silent for a year, so all files have to be asked. A data file never changes: what it says of its sensors (the newest
//! word, and the newest good value) is found out once, and from then on a step costs what came since, however
//! much lies there.
//!
//! Invariants: only files that share no key with another are kept, so that a sensor's newest is the newest of what its files
//! say (what a correction replaced within a file is sifted out as it is read); which values are good follows from the register, and what was found out under another version of it is forgotten. What is
//! kept is a row per file and sensor, at most [`ROWS_MAX`]; what is beyond is read again each time.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{MemTable, Session, TableProvider};
use datafusion::datasource::TableType;
use datafusion::error::Result;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionContext;

use crate::scan::LakeTable;
use crate::session::session_state;
use crate::views::Parted;
use crate::{DataFile, Lake, SessionSettings, Table, TableName, schema, views};

/// So many rows are kept: some hundred bytes each.
const ROWS_MAX: usize = 500_000;

/// What is known of files, shared by all sessions of a process on one lake.
#[derive(Debug, Default)]
pub(crate) struct Newest {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// The version of the table of sensors by which values were judged.
    judged_by: Option<i64>,
    files: HashMap<String, Vec<RecordBatch>>,
    rows: usize,
}

impl Newest {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of these files, in their order; of all others it is forgotten.
    fn of(&self, files: &[DataFile], judged_by: Option<i64>) -> Vec<Option<Vec<RecordBatch>>> {
        let mut known = self.lock();
        if known.judged_by != judged_by {
            *known = Known { judged_by, ..Known::default() };
        }
        let there: HashSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
        known.files.retain(|path, _| there.contains(path.as_str()));
        known.rows = known.files.values().map(|batches| rows_of(batches)).sum();
        files.iter().map(|file| known.files.get(&file.path).cloned()).collect()
    }

    fn keep(&self, file: &DataFile, judged_by: Option<i64>, batches: &[RecordBatch]) {
        let mut known = self.lock();
        let rows = rows_of(batches);
        // Another session may have gone on with another register meanwhile.
        if known.judged_by == judged_by && known.rows + rows <= ROWS_MAX {
            known.rows += rows;
            known.files.insert(file.path.clone(), batches.to_vec());
        }
    }
}

fn rows_of(batches: &[RecordBatch]) -> usize {
    batches.iter().map(RecordBatch::num_rows).sum()
}

/// The columns of what a file says: see [`views::heard`].
fn columns() -> SchemaRef {
    let column = |name: &str, kind, null| Field::new(name, kind, null);
    Arc::new(Schema::new(vec![
        column("sensor", DataType::Utf8, false),
        column("heard_time", schema::time_type(), true),
        column("heard_quality", DataType::Int8, true),
        column("heard_cause", DataType::Utf8, true),
        column("time", schema::time_type(), true),
        column("value", DataType::Float64, true),
        column("quality", DataType::Int8, true),
    ]))
}

/// A table: what files that share no key say of their sensors, a row per file and sensor.
pub(crate) struct NewestOfFiles {
    lake: Lake,
    settings: SessionSettings,
    files: Vec<DataFile>,
    /// The register's table of sensors: its version, and its files.
    sensors: (Option<i64>, Vec<DataFile>),
    columns: SchemaRef,
}

impl NewestOfFiles {
    pub(crate) fn new(lake: &Lake, settings: &SessionSettings, files: Vec<DataFile>, sensors: Option<&Table>) -> Self {
        let sensors = (sensors.map(Table::version), sensors.map(Table::files).unwrap_or_default());
        Self { lake: lake.clone(), settings: settings.clone(), files, sensors, columns: columns() }
    }

    /// What one file says. A context of its own knows this file, and how sensors are judged.
    async fn read(&self, file: &DataFile) -> Result<Vec<RecordBatch>> {
        let context = SessionContext::new_with_state(session_state(&self.lake, &self.settings)?);
        let sensors = LakeTable::new(TableName::Sensors, self.sensors.1.clone());
        context.register_table("all_sensors", Arc::new(sensors))?;
        let rows = views::sifted(&context, Parted::of(vec![file.clone()]), "file").await?;
        context.register_table("file_readings", rows.into_view())?;
        let batches = views::heard_in(&context, "file_readings").await?.collect().await?;
        batches.iter().map(|batch| self.conform(batch)).collect()
    }

    fn conform(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let columns = self.columns.fields().iter().zip(batch.columns());
        let columns = columns.map(|(field, column)| arrow::compute::cast(column, field.data_type()));
        Ok(RecordBatch::try_new(Arc::clone(&self.columns), columns.collect::<std::result::Result<_, _>>()?)?)
    }
}

impl std::fmt::Debug for NewestOfFiles {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("NewestOfFiles").field("files", &self.files.len()).finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for NewestOfFiles {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.columns)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mut said = Vec::new();
        let (newest, judged_by) = (self.lake.newest(), self.sensors.0);
        for (file, known) in self.files.iter().zip(newest.of(&self.files, judged_by)) {
            match known {
                Some(batches) => said.extend(batches),
                None => {
                    let batches = self.read(file).await?;
                    newest.keep(file, judged_by, &batches);
                    said.extend(batches);
                }
            }
        }
        MemTable::try_new(self.schema(), vec![said])?.scan(state, projection, filters, limit).await
    }
}
