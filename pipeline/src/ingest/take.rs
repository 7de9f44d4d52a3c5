//! Taking what was seen: rounds of one commit each, until nothing is left to be done.

mod plan;
mod said;
mod step;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::FutureExt;
use object_store::path::Path;
use tjern_lake::rollup::TOUCHED_NOTE;
use tjern_lake::{Commit, CommitError, LakeError, Operation, Table, TableName, write_file};
use tjern_readings::keys::Bounds;

use super::ahead::{Ahead, Wanted};
use super::clean::{self, Grace, Streams, Told};
use super::gathered::{Gathered, Replaced};
use super::landed::{self, Read};
use super::landing::{Stream, Zone};
use super::progress::INGEST;
use super::sequence::Step;
use super::{IngestError, IngestOutcome, Ingester};
use crate::correct::CORRECTIONS;
use crate::erase::Erasures;
use crate::quality::{self, QualityError};
use crate::register::Said;
use crate::tables::ATTEMPTS_MAX;

pub(super) use said::units_in_store;

/// How often one commit is tried before its maker looks at everything again, or gives up.
const COMMIT_ATTEMPTS_MAX: u32 = 5;

/// How long the first pause is after a commit that failed; each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(50);

/// Why there was no commit.
#[derive(Debug)]
pub(super) enum CommitFailure {
    /// Not made, or open: look again.
    Refused,
    Failed(IngestError),
}

impl From<IngestError> for CommitFailure {
    fn from(error: IngestError) -> Self {
        Self::Failed(error)
    }
}

/// Streams whose steps could not be done in this run, and why.
type Failed = BTreeMap<Stream, String>;

/// A step, and what was read for it.
type Prepared = (Stream, Step, Option<Result<Read, LakeError>>);

impl Ingester {
    /// Takes what was seen, to the end, and removes what may go. What is held back rests, unless `tries_all`.
    pub(super) async fn take(
        &mut self,
        mut zone: Zone,
        outcome: &mut IngestOutcome,
        tries_all: bool,
    ) -> Result<(), IngestError> {
        self.held.sift(&mut zone, self.lake.clock().now_us(), tries_all);
        let mut failed = Failed::default();
        self.read_closed(&zone).await;
        // Before there is anything to take it matters only to what has to leave the landing zone.
        if self.erasures.is_none() && Erasures::count_in(&self.table).is_some() {
            self.recall().await?;
        }
        let (mut is_current, mut overtaken) = (false, 0);
        let mut before = Streams::new();
        loop {
            let (steps, waiting) = self.steps(&zone, &failed);
            if waiting > 0 && self.erasures.is_none() {
                // What is missing may be a batch that was erased.
                self.recall().await?;
                continue;
            }
            outcome.waiting = outcome.waiting.max(waiting);
            if steps.is_empty() {
                break;
            }
            if !is_current {
                // What is planned is planned on what the table says now.
                self.table.refresh().await?;
                self.learn();
                self.recall().await?;
                is_current = true;
                before = self.late_of(&zone);
                continue;
            }
            match Box::pin(self.round(&mut zone, steps, outcome, &mut failed)).await {
                Ok(true) => overtaken = 0,
                Ok(false) => break,
                Err(CommitFailure::Refused) if overtaken < ATTEMPTS_MAX => {
                    overtaken += 1;
                    is_current = false;
                }
                Err(CommitFailure::Refused) => return Err(IngestError::Overtaken),
                Err(CommitFailure::Failed(error)) => return Err(error),
            }
        }
        let now_us = self.lake.clock().now_us();
        self.held.release(zone.keys(), |stream| failed.contains_key(stream));
        for (stream, why) in failed {
            self.held.add(&stream, why, now_us);
        }
        if self.until_us.is_some() {
            return Ok(());
        }
        let (cleaned, refused) = self.clean(&zone, before, is_current).await?;
        outcome.cleaned += cleaned;
        self.held.remains(refused.map(|error| error.to_string()));
        Ok(())
    }

