//! Which of several rows of one `(sensor, time)` counts: the one order that views, rollups, quality control and
//! corrections share.
//!
//! First whether ingest refused the row: what a source wrote that may not write this sensor, in another unit, or of
//! the future, never stands before what was accepted, however late it came. Then the highest revision; among equals the
//! latest `received`, then the highest source, epoch and number
//! (`docs/decisions/0030-what-was-refused-counts-last.md`).

use datafusion::logical_expr::SortExpr;
use datafusion::prelude::{Expr, col, lit};
use tjern_readings::reading::Cause;

/// Why ingest refused a row: it says something else than that this sensor had this value then.
const REFUSED: [Cause; 3] = [Cause::NotAssigned, Cause::Unit, Cause::Future];

/// What decides among rows that were accepted, or among those that were not, the greatest first.
const AMONG_EQUALS: [&str; 5] = ["revision", "received", "source", "epoch", "seq"];

/// The columns that the order looks at, beside sensor and time.
pub const COLUMNS: [&str; 6] = ["cause", "revision", "received", "source", "epoch", "seq"];

/// Whether a row of this cause is one that ingest refused.
#[must_use]
pub fn is_refused(cause: Option<&str>) -> bool {
    REFUSED.iter().any(|refused| cause == Some(refused.word()))
}

/// Whether ingest refused a row.
fn refused() -> Expr {
    col("cause").in_list(REFUSED.iter().map(|cause| lit(cause.word())).collect(), false).is_true()
}

/// Rows of one `(sensor, time)`, the one that counts first.
#[must_use]
pub fn first() -> Vec<SortExpr> {
    let among_equals = AMONG_EQUALS.iter().map(|name| col(*name).sort(false, false));
    std::iter::once(refused().sort(true, false)).chain(among_equals).collect()
}

/// Rows of one `(sensor, time)`, the one that counts last.
#[must_use]
pub fn last() -> Vec<SortExpr> {
    let among_equals = AMONG_EQUALS.iter().map(|name| col(*name).sort(true, true));
    std::iter::once(refused().sort(false, true)).chain(among_equals).collect()
}

/// [`first`] as SQL, for what stands behind `ORDER BY`.
#[must_use]
pub fn first_in_sql() -> String {
    let words: Vec<String> = REFUSED.iter().map(|cause| format!("'{}'", cause.word())).collect();
    let among_equals: Vec<String> = AMONG_EQUALS.iter().map(|name| format!("{name} DESC")).collect();
    format!("(cause IN ({})) IS TRUE, {}", words.join(", "), among_equals.join(", "))
}
