//! Hours and days, summed up: which windows a commit of `readings` touches, what of the readings counts in them, and the
//! tables `hourly` and `daily` as a session shows them.
//!
//! `tjern-pipeline` makes the two tables; a commit of theirs says with `txn("rollup", version of readings)` of which version its
//! windows are. A session is pinned at a version of its own, older or newer. **The read rule**: windows that the commits
//! between the two versions touched are computed from `readings` at the session's version, all others are read from the
//! table (decision 0023). Both rooms find the touched windows by the same code, here.
//!
//! [`windows`] cuts time, [`nature`] is what the register says of a sensor, [`counting`] how far a counter went; [`spans`] and [`touched`]: what commits touched;
//! [`selection`]: windows of sensors; [`source`]: the readings that count, and [`neighbours`] beside a window; `compute`: the
//! plan of their windows; [`steps`]: what erasure changes of a window whose readings are gone; [`table`]: the read rule.

mod compute;
pub mod counting;
mod functions;
pub mod nature;
pub mod neighbours;
pub mod selection;
pub mod source;
pub mod spans;
pub mod steps;
pub mod table;
pub mod touched;
pub mod windows;

pub use counting::{Counting, Installed, Instruments};
pub use nature::{Kind, Nature, Natures, Words};
pub use selection::{Bounds, Selection};
pub use source::Source;
pub use spans::{Span, Spans, TOUCHED_NOTE};
pub use steps::{Stepped, steps_from_erased};
pub use table::{RegisterTables, RollupTable};
pub use touched::{Touched, touched_between};
pub use windows::{Finder, Grid, Window};

use crate::Table;

/// The transaction of a rollup's commit: the version of `readings` that its windows are of.
pub const VERSION_TRANSACTION: &str = "rollup";
/// The newest row of the register's sensors that it knows.
pub const REGISTER_TRANSACTION: &str = "rollup/register";
/// The newest word of the register's installations that it knows.
pub const INSTALLATIONS_TRANSACTION: &str = "rollup/installations";
/// The time zone of its days, as a number.
pub const TIMEZONE_TRANSACTION: &str = "rollup/timezone";
/// The transaction of retention's commits to `readings`: the time of the newest reading that it ever removed.
pub const RETENTION_TRANSACTION: &str = "retention";

/// The start of the first window that no reading was removed from because of its age. What begins before is **closed**: it
/// stays as it was summed up, since its readings may be gone (decision 0024).
#[must_use]
pub fn open_from_us(readings: &Table, grid: &Grid) -> i64 {
    readings.transaction(RETENTION_TRANSACTION).map_or(i64::MIN, |newest_us| grid.window(newest_us).end_us)
}

/// The windows that commits touched, and that are to be computed anew: not the closed ones, but for erasure, which takes what
/// was summed up of erased readings with it.
#[must_use]
pub fn to_compute(touched: &Touched, natures: &Natures, grid: &Grid, open_from_us: i64) -> Selection {
    let mut selection = Selection::touched(&touched.spans, natures, grid).from(open_from_us);
    selection.extend(&Selection::touched(&touched.erased, natures, grid));
    selection
}
