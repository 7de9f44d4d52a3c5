//! Ingest: landed batches become rows of `readings`, exactly once.
//!
//! A run looks where something is due (`schedule`, `landing`), plans for every stream what follows its
//! watermark (`sequence`), reads those batches, and puts the rows of all sources into one file and one commit,
//! which moves the watermarks with it (`take`). If the commit is refused or its reply is lost, the round begins
//! again with the watermarks that the table has then: what took place is seen, what did not is done.
//!
//! Readings that were erased ([`crate::erase`]) are left out, however they come: the batch's numbers are taken, its other
//! readings too, and the batch is remembered as one that has to leave the landing zone.
//!
//! Rows by which an import only repeats what is there (`repeated`) are left out too: a file that grew brings what is new in it.
//!
//! A batch whose configuration is not there is taken all the same, and remembered (`unchecked`); when that comes, its readings
//! are held against it (`check`). So are readings of a sensor that nobody had registered when its first line comes.
//!
//! A batch that cannot be read goes to quarantine and leaves a hole; it never fails the others. What the store will not
//! hand out, or list, holds back its own source (`held`); all others are taken and cleaned up behind, and it is told.
//! What one commit takes is bounded by [`COMMIT_BATCHES_MAX`] and [`COMMIT_ROWS_MAX`], what is read ahead of it by `ahead`.
//!
//! What a run costs does not grow with history: what is known of the table is kept and carried forward, and the
//! landing zone is listed from the watermarks on. Where nothing landed, no table is asked.

mod accept;
mod ahead;
mod apart;
mod check;
mod clean;
pub(crate) mod configurations;
mod gathered;
mod held;
mod landed;
mod landing;
mod late;
mod progress;
mod refused;
mod repeated;
pub mod replay;
mod rows;
mod schedule;
mod sequence;
mod stored;
mod take;
mod unchecked;
mod waiting;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use object_store::path::Path;
use tjern_lake::{Followed, Lake, LakeError, Table, TableName};
use tjern_readings::keys::Bounds;
use tjern_readings::sensor::{Epoch, SourceName};

use crate::bounds::Bounds as JobBounds;
use crate::correct::CorrectError;
use crate::erase::{Erasures, ErasuresError};
use crate::quality::QualityError;
use crate::register::{RegisterError, Said};
use crate::tables::ATTEMPTS_MAX;
use check::Checks;
use held::HeldBack;
use landing::{Known, Seen, Stray, Strays, Sweep};
use rows::{Against, Units};
use schedule::{Due, Schedule};
use sequence::{Closed, Progress};

pub(crate) use accept::{ACCEPT_CONFIGURATION, accept_configuration_as};
pub use accept::{AcceptError, Accepted, accept, accept_configuration};
pub(crate) use held::{hides, unreadable_of};
pub(crate) use landed::{Decoded, decode};
pub(crate) use landing::Stream;
pub(crate) use progress::INGEST;
pub use refused::{Refused, Why, mark, refused};
pub use schedule::Polling;
pub(crate) use stored::{Remains, remains_of};

pub use unchecked::{MissingConfiguration, missing_configurations};
pub use waiting::{Missing, StrayObjects, Waiting, missing, strays, waiting};

/// The most batches of one commit.
pub const COMMIT_BATCHES_MAX: usize = 4_096;

/// The most rows of one commit, but for a single batch that has more.
pub const COMMIT_ROWS_MAX: usize = 1_000_000;

/// The largest batch file that is read. A gateway seals at most 8 MiB; imports may make bigger ones.
pub const BATCH_BYTES_MAX: u64 = 64 << 20;

/// How often everything is gone over: fillings far below a watermark, and what may be removed.
const SWEEP_EVERY_US: i64 = 10 * 60 * 1_000_000;

/// The least and the most pages of the landing zone that are gone over beside one look.
const SWEEP_PAGES: (u64, u64) = (4, 20);

/// So many looks a whole sweep may take, as far as the most pages allow it.
const SWEEP_LOOKS: u64 = 72;

/// So often a stream's batch may fail to be read before one that looks again and again calls that a failure.
const HICCUPS: u32 = 2;

/// How ingest behaves.
#[derive(Debug, Clone, Copy)]
pub struct IngestSettings {
    /// How long a hole is waited for.
    pub hole_patience: Duration,
    /// How long landed batches stay after they were ingested.
    pub landing_grace: Duration,
}

