//! One step: a batch becomes rows of the next commit, is found to be known already, or is refused. What a step brings is gathered;
//! the table is only asked.

use tjern_readings::batch::Batch;
use tjern_readings::keys::{Bounds, Landed};

use super::{Ingester, Prepared};
use crate::erase::Erasures;
use crate::ingest::gathered::Gathered;
use crate::ingest::landed::{self, Decoded};
use crate::ingest::landing::Stream;
use crate::ingest::progress::{self, Open};
use crate::ingest::refused::Why;
use crate::ingest::rows::{self, Came, Rows, Units};
use crate::ingest::sequence::Step;
use crate::ingest::{IngestError, apart, stored};
use crate::quality::QualityError;
use crate::quarantine::quarantine;
use crate::register::{Register, Said};

impl Ingester {
    /// Does a step. Returns whether its stream's next one may follow.
    pub(super) async fn step(
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
                gathered.add(&stream, rows);
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
}
