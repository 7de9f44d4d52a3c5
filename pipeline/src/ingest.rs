//! Ingest: landed batches become rows of `readings`, exactly once.
//!
//! A round lists the landing zone, plans for every stream what follows its watermark (`sequence`),
//! reads those batches, and puts the rows of all sources into one file and one commit, which moves
//! the watermarks with it. If the commit is refused or its reply is lost, the round begins again with
//! the watermarks that the table has then: what took place is seen, what did not is done.
//!
//! A batch that cannot be read goes to quarantine and leaves a hole; it never fails the others.
//! What one commit takes is bounded by [`COMMIT_BATCHES_MAX`] and [`COMMIT_ROWS_MAX`].

mod clean;
pub(crate) mod configurations;
mod landing;
mod progress;
mod rows;
mod sequence;
mod stored;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use arrow::compute::concat_batches;
use arrow::record_batch::RecordBatch;
use object_store::path::Path;
use object_store::{Error, ObjectStoreExt};
use tjern_lake::{Commit, CommitError, Lake, LakeError, Operation, Table, TableName, schema, write_file};
use tjern_readings::batch::{self, Batch};
use tjern_readings::keys::{Bounds, Landed};
use tjern_readings::sensor::{Epoch, SourceName};

use crate::quality::QualityError;
use crate::quarantine::quarantine;
use crate::register::{Register, RegisterError, load};
use crate::tables::{ATTEMPTS_MAX, sorted};
use configurations::Configurations;
use landing::{LandedEpoch, Stream};
use progress::{INGEST, Open};
use rows::Units;
use sequence::{Plan, Progress, Step};

/// The most batches of one commit.
pub const COMMIT_BATCHES_MAX: usize = 256;

/// The most rows of one commit, but for a single batch that has more.
pub const COMMIT_ROWS_MAX: usize = 1_000_000;

/// The largest batch file that is read. A gateway seals at most 8 MiB; imports may make bigger ones.
pub const BATCH_BYTES_MAX: u64 = 64 << 20;

/// How often one commit is tried before its maker looks at everything again, or gives up.
const COMMIT_ATTEMPTS_MAX: u32 = 5;

/// How long the first pause is after a commit that failed; each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(50);

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
    /// Holes and gaps that were passed.
    pub passed: usize,
    /// Holes that are waited for.
    pub waiting: usize,
    /// Batches that went to quarantine.
    pub quarantined: usize,
    /// Landed objects that were removed after their grace.
    pub cleaned: usize,
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
    /// The engine failed while it compared rows.
    #[error("cannot compare landed rows with stored ones: {0}")]
    Engine(#[from] datafusion::error::DataFusionError),
    /// Others committed again and again.
    #[error(
        "ingest was overtaken {ATTEMPTS_MAX} times in a row; hint: is another `tjern pipeline run` at work on this lake?"
    )]
    Overtaken,
}

/// The last number of a stream that was taken or passed; `None` where nothing of it was.
#[must_use]
pub fn watermark(table: &Table, source: &SourceName, epoch: Epoch) -> Option<i64> {
    table.transaction(&progress::watermark_of(source, epoch))
}

/// Takes what has landed, to the end, and cleans up behind it.
///
/// # Errors
/// [`IngestError`]; nothing is lost then, and the next run goes on where this one stopped.
pub async fn ingest(lake: &Lake, settings: &IngestSettings) -> Result<IngestOutcome, IngestError> {
    Ingester::open(lake, *settings).await?.run().await
}

/// Keeps what was learned between two runs.
#[derive(Debug)]
pub struct Ingester {
    lake: Lake,
    settings: IngestSettings,
    table: Table,
    /// Landed batches whose rows were compared and are stored.
    compared: BTreeSet<Path>,
    units: HashMap<Path, Units>,
}

impl Ingester {
    /// Opens the table, and creates it where it is missing.
    ///
    /// # Errors
    /// [`IngestError::Lake`].
    pub async fn open(lake: &Lake, settings: IngestSettings) -> Result<Self, IngestError> {
        let table = Table::open_or_create(lake, TableName::Readings).await?;
        Ok(Self { lake: lake.clone(), settings, table, compared: BTreeSet::new(), units: HashMap::new() })
    }