/// What a run of ingest did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IngestOutcome {
    /// Batches that became rows.
    pub batches: usize,
    /// Rows that were added.
    pub rows: usize,
    /// Rows that were left out, since they were erased.
    pub erased: usize,
    /// Imported rows that were left out, since they repeat what their source said of the same moments.
    pub repeated: usize,
    /// Moments of which a person's word does not count any more, since an import says something else of them.
    pub overruled: usize,
    /// Holes and gaps that were passed.
    pub passed: usize,
    /// Holes that are waited for.
    pub waiting: usize,
    /// Batches that went to quarantine.
    pub quarantined: usize,
    /// Landed objects that were removed after their grace.
    pub cleaned: usize,
    /// Readings that were taken before their configuration came, and fail since its unit is another one than the register's.
    pub late_units: usize,
    /// Readings that were taken before their sensor had a line in the register, and fail by the one that it has now.
    pub late_lines: usize,
}

impl IngestOutcome {
    /// What is not among the rows, and what they cost, for people; empty where that is nothing.
    #[must_use]
    pub fn left_out(&self) -> String {
        let said = [
            (self.erased, "left out since they were erased"),
            (self.repeated, "left out since they are there already"),
            (self.overruled, "validations no longer count, since an import says something else of their moments"),
        ];
        said.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!(", {count} {what}")).collect()
    }
}

/// Why ingest stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IngestError {
    /// The lake failed.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// The register could not be read.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// Rows could not be evaluated.
    #[error(transparent)]
    Quality(#[from] QualityError),
    /// It is not known what was erased.
    #[error(transparent)]
    Erasures(#[from] ErasuresError),
    /// Readings could not be held against what came before or after them.
    #[error(transparent)]
    Check(#[from] Box<CorrectError>),
    /// The engine failed while it compared rows.
    #[error("cannot compare landed rows with stored ones: {0}")]
    Engine(#[from] datafusion::error::DataFusionError),
    /// Others committed again and again.
    #[error(
        "ingest was overtaken {ATTEMPTS_MAX} times in a row; hint: is another `tjern pipeline run` at work on this lake?"
    )]
    Overtaken,
    /// Something of one or more sources cannot be read. All others were taken; whoever asked may go on.
    #[error("{count} source{} held back, all others were taken: {why}", if *.count == 1 { " is" } else { "s are" })]
    HeldBack {
        /// What was done.
        outcome: Box<IngestOutcome>,
        /// How many: sources, by their epochs and folders.
        count: usize,
        /// Why the first of them is.
        why: String,
    },
}

/// The last number of a stream that was taken or passed; `None` where nothing of it was.
#[must_use]
pub fn watermark(table: &Table, source: &SourceName, epoch: Epoch) -> Option<i64> {
    table.transaction(&progress::watermark_of(source, epoch))
}

/// Whether every number of a stream up to this one is in the table: none is passed over, and none waits.
#[must_use]
pub fn is_taken(table: &Table, source: &SourceName, epoch: Epoch, last: i64) -> bool {
    let is_missing = |run: &OpenRun| run.source == *source && run.epoch == epoch && run.bounds.first <= last;
    watermark(table, source, epoch).unwrap_or(0) >= last && !open_runs(table).iter().any(is_missing)
}

/// Whether a stream was finished by its gateway, and taken to its last number.
#[must_use]
pub(crate) fn is_finished(table: &Table, stream: &Stream) -> bool {
    table.transaction(&progress::closed(stream)).is_some()
}

/// Which numbers of a stream were taken.
#[derive(Debug, Default)]
pub(crate) struct Taken(Progress);

impl Taken {
    pub(crate) fn of(table: &Table, source: &SourceName, epoch: Epoch) -> Self {
        let mut streams = progress::read(table.transactions());
        Self(streams.remove(&(source.clone(), epoch)).unwrap_or_default())
    }

    /// Whether a batch of these numbers would not be taken. One that lies in what was passed would.
    pub(crate) fn has(&self, bounds: Bounds) -> bool {
        bounds.last <= self.0.watermark && !self.0.open.iter().any(|open| open.contains(bounds))
    }
}

/// Numbers that were passed, and whose readings are not in the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenRun {
    /// Whose they are.
    pub source: SourceName,
    /// Of which stream.
    pub epoch: Epoch,
    /// Which numbers.
    pub bounds: Bounds,
    /// Whether the gateway dropped them itself; else they may still come.
    pub dropped: bool,
    /// Whether a person said that they will never come.
    pub accepted: bool,
}

/// Readings that a gateway had to drop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// Whose they are.
    pub source: SourceName,
    /// Of which stream.
    pub epoch: Epoch,
    /// How many of the stream are known to be missing for that.
    pub readings: i64,
    /// When the last of them were passed, in microseconds since 1970.
    pub last_us: i64,
}

