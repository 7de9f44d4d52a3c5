//! What is known of erasures: which readings they cover. The one filter for every way by which rows come into
//! `readings`: ingest (and with it imports, what is tried again from quarantine, replay), and corrections.
//!
//! A lake without erasures pays one listing for a load. Whoever keeps what was loaded compares
//! [`Erasures::count_in`] of the table that it commits to: every new erasure moves it, and a commit of rows
//! that was prepared before is then refused (`:erasure/…` and `ingest` or `corrections` are moved in one commit).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Int32Type, TimestampMicrosecondType};
use arrow::error::ArrowError;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt};
use tjern_lake::{Lake, LakeError, Table};
use tjern_readings::keys::{Bounds, ERASURES, ErasureKey};

use super::Mark;
use super::doomed::{self, Doomed};
use super::leftovers::mark_of;
use super::record::{Erasure, FORMAT};
use super::unseen::Unseen;
use crate::ingest::Stream;
use crate::rollup::Period;

/// Counts the erasures of `readings`: who keeps what was loaded sees by it that there is a new one.
pub(super) const COUNT: &str = "erasures";

/// How many records are read at once.
const READ_AT_ONCE: usize = 16;

/// Why it is not known what was erased.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ErasuresError {
    /// The lake failed.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// A record makes no sense.
    #[error(
        "the erasure `{key}` cannot be read: {what}; nothing is added to `readings` while it is not known what was erased; hint: {}", way_out(.key)
    )]
    Damaged {
        /// Which object.
        key: Path,
        /// What is wrong with it.
        what: String,
    },
}

/// What a person does about an object of erasures that cannot be read.
fn way_out(key: &Path) -> String {
    match ErasureKey::parse(key) {
        Some(ErasureKey::Record(id)) => format!(
            "bring the object back from a backup, or write it anew by hand from what was asked for then: {{\"format\": {FORMAT}, \"id\": \"{id}\", \"sensor\": \"place/quantity\", \"from\": \"2026-01-01T00:00:00Z\", \"to\": \"2026-07-01T00:00:00Z\", \"reason\": \"…\", \"by\": \"…\", \"at\": \"2026-07-02T09:00:00Z\"}}, then `tjern pipeline erase --again`; docs/backup.md, \"A damaged erasure\", says where that stands"
        ),
        _ => "bring the object back from a backup, or remove it and run `tjern pipeline erase --again`, which finds out anew what it said (docs/backup.md, \"A damaged erasure\")".to_owned(),
    }
}

/// All erasures of a lake.
#[derive(Debug, Clone, Default)]
pub struct Erasures {
    all: Vec<Erasure>,
    done: BTreeSet<String>,
    /// The spans of each sensor, from and up to.
    spans: HashMap<String, Vec<(i64, i64)>>,
    pub(super) doomed: Doomed,
    /// What could not be looked at.
    pub(super) unseen: Unseen,
}

impl Erasures {
    /// Those that a lake remembers.
    ///
    /// # Errors
    /// [`ErasuresError`].
    pub async fn load(lake: &Lake) -> Result<Self, ErasuresError> {
        let (known, damaged) = Self::look(lake).await?;
        damaged.into_iter().next().map_or(Ok(known), Err)
    }

    /// Those that can be read, and what is wrong with the others: for who only looks. Whoever adds rows has to [`load`](Self::load).
    ///
    /// # Errors
    /// [`LakeError`].
    pub async fn look(lake: &Lake) -> Result<(Self, Vec<ErasuresError>), LakeError> {
        let folder = Path::from(ERASURES);
        let failed = |source| LakeError::store(&folder, source);
        let metas: Vec<_> = lake.objects().list(Some(&folder)).try_collect().await.map_err(failed)?;
        let named = metas.into_iter().filter_map(|meta| ErasureKey::parse(&meta.location));
        let read = futures::stream::iter(named)
            .map(|key| async move {
                let bytes =
                    if let ErasureKey::Done(_) = key { Some(Bytes::new()) } else { read(lake, &key.key()).await? };
                Ok::<_, LakeError>(bytes.map(|bytes| (key, bytes)))
            })
            .buffered(READ_AT_ONCE);
        let (mut known, mut damaged) = (Self::default(), Vec::new());
        for (key, bytes) in read.try_collect::<Vec<_>>().await?.into_iter().flatten() {
            damaged.extend(known.take(&key, &bytes).err());
        }
        known.all.sort_by(|one, other| (one.at, &one.id).cmp(&(other.at, &other.id)));
        Ok((known, damaged))
    }

