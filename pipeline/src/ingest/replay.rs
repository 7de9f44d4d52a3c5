//! Replay: an empty table `readings` is built anew from what lies in the landing zone.
//!
//! It is ingest that does it, with its own rounds; what replay adds is where each stream begins. Below the lowest number
//! that lies in the landing zone there may have been readings, which the table that was lost had: nobody waits for
//! them, nobody is told that they are missing, and whatever of them comes is taken. That stands in the first commit
//! (`:open/…` with 3, and the watermark), together with `:replay`, which is odd while a replay is under way and even once it
//! is done. So a replay that was killed goes on where it was, and one into a table with readings is refused.
//!
//! `hourly` and `daily` may be there still, with sums of readings that nobody has any more. They stay; their versions
//! are of a table that is gone, so they are set to the beginning of this one first. How far retention had come is known by
//! them, and said again in the first commit: windows that were closed stay so.
//!
//! Limits: the listing of the landing zone is held in memory.

use std::collections::BTreeMap;

use object_store::{Error, ObjectStoreExt};
use serde::Serialize;
use tjern_lake::rollup::RETENTION_TRANSACTION;
use tjern_lake::{Commit, CommitError, Lake, LakeError, Operation, Table, TableName};
use tjern_readings::keys::{Bounds, Landed};

use super::landing::{LandedEpoch, Stream, Sweep, Zone};
use super::progress::{self, INGEST, Open};
use super::{IngestError, IngestOutcome, IngestSettings, Ingester};
use crate::bounds::Bounds as JobBounds;
use crate::erase::{Erasures, ErasuresError};
use crate::rollup;
use crate::tables::ATTEMPTS_MAX;

/// Odd while a replay is under way, even once it is done. No source has such a name.
const REPLAY: &str = ":replay";

/// When the last correction was made (microseconds since 1970) that changed nothing and so has no transaction of its own: a
/// replay that goes on must not make it of readings that came after it.
const MADE: &str = ":replay/made";

/// So many pages of the landing zone are listed at once.
const PAGES: u64 = 20;

/// What lies in the landing zone of one stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Replayable {
    /// Who sent it.
    pub source: String,
    /// Of which epoch.
    pub epoch: String,
    /// How many batches lie there.
    pub batches: usize,
    /// How many gaps that the gateway made.
    pub gaps: usize,
    /// The lowest number that lies there; none where only the end of the epoch does.
    pub first: Option<i64>,
    /// The highest.
    pub last: Option<i64>,
    /// The numbers before the lowest one, which are not there any more.
    pub before: Option<(i64, i64)>,
    /// The numbers between the lowest and the highest that are not there.
    pub holes: Vec<(i64, i64)>,
    /// The last number of the epoch, where it is finished.
    pub closed: Option<i64>,
    /// The numbers after the lowest one that went with an erasure: nobody waits for them, and they are no hole.
    pub erased: Vec<(i64, i64)>,
}

/// Whether `readings` can be built anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It is empty, or not there.
    Empty,
    /// A replay into it was begun.
    UnderWay,
    /// It has readings, or had some: this many now.
    Taken {
        /// How many rows.
        rows: i64,
    },
}

/// Why nothing was replayed, or not everything.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// There are readings already.
    #[error(
        "`readings` is not empty: it has {rows} rows, or knows how far ingest came; hint: replay builds an empty table; what landed since is taken by `tjern pipeline ingest`, and a table that cannot be read is moved away first (docs/backup.md)"
    )]
    Taken {
        /// How many rows.
        rows: i64,
    },
    /// The lake failed.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// Ingest failed; what it took stays taken.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// A commit failed.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// Others committed all the time.
    #[error(
        "others committed {ATTEMPTS_MAX} times while a replay was to begin; hint: stop `tjern pipeline run`, then run it again"
    )]
    Busy,
}

/// Looks what a replay would take, and changes nothing.
///
/// # Errors
/// [`ErasuresError`].
pub async fn look(lake: &Lake) -> Result<(Standing, Vec<Replayable>), ErasuresError> {
    let erasures = Erasures::load(lake).await?;
    let table = Table::open(lake, TableName::Readings).await?;
    let standing = table.map_or(Standing::Empty, |table| standing(&table));
    let zone = everything(lake).await?;
    let mut found = Vec::new();
    for (stream, seen) in &zone {
        found.push(replayable(stream, seen, end_of(lake, stream, seen).await?, &erasures));
    }
    Ok((standing, found))
}

/// Builds `readings` anew, and tells `told` after each commit how far it is. It is under way until [`finish`]: what else
/// belongs to it (corrections) can be done before that. [`crate::replay`] does all of it.
///
/// # Errors
/// [`ReplayError`]; what was taken stays so, and the next run goes on.
pub async fn replay(
    lake: &Lake,
    settings: &IngestSettings,
    told: impl FnMut(&IngestOutcome) + Send + Sync + 'static,
) -> Result<IngestOutcome, ReplayError> {
    let Some(mut replaying) = Replaying::begin(lake, settings, &JobBounds::default(), told).await? else {
        return Ok(IngestOutcome::default());
    };
    replaying.take_all().await?;
    Ok(replaying.outcome)
}

