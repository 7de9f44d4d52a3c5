//! At which version each table is, as far as a process knows, and the text in which one process tells another.
//!
//! A version is a number and what tells it from another one of the same number: a table that was made anew begins at 0, so
//! whoever compares versions asks whether they differ, and never which is greater. Beside it stands which table it is of: a
//! version that is ahead is one of the same table, or of another one in its place. Here are names of tables and numbers
//! only. What is told says where it is worth looking, and never what is there: the log alone says that.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::TableName;
use crate::log::LogState;

/// The format of what is told.
const FORMAT: u32 = 1;

/// A version of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// The number of its newest commit.
    pub version: i64,
    /// A digest of that commit; nothing where it was not read, since a checkpoint has all of it.
    pub digest: Option<u64>,
    /// A digest of the id that the table was given when it was made; nothing where an earlier version of this software told
    /// it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
}

impl Version {
    pub(crate) fn of(state: &LogState) -> Self {
        Self { version: state.version(), digest: state.digest(), id: state.id() }
    }

    /// Whether both are known to be of tables of which one took the other's place.
    #[must_use]
    pub fn is_of_another(self, other: Self) -> bool {
        self.id.zip(other.id).is_some_and(|(one, other)| one != other)
    }

    /// Whether it is the same one, as far as both are known.
    #[must_use]
    pub fn is(self, other: Self) -> bool {
        let is_other = self.digest.zip(other.digest).is_some_and(|(one, other)| one != other);
        self.version == other.version && !is_other && !self.is_of_another(other)
    }
}

/// The versions of tables, those that are known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Versions(BTreeMap<TableName, Version>);

/// What was told makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum TellingError {
    /// It is something else.
    #[error("it tells of no versions: {0}")]
    Json(#[from] serde_json::Error),
    /// It is of another software.
    #[error("it tells of versions in format {0}, this software knows format {FORMAT}")]
    Format(u32),
}

/// What one process tells another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telling {
    /// What stands for all of it: where that has not changed, nothing has.
    pub state: String,
    /// The versions.
    pub versions: Versions,
}

/// A telling as it is written.
#[derive(Serialize, Deserialize)]
struct Written {
    format: u32,
    state: String,
    tables: BTreeMap<String, Version>,
}

impl Versions {
    /// The version of a table, where one is known.
    #[must_use]
    pub fn get(&self, table: TableName) -> Option<Version> {
        self.0.get(&table).copied()
    }

    /// Every table whose version is known.
    pub fn iter(&self) -> impl Iterator<Item = (TableName, Version)> {
        self.0.iter().map(|(table, version)| (*table, *version))
    }

    /// Only those of these tables.
    #[must_use]
    pub fn only(&self, tables: &[TableName]) -> Self {
        self.iter().filter(|(table, _)| tables.contains(table)).collect()
    }

    /// Takes note of a table's version, or that there is no such table. Returns whether that is new.
    pub fn set(&mut self, table: TableName, version: Option<Version>) -> bool {
        match version {
            Some(version) => self.0.insert(table, version) != Some(version),
            None => self.0.remove(&table).is_some(),
        }
    }

    /// What stands for these versions, in letters that may be in a URL: `readings.41.1893.77-hourly.7.912.34`. Whoever reads it
    /// only asks whether it is another one.
    #[must_use]
    pub fn state(&self) -> String {
        let mut state = String::new();
        for (table, Version { version, digest, id }) in self.iter() {
            let between = if state.is_empty() { "" } else { "-" };
            // A string takes everything.
            let _ = write!(state, "{between}{table}.{version}.{}", digest.unwrap_or_default());
            let _ = id.map(|id| write!(state, ".{id}"));
        }
        state
    }

    /// As one process tells another: a line of JSON.
    ///
    /// # Panics
    /// Never: names and numbers can be written.
    #[must_use]
    pub fn tell(&self) -> String {
        let tables = self.iter().map(|(table, version)| (table.as_str().to_owned(), version)).collect();
        let written = Written { format: FORMAT, state: self.state(), tables };
        serde_json::to_string(&written).expect("names and numbers can be written")
    }

    /// What another process told. Tables that this software does not know are left out.
    ///
    /// # Errors
    /// [`TellingError`].
    pub fn hear(bytes: &[u8]) -> Result<Telling, TellingError> {
        let Written { format, state, tables } = serde_json::from_slice(bytes)?;
        if format != FORMAT {
            return Err(TellingError::Format(format));
        }
        let known = |name: &str| TableName::ALL.into_iter().find(|table| table.as_str() == name);
        let versions = tables.iter().filter_map(|(name, version)| Some((known(name)?, *version))).collect();
        Ok(Telling { state, versions })
    }
}

impl FromIterator<(TableName, Version)> for Versions {
    fn from_iter<I: IntoIterator<Item = (TableName, Version)>>(versions: I) -> Self {
        Self(versions.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(version: i64, digest: Option<u64>) -> Version {
        Version { version, digest, id: None }
    }

    #[test]
    fn what_is_told_is_heard() {
        let versions: Versions =
            [(TableName::Readings, version(41, Some(1_893))), (TableName::QualityRules, version(0, None))]
                .into_iter()
                .collect();
        let telling = Versions::hear(versions.tell().as_bytes()).expect("heard");
        assert_eq!(telling.versions, versions);
        assert_eq!(telling.state, versions.state());
        assert_eq!(telling.state, "readings.41.1893-quality_rules.0.0");
        // As a daemon of before told it, and heard by a server of before.
        let plain = r#"{"format":1,"state":"x","tables":{"readings":{"version":41,"digest":1893}}}"#;
        let heard = Versions::hear(plain.as_bytes()).expect("heard").versions;
        assert_eq!(heard.get(TableName::Readings), Some(version(41, Some(1_893))));
        assert!(!heard.tell().contains("\"id\""), "what is not known is not told");
        let with_id = Version { id: Some(7), ..version(41, Some(1_893)) };
        let told: Versions = [(TableName::Readings, with_id)].into_iter().collect();
        assert_eq!(Versions::hear(told.tell().as_bytes()).expect("heard").versions, told);
        assert_ne!(told.state(), heard.state());
        let newer = r#"{"format":1,"state":"x","more":1,"tables":{"tomorrow":{"version":1,"digest":2}}}"#;
        assert_eq!(Versions::hear(newer.as_bytes()).expect("heard").versions, Versions::default());
        assert!(matches!(Versions::hear(br#"{"format":2,"state":"","tables":{}}"#), Err(TellingError::Format(2))));
        assert!(Versions::hear(b"<html>").is_err());
    }

    /// A table that was made anew may be at the same number by the time it is seen.
    #[test]
    fn another_commit_of_the_same_number_is_another_version() {
        assert!(version(3, Some(7)).is(version(3, Some(7))) && version(3, None).is(version(3, Some(7))));
        assert!(!version(3, Some(7)).is(version(3, Some(8))) && !version(3, None).is(version(4, None)));
        let of = |id: Option<u64>| Version { id, ..version(3, None) };
        assert!(of(Some(1)).is(of(Some(1))) && of(Some(1)).is(of(None)) && !of(Some(1)).is(of(Some(2))));
        assert!(of(Some(1)).is_of_another(of(Some(2))) && !of(None).is_of_another(of(Some(2))));
    }
}