    /// These alone.
    #[must_use]
    pub(crate) fn of(all: impl IntoIterator<Item = Erasure>) -> Self {
        let mut known = Self::default();
        all.into_iter().for_each(|erasure| known.add(erasure));
        known
    }

    /// The same, with what another one knows of landed batches, and of what could not be looked at.
    #[must_use]
    pub(super) fn with_landed_of(self, other: &Self) -> Self {
        Self { doomed: other.doomed.clone(), unseen: other.unseen.clone(), ..self }
    }

    fn take(&mut self, key: &ErasureKey, bytes: &[u8]) -> Result<(), ErasuresError> {
        let damaged = |what: String| ErasuresError::Damaged { key: key.key(), what };
        match key {
            ErasureKey::Done(id) => _ = self.done.insert(id.clone()),
            ErasureKey::Landed(_) => self.doomed.take(bytes).map_err(damaged)?,
            ErasureKey::Unseen(_) => self.unseen.take(key, bytes).map_err(damaged)?,
            ErasureKey::Record(id) => {
                let erasure: Erasure = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
                // Written by hand, it may have been copied from another one.
                if erasure.id != *id {
                    return Err(damaged(format!("its `id` is `{}`, and its name says `{id}`", erasure.id)));
                }
                if erasure.format != FORMAT {
                    return Err(damaged(format!("it has format {}, this software reads {FORMAT}", erasure.format)));
                }
                self.add(erasure);
            }
        }
        Ok(())
    }

    fn add(&mut self, erasure: Erasure) {
        self.spans.entry(erasure.sensor.to_string()).or_default().push((erasure.from.0, erasure.to.0));
        self.all.push(erasure);
    }

    /// The keys of what could not be looked at, or names a sensor where nobody but a person can remove it, and why.
    pub fn not_looked_at(&self) -> impl Iterator<Item = (&str, &str)> {
        self.unseen.keys.iter().map(|(key, why)| (key.as_str(), why.as_str()))
    }

    /// All of them, the oldest first.
    #[must_use]
    pub fn all(&self) -> &[Erasure] {
        &self.all
    }

    /// Sensor, first moment and the one after the last of each of them.
    pub(super) fn periods(&self) -> Vec<Period> {
        self.all.iter().map(|erasure| (erasure.sensor.to_string(), erasure.from.0, erasure.to.0)).collect()
    }

