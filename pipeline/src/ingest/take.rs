//! Taking what was seen: rounds of one commit each, until nothing is left to be done.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use object_store::path::Path;
use object_store::{Error, ObjectStoreExt};
use tjern_lake::rollup::TOUCHED_NOTE;
use tjern_lake::{Commit, CommitError, LakeError, Operation, Table, TableName, write_file};
use tjern_readings::batch::Batch;
use tjern_readings::configuration::units;
use tjern_readings::keys::{Bounds, Landed};

use super::ahead::{Ahead, Wanted};
use super::apart;
use super::clean::{self, Grace, Streams, Told};
use super::gathered::{Gathered, Replaced};
use super::landed::{self, Decoded, Read};
use super::landing::{LandedEpoch, Stream, Zone};
use super::progress::{self, INGEST, Open};
use super::refused::Why;
use super::rows::{self, Came, Rows, Units};
use super::sequence::{self, Closed, Item, Plan, Progress, Step};
use super::{IngestError, IngestOutcome, Ingester, stored};
use crate::correct::CORRECTIONS;
use crate::erase::Erasures;
use crate::quality::{self, QualityError};
use crate::quarantine::quarantine;
use crate::register::{Register, Said};
use crate::tables::ATTEMPTS_MAX;

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

    /// What finished epochs say of their end.
    async fn read_closed(&mut self, zone: &Zone) {
        for (stream, seen) in zone {
            let Some(landed_us) = seen.closed_us else { continue };
            if self.known.finished.contains(stream) || self.closed.contains_key(stream) {
                continue;
            }
            let key = Landed::Closed(stream.1).key(&stream.0);
            let found = match self.lake.objects().get(&key).await {
                Ok(found) => found.bytes().await,
                Err(Error::NotFound { .. }) => continue,
                Err(source) => Err(source),
            };
            let found = match found {
                Ok(found) => found,
                Err(error) => {
                    tracing::warn!(%key, %error, "the end of an epoch cannot be read; its batches are taken, and it is asked again");
                    continue;
                }
            };
            // Without a number nothing is missing that is not missing anyway.
            let last = std::str::from_utf8(&found).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
            self.closed.insert(stream.clone(), Closed { last, landed_us });
        }
    }

    /// Everything that can be done now, of all streams in turn, so that one with much to give keeps nobody
    /// waiting; and how many streams wait for something.
    fn steps(&self, zone: &Zone, failed: &Failed) -> (Vec<Wanted>, usize) {
        let mut steps = Vec::new();
        let mut waiting = 0;
        for (stream, seen) in zone.iter().filter(|(stream, _)| !failed.contains_key(*stream)) {
            let plan = self.plan(stream, seen);
            waiting += usize::from(plan.waiting.is_some());
            let looks = self.looks(stream, seen, &plan);
            let of_stream = plan.steps.into_iter().chain(looks);
            let mut of_stream = of_stream.filter(|step| !self.is_done(stream, *step)).peekable();
            if of_stream.peek().is_none() {
                continue;
            }
            let batches = seen.items.iter().filter(|item| !item.gap);
            let bytes: HashMap<Bounds, u64> = batches.map(|item| (item.bounds, item.bytes)).collect();
            let bytes_of = |step: Step| step.batch().and_then(|bounds| bytes.get(&bounds)).copied().unwrap_or(0);
            steps.extend(of_stream.enumerate().map(|(turn, step)| (turn, (stream.clone(), step, bytes_of(step)))));
        }
        steps.sort_by_key(|(turn, ..)| *turn);
        (steps.into_iter().map(|(_, wanted)| wanted).collect(), waiting)
    }

    fn plan(&self, stream: &Stream, seen: &LandedEpoch) -> Plan {
        let now_us = self.until_us.unwrap_or_else(|| self.lake.clock().now_us());
        let patience_us = i64::try_from(self.settings.hole_patience.as_micros()).unwrap_or(i64::MAX);
        let nothing = Progress::default();
        let progress = self.known.progress.get(stream).unwrap_or(&nothing);
        let some: Vec<Item>;
        let gaps = self.erased_gaps(stream, seen, progress.watermark);
        let items = if seen.partial || !gaps.is_empty() {
            let wanted = |item: &&Item| !seen.partial || item.bounds.last > progress.watermark;
            some = seen.items.iter().filter(wanted).copied().chain(gaps).collect();
            &some
        } else {
            &seen.items
        };
        match self.closed.get(stream).filter(|_| seen.closed_us.is_some() && !self.known.finished.contains(stream)) {
            Some(closed) => sequence::plan_closed(progress, items, *closed, now_us, patience_us),
            None => sequence::plan(progress, items, now_us, patience_us),
        }
    }

    /// Batches that were removed since they held erased readings, where they are still to be taken: the table was built
    /// anew. Their numbers are passed at once, as those that a gateway dropped. When they had landed nobody knows: what is before
    /// them is waited for as long as before what landed after them.
    fn erased_gaps(&self, stream: &Stream, seen: &LandedEpoch, watermark: i64) -> Vec<Item> {
        let Some((_, known)) = &self.erasures else { return Vec::new() };
        let is_there = |bounds: Bounds| seen.items.iter().any(|item| item.bounds.overlaps(bounds));
        let gone = known.doomed_of(stream).filter(|bounds| bounds.last > watermark && !is_there(*bounds));
        let landed_us = |gone: Bounds| {
            let later = seen.items.iter().filter(|item| item.bounds.first > gone.last);
            later.map(|item| item.landed_us).min().or(self.until_us).unwrap_or(i64::MIN)
        };
        gone.map(|bounds| Item { bounds, gap: true, landed_us: landed_us(bounds), bytes: 0 }).collect()
    }

    /// Batches that came again after they had left, and that nothing else would look into: they may hold readings that
    /// were erased meanwhile, of which nobody took note since they were not there.
    fn looks(&self, stream: &Stream, seen: &LandedEpoch, plan: &Plan) -> Vec<Step> {
        let sees_all = !seen.partial && self.until_us.is_none();
        let Some((_, known)) = self.erasures.as_ref().filter(|(_, known)| !known.is_empty() && sees_all) else {
            return Vec::new();
        };
        let watermark = self.known.progress.get(stream).map_or(0, |progress| progress.watermark);
        // The word that an epoch is finished leaves after all else of it.
        let left_us = self.known.finished.contains(stream).then_some(i64::MIN);
        let again = sequence::came_again(watermark, &seen.items, seen.closed_us.or(left_us));
        let doomed: BTreeSet<Bounds> = known.doomed_of(stream).collect();
        let is_planned = |bounds: Bounds| plan.steps.iter().any(|step| step.batch() == Some(bounds));
        again.into_iter().filter(|one| !doomed.contains(one) && !is_planned(*one)).map(Step::Look).collect()
    }

    /// Whether a step was done without leaving anything in the table.
    fn is_done(&self, (source, epoch): &Stream, step: Step) -> bool {
        let (Step::Compare(bounds) | Step::Look(bounds)) = step else { return false };
        self.compared.contains(&Landed::Batch(*epoch, bounds).key(source))
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
        let (batches, rows, passed) = (gathered.batches, gathered.row_count, gathered.passed);
        let erased = gathered.erased;
        self.commit(gathered).await?;
        self.learn();
        outcome.batches += batches;
        outcome.rows += rows;
        outcome.erased += erased;
        outcome.passed += passed;
        if let Some(listener) = &mut self.listener {
            listener.0(outcome);
        }
        Ok(true)
    }

    /// What the register says, read again where its tables moved on.
    pub(super) async fn said(&mut self) -> Result<Arc<Said>, IngestError> {
        let mut versions = [-1; 2];
        for (version, name) in versions.iter_mut().zip([TableName::Sensors, TableName::Events]) {
            *version = Table::open(&self.lake, name).await?.map_or(-1, |table| table.version());
        }
        if let Some((known, said)) = &self.said
            && *known == versions
        {
            return Ok(Arc::clone(said));
        }
        let said = Arc::new(Said::load(&self.lake).await?);
        self.said = Some((versions, Arc::clone(&said)));
        Ok(said)
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

    /// Does a step. Returns whether its stream's next one may follow.
    async fn step(
        &mut self,
        (stream, step, read): Prepared,
        said: &Said,
        gathered: &mut Gathered,
    ) -> Result<bool, IngestError> {
        let read = read.transpose()?;
        let landed_us = read.as_ref().map_or(0, |read| read.landed_us);
        let decoded = match (read, step.batch()) {
            (Some(read), Some(bounds)) => Some(read.decoded(&stream, bounds).await),
            _ => None,
        };
        let decoded = match decoded {
            // What is only looked into is taken already.
            Some(Decoded::Good(batch)) if !matches!(step, Step::Look(_)) => {
                Some(self.kept_apart(batch, &said.register)?)
            }
            other => other,
        };
        let now_us = self.lake.clock().now_us();
        match (step, decoded) {
            (Step::PassHole(hole), _) => gathered.pass(&stream, hole, Open::Hole, now_us),
            (Step::PassGap(gap), _) => gathered.pass(&stream, gap, Open::Gap, now_us),
            (Step::Turn(dropped, hole), _) => gathered.turn(&stream, dropped, hole, now_us),
            (Step::Finish(last), _) => {
                tracing::info!(source = %stream.0, epoch = %stream.1, last, "an epoch is finished");
                gathered.transactions.insert(progress::closed(&stream), last);
                self.schedule.forget(&stream);
            }
            (Step::Overlap(bounds), _) => {
                let reason = "its numbers overlap others of this epoch that were ingested; hint: two gateways \
                              may use one name, or a spool was copied";
                self.refuse(&stream, bounds, reason, gathered).await?;
            }
            (Step::Take(bounds), Some(Decoded::Good(batch))) => {
                let rows = self.rows(&batch, said, landed_us, gathered).await?;
                gathered.take(&stream, bounds, rows);
                self.note_late(&stream, bounds, landed_us, gathered);
                gathered.remember(&self.known, &stream, bounds, batch.header.named_configuration(), false);
            }
            (Step::Take(bounds), Some(Decoded::Bad(reason))) => {
                self.refuse(&stream, bounds, &reason, gathered).await?;
                // Its numbers are known to be missing: nobody need wait for them, and once it is mended it fills them.
                gathered.pass(&stream, bounds, Open::Hole, now_us);
            }
            (Step::Fill(bounds, open), Some(Decoded::Good(batch))) => {
                let rows = self.rows(&batch, said, landed_us, gathered).await?;
                gathered.add(rows);
                self.note_late(&stream, bounds, landed_us, gathered);
                gathered.remember(&self.known, &stream, bounds, batch.header.named_configuration(), true);
                let kind = self.table.transaction(&progress::open(&stream, open)).unwrap_or(Open::Hole as i64);
                gathered.fill(&stream, bounds, open, kind);
                // The numbers around it changed: another filling waits for the next round.
                return Ok(false);
            }
            (Step::Compare(bounds), Some(Decoded::Good(batch))) => {
                self.compare(&stream, bounds, &batch, said, gathered).await?;
            }
            (Step::Fill(bounds, _) | Step::Compare(bounds), Some(Decoded::Bad(reason))) => {
                self.refuse(&stream, bounds, &reason, gathered).await?;
            }
            (Step::Look(bounds), Some(decoded)) => self.look(&stream, bounds, &decoded, gathered),
            (Step::Fill(..) | Step::Compare(_) | Step::Look(_), _) => {}
            // What is not there any more is waited for.
            (Step::Take(_), _) => return Ok(false),
        }
        Ok(true)
    }

    /// A batch, unless it belongs into another lake.
    fn kept_apart(&mut self, batch: Box<Batch>, register: &Register) -> Result<Decoded, IngestError> {
        if !self.lake.is_personal() {
            let objection = apart::objection(&batch, register).map_err(QualityError::from)?;
            return Ok(objection.map_or(Decoded::Good(batch), Decoded::Bad));
        }
        for sensor in apart::strangers(&batch, register).map_err(QualityError::from)? {
            if self.strangers.insert((batch.header.source.clone(), sensor.clone())) {
                tracing::warn!(source = %batch.header.source, sensor, "a sensor that is not registered as personal writes to the lake of personal readings; it is kept there");
            }
        }
        Ok(Decoded::Good(batch))
    }

    async fn rows(
        &mut self,
        batch: &Batch,
        said: &Said,
        landed_us: i64,
        gathered: &mut Gathered,
    ) -> Result<Rows, IngestError> {
        let units = self.units_of(batch).await?;
        let mut rows = rows::rows(batch, said, &units.clone().unwrap_or_default(), self.came(landed_us))?;
        self.leave_out(batch, &mut rows, gathered)?;
        let source = &batch.header.source;
        if batch.header.misnames_configuration() {
            gathered.refused.add(Why::Misnamed, source, "", rows.batch.num_rows());
            if self.misnaming.insert(source.clone()) {
                tracing::warn!(%source, "a batch names its configuration by what is no SHA-256: its readings are kept, and their units are held against nothing; hint: docs/batch-format.md says what a writer puts there");
            }
        }
        if let (None, Some(sha256)) = (&units, batch.header.named_configuration()) {
            let (name, now_us) = ((source.clone(), sha256.to_owned()), self.lake.clock().now_us());
            gathered.not_checked(&self.known.unchecked, name, &rows.batch, now_us);
        }
        for (against, readings) in &rows.against {
            if let Some(why) = Why::of_cause(against.cause) {
                gathered.refused.add(why, source, &against.sensor, *readings);
            }
            if self.told.insert((batch.header.source.clone(), against.clone())) {
                let (sensor, cause) = (&against.sensor, against.cause.word());
                tracing::warn!(source = %batch.header.source, sensor, cause, readings, "readings are kept and fail");
            }
        }
        Ok(rows)
    }

    /// Leaves out what was erased, and remembers the batch.
    fn leave_out(&self, batch: &Batch, rows: &mut Rows, gathered: &mut Gathered) -> Result<(), IngestError> {
        let Some((_, known)) = &self.erasures else { return Ok(()) };
        let (rest, erased) = known.without(&rows.batch).map_err(QualityError::from)?;
        if erased > 0 {
            let header = &batch.header;
            let ids = known.of_batch(&batch.rows).unwrap_or_default();
            gathered.doomed.push(((header.source.clone(), header.epoch), header.bounds, ids));
            gathered.erased += erased;
            rows.batch = rest;
            if rows.batch.num_rows() == 0 {
                // Of what is erased nothing is told.
                rows.against.clear();
            }
        }
        Ok(())
    }

    fn came(&self, landed_us: i64) -> Came {
        Came { landed_us, received_us: self.lake.clock().now_us() }
    }

    /// A batch below the watermark at a place where nobody expects one: it is known if each of its
    /// rows is stored, and otherwise something for a person to look at.
    async fn compare(
        &mut self,
        stream: &Stream,
        bounds: Bounds,
        batch: &Batch,
        said: &Said,
        gathered: &mut Gathered,
    ) -> Result<(), IngestError> {
        let mut rows = rows::rows(batch, said, &Units::new(), self.came(i64::MAX))?;
        self.leave_out(batch, &mut rows, gathered)?;
        let none = Erasures::default();
        let known = self.erasures.as_ref().map_or(&none, |(_, known)| known);
        if stored::are_stored(&self.table, stream, bounds, &rows.batch, known).await? {
            self.compared.insert(Landed::Batch(stream.1, bounds).key(&stream.0));
            gathered.compared = true;
            return Ok(());
        }
        let reason = "its numbers were ingested before, with other readings; hint: two gateways may use one name, \
                      or a spool was restored";
        self.refuse(stream, bounds, reason, gathered).await
    }

    /// Takes note of a batch whose rows are known if it holds readings that were erased.
    fn look(&mut self, stream: &Stream, bounds: Bounds, decoded: &Decoded, gathered: &mut Gathered) {
        if let (Decoded::Good(batch), Some((_, known))) = (decoded, &self.erasures)
            && let Some(ids) = known.of_batch(&batch.rows)
        {
            gathered.doomed.push((stream.clone(), bounds, ids));
        }
        self.compared.insert(Landed::Batch(stream.1, bounds).key(&stream.0));
        gathered.compared = true;
    }

    async fn refuse(
        &self,
        stream: &Stream,
        bounds: Bounds,
        reason: &str,
        gathered: &mut Gathered,
    ) -> Result<(), IngestError> {
        let key = Landed::Batch(stream.1, bounds).key(&stream.0);
        // What is refused is not taken: others may have had these numbers.
        gathered.doomed.retain(|(of, numbers, _)| of != stream || *numbers != bounds);
        if self.holds_erased(stream, bounds).await? {
            tracing::warn!(%key, reason, "a batch is refused and holds readings that were erased: it is removed");
            crate::vacuum::remove(&self.lake, vec![key]).await?;
        } else {
            tracing::warn!(%key, reason, "a batch goes to quarantine");
            quarantine(&self.lake, &key, reason).await?;
        }
        gathered.quarantined.push((stream.clone(), bounds));
        Ok(())
    }

    /// Whether a batch that is refused holds readings that were erased, so that it may not be kept.
    async fn holds_erased(&self, stream: &Stream, bounds: Bounds) -> Result<bool, IngestError> {
        let Some((_, known)) = self.erasures.as_ref().filter(|(_, known)| !known.is_empty()) else { return Ok(false) };
        let read = landed::read(&self.lake, stream, bounds).await?;
        let Decoded::Good(batch) = read.decoded(stream, bounds).await else { return Ok(false) };
        Ok(known.count(&batch.rows) > 0)
    }

    /// The units of a batch's sensors, as far as its configuration says them; none where that is not in the store. It
    /// is asked for again by each batch then, until it comes.
    async fn units_of(&mut self, batch: &Batch) -> Result<Option<Units>, IngestError> {
        let Some(sha256) = batch.header.named_configuration() else { return Ok(Some(Units::new())) };
        self.units_at(&Landed::Configuration(sha256.to_owned()).key(&batch.header.source)).await
    }

    /// The units that a configuration says; none where it is not in the store.
    pub(super) async fn units_at(&mut self, key: &Path) -> Result<Option<Units>, IngestError> {
        if let Some(units) = self.units.get(key) {
            return Ok(Some(units.clone()));
        }
        let text = match self.lake.objects().get(key).await {
            Ok(found) => found.bytes().await.map_err(|source| LakeError::store(key, source))?,
            Err(Error::NotFound { .. }) => {
                if self.missing.insert(key.clone()) {
                    tracing::warn!(%key, "the configuration that a batch names is not there: its units are held against the register's once it is; hint: restart its gateway, which uploads it");
                }
                return Ok(None);
            }
            Err(source) => return Err(LakeError::store(key, source).into()),
        };
        let text = String::from_utf8_lossy(&text);
        let units = units(&text).unwrap_or_else(|error| {
            tracing::warn!(%key, error, "a configuration that batches name is no TOML: their units are not checked");
            Units::new()
        });
        if self.missing.remove(key) {
            tracing::info!(%key, "a configuration that was missing is there");
        }
        self.units.insert(key.clone(), units.clone());
        Ok(Some(units))
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
