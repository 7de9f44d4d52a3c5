//! Corrections made once more, in a table that was built anew from landed batches: those hold readings as they came,
//! and nothing of what people said of them since.
//!
//! What can be made again is what its record in `corrections/` says all of: [`recompute`](super::recompute) and
//! [`validate`](crate::validate). Of a `revise` the record has the file's name and SHA-256, and not its values: whoever has the
//! file revises again. A change that is made again keeps its record and its id, so that it counts again, and doing
//! it twice changes nothing.
//!
//! In which order, and of which readings, is said by [`crate::replay`]: here a change is made of what the table has.
//!
//! Limits: a record is written before its commit, so one of a change that broke off, and was not tried again, looks
//! like any other; it is made now.

use std::collections::BTreeMap;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::Value;
use tjern_lake::{Lake, LakeError, Table, TableName};
use tjern_readings::keys::CORRECTIONS;
use tokio_util::sync::CancellationToken;

use super::recompute::{Formulas, Period, RecomputeOutcome, recompute_as};
use super::{CORRECTION, CorrectError, Record};
use crate::bounds::Bounds;
use crate::ingest::{ACCEPT_CONFIGURATION, AcceptError, accept_configuration_as};
use crate::validate::{VALIDATION, ValidateOutcome, validate_as};

/// How many records are read at once.
const READ_AT_ONCE: usize = 16;

/// A change that `readings` knows nothing of.
#[derive(Debug, Clone, PartialEq)]
pub struct Pending {
    /// The record's id.
    pub id: String,
    /// What was done: the command's name.
    pub kind: String,
    /// Who did it.
    pub by: String,
    /// When: RFC 3339 in UTC.
    pub at: String,
    words: BTreeMap<String, Value>,
}

/// What became of a change that was made again.
#[derive(Debug, Clone, PartialEq)]
pub enum MadeAgain {
    /// So many rows.
    Rows(usize),
    /// It cannot be made again, and why.
    Not(String),
}

/// The changes of which there is a record and no transaction, oldest first.
///
/// # Errors
/// [`LakeError`].
pub async fn pending(lake: &Lake) -> Result<Vec<Pending>, LakeError> {
    let table = Table::open(lake, TableName::Readings).await?;
    let is_made = |id: &str| {
        let names = [format!("{CORRECTION}{id}"), format!("{VALIDATION}{id}")];
        table.as_ref().is_some_and(|table| names.iter().any(|name| table.transaction(name).is_some()))
    };
    let metas = lake.objects().list(Some(&Path::from(CORRECTIONS)));
    let keys: Vec<Path> = metas
        .map_ok(|meta| meta.location)
        .try_collect()
        .await
        .map_err(|source| LakeError::store(CORRECTIONS, source))?;
    let reading: Vec<BoxFuture<'_, _>> = keys.into_iter().map(|key| read(lake, key).boxed()).collect();
    let read: Vec<Option<Pending>> = futures::stream::iter(reading).buffered(READ_AT_ONCE).try_collect().await?;
    let mut found: Vec<Pending> = read.into_iter().flatten().collect();
    found.retain(|one| !is_made(&one.id));
    found.sort_by(|one, other| (&one.at, &one.id).cmp(&(&other.at, &other.id)));
    Ok(found)
}

async fn read(lake: &Lake, key: Path) -> Result<Option<Pending>, LakeError> {
    let failed = |source| LakeError::store(&key, source);
    let bytes = lake.objects().get(&key).await.map_err(failed)?.bytes().await.map_err(failed)?;
    // What is no record of ours is left alone.
    let Ok(mut words) = serde_json::from_slice::<BTreeMap<String, Value>>(&bytes) else { return Ok(None) };
    let word = |name: &str| words.get(name).and_then(Value::as_str).map(str::to_owned);
    let (Some(id), Some(kind), Some(at)) = (word("id"), word("kind"), word("at")) else { return Ok(None) };
    let by = word("by").unwrap_or_default();
    words.remove("id");
    Ok(Some(Pending { id, kind, by, at, words }))
}

impl Pending {
    /// A word of the record.
    #[must_use]
    pub fn word(&self, name: &str) -> Option<&Value> {
        self.words.get(name)
    }

    fn record(&self) -> Record {
        Record::kept(self.id.clone(), self.words.clone())
    }

