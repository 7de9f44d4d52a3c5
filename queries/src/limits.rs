//! Every bound of this crate, by name: what a request may cost, and what a server holds at once. Those of its
//! connections are [`tjern_connections::limits`].
//!
//! Nothing here is ever answered by silently returning less: whoever meets a bound is told so.

use std::time::Duration;

/// The longest body of a request.
pub const REQUEST_BYTES_MAX: usize = 1 << 20;
/// The longest SQL text. Planning copies it many times over.
pub const SQL_BYTES_MAX: usize = 64 << 10;
/// The tokens that an SQL text may have, comments and spaces not counted.
pub const SQL_TOKENS_MAX: usize = 4000;
/// The tokens of an SQL text that join something to what stands before: operators, `OR`, `UNION`,
/// `JOIN`. They are what makes a plan deep; a long list does not. Measured without optimisation: the
/// worst chain of 200 is planned within a stack of 2 MiB, one of 250 is not; 500 need less than 16 MiB.
pub const SQL_JOINTS_MAX: usize = 200;
/// How often parts of a `WITH` may be named, through each other: one that each next one names twice
/// doubles the plan every time.
pub const SQL_PARTS_MAX: usize = 1000;
/// The stack of each thread that plans and computes the staff's SQL.
pub const SQL_STACK_BYTES: usize = 64 << 20;
/// The rows that an answer of `/api/sql` may have.
pub const SQL_ROWS_MAX: usize = 1_000_000;
/// The rows that an answer of a named query may have.
pub const NAMED_ROWS_MAX: usize = 100_000;
/// The bytes that an answer may have, in memory and as text.
pub const ANSWER_BYTES_MAX: usize = 64 << 20;
/// How long a query of the staff may take.
pub const SQL_TIME_MAX: Duration = Duration::from_secs(60);
/// How long a named query may take.
pub const NAMED_TIME_MAX: Duration = Duration::from_secs(20);
/// Queries that `/api/sql` computes at once.
pub const SQL_AT_ONCE_MAX: usize = 4;
/// Queries that the public listener computes at once.
pub const NAMED_AT_ONCE_MAX: usize = 8;
/// Queries that are computed at once for the residents' pages, `/api/latest` and `/health`: turns of
/// their own, so that whoever asks much of the named queries does not close the front page.
pub const PAGES_AT_ONCE_MAX: usize = 4;
/// The windows of time between `from` and `to` that a named query may be asked for.
pub const WINDOWS_MAX: u64 = 10_000;
/// How long a request waits for its turn before it is told to come again.
pub const TURN_WAIT_MAX: Duration = Duration::from_secs(10);
/// The memory that one session's queries share.
pub const SESSION_MEMORY_BYTES: usize = 512 << 20;
/// How old the snapshot of the tables may be that a request sees.
pub const SNAPSHOT_AGE_MAX: Duration = Duration::from_secs(1);
/// How long a look for newer tables may take before the older snapshot is used on.
pub const REFRESH_TIME_MAX: Duration = Duration::from_secs(15);
/// How old the curves on the front page may be: they move slowly, and are the dear part of it.
pub const CURVES_AGE_MAX: Duration = Duration::from_secs(15);
/// Curves that take long to compute are kept for so many times as long: a tenth of the time at most
/// goes into them.
pub const CURVES_THRIFT: u32 = 10;

/// What one query may cost.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Rows of the answer.
    pub rows: usize,
    /// Bytes of the answer in memory.
    pub bytes: usize,
    /// From the text to the last row.
    pub time: Duration,
}

impl Limits {
    /// For `/api/sql`.
    pub const SQL: Self = Self { rows: SQL_ROWS_MAX, bytes: ANSWER_BYTES_MAX, time: SQL_TIME_MAX };
    /// For named queries.
    pub const NAMED: Self = Self { rows: NAMED_ROWS_MAX, bytes: ANSWER_BYTES_MAX, time: NAMED_TIME_MAX };
}