    /// Takes what has landed, to the end.
    ///
    /// # Errors
    /// [`IngestError`].
    pub async fn run(&mut self) -> Result<IngestOutcome, IngestError> {
        let mut outcome = IngestOutcome::default();
        let mut overtaken = 0;
        loop {
            self.table.refresh().await?;
            let landed = landing::list(&self.lake).await?;
            let known = progress::read(self.table.transactions());
            match self.round(&landed, &known, &mut outcome).await {
                Ok(true) => overtaken = 0,
                Ok(false) => {
                    outcome.cleaned += clean::clean(&self.lake, &landed, &known, self.settings.landing_grace).await?;
                    return Ok(outcome);
                }
                Err(CommitFailure::Refused) if overtaken < ATTEMPTS_MAX => overtaken += 1,
                Err(CommitFailure::Refused) => return Err(IngestError::Overtaken),
                Err(CommitFailure::Failed(error)) => return Err(error),
            }
        }
    }

    /// One commit. Returns whether there was anything to do.
    async fn round(
        &mut self,
        landed: &BTreeMap<Stream, LandedEpoch>,
        known: &HashMap<Stream, Progress>,
        outcome: &mut IngestOutcome,
    ) -> Result<bool, CommitFailure> {
        let now_us = self.lake.clock().now_us();
        let patience_us = i64::try_from(self.settings.hole_patience.as_micros()).unwrap_or(i64::MAX);
        let register = load(&self.lake).await.map_err(IngestError::from)?;
        let mut gathered = Gathered::default();
        let mut waiting = 0;
        for (stream, epoch) in landed {
            let progress = known.get(stream).cloned().unwrap_or_default();
            let plan = sequence::plan(&progress, &epoch.items, now_us, patience_us);
            waiting += usize::from(plan.waiting.is_some());
            self.gather(stream, &plan, &register, &mut gathered).await?;
        }
        outcome.waiting = waiting;
        outcome.quarantined += gathered.quarantined;
        if gathered.transactions.is_empty() {
            return Ok(gathered.quarantined > 0);
        }
        let (batches, rows, passed) = (gathered.batches, gathered.row_count, gathered.passed);
        self.commit(gathered).await?;
        outcome.batches += batches;
        outcome.rows += rows;
        outcome.passed += passed;
        Ok(true)
    }

    /// Does a stream's steps as far as this commit has room.
    async fn gather(
        &mut self,
        stream: &Stream,
        plan: &Plan,
        register: &Register,
        gathered: &mut Gathered,
    ) -> Result<(), IngestError> {
        for step in &plan.steps {
            if gathered.is_full() {
                return Ok(());
            }
            match *step {
                Step::PassHole(hole) => gathered.pass(stream, hole, Open::Hole),
                Step::PassGap(gap) => gathered.pass(stream, gap, Open::Gap),
                Step::Take(bounds) => match self.read(stream, bounds, register, gathered).await? {
                    Read::Rows(rows, configuration) => {
                        gathered.take(rows);
                        gathered.transactions.insert(progress::watermark(stream), bounds.last);
                        gathered.remember(&self.table, stream, bounds, configuration.as_deref(), false);
                    }
                    // Its numbers are known to be missing: nobody need wait for them, and once it is
                    // mended it fills them.
                    Read::Refused => gathered.pass(stream, bounds, Open::Hole),
                    Read::Gone => return Ok(()),
                },
                Step::Fill(bounds, open) => {
                    let Read::Rows(rows, configuration) = self.read(stream, bounds, register, gathered).await? else {
                        continue;
                    };
                    gathered.take(rows);
                    gathered.remember(&self.table, stream, bounds, configuration.as_deref(), true);
                    let kind = self.table.transaction(&progress::open(stream, open)).unwrap_or(Open::Hole as i64);
                    gathered.fill(stream, bounds, open, kind);
                    // The numbers around it changed: another filling waits for the next round.
                    return Ok(());
                }
                Step::Overlap(bounds) => {
                    let reason = "its numbers overlap others of this epoch that were ingested; hint: two gateways \
                                  may use one name, or a spool was copied";
                    self.refuse(stream, bounds, reason, gathered).await?;
                }
                Step::Compare(bounds) => self.compare(stream, bounds, register, gathered).await?,
            }
        }
        Ok(())
    }