    /// What is left of these periods without those that a table of hours or days was computed again for: its rows of the hours
    /// at their borders tell of other readings.
    pub(super) fn not_erased_in(&self, table: &Table, periods: Vec<Period>) -> Vec<Period> {
        let is_erased = |erasure: &&Erasure| mark_of(table, erasure) >= Mark::Erased as i64;
        self.all
            .iter()
            .filter(is_erased)
            .fold(periods, |left, erasure| left.into_iter().flat_map(|period| without(period, erasure)).collect())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether nothing of an erasure was left when somebody last looked, and everything could be looked at.
    #[must_use]
    pub fn is_done(&self, erasure: &Erasure) -> bool {
        self.done.contains(&erasure.id) && !self.unseen.erasures.contains(&erasure.id)
    }

    /// Whether something of a sensor's readings is still being erased.
    #[must_use]
    pub fn is_open_for(&self, sensor: &str) -> bool {
        self.all.iter().any(|erasure| erasure.sensor.as_str() == sensor && !self.is_done(erasure))
    }

    /// What a table says of how many erasures there are, for who keeps what was loaded.
    #[must_use]
    pub fn count_in(readings: &Table) -> Option<i64> {
        readings.transaction(COUNT)
    }

    /// Whether a reading is erased.
    #[must_use]
    pub fn covers(&self, sensor: &str, time_us: i64) -> bool {
        self.spans.get(sensor).is_some_and(|spans| spans.iter().any(|(from, to)| *from <= time_us && time_us < *to))
    }

    /// The landed batches of a stream that hold erased readings: some of them are not there any more.
    pub(crate) fn doomed_of(&self, stream: &Stream) -> impl Iterator<Item = Bounds> {
        self.doomed.of(stream)
    }

    /// Which rows are erased, by the columns `sensor` (texts or a dictionary) and `time`; none where no row is.
    pub(crate) fn erased(&self, rows: &RecordBatch) -> Option<BooleanArray> {
        if self.spans.is_empty() {
            return None;
        }
        let sensors = rows.column_by_name("sensor")?;
        let times = rows.column_by_name("time")?.as_primitive_opt::<TimestampMicrosecondType>()?;
        let spans_of = |name: &str| self.spans.get(name).map(Vec::as_slice);
        let spans: Vec<Option<&[(i64, i64)]>> = if let DataType::Dictionary(..) = sensors.data_type() {
            let sensors = sensors.as_dictionary::<Int32Type>();
            let names = sensors.values().as_string_opt::<i32>()?;
            let of_names: Vec<_> = names.iter().map(|name| name.and_then(spans_of)).collect();
            if of_names.iter().all(Option::is_none) {
                return None;
            }
            let of_key = |key: Option<i32>| *of_names.get(usize::try_from(key?).ok()?)?;
            sensors.keys().iter().map(of_key).collect()
        } else {
            sensors.as_string_opt::<i32>()?.iter().map(|name| name.and_then(spans_of)).collect()
        };
        let is_in =
            |spans: &[(i64, i64)], time_us: i64| spans.iter().any(|(from, to)| *from <= time_us && time_us < *to);
        let erased = spans
            .iter()
            .enumerate()
            .map(|(row, spans)| Some(spans.is_some_and(|spans| times.is_valid(row) && is_in(spans, times.value(row)))));
        let erased: BooleanArray = erased.collect();
        (erased.true_count() > 0).then_some(erased)
    }

    /// How many of these rows are erased.
    pub(crate) fn count(&self, rows: &RecordBatch) -> usize {
        self.erased(rows).map_or(0, |erased| erased.true_count())
    }

    /// The rows without those that are erased, and how many those are.
    pub(crate) fn without(&self, rows: &RecordBatch) -> Result<(RecordBatch, usize), ArrowError> {
        let Some(erased) = self.erased(rows) else { return Ok((rows.clone(), 0)) };
        let kept = arrow::compute::not(&erased)?;
        Ok((filter_record_batch(rows, &kept)?, erased.true_count()))
    }

    /// Which erasures a batch's rows are of.
    pub(super) fn ids_of(&self, rows: &RecordBatch) -> BTreeSet<String> {
        let of = |erasure: &&Erasure| Self::of([(*erasure).clone()]).count(rows) > 0;
        self.all.iter().filter(of).map(|erasure| erasure.id.clone()).collect()
    }

    /// Remembers landed batches that hold erased readings, by the rows that each has: they go once they are ingested and
    /// a newer one is there. Those that are known are not written again.
    pub(crate) async fn doom(
        &mut self,
        lake: &Lake,
        batches: impl IntoIterator<Item = (Stream, Bounds, BTreeSet<String>)>,
    ) -> Result<(), LakeError> {
        let mut new: BTreeMap<_, _> = BTreeMap::new();
        for (stream, bounds, ids) in batches {
            if !self.doomed.knows(&stream, bounds, &ids) {
                new.insert((stream, bounds), ids);
            }
        }
        if new.is_empty() {
            return Ok(());
        }
        doomed::write(lake, &new).await?;
        for ((stream, bounds), ids) in new {
            self.doomed.add(stream, bounds, ids);
        }
        Ok(())
    }

    /// The erasures that a batch's rows are of; none where there is none.
    pub(crate) fn of_batch(&self, rows: &RecordBatch) -> Option<BTreeSet<String>> {
        (self.count(rows) > 0).then(|| self.ids_of(rows))
    }
}

/// A period without what an erasure covers: what is before it and what is after it.
fn without((sensor, from_us, to_us): Period, erasure: &Erasure) -> Vec<Period> {
    if erasure.sensor.as_str() != sensor {
        return vec![(sensor, from_us, to_us)];
    }
    let parts = [(from_us, to_us.min(erasure.from.0)), (from_us.max(erasure.to.0), to_us)];
    parts.into_iter().filter(|(from, to)| from < to).map(|(from, to)| (sensor.clone(), from, to)).collect()
}

async fn read(lake: &Lake, key: &Path) -> Result<Option<Bytes>, LakeError> {
    let failed = |source| LakeError::store(key, source);
    match lake.objects().get(key).await {
        Ok(found) => found.bytes().await.map(Some).map_err(failed),
        // Notes are put together by others.
        Err(Error::NotFound { .. }) => Ok(None),
        Err(source) => Err(failed(source)),
    }
}