    /// Loads what was erased, where the table knows of another number of erasures than before.
    async fn recall(&mut self) -> Result<(), IngestError> {
        let count = Erasures::count_in(&self.table);
        if self.erasures.as_ref().is_none_or(|(known, _)| *known != count) {
            self.erasures = Some((count, Erasures::load(&self.lake).await?));
        }
        Ok(())
    }

    /// Removes what may go, as the table says now.
    async fn clean(
        &mut self,
        zone: &Zone,
        mut before: Streams,
        is_current: bool,
    ) -> Result<(usize, Option<LakeError>), IngestError> {
        let grace = Grace::of(&self.lake, self.settings.landing_grace);
        let mut keys = self.may_go(zone, &before, grace);
        if !keys.is_empty() && !is_current {
            self.table.refresh().await?;
            self.learn();
            before = self.late_of(zone);
            keys = self.may_go(zone, &before, grace);
        }
        // Where one of them comes again, it is looked at again.
        self.compared.retain(|key| !keys.contains(key));
        Ok(clean::remove(&self.lake, keys).await)
    }

    fn may_go(&self, zone: &Zone, before: &Streams, grace: Grace) -> Vec<Path> {
        let told = Told { progress: &self.known.progress, finished: &self.known.finished };
        clean::may_go(zone, told, before, grace, |stream| self.doomed_of(stream))
    }

    /// The batches of a stream that hold readings which were erased.
    fn doomed_of(&self, stream: &Stream) -> BTreeSet<Bounds> {
        self.erasures.iter().flat_map(|(_, known)| known.doomed_of(stream)).collect()
    }

    /// What is known now of those streams of a zone of which something was late.
    fn late_of(&self, zone: &Zone) -> Streams {
        let known = zone.keys().filter_map(|stream| self.known.progress.get_key_value(stream));
        let late = known.filter(|(_, progress)| progress.late.is_some());
        late.map(|(stream, progress)| (stream.clone(), progress.clone())).collect()
    }

    /// Takes note of a batch that is taken long after it had landed.
    fn note_late(&self, stream: &Stream, bounds: Bounds, landed_us: i64, gathered: &mut Gathered) {
        let grace = Grace::of(&self.lake, self.settings.landing_grace);
        if grace.is_late(landed_us) {
            let before = self.known.progress.get(stream).map(|progress| progress.late).unwrap_or_default();
            gathered.was_late(stream, bounds.last, before, grace);
        }
    }

    /// One commit. Returns whether anything came of it.
    async fn round(
        &mut self,
        zone: &mut Zone,
        steps: Vec<Wanted>,
        outcome: &mut IngestOutcome,
        failed: &mut Failed,
    ) -> Result<bool, CommitFailure> {
        self.recall().await?;
        let said = self.said().await?;
        let mut gathered = Gathered::default();
        self.gather(steps, &said, &mut gathered, failed).await;
        outcome.quarantined += gathered.quarantined.len();
        for (stream, bounds) in &gathered.quarantined {
            if let Some(seen) = zone.get_mut(stream) {
                seen.items.retain(|item| item.gap || item.bounds != *bounds);
            }
        }
        if let Some((_, known)) = &mut self.erasures {
            // Before the commit, and where there is none: what was taken, or is known, is not read again.
            let doomed = std::mem::take(&mut gathered.doomed);
            known.doom(&self.lake, doomed).await.map_err(IngestError::from)?;
        }
        if gathered.transactions.is_empty() {
            return Ok(gathered.compared || !gathered.quarantined.is_empty());
        }
        if let Err(error) = gathered.leave_out_repeated(&self.table, &said.register, &self.bounds).await {
            // What is there cannot be read, or not now: this keeps those imports only.
            let why = format!("it cannot be found out which of its readings are there already: {error}");
            failed.extend(gathered.importing.into_iter().map(|stream| (stream, why.clone())));
            return Ok(true);
        }
        let (batches, rows, passed) = (gathered.batches, gathered.row_count, gathered.passed);
        let (erased, repeated, overruled) = (gathered.erased, gathered.repeated, gathered.overruled);
        self.commit(gathered).await?;
        self.learn();
        outcome.batches += batches;
        outcome.rows += rows;
        outcome.erased += erased;
        outcome.repeated += repeated;
        outcome.overruled += overruled;
        outcome.passed += passed;
        if let Some(listener) = &mut self.listener {
            listener.0(outcome);
        }
        Ok(true)
    }