    /// Reads a batch; one that is bad goes to quarantine, one that is gone is waited for.
    async fn read(
        &mut self,
        stream: &Stream,
        bounds: Bounds,
        register: &Register,
        gathered: &mut Gathered,
    ) -> Result<Read, IngestError> {
        match self.decode(stream, bounds).await? {
            Decoded::Gone => Ok(Read::Gone),
            Decoded::Bad(reason) => {
                self.refuse(stream, bounds, &reason, gathered).await?;
                Ok(Read::Refused)
            }
            Decoded::Good(batch) => {
                let units = self.units_of(&batch).await?;
                let rows = rows::rows(&batch, register, &units, self.lake.clock().now_us())?;
                Ok(Read::Rows(rows, batch.header.configuration))
            }
        }
    }

    async fn decode(&self, (source, epoch): &Stream, bounds: Bounds) -> Result<Decoded, IngestError> {
        let key = Landed::Batch(*epoch, bounds).key(source);
        let bytes = match self.lake.objects().get(&key).await {
            Ok(found) if found.meta.size > BATCH_BYTES_MAX => {
                return Ok(Decoded::Bad(format!("it has {} bytes, more than {BATCH_BYTES_MAX}", found.meta.size)));
            }
            Ok(found) => found.bytes().await.map_err(|source| store_failed(&key, source))?,
            Err(Error::NotFound { .. }) => return Ok(Decoded::Gone),
            Err(source) => return Err(store_failed(&key, source).into()),
        };
        // A hostile file may make a decoder panic; that is this batch's trouble and nobody else's.
        let decoded = tokio::task::spawn_blocking(move || batch::decode(&bytes)).await;
        Ok(match decoded {
            Err(_) => Decoded::Bad("it made the decoder panic".to_owned()),
            Ok(Err(error)) => Decoded::Bad(error.to_string()),
            Ok(Ok(batch)) => {
                let header = &batch.header;
                if (&header.source, header.epoch, header.bounds) == (source, *epoch, bounds) {
                    Decoded::Good(Box::new(batch))
                } else {
                    let named = Landed::Batch(header.epoch, header.bounds).key(&header.source);
                    Decoded::Bad(format!("its metadata says that it is `{named}`"))
                }
            }
        })
    }

    /// A batch below the watermark at a place where nobody expects one: it is known if each of its
    /// rows is stored, and otherwise something for a person to look at.
    async fn compare(
        &mut self,
        stream: &Stream,
        bounds: Bounds,
        register: &Register,
        gathered: &mut Gathered,
    ) -> Result<(), IngestError> {
        let (source, epoch) = stream;
        let key = Landed::Batch(*epoch, bounds).key(source);
        if self.compared.contains(&key) {
            return Ok(());
        }
        let Read::Rows(rows, _) = self.read(stream, bounds, register, gathered).await? else { return Ok(()) };
        if stored::are_stored(&self.table, stream, bounds, &rows).await? {
            self.compared.insert(key);
            return Ok(());
        }
        let reason = "its numbers were ingested before, with other readings; hint: two gateways may use one name, \
                      or a spool was restored";
        self.refuse(stream, bounds, reason, gathered).await
    }

    async fn refuse(
        &self,
        (source, epoch): &Stream,
        bounds: Bounds,
        reason: &str,
        gathered: &mut Gathered,
    ) -> Result<(), IngestError> {
        let key = Landed::Batch(*epoch, bounds).key(source);
        tracing::warn!(%key, reason, "a batch goes to quarantine");
        quarantine(&self.lake, &key, reason).await?;
        gathered.quarantined += 1;
        Ok(())
    }

    async fn units_of(&mut self, batch: &Batch) -> Result<Units, IngestError> {
        let Some(sha256) = &batch.header.configuration else { return Ok(Units::new()) };
        let key = Landed::Configuration(sha256.clone()).key(&batch.header.source);
        if let Some(units) = self.units.get(&key) {
            return Ok(units.clone());
        }
        let text = match self.lake.objects().get(&key).await {
            Ok(found) => found.bytes().await.map_err(|source| store_failed(&key, source))?,
            Err(Error::NotFound { .. }) => return Ok(Units::new()),
            Err(source) => return Err(store_failed(&key, source).into()),
        };
        let units = rows::units(&String::from_utf8_lossy(&text));
        self.units.insert(key, units.clone());
        Ok(units)
    }

