//! The SQL session: every table and view of a lake at one version each, and nothing else.
//!
//! A session reaches one object store, the lake's, and only through the files that the pinned
//! versions name: no file system, no network, no other table. What the public may see is decided
//! here and not by whoever writes the queries: with [`Access::Public`] a sensor that is not `public`
//! does not exist.

use std::path::Path;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::object_store::ObjectStoreRegistry;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::prelude::{DataFrame, SessionConfig, SessionContext};
use jiff::tz::TimeZone;
use object_store::ObjectStore;
use url::Url;

use crate::newest::NewestOfFiles;
use crate::rollup::{Grid, RegisterTables, RollupTable};
use crate::scan::{LAKE_SCHEME, LakeTable};
use crate::unreadable::Unreadable;
use crate::views::Parted;
use crate::yielding::Yielding;
use crate::{Lake, LakeError, Table, TableName, functions, views};

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everybody: only sensors of class `public` exist, and no raw readings.
    Public,
    /// The city's own people.
    Staff,
}

/// How a session is made.
#[derive(Debug, Clone)]
pub struct SessionSettings {
    /// Who asks.
    pub access: Access,
    /// The city's time zone.
    pub timezone: TimeZone,
    /// How much memory its queries may use together.
    pub memory_bytes: usize,
}

/// The memory of a session's queries, unless told otherwise.
pub const MEMORY_BYTES: usize = 512 << 20;

/// Opens a session on the newest versions of a lake's tables. A table that is not there is empty.
///
/// # Errors
/// [`LakeError`].
pub async fn session(lake: &Lake, settings: &SessionSettings) -> std::result::Result<SessionContext, LakeError> {
    session_on(lake, settings, &open_all(lake).await?).await
}

/// The newest version of each table, for who reads. Hours or days whose log is damaged are left out, with a warning.
///
/// # Errors
/// [`LakeError`].
pub async fn open_all(lake: &Lake) -> std::result::Result<Vec<(TableName, Option<Table>)>, LakeError> {
    let mut tables = Vec::new();
    for name in TableName::ALL {
        match Table::open(lake, name).await {
            Err(error) if error.is_of_rollups() => tracing::warn!(%error, "what needs this table has no answer"),
            opened => tables.push((name, opened?)),
        }
    }
    Ok(tables)
}

/// Opens a session on tables that are pinned already. A table that is pinned and not there is empty; hours or days that are not
/// pinned cannot be read, and who asks for them is told.
///
/// # Errors
/// [`LakeError`].
pub async fn session_on(
    lake: &Lake,
    settings: &SessionSettings,
    pinned: &[(TableName, Option<Table>)],
) -> std::result::Result<SessionContext, LakeError> {
    session_of(lake, settings, pinned, session_state(lake, settings)?).await
}

/// The same for a job: see [`job_session`].
///
/// # Errors
/// [`LakeError`].
pub async fn job_session_on(
    lake: &Lake,
    settings: &SessionSettings,
    pinned: &[(TableName, Option<Table>)],
    spill: &Path,
) -> std::result::Result<SessionContext, LakeError> {
    session_of(lake, settings, pinned, job_state(lake, settings, spill)?).await
}

async fn session_of(
    lake: &Lake,
    settings: &SessionSettings,
    pinned: &[(TableName, Option<Table>)],
    state: SessionState,
) -> std::result::Result<SessionContext, LakeError> {
    // What the public must not see lives in a context of its own, which no query gets.
    let tables = SessionContext::new_with_state(session_state(lake, settings)?);
    let shown = SessionContext::new_with_state(state);
    let public = settings.access == Access::Public;
    let table = |wanted: TableName| {
        pinned.iter().find(|(name, _)| *name == wanted).and_then(|(_, table)| table.as_ref()).cloned()
    };
    for (name, pinned) in pinned {
        let grid = match name {
            TableName::Hourly => Some(Grid::Hours),
            TableName::Daily => Some(Grid::Days(settings.timezone.clone())),
            _ => None,
        };
        let provider: Arc<dyn TableProvider> = match grid {
            Some(grid) => {
                let (sensors, installations) = (table(TableName::Sensors), table(TableName::Installations));
                let register = RegisterTables { sensors, installations };
                Arc::new(RollupTable::new(*name, grid, pinned.clone(), table(TableName::Readings), register))
            }
            None => Arc::new(LakeTable::new(*name, pinned.as_ref().map(Table::files).unwrap_or_default())),
        };
        tables.register_table(format!("all_{name}"), provider)?;
    }
    for name in [TableName::Hourly, TableName::Daily] {
        if !pinned.iter().any(|(one, _)| *one == name) {
            tables.register_table(format!("all_{name}"), Arc::new(Unreadable(name)))?;
        }
    }
    for name in [TableName::Sensors, TableName::Sites] {
        show(&tables, &shown, name.as_str(), views::register(&tables, name, public).await?)?;
    }
    for name in [TableName::Hourly, TableName::Daily] {
        let rows = views::of_known_sensors(&tables, name.as_str(), public).await?;
        show(&tables, &shown, name.as_str(), rows)?;
    }
    let readings = table(TableName::Readings);
    let parted = Parted::of(readings.as_ref().map(Table::files).unwrap_or_default());
    let newest = views::newest_revisions(&tables, parted.clone()).await?;
    tables.register_table("newest_revisions", newest.into_view())?;
    show(&tables, &shown, "observations", views::observations(&tables, public).await?)?;
    let now_us = lake.clock().now_us();
    let (past, others) = parted.ended_by(now_us);
    let sensors = table(TableName::Sensors);
    tables.register_table("newest_of_files", Arc::new(NewestOfFiles::new(lake, settings, past, sensors.as_ref())))?;
    show(&tables, &shown, "latest", views::latest(&tables, public, others, now_us).await?)?;
    if !public {
        for name in [TableName::Installations, TableName::Events, TableName::QualityRules] {
            show(&tables, &shown, name.as_str(), views::register(&tables, name, public).await?)?;
        }
        let files = readings.as_ref().map(Table::files).unwrap_or_default();
        shown.register_table("readings", Arc::new(LakeTable::new(TableName::Readings, files)))?;
    }
    Ok(shown)
}

