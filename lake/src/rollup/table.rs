//! `hourly` and `daily` in a session: the table's rows where they are those of the session's version of `readings`, and
//! computed ones where they are not.
//!
//! | the table | what is computed |
//! |---|---|
//! | is of the session's version | nothing |
//! | is of an older or a newer one | the windows that the commits between the two touched |
//! | is not there, or says no version; its days are of another time zone; it knows a newer register; commits in between were cleaned away, or are more than [`COMMITS_MAX`]; vacuum took a file that has to be looked at | every window that the query asks for |
//!
//! And always all windows of sensors that were registered after the table was made, as something else than what unknown
//! ones count as, and of counters of which the register says something else since ([`Natures::changed_since`]). Closed windows ([`super::open_from_us`]) are read from the table, whatever was committed; where something was erased of
//! them, [`super::steps`] says what becomes of the one after.
//!
//! A filter on `sensor` and `time` bounds what is computed: a query costs what it touches. The files that commits brought are looked
//! at when a query first asks, and not again; values beside counters' windows are looked for while a query is planned.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::exec_datafusion_err;
use datafusion::datasource::TableType;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::SessionState;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::{col, not};
use tokio::sync::OnceCell;

use super::functions::is_selected;
use super::nature::{Natures, Words};
use super::neighbours::{Closed, followers, predecessors};
use super::selection::{Bounds, Selection};
use super::source::Source;
use super::steps::{Stepped, steps_from_erased};
use super::touched::{KEPT_COMMITS, touched_between};
use super::windows::{Grid, Window};
use super::{TIMEZONE_TRANSACTION, VERSION_TRANSACTION, compute, open_from_us, to_compute};
use crate::scan::LakeTable;
use crate::{Table, TableName, schema};

/// Where more commits than this lie between the two versions, everything that is asked for is computed.
pub const COMMITS_MAX: usize = KEPT_COMMITS;

/// A rollup, before DataFusion.
#[derive(Debug)]
pub struct RollupTable {
    name: TableName,
    grid: Grid,
    rollup: Option<Table>,
    readings: Option<Table>,
    register: RegisterTables,
    known: OnceCell<Known>,
}

/// What of the register hours and days follow from.
#[derive(Debug, Clone, Default)]
pub struct RegisterTables {
    /// The table `sensors`.
    pub sensors: Option<Table>,
    /// The table `installations`.
    pub installations: Option<Table>,
}

/// What is found out once.
#[derive(Debug)]
struct Known {
    natures: Arc<Natures>,
    difference: Difference,
}

/// Where the table is not what the session's version of `readings` says.
#[derive(Debug)]
enum Difference {
    Nowhere,
    Somewhere(Box<Places>),
    Everywhere,
}

/// Windows that differ.
#[derive(Debug)]
struct Places {
    /// Closed ones among them, that only counters' followers are found by.
    touched: Selection,
    computed: Selection,
    erased: Selection,
}

impl RollupTable {
    /// The rollup `name` of a session that is pinned at these versions; its windows are cut by `grid`.
    #[must_use]
    pub fn new(
        name: TableName,
        grid: Grid,
        rollup: Option<Table>,
        readings: Option<Table>,
        register: RegisterTables,
    ) -> Self {
        Self { name, grid, rollup, readings, register, known: OnceCell::new() }
    }

    async fn known(&self, context: &SessionContext, readings: &Table) -> Result<&Known> {
        let known = async {
            let RegisterTables { sensors, installations } = &self.register;
            let natures = Arc::new(Natures::read(context, sensors.as_ref(), installations.as_ref()).await?);
            let difference = self.difference(readings, &natures).await?;
            Ok::<_, DataFusionError>(Known { natures, difference })
        };
        self.known.get_or_try_init(|| known).await
    }

    async fn difference(&self, readings: &Table, natures: &Natures) -> Result<Difference> {
        let Some(rollup) = &self.rollup else { return Ok(Difference::Everywhere) };
        let Some(version) = rollup.transaction(VERSION_TRANSACTION) else { return Ok(Difference::Everywhere) };
        let words = Words::of(rollup);
        if rollup.transaction(TIMEZONE_TRANSACTION) != self.grid.number() || !words.are_known_to(&natures.words()) {
            return Ok(Difference::Everywhere);
        }
        let touched = touched_between(readings.lake(), version, readings.version(), COMMITS_MAX).await;
        let Some(touched) = touched.map_err(|error| DataFusionError::External(Box::new(error)))? else {
            return Ok(Difference::Everywhere);
        };
        let open_from_us = open_from_us(readings, &self.grid);
        let mut computed = to_compute(&touched, natures, &self.grid, open_from_us);
        let mut all = Selection::touched(&touched.spans, natures, &self.grid);
        all.extend(&computed);
        for sensor in natures.changed_since(words) {
            computed.insert(&sensor, Window { start_us: open_from_us, end_us: i64::MAX });
        }
        if all.is_empty() && computed.is_empty() {
            return Ok(Difference::Nowhere);
        }
        let erased = Selection::touched(&touched.erased, natures, &self.grid);
        Ok(Difference::Somewhere(Box::new(Places { touched: all, computed, erased })))
    }

