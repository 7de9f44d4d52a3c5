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
use object_store::ObjectMeta;

use crate::commit::create_properties;
use crate::log::expired::{self, Expired};
use crate::log::{Followed, LogState, commits_after, damage, newest_checkpoint, objects_up_to};
use crate::scan::LakeTable;
use crate::states::Moment;
use crate::{Damage, DataFile, Lake, LakeError, Operation, TableName, Version, schema};

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

    /// Opens the version that a look found that is at most so old, or that anything else of this process that shares the
    /// lake has seen since; `None` where there was no table. It costs nothing, or, where the last look is older, mostly
    /// one get. For who reads, or wants to know whether there is anything to do; not for who commits.
    ///
    /// # Errors
    /// [`LakeError`], where the log cannot be read.
    pub async fn open_within(lake: &Lake, name: TableName, age: Duration) -> Result<Option<Self>, LakeError> {
        let state = lake.state_within(name, age).await?;
        Ok(state.map(|state| Self { lake: lake.clone(), name, state }))
    }

    /// Opens a table as [`Table::open_within`] does, where somebody told of this version: a get for each commit up to it that
    /// is not known yet, and no question whether there is another one. It costs a listing where the last one is ten minutes
    /// old, where that commit is of another table (one that was made anew), is not found or is not ahead of what is known, and
    /// where it is far ahead.
    ///
    /// # Errors
    /// [`LakeError`], where the log cannot be read.
    pub async fn open_told(lake: &Lake, name: TableName, told: Version) -> Result<Option<Self>, LakeError> {
        let state = lake.state_reaching(name, told).await?;
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
    /// anything else it finds out that the store refuses a second create, since every commit counts on it. What was found is
    /// kept with the lake, so that who asks again costs no request. A damaged log of hours or days is left to those who need it:
    /// readings are taken meanwhile, and both can be made anew of them.
    ///
    /// # Errors
    /// [`LakeError`]; [`LakeError::Proof`] where it does not.
    pub async fn create_all(lake: &Lake) -> Result<(), LakeError> {
        if lake.is_ready() {
            return Ok(());
        }
        lake.store().prove_create_only(&tjern_readings::keys::jobs_proof()).await.map_err(Box::new)?;
        for name in TableName::ALL {
            match Self::open_or_create(lake, name).await {
                Err(error) if error.is_of_rollups() => {}
                opened => _ = opened?,
            }
        }
        lake.note_ready();
        Ok(())
    }

    /// Moves on to the newest version. Returns whether there was one.
    ///
    /// # Errors
    /// [`LakeError`]; the table is then pinned where it was.
    pub async fn refresh(&mut self) -> Result<bool, LakeError> {
        let looked = Moment::now(&self.lake);
        let moved = LogState::refresh(&mut self.state, &self.lake).await?;
        self.lake.saw_state(self.name, &self.state, looked);
        Ok(moved)
    }

    /// Moves on to a version that was committed a moment ago, and was the newest then: a get for each commit up to it, where
    /// [`Table::refresh`] asks for a listing first.
    pub(crate) async fn reach(&mut self, version: i64) -> Result<(), LakeError> {
        let looked = Moment::now(&self.lake);
        if LogState::probe(&mut self.state, &self.lake, Some(version)).await? && self.version() >= version {
            self.lake.saw_state(self.name, &self.state, looked);
            return Ok(());
        }
        self.refresh().await.map(drop)
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

    /// The version, and what tells it from another one of the same number.
    #[must_use]
    pub fn known_version(&self) -> Version {
        Version::of(&self.state)
    }

    /// How long ago its newest commit was made, by the store's clock; nothing where that is not known.
    #[must_use]
    pub fn rests_for(&self) -> Duration {
        let rests_us = self.state.moved_us().map_or(0, |moved_us| self.lake.clock().now_us().saturating_sub(moved_us));
        Duration::from_micros(u64::try_from(rests_us).unwrap_or(0))
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

    /// Up to where its transactions are known to who has read them all now.
    #[must_use]
    pub fn followed(&self) -> Followed {
        self.state.moves().followed()
    }

    /// The transactions that were moved since, the oldest first, with their numbers; `None` where that cannot be told, and
    /// all are to be read again: the table was read anew, or it is too long ago.
    #[must_use]
    pub fn transactions_since(&self, followed: Followed) -> Option<impl Iterator<Item = &(String, i64)>> {
        self.state.moves().since(followed)
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

    /// The same, with one more column of this name, which says the number of the file that a row is from.
    #[must_use]
    pub fn provider_of_numbered(&self, files: Vec<(DataFile, i32)>, column: &str) -> Arc<dyn TableProvider> {
        Arc::new(LakeTable::numbered(self.name, files, column))
    }

    /// What of the table's folder nobody needs any more who reads a version that was the newest at `before_us` or later.
    /// Of its files only those may be removed that are found again after [`Table::cut_off`].
    ///
    /// # Errors
    /// [`LakeError`].
    pub async fn expired(&self, before_us: i64) -> Result<Expired, LakeError> {
        expired::find(&self.lake, self.name, before_us).await
    }

    /// The files in the table's folder that its newest version, to which it moves on, does not name: what was
    /// removed, and what nobody has committed. Of their rows nothing is known.
    ///
    /// # Errors
    /// [`LakeError`].
    pub async fn idle_files(&mut self) -> Result<Vec<DataFile>, LakeError> {
        let folder = tjern_readings::keys::table(self.name.as_str());
        let present = expired::data_files(&self.lake, self.name).await?;
        self.refresh().await?;
        let files = present.into_iter().filter_map(|meta| {
            let parts: Vec<String> =
                meta.location.prefix_match(&folder)?.map(|part| part.as_ref().to_owned()).collect();
            let path = parts.join("/");
            (!self.state.is_active(&path)).then(|| DataFile {
                path,
                size: i64::try_from(meta.size).unwrap_or(i64::MAX),
                modified_ms: meta.last_modified.timestamp_millis(),
                rows: None,
                sensor: None,
                time_us: None,
                sorted: false,
                unique: false,
                sha256: None,
            })
        });
        Ok(files.collect())
    }

    /// What of the log lies before the version that the table is pinned at, oldest first; nothing where that has no
    /// checkpoint. Who removes it takes every earlier version from its readers.
    ///
    /// # Errors
    /// [`LakeError`].
    pub async fn log_before(&self) -> Result<Vec<ObjectMeta>, LakeError> {
        expired::log_before(&self.lake, self.name, self.version()).await
    }

    /// The commits and checkpoints of its log up to this version, as the store lists them.
    ///
    /// # Errors
    /// [`LakeError`].
    pub async fn log_objects(&self) -> Result<Vec<object_store::ObjectMeta>, LakeError> {
        objects_up_to(&self.lake, self.name, self.version()).await
    }

    /// The version of the newest whole checkpoint of its log.
    ///
    /// # Errors
    /// [`LakeError`].
    pub async fn newest_checkpoint(&self) -> Result<Option<i64>, LakeError> {
        newest_checkpoint(&self.lake, self.name).await
    }

    /// What is damaged in the log of a table, all of which is read for it: also of one that cannot be opened for that.
    ///
    /// # Errors
    /// [`LakeError`] where the store fails.
    pub async fn damage_of_log(lake: &Lake, name: TableName) -> Result<Vec<Damage>, LakeError> {
        damage::find(lake, name).await
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
