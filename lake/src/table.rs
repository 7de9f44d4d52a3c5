//! One table, pinned at a version: its files, its transactions, and what later commits did.
//!
//! A table is pinned until [`Table::refresh`] or a commit of its own moves it on. Nothing here writes
//! but [`Table::open_or_create`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use datafusion::catalog::TableProvider;
use deltalake_core::operations::create::CreateBuilder;
use deltalake_core::protocol::SaveMode;

use crate::commit::create_properties;
use crate::log::expired::{self, Expired};
use crate::log::{LogState, commits_after, missing_versions, newest_checkpoint};
use crate::scan::LakeTable;
use crate::{DataFile, Lake, LakeError, Operation, TableName, schema};

/// A Delta table at one version.
#[derive(Debug, Clone)]
pub struct Table {
    pub(crate) lake: Lake,
    name: TableName,
    pub(crate) state: Arc<LogState>,
}

/// What was committed after some version.
#[derive(Debug, Default)]
pub struct Changes {
    /// The files that brought or changed rows and are still active.
    pub added: Vec<DataFile>,
    /// Those that are not active any more: their rows are in other files by now, or were replaced.
    /// They can be read until vacuum takes them.
    pub gone: Vec<DataFile>,
    /// Whether commits were cleaned away, so that only reading everything shows what changed.
    pub unclear: bool,
}

impl Table {
    /// Opens the newest version; `None` where the table is not there yet. A table that was opened before
    /// through this lake, or a clone of it, costs a listing and what is new.
    ///
    /// # Errors
    /// [`LakeError`], where the log cannot be read.
    pub async fn open(lake: &Lake, name: TableName) -> Result<Option<Self>, LakeError> {
        let state = lake.newest_state(name).await?;
        Ok(state.map(|state| Self { lake: lake.clone(), name, state }))
    }

    /// Opens the newest version of a table, and creates it where it is not there yet.
    ///
    /// # Errors
    /// [`LakeError`].
    pub async fn open_or_create(lake: &Lake, name: TableName) -> Result<Self, LakeError> {
        if let Some(table) = Self::open(lake, name).await? {
            return Ok(table);
        }
        let created = CreateBuilder::new()
            .with_log_store(lake.log_store(name)?)
            .with_table_name(name.as_str())
            .with_columns(schema::delta(name))
            .with_save_mode(SaveMode::ErrorIfExists)
            .with_configuration(create_properties(name))
            .await;
        match (Self::open(lake, name).await?, created) {
            // Somebody else may have been first, which is as good.
            (Some(table), _) => Ok(table),
            (None, Err(source)) => Err(LakeError::Delta { table: name, source: Box::new(source) }),
            (None, Ok(_)) => {
                Err(LakeError::Log { table: name, place: "_delta_log".into(), what: "empty after its creation".into() })
            }
        }
    }

    /// Creates every table of a lake that is not there yet, so that other programs find them all. Before
    /// anything else it finds out that the store refuses a second create, since every commit counts on it.
    ///
    /// # Errors
    /// [`LakeError`]; [`LakeError::Proof`] where it does not.
    pub async fn create_all(lake: &Lake) -> Result<(), LakeError> {
        lake.store().prove_create_only(&tjern_readings::keys::jobs_proof()).await.map_err(Box::new)?;
        for name in TableName::ALL {
            Self::open_or_create(lake, name).await?;
        }
        Ok(())
    }

    /// Moves on to the newest version. Returns whether there was one.
    ///
    /// # Errors
    /// [`LakeError`]; the table is then pinned where it was.
    pub async fn refresh(&mut self) -> Result<bool, LakeError> {
        LogState::refresh(&mut self.state, &self.lake).await
    }

    /// Which table.
    #[must_use]
    pub const fn name(&self) -> TableName {
        self.name
    }

    /// The lake that it is in.
    #[must_use]
    pub const fn lake(&self) -> &Lake {
        &self.lake
    }

    /// The version.
    #[must_use]
    pub fn version(&self) -> i64 {
        self.state.version()
    }

    /// The files of this version, in the order of their paths.
    #[must_use]
    pub fn files(&self) -> Vec<DataFile> {
        self.state.files().cloned().collect()
    }

    /// Whether a file belongs to this version.
    #[must_use]
    pub fn is_active(&self, file: &DataFile) -> bool {
        self.state.is_active(&file.path)
    }

    /// The last number that an application committed.
    #[must_use]
    pub fn transaction(&self, app_id: &str) -> Option<i64> {
        self.state.transactions().get(app_id).copied()
    }

    /// The last number that each application committed.
    #[must_use]
    pub fn transactions(&self) -> &HashMap<String, i64> {
        self.state.transactions()
    }

    /// This version for SQL.
    #[must_use]
    pub fn provider(&self) -> Arc<dyn TableProvider> {
        self.provider_of(self.files())
    }

    /// Only these files of it for SQL.
    #[must_use]
    pub fn provider_of(&self, files: Vec<DataFile>) -> Arc<dyn TableProvider> {
        Arc::new(LakeTable::new(self.name, files))
    }

    /// What of the table's folder nobody needs any more who reads a version of the last `retention`.
    ///
    /// # Errors
    /// [`LakeError`].
    pub async fn expired(&self, retention: Duration) -> Result<Expired, LakeError> {
        expired::find(&self.lake, self.name, retention).await
    }

    /// The version of the newest whole checkpoint of its log.
    ///
    /// # Errors
    /// [`LakeError`].
    pub async fn newest_checkpoint(&self) -> Result<Option<i64>, LakeError> {
        newest_checkpoint(&self.lake, self.name).await
    }

    /// Versions that are not in its log although one before and one after them are.
    ///
    /// # Errors
    /// [`LakeError`].
    pub async fn missing_versions(&self) -> Result<Vec<i64>, LakeError> {
        missing_versions(&self.lake, self.name).await
    }

    /// What commits after `version` up to this one brought. Compactions and the commits of quality
    /// control are seen as what they are: the former change no row and are left out.
    ///
    /// # Errors
    /// [`LakeError`].
    pub async fn changes_since(&self, version: i64) -> Result<Changes, LakeError> {
        self.changes_since_but(version, &[Operation::Compact]).await
    }

    /// What commits after `version` up to this one brought, without those of some operations.
    ///
    /// # Errors
    /// [`LakeError`].
    pub async fn changes_since_but(&self, version: i64, left_out: &[Operation]) -> Result<Changes, LakeError> {
        let Some(commits) = commits_after(&self.lake, self.name, version, self.version()).await? else {
            return Ok(Changes { added: self.files(), gone: Vec::new(), unclear: true });
        };
        let mut changes = Changes::default();
        for commit in commits {
            if left_out.iter().any(|operation| commit.operation.as_deref() == Some(operation.word())) {
                continue;
            }
            for file in commit.added {
                let place = if self.is_active(&file) { &mut changes.added } else { &mut changes.gone };
                place.push(file);
            }
        }
        Ok(changes)
    }
}