/// All numbers that were passed and did not come, in order.
#[must_use]
pub fn open_runs(table: &Table) -> Vec<OpenRun> {
    progress::open_runs(table.transactions())
}

/// What gateways had to drop, by stream, in order.
#[must_use]
pub fn dropped(table: &Table) -> Vec<Dropped> {
    let mut found: BTreeMap<Stream, Dropped> = BTreeMap::new();
    let last = progress::dropped_last(table.transactions());
    for OpenRun { source, epoch, bounds, .. } in open_runs(table).into_iter().filter(|run| run.dropped) {
        let stream = (source.clone(), epoch);
        let Some(last_us) = last.get(&stream).copied() else { continue };
        found.entry(stream).or_insert(Dropped { source, epoch, readings: 0, last_us }).readings += bounds.count();
    }
    found.into_values().collect()
}

/// Takes what has landed, to the end, and cleans up behind it.
///
/// # Errors
/// [`IngestError`]; nothing is lost then, and the next run goes on where this one stopped.
pub async fn ingest(lake: &Lake, settings: &IngestSettings) -> Result<IngestOutcome, IngestError> {
    ingest_within(lake, settings, JobBounds::default()).await
}

/// The same within these bounds.
///
/// # Errors
/// As [`ingest`].
pub async fn ingest_within(
    lake: &Lake,
    settings: &IngestSettings,
    bounds: JobBounds,
) -> Result<IngestOutcome, IngestError> {
    let mut ingester = Ingester::open(lake, *settings).await?.within(bounds);
    let result = ingester.run_to_the_end().await;
    ingester.leave().await;
    result
}

/// The same for who is about to end: what is not about batches is left to the next one.
///
/// # Errors
/// As [`ingest`].
pub(crate) async fn ingest_at_the_end(
    lake: &Lake,
    settings: &IngestSettings,
    bounds: JobBounds,
) -> Result<IngestOutcome, IngestError> {
    let mut ingester = Ingester::open(lake, *settings).await?.within(bounds);
    let result = ingester.run_everything().await;
    ingester.leave().await;
    result
}

/// Keeps what was learned between two runs.
#[derive(Debug)]
pub struct Ingester {
    lake: Lake,
    settings: IngestSettings,
    bounds: JobBounds,
    table: Table,
    known: Known,
    /// Up to where the table's transactions are known.
    followed: Option<Followed>,
    transactions_read: u64,
    schedule: Schedule,
    sweep: Sweep,
    sweep_due_us: i64,
    /// How many requests the last look everywhere took.
    requests: u64,
    /// What finished epochs say of their end.
    closed: HashMap<Stream, Closed>,
    /// Landed batches whose rows were compared and are stored.
    compared: BTreeSet<Path>,
    units: HashMap<Path, Units>,
    /// Configurations that batches name and that are not in the store.
    missing: HashSet<Path>,
    /// What was erased, and how many erasures the table knew of when that was loaded; none before that.
    erasures: Option<(Option<i64>, Erasures)>,
    /// What the register says, and the versions of its tables of sensors and of events.
    said: Option<([i64; 2], Arc<Said>)>,
    has_run: bool,
    held: HeldBack,
    /// What was said of readings that something speaks against.
    told: HashSet<(SourceName, Against)>,
    /// What was said of sensors that are in a lake of personal readings and are not personal.
    strangers: HashSet<(SourceName, String)>,
    /// Of whom it was said that they name configurations by what is no name.
    misnaming: HashSet<SourceName>,
    /// The sources of which it was said that objects of theirs will never be taken.
    strays: HashSet<String>,
    listener: Option<Listener>,
    /// What is held against configurations, and lines of the register, that came after their readings.
    checks: Checks,
    /// Of a replay: only what had landed by then is taken, and holes are waited for as they were then.
    until_us: Option<i64>,
}

/// Who is told after each commit how far a run is.
struct Listener(Box<dyn FnMut(&IngestOutcome) + Send + Sync>);

impl std::fmt::Debug for Listener {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Listener")
    }
}

impl Ingester {
    /// Opens the table, and creates it where it is missing. How often it looks follows from whether the lake's
    /// store bills requests: [`Polling::of`].
    ///
    /// # Errors
    /// [`IngestError::Lake`].
    pub async fn open(lake: &Lake, settings: IngestSettings) -> Result<Self, IngestError> {
        let table = Table::open_or_create(lake, TableName::Readings).await?;
        let mut ingester = Self {
            lake: lake.clone(),
            settings,
            bounds: JobBounds::default(),
            table,
            known: Known::default(),
            followed: None,
            transactions_read: 0,
            schedule: Schedule::new(Polling::of(lake.store().url())),
            sweep: Sweep::default(),
            sweep_due_us: i64::MIN,
            requests: 1,
            closed: HashMap::new(),
            compared: BTreeSet::new(),
            units: HashMap::new(),
            missing: HashSet::new(),
            erasures: None,
            said: None,
            has_run: false,
            held: HeldBack::default(),
            told: HashSet::new(),
            strangers: HashSet::new(),
            misnaming: HashSet::new(),
            strays: HashSet::new(),
            listener: None,
            checks: Checks::default(),
            until_us: None,
        };
        ingester.learn();
        Ok(ingester)
    }