    async fn commit(&mut self, gathered: Gathered) -> Result<(), CommitFailure> {
        let mut add = Vec::new();
        if !gathered.rows.is_empty() {
            let rows = gather_rows(&gathered.rows).map_err(|error| IngestError::from(QualityError::from(error)))?;
            add.push(write_file(&self.lake, TableName::Readings, &[rows]).await.map_err(IngestError::from)?);
        }
        let count = self.table.transaction(INGEST).unwrap_or(0) + 1;
        let transactions = gathered.transactions.into_iter().chain([(INGEST.to_owned(), count)]).collect();
        let commit =
            Commit { operation: Operation::Ingest, add, remove: Vec::new(), transactions, notes: BTreeMap::new() };
        let mut failure = None;
        for attempt in 0..COMMIT_ATTEMPTS_MAX {
            match self.table.commit(commit.clone()).await {
                Ok(_) => return Ok(()),
                Err(CommitError::Failed(error)) => {
                    tracing::warn!(%error, "it is open whether a commit took place: looking again");
                    failure = Some(error);
                    tokio::time::sleep(PAUSE * 2_u32.pow(attempt)).await;
                }
                Err(_) => failure = None,
            }
            self.table.refresh().await.map_err(IngestError::from)?;
            // A compaction that came before is no reason to read everything again; an ingest is, be it
            // another's or this very one.
            if self.table.transaction(INGEST).unwrap_or(0) + 1 != count {
                return Err(CommitFailure::Refused);
            }
        }
        if let Some(error) = failure {
            return Err(CommitFailure::Failed(error.into()));
        }
        Err(CommitFailure::Refused)
    }
}

fn gather_rows(rows: &[RecordBatch]) -> Result<RecordBatch, arrow::error::ArrowError> {
    let together = concat_batches(&schema::arrow(TableName::Readings), rows)?;
    sorted(&together, &TableName::Readings.sort_columns())
}

fn store_failed(key: &Path, source: Error) -> LakeError {
    LakeError::store(key, source)
}

#[derive(Debug)]
enum CommitFailure {
    /// Not made, or open: look again.
    Refused,
    Failed(IngestError),
}

impl From<IngestError> for CommitFailure {
    fn from(error: IngestError) -> Self {
        Self::Failed(error)
    }
}

#[derive(Debug)]
enum Decoded {
    Good(Box<Batch>),
    Bad(String),
    Gone,
}

/// What became of a batch that was to be read.
#[derive(Debug)]
enum Read {
    /// Its rows, and the configuration that it names.
    Rows(RecordBatch, Option<String>),
    /// It is in quarantine.
    Refused,
    /// It is not there any more.
    Gone,
}

/// What one commit brings.
#[derive(Debug, Default)]
struct Gathered {
    rows: Vec<RecordBatch>,
    transactions: BTreeMap<String, i64>,
    configurations: Configurations,
    batches: usize,
    row_count: usize,
    passed: usize,
    quarantined: usize,
}

impl Gathered {
    const fn is_full(&self) -> bool {
        self.batches >= COMMIT_BATCHES_MAX || self.row_count >= COMMIT_ROWS_MAX
    }

    fn take(&mut self, rows: RecordBatch) {
        self.batches += 1;
        self.row_count += rows.num_rows();
        self.rows.push(rows);
    }

    /// Under which configuration these numbers were measured.
    fn remember(&mut self, table: &Table, stream: &Stream, bounds: Bounds, named: Option<&str>, late: bool) {
        let steps = self.configurations.of(stream, table.transactions());
        self.transactions.extend(steps.set(stream, bounds, named, late));
    }

    fn pass(&mut self, stream: &Stream, bounds: Bounds, open: Open) {
        let (source, epoch) = stream;
        tracing::warn!(%source, %epoch, first = bounds.first, last = bounds.last, kind = ?open, "numbers without readings are passed");
        self.transactions.insert(progress::open(stream, bounds), open as i64);
        self.transactions.insert(progress::watermark(stream), bounds.last);
        self.passed += 1;
    }

    /// What is left of an open run stays what it was, a hole or a gap.
    fn fill(&mut self, stream: &Stream, bounds: Bounds, open: Bounds, kind: i64) {
        self.transactions.insert(progress::filled(stream, bounds), bounds.last);
        self.transactions.insert(progress::open(stream, open), Open::Closed as i64);
        for rest in sequence::shrink(open, bounds) {
            self.transactions.insert(progress::open(stream, rest), kind);
        }
    }
}
