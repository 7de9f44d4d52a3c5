//! Hours or days whose log is damaged, before DataFusion: whoever asks for them is told, with the way back, and nobody else.
//!
//! It is not the empty table of a lake that has no rollups yet: that one answers from `readings`, and what retention has removed
//! there would be missing without a word.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DataFusionError, Result};
use datafusion::datasource::TableType;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;

use crate::{LakeError, TableName, schema};

/// A table that cannot be read.
#[derive(Debug)]
pub(crate) struct Unreadable(pub(crate) TableName);

#[async_trait]
impl TableProvider for Unreadable {
    fn schema(&self) -> SchemaRef {
        schema::arrow(self.0)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _: &dyn Session,
        _: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let (table, place) = (self.0, "_delta_log".to_owned());
        let what = "it could not be opened, as the log of this process says".to_owned();
        Err(DataFusionError::External(Box::new(LakeError::Log { table, place, what })))
    }
}