    /// The same, looking as often as this.
    #[must_use]
    pub const fn with_polling(mut self, polling: Polling) -> Self {
        self.schedule.polling(polling);
        self
    }

    /// The same, which writes files anew within these bounds.
    #[must_use]
    pub fn within(mut self, bounds: JobBounds) -> Self {
        self.bounds = bounds;
        self
    }

    /// The same, telling after each commit how far a run is.
    #[must_use]
    pub fn with_listener(mut self, told: impl FnMut(&IngestOutcome) + Send + Sync + 'static) -> Self {
        self.listener = Some(Listener(Box::new(told)));
        self
    }

    /// Looks where something is due and takes what is there, to the end: everywhere and at everything the first
    /// time. Where nothing is due, the store is not asked for anything.
    ///
    /// # Errors
    /// [`IngestError`]; but for [`IngestError::HeldBack`] the ingester must not be used again then.
    pub async fn run(&mut self) -> Result<IngestOutcome, IngestError> {
        if !std::mem::replace(&mut self.has_run, true) {
            return self.run_everything().await;
        }
        let mut outcome = IngestOutcome::default();
        let now_us = self.lake.clock().now_us();
        match self.due(now_us) {
            // Where a check is under way it goes on; else it asks for nothing.
            Due::Nothing => self.check_late(&BTreeSet::new(), &mut outcome).await,
            Due::Streams(streams) => {
                let Seen { zone, unreadable, configurations, strays } =
                    landing::of_streams(&self.lake, &self.known, streams).await?;
                self.tell_strays(strays);
                self.held.also_unreadable(unreadable);
                self.schedule.saw(&zone, now_us);
                self.take(zone, &mut outcome, false).await?;
                self.check_late(&configurations, &mut outcome).await;
            }
            Due::Everywhere => self.look_everywhere(now_us, &mut outcome).await?,
        }
        self.ended(outcome, HICCUPS)
    }

    /// What is due, of what is held back what has rested.
    fn due(&self, now_us: i64) -> Due {
        let streams = match self.schedule.due(now_us) {
            Due::Everywhere => return Due::Everywhere,
            Due::Streams(streams) => streams,
            Due::Nothing => Vec::new(),
        };
        let mut due: BTreeSet<Stream> = streams.into_iter().filter(|stream| !self.held.rests(stream, now_us)).collect();
        due.extend(self.held.due(now_us).cloned());
        if due.is_empty() { Due::Nothing } else { Due::Streams(due.into_iter().collect()) }
    }

    async fn look_everywhere(&mut self, now_us: i64, outcome: &mut IngestOutcome) -> Result<(), IngestError> {
        let (Seen { zone, unreadable, configurations, strays }, requests) =
            landing::everywhere(&self.lake, &self.known, self.requests).await?;
        self.tell_strays(strays);
        self.requests = requests;
        self.held.unreadable(unreadable);
        self.schedule.looked_everywhere(now_us);
        self.schedule.saw(&zone, now_us);
        let is_whole = zone.values().all(|seen| !seen.partial);
        self.take(zone, outcome, false).await?;
        self.check_late(&configurations, outcome).await;
        if is_whole {
            // It all fitted into what was looked at anyway.
            (self.sweep, self.sweep_due_us) = (Sweep::default(), now_us.saturating_add(SWEEP_EVERY_US));
        } else if now_us >= self.sweep_due_us {
            self.sweep_on(now_us, outcome).await?;
        }
        Ok(())
    }

    /// Looks at everything there is, due or not, and takes it to the end.
    ///
    /// # Errors
    /// As [`Ingester::run`].
    pub async fn run_everything(&mut self) -> Result<IngestOutcome, IngestError> {
        let mut outcome = IngestOutcome::default();
        self.take_everything(&mut outcome).await?;
        self.ended(outcome, 0)
    }

    /// The same, and then checks all readings whose configuration came after them: for who waits for no batch meanwhile.
    ///
    /// # Errors
    /// As [`Ingester::run`].
    pub(crate) async fn run_to_the_end(&mut self) -> Result<IngestOutcome, IngestError> {
        self.run_to_the_end_after(IngestOutcome::default()).await
    }