    fn period(&self) -> Option<Period> {
        let text = |name: &str| self.word(name).and_then(Value::as_str);
        let time = |name: &str| text(name)?.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_microsecond);
        Some(Period { sensor: text("sensor")?.parse().ok()?, from_us: time("from")?, to_us: time("to")? })
    }

    /// When, in microseconds since 1970.
    pub(crate) fn at_us(&self) -> Option<i64> {
        self.at.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_microsecond)
    }

    /// Whether it is a person's word that readings are right.
    pub(crate) fn is_validation(&self) -> bool {
        self.kind == "validate"
    }

    /// Whether it is one of those whose values the lake does not keep.
    pub(crate) fn is_revision(&self) -> bool {
        self.kind == "revise"
    }

    /// Whether it says that a configuration will never come.
    pub(crate) fn is_acceptance(&self) -> bool {
        self.kind == ACCEPT_CONFIGURATION
    }

    /// Whether a revision is, or may be, of readings that another change is of.
    pub(crate) fn may_revise(&self, other: &Self) -> bool {
        let Some(period) = other.period() else { return true };
        let time = |name: &str| {
            let text = self.word(name).and_then(Value::as_str)?;
            text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_microsecond)
        };
        let sensors = self.word("sensors").and_then(Value::as_array);
        let is_of = |sensors: &Vec<Value>| sensors.iter().any(|name| name.as_str() == Some(period.sensor.as_str()));
        sensors.is_none_or(is_of)
            && time("from").is_none_or(|from_us| from_us < period.to_us)
            && time("to").is_none_or(|to_us| period.from_us < to_us)
    }

    /// Whether it is a recomputation, which needs [`Formulas`].
    #[must_use]
    pub fn is_recomputation(&self) -> bool {
        self.kind == "recompute"
    }

    /// Makes it again; `formulas` are those of a recomputation's words.
    ///
    /// # Errors
    /// [`CorrectError`]; nothing was changed then.
    pub async fn make(
        &self,
        lake: &Lake,
        formulas: Option<&dyn Formulas>,
        bounds: &Bounds,
    ) -> Result<MadeAgain, CorrectError> {
        let not = |why: &str| Ok(MadeAgain::Not(why.to_owned()));
        match (self.kind.as_str(), self.period(), formulas) {
            ("recompute", Some(period), Some(formulas)) => {
                let RecomputeOutcome { corrected, left, .. } =
                    recompute_as(lake, &period, formulas, self.record(), false, bounds).await?;
                if let Some(first) = left.first() {
                    tracing::warn!(id = self.id, readings = left.len(), reason = %first.reason, "readings cannot be computed again");
                }
                Ok(MadeAgain::Rows(corrected))
            }
            ("validate" | "validate --undo", Some(period), _) => {
                let undo = self.kind != "validate";
                let (record, never) = (self.record(), CancellationToken::new());
                let working = validate_as(lake, &period, &record, undo, bounds, &never);
                let ValidateOutcome { changed, .. } = working.await?;
                Ok(MadeAgain::Rows(changed))
            }
            ("revise", ..) => {
                not("its values stood in its file, which the lake does not keep; hint: revise by that file again")
            }
            ("accept hole", ..) => not("after a replay nobody is told of numbers that are missing from before it"),
            (ACCEPT_CONFIGURATION, ..) => self.accept_again(lake).await,
            ("recompute" | "validate" | "validate --undo", ..) => not("its record cannot be read"),
            _ => not("this software does not know what it is"),
        }
    }

    async fn accept_again(&self, lake: &Lake) -> Result<MadeAgain, CorrectError> {
        let not = |why: &str| Ok(MadeAgain::Not(why.to_owned()));
        let text = |name: &str| self.word(name).and_then(Value::as_str);
        let source = text("source").and_then(|source| source.parse().ok());
        let Some((source, sha256)) = source.zip(text("configuration")) else {
            return not("its record cannot be read");
        };
        match accept_configuration_as(lake, &source, sha256, &self.record()).await {
            Ok(_) => Ok(MadeAgain::Rows(0)),
            Err(AcceptError::Lake(error)) => Err(error.into()),
            Err(AcceptError::Commit(error)) => Err(error.into()),
            Err(error) => not(&error.to_string()),
        }
    }
}