    /// Does steps as far as this commit has room. Batches are read ahead, several at once.
    async fn gather(&mut self, steps: Vec<Wanted>, said: &Said, gathered: &mut Gathered, failed: &mut Failed) {
        let lake = self.lake.clone();
        let mut ahead = Ahead::new(steps, move |stream, bounds| {
            let lake = lake.clone();
            async move { landed::read(&lake, &stream, bounds).await }.boxed()
        });
        while !gathered.is_full()
            && let Some(one) = ahead.next(gathered.room()).await
        {
            let stream = one.0.clone();
            // What the store refuses of one source (a batch, a configuration, a place in quarantine) keeps that
            // source only.
            let goes_on = self.step(one, said, gathered).await.unwrap_or_else(|error| {
                failed.insert(stream.clone(), error.to_string());
                false
            });
            if !goes_on {
                // Its next steps stand on one that was not done, or is not known yet.
                ahead.stop(stream);
            }
        }
    }

    /// Commits what was gathered, on the version that it was gathered from as far as it stands on it.
    pub(super) async fn commit(&mut self, mut gathered: Gathered) -> Result<(), CommitFailure> {
        let Replaced { mut add, remove, touched } = std::mem::take(&mut gathered.replaced);
        if let Some(rows) = gathered.rows().map_err(|error| IngestError::from(QualityError::from(error)))? {
            add.push(write_file(&self.lake, TableName::Readings, &[rows]).await.map_err(IngestError::from)?);
        }
        let count = self.table.transaction(INGEST).unwrap_or(0) + 1;
        let refused = gathered.refused.transactions(self.table.transactions(), self.lake.clock().now_us());
        let mut moved: BTreeMap<String, i64> = gathered.transactions.into_iter().chain(refused).collect();
        moved.insert(INGEST.to_owned(), count);
        let (mut operation, mut notes) = (Operation::Ingest, BTreeMap::new());
        let corrections = |table: &Table| table.transaction(CORRECTIONS).unwrap_or(0);
        let corrected = corrections(&self.table);
        if !remove.is_empty() {
            // Nobody corrects what is changed here on what it was before.
            moved.insert(CORRECTIONS.to_owned(), corrected + 1);
            operation = Operation::Correct;
            notes.extend(touched.note().map(|note| (TOUCHED_NOTE.to_owned(), note)));
        }
        let transactions = moved.into_iter().collect();
        if let Some((_, said)) = self.said.as_ref().filter(|_| !add.is_empty()) {
            notes.extend([said.versions.note(), quality::note()]);
        }
        let commit = Commit { operation, add, remove, transactions, notes };
        let mut failure = None;
        for attempt in 0..COMMIT_ATTEMPTS_MAX {
            match self.table.commit(commit.clone()).await {
                Ok(_) => return Ok(()),
                Err(CommitError::Failed(error)) => {
                    tracing::warn!(%error, "it is open whether a commit took place: looking again");
                    failure = Some(error);
                    tokio::time::sleep(PAUSE * 2_u32.pow(attempt)).await;
                }
                Err(CommitError::Restricted(error)) => return Err(CommitFailure::Failed((*error).into())),
                Err(_) => failure = None,
            }
            self.table.refresh().await.map_err(IngestError::from)?;
            // A compaction that came before is no reason to read everything again; an ingest is, be it
            // another's or this very one.
            if self.table.transaction(INGEST).unwrap_or(0) + 1 != count {
                return Err(CommitFailure::Refused);
            }
            // What is replaced must be there as it was read.
            let is_there = commit.remove.iter().all(|file| self.table.is_active(file));
            if !commit.remove.is_empty() && (!is_there || corrections(&self.table) != corrected) {
                return Err(CommitFailure::Refused);
            }
        }
        if let Some(error) = failure {
            return Err(CommitFailure::Failed(error.into()));
        }
        Err(CommitFailure::Refused)
    }
}
