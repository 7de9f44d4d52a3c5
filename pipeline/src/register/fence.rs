//! What keeps an ingest that read the register before it was changed from putting personal readings into the common lake.
//!
//! Two processes may be at work: one looks whether a sensor has readings and makes it `personal`, the other one has read of it
//! that it is not, and is about to commit such readings. So, once the register says it, `readings` is told by a commit that
//! refuses every ingest which was prepared before (it reads the register anew then), and only then is it looked whether
//! readings are there. That it was told of a version of `sensors` stands in its transactions: a process that was killed
//! in between is made up for by the next one, and a register that did not change costs no commit.

use std::collections::BTreeMap;
use std::path::Path;

use tjern_lake::{Commit, CommitError, Lake, Operation, Table, TableName};

use super::file::Lined;
use super::rows::{Class, SensorRow};
use super::{LOOK, RegisterError, objection, with_readings};
use crate::ingest::INGEST;
use crate::tables::ATTEMPTS_MAX;

/// The application transaction of `readings`: the version of `sensors` by whose personal sensors whatever is committed later was judged.
const PERSONAL: &str = ":personal";

/// The lines of sensors of which this lake must not have a reading.
pub(super) fn personal(lake: &Lake, sensors: &[Lined<SensorRow>]) -> Vec<Lined<SensorRow>> {
    let is_kept_out = |line: &&Lined<SensorRow>| line.row.class == Class::Personal && !lake.is_personal();
    sensors.iter().filter(is_kept_out).cloned().collect()
}

/// Refuses what was prepared by an earlier register, and finds what came in by it.
pub(super) async fn keep_out(lake: &Lake, path: &Path, personal: &[Lined<SensorRow>]) -> Result<(), RegisterError> {
    if personal.is_empty() {
        return Ok(());
    }
    let Some(sensors) = Table::open_within(lake, TableName::Sensors, LOOK).await? else { return Ok(()) };
    if !tell(lake, sensors.version()).await? {
        return Ok(());
    }
    let found = with_readings(lake, personal.iter().map(|line| line.row.id.as_str())).await?;
    let lines = personal.iter().filter(|line| found.contains(line.row.id.as_str()));
    let problems: Vec<_> = lines.filter_map(|line| objection(path, line, None, false)).collect();
    if problems.is_empty() { Ok(()) } else { Err(RegisterError::Wrong(problems)) }
}

/// Tells `readings` of a version of `sensors`. Returns whether it did not know of it.
async fn tell(lake: &Lake, version: i64) -> Result<bool, RegisterError> {
    let mut readings = Table::open_or_create(lake, TableName::Readings).await?;
    for _ in 0..ATTEMPTS_MAX {
        if readings.transaction(PERSONAL) == Some(version) {
            return Ok(false);
        }
        let count = readings.transaction(INGEST).unwrap_or(0) + 1;
        let transactions = vec![(PERSONAL.to_owned(), version), (INGEST.to_owned(), count)];
        let (operation, add, remove, notes) = (Operation::Register, Vec::new(), Vec::new(), BTreeMap::new());
        match readings.commit(Commit { operation, add, remove, transactions, notes }).await {
            Ok(_) => return Ok(true),
            Err(CommitError::Conflict { .. }) => _ = readings.refresh().await?,
            Err(error) => return Err(error.into()),
        }
    }
    Err(RegisterError::Contended { table: TableName::Readings })
}