/// A context with the lake's files and Tjern's functions but without any table: what jobs read with.
///
/// # Errors
/// [`LakeError::Engine`].
pub fn bare_session(lake: &Lake, settings: &SessionSettings) -> std::result::Result<SessionContext, LakeError> {
    Ok(SessionContext::new_with_state(session_state(lake, settings)?))
}

/// The same for a job that may meet any number of rows: it sorts within `memory_bytes`, and what is more goes to files
/// in the folder `spill`, which go with the query. It sorts one thing at a time, whatever the machine: each further one would keep
/// memory of its own.
///
/// # Errors
/// [`LakeError::Engine`].
pub fn job_session(
    lake: &Lake,
    settings: &SessionSettings,
    spill: &Path,
) -> std::result::Result<SessionContext, LakeError> {
    Ok(SessionContext::new_with_state(job_state(lake, settings, spill)?))
}

/// Registers a view for the views that stand on it, and for those who ask.
fn show(tables: &SessionContext, shown: &SessionContext, name: &str, rows: DataFrame) -> Result<()> {
    let view = rows.into_view();
    tables.register_table(name, Arc::clone(&view) as Arc<dyn TableProvider>)?;
    shown.register_table(name, view)?;
    Ok(())
}

pub(crate) fn session_state(lake: &Lake, settings: &SessionSettings) -> Result<SessionState> {
    let runtime = runtime(lake, settings.memory_bytes, DiskManagerBuilder::default())?;
    state(settings, SessionConfig::new(), runtime)
}

/// A row of a job's queries, about: thirteen columns, texts among them.
const ROW_BYTES: usize = 256;

fn job_state(lake: &Lake, settings: &SessionSettings, spill: &Path) -> Result<SessionState> {
    let memory_bytes = settings.memory_bytes;
    let config = SessionConfig::new().with_target_partitions(1).with_repartition_sorts(false);
    // A sort that spilled holds a batch of each part that it merges.
    let batch_rows = config.batch_size().min(memory_bytes / 32 / ROW_BYTES).max(BATCH_ROWS_MIN);
    let mut config = config.with_batch_size(batch_rows);
    let reserved = config.options().execution.sort_spill_reservation_bytes.min(memory_bytes / 4);
    config.options_mut().execution.sort_spill_reservation_bytes = reserved;
    let disk = DiskManagerBuilder::default()
        .with_mode(DiskManagerMode::Directories(vec![spill.to_owned()]))
        .with_max_temp_directory_size(u64::MAX);
    let runtime = runtime(lake, memory_bytes, disk).map_err(|error| {
        let what = format!("cannot use the folder `{}` for what does not fit into memory", spill.display());
        error.context(format!("{what}; hint: create it, or set `[compact] spill` in tjern.toml"))
    })?;
    state(settings, config, runtime)
}

/// The smallest batches of a job.
const BATCH_ROWS_MIN: usize = 512;

fn state(settings: &SessionSettings, config: SessionConfig, runtime: Arc<RuntimeEnv>) -> Result<SessionState> {
    let config = config
        .with_information_schema(true)
        .set_str("datafusion.execution.time_zone", "UTC")
        .set_bool("datafusion.sql_parser.enable_ident_normalization", true);
    let mut state = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(runtime)
        .with_default_features()
        .with_physical_optimizer_rule(Arc::new(Yielding))
        .build();
    for function in functions::functions(&settings.timezone) {
        datafusion::execution::FunctionRegistry::register_udf(&mut state, Arc::new(function))?;
    }
    Ok(state)
}

fn runtime(lake: &Lake, memory_bytes: usize, disk: DiskManagerBuilder) -> Result<Arc<RuntimeEnv>> {
    RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(FairSpillPool::new(memory_bytes)))
        .with_disk_manager_builder(disk)
        .with_object_store_registry(Arc::new(LakeOnly(lake.objects())))
        .build_arc()
}

/// Knows one store. Whatever else a query names, it cannot be reached.
#[derive(Debug)]
struct LakeOnly(Arc<dyn ObjectStore>);

impl ObjectStoreRegistry for LakeOnly {
    fn register_store(&self, _url: &Url, _store: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        None
    }

    fn get_store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        if url.scheme() == LAKE_SCHEME {
            return Ok(Arc::clone(&self.0));
        }
        Err(DataFusionError::Plan(format!("`{url}` cannot be reached from here: queries see the lake's tables only")))
    }
}