/// A replay under way, which takes what landed in the order of time.
pub(crate) struct Replaying {
    ingester: Ingester,
    /// When what lies there had landed, in order.
    landed_us: Vec<i64>,
    taken_until_us: i64,
    /// What was done so far.
    pub(crate) outcome: IngestOutcome,
}

impl Replaying {
    /// Begins it, or goes on with one that broke off; `None` where nothing lies there.
    pub(crate) async fn begin(
        lake: &Lake,
        settings: &IngestSettings,
        bounds: &JobBounds,
        told: impl FnMut(&IngestOutcome) + Send + Sync + 'static,
    ) -> Result<Option<Self>, ReplayError> {
        let mut table = Table::open_or_create(lake, TableName::Readings).await?;
        if !begin(&mut table).await? {
            return Ok(None);
        }
        let zone = everything(lake).await?;
        let mut landed_us: Vec<i64> = zone
            .values()
            .flat_map(|seen| seen.items.iter().filter(|item| !item.gap))
            .map(|item| item.landed_us)
            .collect();
        landed_us.sort_unstable();
        let ingester = Ingester::open(lake, *settings).await?.within(bounds.clone()).with_listener(told);
        Ok(Some(Self { ingester, landed_us, taken_until_us: i64::MIN, outcome: IngestOutcome::default() }))
    }

    /// When the first of all batches that lie there had landed.
    pub(crate) fn oldest_us(&self) -> Option<i64> {
        self.landed_us.first().copied()
    }

    /// Takes what had landed by a moment. Returns whether anything had since the moment before.
    pub(crate) async fn take_until(&mut self, until_us: i64) -> Result<bool, ReplayError> {
        let is_new = |landed_us: &i64| self.taken_until_us < *landed_us && *landed_us <= until_us;
        if !self.landed_us.iter().any(is_new) {
            return Ok(false);
        }
        self.outcome = self.ingester.run_landed_until(until_us, self.outcome).await?;
        self.taken_until_us = until_us;
        Ok(true)
    }

    /// Takes all that lies there.
    pub(crate) async fn take_all(&mut self) -> Result<(), ReplayError> {
        let result = self.ingester.run_to_the_end_after(self.outcome).await;
        // Whoever judges the flags next wants the lease.
        self.ingester.end_check().await;
        self.outcome = result?;
        Ok(())
    }
}

/// When the last correction was made that changed nothing, as far as the replay under way came.
pub(crate) async fn made_until_us(lake: &Lake) -> Result<i64, LakeError> {
    let table = Table::open(lake, TableName::Readings).await?;
    Ok(table.and_then(|table| table.transaction(MADE)).unwrap_or(0))
}

/// Notes that a correction of this moment, and all before it, were made.
pub(crate) async fn note_made(lake: &Lake, at_us: i64) -> Result<(), ReplayError> {
    let mut table = Table::open_or_create(lake, TableName::Readings).await?;
    for _ in 0..ATTEMPTS_MAX {
        match table.commit(moving(vec![(MADE.to_owned(), at_us)])).await {
            Ok(_) => return Ok(()),
            Err(CommitError::Conflict { .. }) => _ = table.refresh().await?,
            Err(error) => return Err(error.into()),
        }
    }
    Err(ReplayError::Busy)
}

/// A replay is done.
///
/// # Errors
/// [`CommitError`], [`LakeError`]: then it counts as under way still, and doing it again does no harm.
pub async fn finish(lake: &Lake) -> Result<(), ReplayError> {
    let Some(mut table) = Table::open(lake, TableName::Readings).await? else { return Ok(()) };
    for _ in 0..ATTEMPTS_MAX {
        let count = table.transaction(REPLAY).unwrap_or(0);
        if count % 2 == 0 {
            return Ok(());
        }
        match table.commit(moving(vec![(REPLAY.to_owned(), count + 1)])).await {
            Ok(_) => return Ok(()),
            Err(CommitError::Conflict { .. }) => _ = table.refresh().await?,
            Err(error) => return Err(error.into()),
        }
    }
    Err(ReplayError::Busy)
}

fn standing(table: &Table) -> Standing {
    if table.transaction(REPLAY).unwrap_or(0) % 2 == 1 {
        return Standing::UnderWay;
    }
    let is_empty = table.files().is_empty() && progress::read(table.transactions()).is_empty();
    let rows = table.files().iter().filter_map(|file| file.rows).sum();
    if is_empty { Standing::Empty } else { Standing::Taken { rows } }
}

