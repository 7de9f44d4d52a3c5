//! Who makes more rows than it is given gives way after its batches, so that a query that was given up ends.
//!
//! DataFusion gives way where rows are read, once in so many batches: a cross join makes a thousand of each, and an aggregate above
//! it goes on through all of them for minutes, with nobody waiting for the answer any more.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;

/// Wraps joins, and lists that become rows, in what gives way once in so many of *their* batches.
#[derive(Debug)]
pub(crate) struct Yielding;

impl PhysicalOptimizerRule for Yielding {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let wrapped = plan.transform_up(|plan| {
            if plan.children().len() > 1 || plan.name() == "UnnestExec" {
                return Ok(Transformed::yes(Arc::new(CooperativeExec::new(plan)) as Arc<dyn ExecutionPlan>));
            }
            Ok(Transformed::no(plan))
        });
        wrapped.data()
    }

    fn name(&self) -> &'static str {
        "yielding"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use datafusion::prelude::{SessionConfig, SessionContext};
    use futures::FutureExt;

    use crate::session::{MEMORY_BYTES, SessionSettings};
    use crate::{Access, Lake, session};

    /// How often who computes an answer gives way until it is there.
    async fn gives_way(context: &SessionContext, sql: &str) -> usize {
        let mut answering = Box::pin(async { context.sql(sql).await?.collect().await });
        let mut ways = 0;
        let answered = std::future::poll_fn(|task| {
            let polled = answering.poll_unpin(task);
            ways += usize::from(polled.is_pending());
            match polled {
                Poll::Ready(answer) => Poll::Ready(answer),
                Poll::Pending => Poll::Pending,
            }
        });
        answered.await.expect("answered");
        ways
    }

    /// A query whose answer nobody waited for any more went on for nine minutes on a thread of its own, and its memory grew.
    #[tokio::test]
    async fn what_makes_many_rows_of_few_gives_way() {
        let lake = Lake::open(&"memory:///".parse().expect("a lake")).expect("opened");
        let settings =
            SessionSettings { access: Access::Staff, timezone: jiff::tz::TimeZone::UTC, memory_bytes: MEMORY_BYTES };
        let ours = session(&lake, &settings).await.expect("opened");
        ours.sql("SET datafusion.execution.target_partitions = 1").await.expect("set").collect().await.expect("set");
        let theirs = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
        let sql = "SELECT count(a.value * b.value + random()) \
                   FROM generate_series(1, 2000) a(value) CROSS JOIN generate_series(1, 2000) b(value)";
        // 2,000 batches, and tokio's budget is 128.
        assert!(gives_way(&ours, sql).await >= 15, "it goes on alone");
        assert!(gives_way(&theirs, sql).await < 15, "DataFusion gives way by itself now: this rule can go");
    }
}