    /// The same, which adds to what was done before.
    async fn run_to_the_end_after(&mut self, mut outcome: IngestOutcome) -> Result<IngestOutcome, IngestError> {
        self.take_everything(&mut outcome).await?;
        self.check_to_the_end(&mut outcome).await;
        self.ended(outcome, 0)
    }

    async fn take_everything(&mut self, outcome: &mut IngestOutcome) -> Result<(), IngestError> {
        let now_us = self.lake.clock().now_us();
        let mut sweep = Sweep::default();
        self.held.unreadable(BTreeMap::new());
        loop {
            let (seen, is_end) = sweep.portion(&self.lake, SWEEP_PAGES.1).await?;
            let Seen { zone, unreadable, configurations, strays } = seen;
            self.tell_strays(strays);
            self.held.also_unreadable(unreadable);
            self.schedule.saw(&zone, now_us);
            self.take(zone, outcome, true).await?;
            self.check_late(&configurations, outcome).await;
            if is_end {
                break;
            }
        }
        self.schedule.looked_everywhere(now_us);
        (self.sweep, self.sweep_due_us) = (sweep, now_us.saturating_add(SWEEP_EVERY_US));
        Ok(())
    }

    /// Takes of everything what had landed by a moment, as a run of that moment had taken it, and adds to what was done
    /// before. It removes nothing: what it has not seen may tell against it.
    async fn run_landed_until(
        &mut self,
        until_us: i64,
        mut outcome: IngestOutcome,
    ) -> Result<IngestOutcome, IngestError> {
        let mut sweep = Sweep::default();
        self.held.unreadable(BTreeMap::new());
        self.until_us = Some(until_us);
        loop {
            let (Seen { mut zone, unreadable, .. }, is_end) = sweep.portion(&self.lake, SWEEP_PAGES.1).await?;
            self.held.also_unreadable(unreadable);
            for seen in zone.values_mut() {
                seen.items.retain(|item| item.landed_us <= until_us);
                seen.closed_us = seen.closed_us.filter(|landed_us| *landed_us <= until_us);
            }
            self.take(zone, &mut outcome, true).await?;
            if is_end {
                break;
            }
        }
        self.until_us = None;
        self.ended(outcome, 0)
    }

    async fn sweep_on(&mut self, now_us: i64, outcome: &mut IngestOutcome) -> Result<(), IngestError> {
        let (least, most) = SWEEP_PAGES;
        let pages = self.sweep.size.div_ceil(SWEEP_LOOKS).clamp(least, most);
        let (Seen { zone, unreadable, configurations, strays }, is_end) = self.sweep.portion(&self.lake, pages).await?;
        self.tell_strays(strays);
        self.held.also_unreadable(unreadable);
        if is_end {
            self.sweep_due_us = now_us.saturating_add(SWEEP_EVERY_US);
        }
        self.take(zone, outcome, false).await?;
        self.check_late(&configurations, outcome).await;
        Ok(())
    }

    /// Says, once a source, that what lies there will never be taken.
    fn tell_strays(&mut self, strays: Strays) {
        for (source, Stray { objects, first }) in strays {
            if self.strays.insert(source.clone()) {
                tracing::warn!(source, objects, %first, "objects in the landing zone whose keys are no batches' are never ingested; hint: `landing/<source>/<epoch>/<first>-<last>.arrow`, both numbers with 20 digits and from 1 on (docs/batch-format.md)");
            }
        }
    }

    fn ended(&self, outcome: IngestOutcome, hiccups: u32) -> Result<IngestOutcome, IngestError> {
        match self.held.told(hiccups) {
            None => Ok(outcome),
            Some((count, why)) => Err(IngestError::HeldBack { outcome: Box::new(outcome), count, why }),
        }
    }

    /// Brings what is known to what the table says: by what commits moved since, as far as that is told.
    fn learn(&mut self) {
        let (table, all) = (&self.table, self.table.transactions());
        let moved = self.followed.and_then(|followed| table.transactions_since(followed));
        let read = match moved {
            Some(moved) => moved.map(|(app_id, number)| self.known.note(app_id, *number, all)).count(),
            None => {
                self.known = Known::of(all);
                all.len()
            }
        };
        self.followed = Some(table.followed());
        self.transactions_read = self.transactions_read.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
    }

    /// How many transactions it has read so far to know how far it is: all of the table's when it begins, and then those that
    /// commits move. What a run reads of them does not grow with history.
    #[must_use]
    pub const fn transactions_read(&self) -> u64 {
        self.transactions_read
    }
}
