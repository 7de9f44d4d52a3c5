//! Where the staff's SQL is planned and computed: threads of its own, with deep stacks.
//!
//! Planning computes constants, and no time limit interrupts that. Here it holds one of these threads
//! and no other: the limit answers from outside, and the residents' pages do not wait. Whoever asked
//! keeps the turn until the thread is free, so that no more is computed at once than there are turns.

use std::io;

use datafusion::common::DataFusionError;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::limits::{self, Limits};
use crate::sql::{Answer, SqlError};

/// Threads for the staff's SQL.
#[derive(Debug)]
pub(crate) struct Workshop {
    /// Taken when the workshop is dropped, and never before.
    runtime: Option<Runtime>,
}

impl Workshop {
    /// Starts the threads.
    pub(crate) fn start() -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .thread_name("tjern-sql")
            .worker_threads(limits::SQL_AT_ONCE_MAX)
            .thread_stack_size(limits::SQL_STACK_BYTES)
            .enable_all()
            .build()?;
        Ok(Self { runtime: Some(runtime) })
    }

    /// Computes an answer here; `held` is let go when the thread is done, whoever waits still.
    pub(crate) async fn answer(
        &self,
        limits: Limits,
        held: impl Send + 'static,
        answering: impl Future<Output = Result<Answer, SqlError>> + Send + 'static,
    ) -> Result<Answer, SqlError> {
        let runtime = self.runtime.as_ref().expect("it is there until the drop");
        let answering = Box::pin(answering);
        let task = runtime.spawn(async move {
            let answer = answering.await;
            drop(held);
            answer
        });
        match timeout(limits.time, AbortOnDropHandle::new(task)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(broken)) => Err(SqlError::Run(DataFusionError::ExecutionJoin(Box::new(broken)))),
            Err(_) => Err(SqlError::Time { seconds: limits.time.as_secs() }),
        }
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        // A thread that computes a constant cannot be waited for: the process ends without it.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, mpsc};
    use std::time::Duration;

    use arrow::datatypes::DataType;
    use datafusion::logical_expr::{ColumnarValue, Volatility, create_udf};
    use datafusion::prelude::SessionContext;
    use datafusion::scalar::ScalarValue;

    use super::*;
    use crate::sql;

    /// A constant that takes as long as the test wants: nothing interrupts it, the limit answers anyway.
    #[tokio::test]
    async fn a_constant_that_takes_for_ever_holds_nobody_but_its_own_thread() {
        let (release, waits) = mpsc::channel::<()>();
        let waits = Mutex::new(waits);
        let slow = move |_: &[ColumnarValue]| {
            let waits = waits.lock().expect("not poisoned");
            let told = waits.recv_timeout(Duration::from_secs(30));
            Ok(ColumnarValue::Scalar(ScalarValue::Boolean(Some(told.is_ok()))))
        };
        let slow = create_udf("slow", Vec::new(), DataType::Boolean, Volatility::Immutable, Arc::new(slow));
        let context = SessionContext::new();
        context.register_udf(slow);
        let workshop = Workshop::start().expect("threads");
        let turns = Arc::new(tokio::sync::Semaphore::new(1));
        let limits = Limits { rows: 10, bytes: 1 << 20, time: Duration::from_millis(200) };
        let turn = Arc::clone(&turns).acquire_owned().await.expect("a turn");
        let ask = |sql: &'static str| {
            let context = context.clone();
            async move { sql::run_limited(&context, sql, limits).await }
        };
        let error = workshop.answer(limits, turn, ask("SELECT slow()")).await.expect_err("it cannot be done");
        assert!(matches!(error, SqlError::Time { .. }), "{error}");
        assert_eq!(turns.available_permits(), 0, "the thread still computes");
        let patient = Limits { time: Duration::from_secs(30), ..limits };
        assert_eq!(workshop.answer(patient, (), ask("SELECT 1")).await.expect("another thread").rows(), 1);
        release.send(()).expect("it still waits");
        let freed = tokio::time::timeout(Duration::from_secs(30), turns.acquire()).await;
        assert!(freed.is_ok(), "the turn comes back with the thread");
    }
}
