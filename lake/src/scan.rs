//! A pinned version of a table before DataFusion: plain Parquet files with their statistics.
//!
//! delta-rs's own scan declares no order and cannot be sent elsewhere, so this one hands out a
//! `DataSourceExec`. Files that cannot hold a wanted row are left out by their statistics. Where all
//! that are left carry our tag, each is a group of its own and the order by `(sensor, time)` is
//! declared, so that sorted files are merged and never sorted again. Where somebody wants to know which file a row is
//! from, one more column says the number that they gave the file: one scan for all files, and no reading of it.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, BooleanArray, Int64Array, StringArray, TimestampMicrosecondArray, UInt64Array};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::stats::Precision;
use datafusion::common::{Column, ColumnStatistics, DFSchema, Result, ScalarValue, Statistics};
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_expr::expressions::col;
use datafusion::physical_expr::{LexOrdering, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use object_store::ObjectMeta;
use std::collections::HashSet;

use crate::recent::FILE_BYTES_MAX;
use crate::{DataFile, TableName, schema};

/// The scheme under which a session knows its lake's store, and no other.
pub(crate) const LAKE_SCHEME: &str = "tjern-lake";

static LAKE_STORE: LazyLock<ObjectStoreUrl> =
    LazyLock::new(|| ObjectStoreUrl::parse(format!("{LAKE_SCHEME}://lake")).expect("a scheme and a host make a URL"));

/// More groups than this cost more than the order is worth: each is a partition of every plan above.
const MERGED_FILES_MAX: usize = 8;

/// The files of a table's version.
#[derive(Debug)]
pub struct LakeTable {
    table: TableName,
    files: Vec<DataFile>,
    numbers: Option<Numbers>,
}

/// A column that says which file a row is from.
#[derive(Debug)]
struct Numbers {
    field: FieldRef,
    /// A number a file.
    of_files: Vec<i32>,
}

impl LakeTable {
    pub(crate) const fn new(table: TableName, files: Vec<DataFile>) -> Self {
        Self { table, files, numbers: None }
    }

    /// These files, with a column of this name that says the number of the file that a row is from.
    pub(crate) fn numbered(table: TableName, files: Vec<(DataFile, i32)>, column: &str) -> Self {
        let (files, of_files) = files.into_iter().unzip();
        let field = Arc::new(Field::new(column, DataType::Int32, false));
        Self { table, files, numbers: Some(Numbers { field, of_files }) }
    }

    /// The columns of the files.
    fn file_schema(&self) -> SchemaRef {
        schema::arrow(self.table)
    }

    fn number_column(&self) -> Vec<FieldRef> {
        self.numbers.iter().map(|numbers| Arc::clone(&numbers.field)).collect()
    }

    /// The files that may hold a row that the filters let through.
    fn prune(&self, predicate: Option<&Arc<dyn PhysicalExpr>>) -> Vec<usize> {
        let everything = || (0..self.files.len()).collect();
        let Some(predicate) = predicate else { return everything() };
        let pruning = PruningPredicateBuilder::new()
            .with_file_schema(self.schema())
            .try_build(Arc::clone(predicate))
            .and_then(|pruning| pruning.prune(&FileStatistics(self)));
        match pruning {
            Ok(kept) => kept.into_iter().enumerate().filter_map(|(place, keep)| keep.then_some(place)).collect(),
            Err(_) => everything(),
        }
    }

    fn ordering(&self) -> Result<Option<LexOrdering>> {
        let schema = self.schema();
        let options = SortOptions { descending: false, nulls_first: true };
        let sort = |name| Ok(PhysicalSortExpr::new(col(name, &schema)?, options));
        Ok(LexOrdering::new(self.table.sort_columns().map(sort).into_iter().collect::<Result<Vec<_>>>()?))
    }

    fn partitioned(&self, place: usize) -> PartitionedFile {
        let file = &self.files[place];
        let location = tjern_readings::keys::table(self.table.as_str()).join(file.path.as_str());
        let meta = ObjectMeta {
            location,
            last_modified: std::time::SystemTime::UNIX_EPOCH.into(),
            size: u64::try_from(file.size).unwrap_or_default(),
            // A data file is never changed, so its path says which bytes it has.
            e_tag: None,
            version: None,
        };
        let number = self.numbers.iter().map(|numbers| ScalarValue::Int32(Some(numbers.of_files[place])));
        let partitioned = PartitionedFile::new_from_meta(meta).with_partition_values(number.collect());
        partitioned.with_statistics(Arc::new(self.statistics(file)))
    }

    fn statistics(&self, file: &DataFile) -> Statistics {
        let schema = self.file_schema();
        let mut statistics = Statistics::new_unknown(&schema);
        let count = |number: Option<i64>| number.and_then(|number| usize::try_from(number).ok());
        statistics.num_rows = count(file.rows).map_or(Precision::Absent, Precision::Exact);
        statistics.total_byte_size = count(Some(file.size)).map_or(Precision::Absent, Precision::Inexact);
        let mut set = |name, least, greatest| {
            if let Ok(index) = schema.index_of(name) {
                statistics.column_statistics[index] = ColumnStatistics {
                    min_value: Precision::Inexact(least),
                    max_value: Precision::Inexact(greatest),
                    null_count: Precision::Exact(0),
                    ..ColumnStatistics::new_unknown()
                };
            }
        };
        let [text, time] = self.table.sort_columns();
        if let Some((least, greatest)) = &file.sensor {
            set(text, ScalarValue::from(least.as_str()), ScalarValue::from(greatest.as_str()));
        }
        if let Some((least, greatest)) = file.time_us {
            let scalar = |time_us| ScalarValue::TimestampMicrosecond(Some(time_us), Some("UTC".into()));
            set(time, scalar(least), scalar(greatest));
        }
        statistics
    }
}

#[async_trait]
impl TableProvider for LakeTable {
    fn schema(&self) -> SchemaRef {
        let files = self.file_schema();
        if self.numbers.is_none() {
            return files;
        }
        let columns: Vec<FieldRef> = files.fields().iter().cloned().chain(self.number_column()).collect();
        Arc::new(Schema::new_with_metadata(columns, files.metadata().clone()))
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
        let schema = self.schema();
        let filter = conjunction(filters.to_vec());
        let names = DFSchema::try_from(Arc::clone(&schema))?;
        let predicate = filter.map(|filter| state.create_physical_expr(filter, &names)).transpose()?;
        let files = self.prune(predicate.as_ref());
        if files.is_empty() {
            let projected =
                projection.map_or_else(|| Ok(Arc::clone(&schema)), |some| schema.project(some).map(Arc::new))?;
            return Ok(Arc::new(EmptyExec::new(projected)));
        }
        // One request for a file's end, and for a small file the only one.
        let hint = usize::try_from(FILE_BYTES_MAX).unwrap_or(usize::MAX);
        let columns = TableSchema::builder(self.file_schema()).with_table_partition_cols(self.number_column()).build();
        let mut source = ParquetSource::new(columns).with_metadata_size_hint(hint);
        if let Some(predicate) = predicate {
            source = source.with_predicate(predicate);
        }
        let merged = files.len() <= MERGED_FILES_MAX && files.iter().all(|place| self.files[*place].sorted);
        let groups = if merged { files.len() } else { state.config().target_partitions().clamp(1, files.len()) };
        let mut file_groups = vec![FileGroup::default(); groups];
        for (index, place) in files.into_iter().enumerate() {
            file_groups[index % groups].push(self.partitioned(place));
        }
        let ordering = if merged { self.ordering()? } else { None };
        let config = FileScanConfigBuilder::new(LAKE_STORE.clone(), Arc::new(source))
            .with_file_groups(file_groups)
            .with_projection_indices(projection.cloned())?
            // Filters are applied above, so a limit may be pushed only where there are none.
            .with_limit(limit.filter(|_| filters.is_empty()))
            .with_output_ordering(ordering.into_iter().collect())
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

/// The statistics of all files of a table, a row a file.
#[derive(Debug)]
struct FileStatistics<'a>(&'a LakeTable);

impl FileStatistics<'_> {
    fn bound(&self, column: &Column, greatest: bool) -> Option<ArrayRef> {
        let [text, time] = self.0.table.sort_columns();
        let files = self.0.files.iter();
        if column.name == text {
            let bounds = files.map(|file| file.sensor.as_ref().map(|(low, high)| if greatest { high } else { low }));
            return Some(Arc::new(bounds.collect::<StringArray>()));
        }
        if column.name == time {
            let bounds = files.map(|file| file.time_us.map(|(low, high)| if greatest { high } else { low }));
            return Some(Arc::new(bounds.collect::<TimestampMicrosecondArray>().with_timezone("UTC")));
        }
        None
    }
}

impl PruningStatistics for FileStatistics<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bound(column, false)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bound(column, true)
    }

    fn num_containers(&self) -> usize {
        self.0.files.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        let sort_column = self.0.table.sort_columns().contains(&column.name.as_str());
        sort_column.then(|| Arc::new(UInt64Array::from(vec![0; self.0.files.len()])) as ArrayRef)
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        let rows: Int64Array = self.0.files.iter().map(|file| file.rows).collect();
        arrow::compute::cast(&rows, &arrow::datatypes::DataType::UInt64).ok()
    }

    fn contained(&self, _column: &Column, _values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}
