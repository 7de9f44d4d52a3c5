//! SQL from people: one query, read only, within limits.
//!
//! Three checks, one after the other. The text must be of a size that can be planned ([`size`]). The
//! statement must be a query by its syntax (`SELECT`, `WITH`,
//! `VALUES`, `EXPLAIN`, `SHOW`, `DESCRIBE`): a closed list, everything else is refused. Then the plan
//! is verified, so that nothing that writes hides inside (`SELECT … INTO`, `WITH … INSERT`). That no
//! file and no foreign table can be named is the session's doing: it knows no others.

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::common::{DataFusionError, ParamValues};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::{SQLOptions, SessionContext};
use datafusion::sql::parser::{DFParser, Statement};
use datafusion::sql::sqlparser::ast::Statement as SqlStatement;
use futures::StreamExt;

use crate::limits::Limits;

mod parts;
mod size;

/// Why a query was refused, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum SqlError {
    /// The text is no SQL.
    #[error("the SQL cannot be read: {0}")]
    Syntax(#[source] DataFusionError),
    /// The text is longer than allowed.
    #[error("the SQL has more than {max} bytes; hint: send a shorter query")]
    Text {
        /// How many are allowed.
        max: usize,
    },
    /// The text has more tokens than allowed.
    #[error("the SQL has more than {max} words and signs; hint: send a shorter query, or ask part by part")]
    Tokens {
        /// How many are allowed.
        max: usize,
    },
    /// The statement is a longer chain than allowed.
    #[error(
        "the SQL has more than {max} operators, conditions, SELECTs and joins; \
         hint: write `IN (…)` for a chain of OR, and ask part by part"
    )]
    Joints {
        /// How many are allowed.
        max: usize,
    },
    /// Parts of a `WITH` are named more often than allowed.
    #[error("the parts of `WITH` are named more than {max} times, through each other; hint: ask part by part")]
    Parts {
        /// How many are allowed.
        max: usize,
    },
    /// There is no statement, or more than one.
    #[error("there are {count} statements; hint: send exactly one query")]
    Count {
        /// How many there are.
        count: usize,
    },
    /// The statement is something else than a query.
    #[error("`{word}` is refused: only queries are answered; hint: SELECT, WITH, VALUES, EXPLAIN, SHOW or DESCRIBE")]
    NotAQuery {
        /// The statement's first word.
        word: String,
    },
    /// The plan writes, or defines something.
    #[error("the query is refused: {0}; hint: only what reads is answered")]
    Writes(#[source] DataFusionError),
    /// The query names what does not exist, or does not fit together.
    #[error("the query cannot be planned: {0}")]
    Plan(#[source] DataFusionError),
    /// The query failed while it ran.
    #[error("the query failed: {0}")]
    Run(#[source] DataFusionError),
    /// The answer has more rows than allowed.
    #[error("the answer has more than {max} rows; hint: aggregate, add a condition on `time`, or a LIMIT")]
    Rows {
        /// How many are allowed.
        max: usize,
    },
    /// The answer is larger than allowed.
    #[error("the answer has more than {max} bytes; hint: select fewer columns or rows")]
    Bytes {
        /// How many are allowed.
        max: usize,
    },
    /// It took too long.
    #[error("the query took more than {seconds} s; hint: add a condition on `time` or `sensor`")]
    Time {
        /// How long it may take.
        seconds: u64,
    },
}

/// An answer: its columns, and its rows.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The columns.
    pub schema: SchemaRef,
    /// The rows.
    pub batches: Vec<RecordBatch>,
}

impl Answer {
    /// How many rows there are.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }
}

/// Plans one read-only query.
///
/// # Errors
/// [`SqlError`] for everything that is not exactly one query that this session can answer.
pub async fn plan(context: &SessionContext, sql: &str) -> Result<LogicalPlan, SqlError> {
    size::check(sql)?;
    let mut statements = DFParser::parse_sql(sql).map_err(SqlError::Syntax)?;
    let (Some(statement), true) = (statements.pop_front(), statements.is_empty()) else {
        return Err(SqlError::Count { count: if statements.is_empty() { 0 } else { statements.len() + 1 } });
    };
    if !is_query(&statement) {
        return Err(SqlError::NotAQuery { word: first_word(&statement) });
    }
    let plan = context.state().statement_to_plan(statement).await.map_err(SqlError::Plan)?;
    let reading = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    reading.verify_plan(&plan).map_err(SqlError::Writes)?;
    Ok(plan)
}

fn is_query(statement: &Statement) -> bool {
    match statement {
        Statement::Explain(explain) => is_query(&explain.statement),
        Statement::Statement(statement) => is_sql_query(statement),
        Statement::CreateExternalTable(_) | Statement::CopyTo(_) | Statement::Reset(_) => false,
    }
}

fn is_sql_query(statement: &SqlStatement) -> bool {
    match statement {
        SqlStatement::Explain { statement, .. } => is_sql_query(statement),
        SqlStatement::Query(_)
        | SqlStatement::ExplainTable { .. }
        | SqlStatement::ShowTables { .. }
        | SqlStatement::ShowColumns { .. }
        | SqlStatement::ShowFunctions { .. }
        | SqlStatement::ShowVariable { .. } => true,
        _ => false,
    }
}

fn first_word(statement: &Statement) -> String {
    let text = statement.to_string();
    text.split_whitespace().next().unwrap_or_default().to_ascii_uppercase()
}

/// Starts one read-only query; the rows come as they are computed.
///
/// # Errors
/// As [`plan`], and where the plan cannot be started.
pub async fn stream_sql(context: &SessionContext, sql: &str) -> Result<SendableRecordBatchStream, SqlError> {
    let plan = plan(context, sql).await?;
    start(context, plan).await
}

/// Answers one read-only query, without limits: for a person's own process.
///
/// # Errors
/// As [`plan`], and where the query fails.
pub async fn run_sql(context: &SessionContext, sql: &str) -> Result<Answer, SqlError> {
    let stream = stream_sql(context, sql).await?;
    collect(stream, usize::MAX, usize::MAX).await
}

/// Answers one read-only query within limits.
///
/// # Errors
/// As [`run_sql`], and where a limit is met.
pub async fn run_limited(context: &SessionContext, sql: &str, limits: Limits) -> Result<Answer, SqlError> {
    let answering = async {
        let stream = stream_sql(context, sql).await?;
        collect(stream, limits.rows, limits.bytes).await
    };
    in_time(limits, answering).await
}

/// Answers one of the product's own queries, with its parameters bound as values.
pub(crate) async fn run_bound(
    context: &SessionContext,
    sql: &str,
    values: ParamValues,
    limits: Limits,
) -> Result<Answer, SqlError> {
    let answering = async {
        let plan = plan(context, sql).await?;
        let plan = plan.with_param_values(values).map_err(SqlError::Plan)?;
        let stream = start(context, plan).await?;
        collect(stream, limits.rows, limits.bytes).await
    };
    in_time(limits, answering).await
}

async fn start(context: &SessionContext, plan: LogicalPlan) -> Result<SendableRecordBatchStream, SqlError> {
    let frame = context.execute_logical_plan(plan).await.map_err(SqlError::Plan)?;
    frame.execute_stream().await.map_err(SqlError::Run)
}

async fn in_time(
    limits: Limits,
    answering: impl Future<Output = Result<Answer, SqlError>>,
) -> Result<Answer, SqlError> {
    let answered = tokio::time::timeout(limits.time, Box::pin(answering)).await;
    answered.unwrap_or(Err(SqlError::Time { seconds: limits.time.as_secs() }))
}

async fn collect(mut stream: SendableRecordBatchStream, rows: usize, bytes: usize) -> Result<Answer, SqlError> {
    let schema = stream.schema();
    let (mut batches, mut rows_so_far, mut bytes_so_far) = (Vec::new(), 0_usize, 0_usize);
    while let Some(batch) = stream.next().await {
        let batch = batch.map_err(SqlError::Run)?;
        rows_so_far += batch.num_rows();
        bytes_so_far = bytes_so_far.saturating_add(batch.get_array_memory_size());
        if rows_so_far > rows {
            return Err(SqlError::Rows { max: rows });
        }
        if bytes_so_far > bytes {
            return Err(SqlError::Bytes { max: bytes });
        }
        batches.push(batch);
    }
    Ok(Answer { schema, batches })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn few(rows: usize) -> Limits {
        Limits { rows, bytes: 1 << 20, time: Duration::from_secs(20) }
    }

    async fn refused(sql: &str) -> SqlError {
        match run_limited(&SessionContext::new(), sql, few(100)).await {
            Err(error) => error,
            Ok(answer) => panic!("{sql:?} was answered: {answer:?}"),
        }
    }

    #[tokio::test]
    async fn queries_are_answered() {
        let context = SessionContext::new();
        for sql in ["select 1", "WITH a AS (SELECT 1 AS b) SELECT b FROM a;", "VALUES (1), (2)", "EXPLAIN SELECT 1"] {
            run_limited(&context, sql, few(100)).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        }
    }

    #[tokio::test]
    async fn nothing_but_one_query_is_answered() {
        for sql in [
            "CREATE TABLE t AS SELECT 1",
            "CREATE VIEW v AS SELECT 1",
            "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
            "COPY (SELECT 1) TO '/tmp/stolen.csv'",
            "EXPLAIN COPY (SELECT 1) TO '/tmp/stolen.csv'",
            "EXPLAIN ANALYZE CREATE TABLE t AS SELECT 1",
            "EXPLAIN EXPLAIN CREATE TABLE t AS SELECT 1",
            "INSERT INTO t VALUES (1)",
            "UPDATE t SET a = 1",
            "DELETE FROM t",
            "DROP TABLE t",
            "SET datafusion.execution.batch_size = 1",
            "RESET datafusion.execution.batch_size",
            "BEGIN",
            "PREPARE p AS SELECT 1",
            "EXECUTE p",
            "DEALLOCATE p",
            "TRUNCATE TABLE t",
            "CREATE FUNCTION f() RETURNS INT RETURN 1",
            "SELECT 1 INTO t",
            "WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a",
        ] {
            let error = refused(sql).await;
            assert!(
                matches!(
                    error,
                    SqlError::NotAQuery { .. } | SqlError::Writes(_) | SqlError::Plan(_) | SqlError::Syntax(_)
                ),
                "{sql}: {error}"
            );
        }
        assert!(matches!(refused("COPY (SELECT 1) TO '/tmp/x.csv'").await, SqlError::NotAQuery { .. }));
        assert!(matches!(refused("SELECT 1; SELECT 2").await, SqlError::Count { count: 2 }));
        assert!(matches!(refused(" -- nothing\n").await, SqlError::Count { count: 0 }));
    }

    #[tokio::test]
    async fn an_answer_is_never_cut_silently() {
        let context = SessionContext::new();
        let sql = "SELECT * FROM generate_series(1, 101)";
        assert!(matches!(run_limited(&context, sql, few(100)).await, Err(SqlError::Rows { max: 100 })));
        assert_eq!(run_limited(&context, sql, few(101)).await.expect("it fits").rows(), 101);
        let wide = Limits { rows: usize::MAX, bytes: 10_000, time: Duration::from_secs(20) };
        let sql = "SELECT * FROM generate_series(1, 10000)";
        assert!(matches!(run_limited(&context, sql, wide).await, Err(SqlError::Bytes { max: 10_000 })));
    }

    #[tokio::test]
    async fn a_query_without_end_is_ended() {
        let short = Limits { rows: 1, bytes: 1 << 20, time: Duration::from_millis(200) };
        let sql = "SELECT count(*) FROM generate_series(1, 9000000000000000000) WHERE value % 7 = 3";
        assert!(matches!(run_limited(&SessionContext::new(), sql, short).await, Err(SqlError::Time { .. })));
    }
}
