//! Which sensors got their first line after they had readings: those are to be held against its unit and `sources` later.
//!
//! Ingest has nothing to hold readings of a sensor against that nobody registered. So, once `sensors` has such a line, `readings` is
//! told by a commit that refuses every ingest which was prepared before (it reads the register anew then): whatever comes
//! later is held against the line as it comes, and what was there before is ingest's to look through (`ingest::check`). Where no
//! reading of those sensors is there the same commit says that nothing is left to be done.
//!
//! **Who it is for follows from times, and names nobody in a log**: `told` and `held` are moments of the register's history, which never goes
//! back, and the sensors are those whose first line began after the one and not after the other. So a process that was killed between
//! the two tables is made up for by the next one, and a register without a new sensor costs no commit. What had been registered
//! before this was remembered stays as it was: `from` stands in `sensors` since the first line that a version of this software
//! added which knows of it.
//!
//! | transaction | of the table | moment |
//! |---|---|---|
//! | `:first_lines/from` | `sensors` | when the first of these lines began |
//! | `:first_lines/told` | `readings` | when the last one began of which it knows |
//! | `:first_lines/held` | `readings` | when the last one began against which all readings are held |

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tjern_lake::{Commit, CommitError, Lake, Operation, Table, TableName};

use super::history::Versioned;
use super::rows::SensorRow;
use super::{LOOK, RegisterError, history_of, table, with_readings};
use crate::ingest::INGEST;
use crate::tables::ATTEMPTS_MAX;

/// Of `sensors`: since when first lines are to be held against earlier readings.
pub(super) const FROM: &str = ":first_lines/from";

/// Of `readings`: up to which first line it was told.
const TOLD: &str = ":first_lines/told";

/// Of `readings`: up to which first line all readings are held.
const HELD: &str = ":first_lines/held";

/// First lines against which earlier readings are still to be held: those that began after one moment, and up to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unheld {
    pub(crate) after_us: i64,
    pub(crate) until_us: i64,
}

impl Unheld {
    /// What a table says; none where all is done.
    pub(crate) fn of(transactions: &HashMap<String, i64>) -> Option<Self> {
        let number = |name| transactions.get(name).copied();
        let (after_us, until_us) = (number(HELD)?, number(TOLD)?);
        (after_us < until_us).then_some(Self { after_us, until_us })
    }

    /// Whether a transaction may say something of it.
    pub(crate) fn is_of(app_id: &str) -> bool {
        [TOLD, HELD].contains(&app_id)
    }

    /// The transaction that says that all readings are held.
    pub(crate) fn done(self) -> (String, i64) {
        (HELD.to_owned(), self.until_us)
    }

    /// The sensors whose first line is one of these.
    pub(crate) fn sensors<'a>(self, firsts: impl IntoIterator<Item = (&'a str, i64)>) -> BTreeSet<String> {
        let mine = firsts.into_iter().filter(|(_, first_us)| (self.after_us + 1..=self.until_us).contains(first_us));
        mine.map(|(sensor, _)| sensor.to_owned()).collect()
    }
}

/// When the first line of each sensor began.
pub(super) fn firsts(history: &[Versioned<SensorRow>]) -> HashMap<&str, i64> {
    let mut firsts = HashMap::new();
    for line in history {
        let first_us = firsts.entry(line.row.id.as_str()).or_insert(line.valid_from_us);
        *first_us = line.valid_from_us.min(*first_us);
    }
    firsts
}

/// Tells `readings` of first lines that it does not know of. Returns the sensors among them that have readings already.
pub(super) async fn tell(lake: &Lake) -> Result<BTreeSet<String>, RegisterError> {
    let Some(sensors) = Table::open_within(lake, TableName::Sensors, LOOK).await? else { return Ok(BTreeSet::new()) };
    let Some(from_us) = sensors.transaction(FROM) else { return Ok(BTreeSet::new()) };
    let history = history_of(lake, &sensors, table::sensors_of).await?;
    let firsts = firsts(&history);
    let newest_us = firsts.values().copied().max().unwrap_or(i64::MIN);
    let known = Table::open_within(lake, TableName::Readings, LOOK).await?;
    if known.is_some_and(|known| known.transaction(TOLD) >= Some(newest_us)) {
        return Ok(BTreeSet::new());
    }
    let mut readings = Table::open_or_create(lake, TableName::Readings).await?;
    let mut earlier = None;
    for _ in 0..ATTEMPTS_MAX {
        let told_us = readings.transaction(TOLD).unwrap_or(from_us - 1);
        if newest_us <= told_us {
            return Ok(earlier.unwrap_or_default());
        }
        let new = Unheld { after_us: told_us, until_us: newest_us };
        let held_us = readings.transaction(HELD).unwrap_or(told_us);
        // What is there is looked at once: where others ingest meanwhile, ingest looks itself.
        let is_first_look = earlier.is_none();
        if is_first_look {
            let names = new.sensors(firsts.iter().map(|(sensor, first_us)| (*sensor, *first_us)));
            earlier = Some(with_readings(lake, names.iter().map(String::as_str)).await?);
        }
        let has_none = is_first_look && earlier.as_ref().is_some_and(BTreeSet::is_empty) && held_us == told_us;
        let held_us = if has_none { newest_us } else { held_us };
        let count = readings.transaction(INGEST).unwrap_or(0) + 1;
        let transactions = vec![(TOLD.to_owned(), newest_us), (HELD.to_owned(), held_us), (INGEST.to_owned(), count)];
        let (operation, add, remove, notes) = (Operation::Register, Vec::new(), Vec::new(), BTreeMap::new());
        match readings.commit(Commit { operation, add, remove, transactions, notes }).await {
            Ok(_) => return Ok(earlier.unwrap_or_default()),
            Err(CommitError::Conflict { .. }) => _ = readings.refresh().await?,
            Err(error) => return Err(error.into()),
        }
    }
    Err(RegisterError::Contended { table: TableName::Readings })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_and_not_held_is_unheld() {
        let mut transactions = HashMap::from([(HELD.to_owned(), 4), (TOLD.to_owned(), 9)]);
        let unheld = Unheld::of(&transactions).expect("not held");
        let firsts = [("tarn/old", 4), ("tarn/new", 5), ("tarn/newest", 9), ("tarn/untold", 10)];
        assert_eq!(unheld.sensors(firsts), BTreeSet::from(["tarn/new".to_owned(), "tarn/newest".to_owned()]));
        transactions.extend([unheld.done()]);
        assert_eq!(Unheld::of(&transactions), None);
        assert_eq!(Unheld::of(&HashMap::new()), None, "nobody was told of anything");
    }
}