    /// The windows that are to be computed for a query.
    async fn wanted(&self, known: &Known, source: &Source, bounds: &Bounds) -> Result<Selection> {
        match &known.difference {
            Difference::Nowhere => Ok(Selection::default()),
            Difference::Everywhere => {
                let open_from_us = open_from_us(source.table(), &self.grid);
                Ok(Selection::all(bounds, &self.grid).from(open_from_us))
            }
            Difference::Somewhere(places) => {
                let Places { touched, computed, .. } = &**places;
                let mut wanted = computed.within(bounds, &self.grid);
                let before = Bounds { from_us: i64::MIN, ..bounds.clone() };
                let touched = touched.within(&before, &self.grid);
                let open_from_us = open_from_us(source.table(), &self.grid);
                let follow = followers(source, &touched, &known.natures, &self.grid).await?.from(open_from_us);
                wanted.extend(&follow.within(bounds, &self.grid));
                Ok(wanted)
            }
        }
    }

    /// What the table says of closed windows, but for those that erasure changed.
    fn closed<'a>(&'a self, known: &'a Known, open_from_us: i64, none: &'a Selection) -> Closed<'a> {
        let anew = if let Difference::Somewhere(places) = &known.difference { &places.computed } else { none };
        Closed { rollup: self.rollup.as_ref(), until_us: open_from_us, anew }
    }

    /// The closed windows into which steps led from what was erased.
    async fn stepped(&self, known: &Known, source: &Source, closed: Closed<'_>) -> Result<Stepped> {
        let Difference::Somewhere(places) = &known.difference else { return Ok(Stepped::default()) };
        steps_from_erased(source, &places.erased, &known.natures, &self.grid, closed).await
    }

    fn stored(&self) -> LakeTable {
        LakeTable::new(self.name, self.rollup.as_ref().map(Table::files).unwrap_or_default())
    }
}

fn context_of(state: &dyn Session) -> Result<SessionContext> {
    let state = state.as_any().downcast_ref::<SessionState>();
    let state = state.ok_or_else(|| exec_datafusion_err!("rollups are planned in a session of this product only"))?;
    Ok(SessionContext::new_with_state(state.clone()))
}

#[async_trait]
impl TableProvider for RollupTable {
    fn schema(&self) -> SchemaRef {
        schema::arrow(self.name)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(readings) = &self.readings else { return self.stored().scan(state, projection, filters, limit).await };
        let context = context_of(state)?;
        let known = self.known(&context, readings).await?;
        let source = Source::new(context.clone(), readings.clone());
        let wanted = self.wanted(known, &source, &Bounds::of(filters)).await?;
        let (natures, grid, none) = (&known.natures, &self.grid, Selection::default());
        let closed = self.closed(known, open_from_us(readings, grid), &none);
        let stepped = self.stepped(known, &source, closed).await?;
        if wanted.is_empty() && stepped.windows.is_empty() {
            return self.stored().scan(state, projection, filters, limit).await;
        }
        let before = predecessors(&source, &wanted, natures, closed).await?;
        let wanted = Arc::new(wanted);
        let computed = compute::windows(&source, &wanted, natures, grid, &before)?;
        let is_stored = not(is_selected(&wanted, [col("sensor"), col("time")]));
        let mut rows = context.read_table(Arc::new(self.stored()))?.filter(is_stored)?;
        if !stepped.windows.is_empty() {
            rows = rows.filter(not(is_selected(&Arc::new(stepped.windows), [col("sensor"), col("time")])))?;
            rows = rows.union(context.read_batch(stepped.rows)?)?;
        }
        let mut rows = rows.union(computed)?;
        // The filters come as the table's own columns, whatever the query calls it.
        if let Some(filter) = conjunction(filters.iter().cloned().map(unqualified).collect::<Result<Vec<_>>>()?) {
            rows = rows.filter(filter)?;
        }
        if let Some(projection) = projection {
            let schema = self.schema();
            let columns: Vec<&str> = projection.iter().map(|index| schema.field(*index).name().as_str()).collect();
            rows = rows.select_columns(&columns)?;
        }
        rows.create_physical_plan().await
    }
}

fn unqualified(filter: Expr) -> Result<Expr> {
    use datafusion::common::tree_node::{Transformed, TreeNode};
    let plain = filter.transform(|expression| {
        Ok(match expression {
            Expr::Column(column) => Transformed::yes(col(datafusion::common::Column::new_unqualified(column.name))),
            other => Transformed::no(other),
        })
    })?;
    Ok(plain.data)
}