/// Makes the first commit, unless it was made. Returns whether there is anything to replay.
async fn begin(table: &mut Table) -> Result<bool, ReplayError> {
    let lake = table.lake().clone();
    let mut failure = None;
    for _ in 0..ATTEMPTS_MAX {
        match standing(table) {
            Standing::UnderWay => return Ok(true),
            Standing::Taken { rows } => return Err(ReplayError::Taken { rows }),
            Standing::Empty => {}
        }
        let zone = everything(&lake).await?;
        if zone.is_empty() {
            return Ok(false);
        }
        let forgotten_us = rollup::begin_anew(&lake, table.version()).await?;
        let mut transactions = BTreeMap::from([
            (REPLAY.to_owned(), table.transaction(REPLAY).unwrap_or(0) + 1),
            (MADE.to_owned(), 0),
            // Whoever ingests at this moment is refused, or refuses this.
            (INGEST.to_owned(), table.transaction(INGEST).unwrap_or(0) + 1),
        ]);
        transactions.extend(forgotten_us.map(|newest_us| (RETENTION_TRANSACTION.to_owned(), newest_us)));
        for (stream, seen) in &zone {
            if let Some(before) = before(seen, end_of(&lake, stream, seen).await?) {
                transactions.insert(progress::open(stream, before), Open::BeforeReplay as i64);
                transactions.insert(progress::watermark(stream), before.last);
            }
        }
        match table.commit(moving(transactions.into_iter().collect())).await {
            Ok(_) => return Ok(true),
            Err(CommitError::Conflict { .. }) => {}
            // It may have taken place all the same: that is seen now.
            Err(error) => failure = Some(error),
        }
        table.refresh().await?;
    }
    Err(failure.map_or(ReplayError::Busy, ReplayError::Commit))
}

fn moving(transactions: Vec<(String, i64)>) -> Commit {
    let (operation, notes) = (Operation::Ingest, BTreeMap::new());
    Commit { operation, add: Vec::new(), remove: Vec::new(), transactions, notes }
}

async fn everything(lake: &Lake) -> Result<Zone, LakeError> {
    let (mut zone, mut sweep) = (Zone::new(), Sweep::default());
    loop {
        let (part, is_end) = sweep.portion(lake, PAGES).await?;
        // A source that cannot be read would begin where it does not.
        if let Some((key, why)) = part.unreadable.into_iter().next() {
            return Err(LakeError::store(key, Error::Generic { store: "landing", source: why.into() }));
        }
        zone.extend(part.zone);
        if is_end {
            // Of an epoch of which there is a claim and nothing else there is nothing to replay.
            zone.retain(|_, seen| !seen.items.is_empty() || seen.closed_us.is_some());
            return Ok(zone);
        }
    }
}

/// The last number of a finished epoch, if it says one.
async fn end_of(lake: &Lake, (source, epoch): &Stream, seen: &LandedEpoch) -> Result<Option<i64>, LakeError> {
    if seen.closed_us.is_none() {
        return Ok(None);
    }
    let key = Landed::Closed(*epoch).key(source);
    let failed = |source| LakeError::store(&key, source);
    let text = match lake.objects().get(&key).await {
        Err(Error::NotFound { .. }) => return Ok(None),
        found => found.map_err(failed)?.bytes().await.map_err(failed)?,
    };
    Ok(std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok()))
}

/// The numbers below all that lie there; of an epoch of which only the end does, all of them.
fn before(seen: &LandedEpoch, closed: Option<i64>) -> Option<Bounds> {
    let lowest = seen.items.iter().map(|item| item.bounds.first).min();
    let last = lowest.map(|lowest| lowest - 1).or(closed)?;
    Bounds::new(1, last)
}

fn replayable(stream: &Stream, seen: &LandedEpoch, closed: Option<i64>, erasures: &Erasures) -> Replayable {
    let (source, epoch) = stream;
    let mut bounds: Vec<Bounds> = seen.items.iter().map(|item| item.bounds).collect();
    bounds.sort_unstable();
    let first = bounds.first().map(|bounds| bounds.first);
    let last = bounds.iter().map(|bounds| bounds.last).max();
    let is_above = |gone: &Bounds| first.is_some_and(|first| gone.first > first);
    let is_there = |gone: &Bounds| bounds.iter().any(|there| there == gone);
    let mut erased: Vec<Bounds> = erasures.doomed_of(stream).filter(is_above).filter(|gone| !is_there(gone)).collect();
    erased.sort_unstable();
    bounds.extend(&erased);
    bounds.sort_unstable();
    let (mut holes, mut end) = (Vec::new(), first.map(|first| first - 1));
    for Bounds { first, last } in &bounds {
        let reached = end.unwrap_or_default();
        if *first > reached + 1 {
            holes.push((reached + 1, first - 1));
        }
        end = Some(reached.max(*last));
    }
    if let Some((reached, closed)) = end.zip(closed).filter(|(reached, closed)| closed > reached) {
        holes.push((reached + 1, closed));
    }
    let gaps = seen.items.iter().filter(|item| item.gap).count();
    Replayable {
        source: source.to_string(),
        epoch: epoch.to_string(),
        batches: seen.items.len() - gaps,
        gaps,
        first,
        last,
        before: before(seen, closed).map(|bounds| (bounds.first, bounds.last)),
        holes,
        closed,
        erased: erased.into_iter().map(|gone| (gone.first, gone.last)).collect(),
    }
}
