//! What is on disk as batches: encoded, put on the shelf, and marked in the log, after which they may leave.

use std::io;

use tjern_readings::batch::{self, Encoder};
use tjern_readings::keys::Bounds;
use tjern_readings::reading::Reading;
use tjern_readings::rows::{Rows, Spans};
use tjern_readings::sensor::{Epoch, SourceName};

use super::super::record;
use super::super::sealed::{self, SealedKind};
use super::super::shelf::on_disk;
use super::{Core, Piece, SEAL_ROWS, count};

impl Core {
    pub(crate) fn seal_synced(&mut self) -> bool {
        if self.recovery_due.is_some() {
            return false;
        }
        let result = self
            .hold_folder()
            .and_then(|()| self.complete_renewal())
            .and_then(|()| self.seal_pieces())
            .and_then(|()| self.mark());
        let result = result.and_then(|()| self.close_due_epochs());
        match &result {
            Ok(()) => self.sealing.ends("the spool seals again"),
            Err(error) => self.sealing.begins(error, "the spool cannot seal a batch"),
        }
        result.is_ok()
    }

    /// Writes a sealed file for everything that is synced.
    pub(crate) fn seal_pieces(&mut self) -> io::Result<()> {
        while let Some(piece) = self.unsealed.pop_front() {
            let sealed = match &piece {
                Piece::Gap(bounds) => self.seal_gap(*bounds).map(|()| 0),
                Piece::Readings { first_seq, readings } => self.seal_rows(*first_seq, readings),
            };
            match (sealed, piece) {
                (Ok(_), Piece::Gap(_)) => {}
                (Ok(rows), Piece::Readings { first_seq, mut readings }) => {
                    drop(readings.take_first(rows));
                    if !readings.is_empty() {
                        self.unsealed.push_front(Piece::Readings { first_seq: first_seq + count(rows), readings });
                    }
                }
                (Err(error), piece) => {
                    self.unsealed.push_front(piece);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn seal_gap(&mut self, bounds: Bounds) -> io::Result<()> {
        let text = sealed::gap_text(bounds, "bad_record", self.clock.now_us());
        self.shelf.add(self.log.epoch, bounds, SealedKind::Gap, text.as_bytes())?;
        self.sealed_to = bounds.last;
        Ok(())
    }

    /// Seals the first rows, and says how many.
    fn seal_rows(&mut self, first_seq: i64, readings: &Rows) -> io::Result<usize> {
        let attempted = self.attempted.filter(|bounds| bounds.first == first_seq).map(|bounds| bounds.count());
        // What an earlier run left is sealed for itself: the same in each copy of this folder.
        let left = self.claim.filter(|claim| claim.epoch == self.log.epoch).map(|claim| claim.first_seq - first_seq);
        let left = left.filter(|rows| *rows > 0);
        let most = attempted.or(left).and_then(|rows| usize::try_from(rows).ok()).unwrap_or(readings.len());
        let readings = readings.spans().first(most.min(self.measured.alike(first_seq)));
        let (settings, epoch) = (&self.settings, self.log.epoch);
        let named = (&settings.source, self.measured.at(first_seq));
        let encoder = &mut self.encoder;
        let (rows, bytes) = encode_within(self.batch_bytes, named, epoch, first_seq, &readings, encoder)?;
        // Where nothing can go, sealing is what makes room in the end.
        self.make_room(on_disk(bytes.len() as u64), 0)?;
        let bounds = Bounds { first: first_seq, last: first_seq + count(rows) - 1 };
        self.attempted = Some(bounds);
        self.shelf.add(self.log.epoch, bounds, SealedKind::Batch, &bytes)?;
        if let Some(times_us) = readings.first(rows).times_us() {
            self.fresh.add(self.log.epoch, bounds, &bytes, times_us);
        }
        self.attempted = None;
        self.sealed_to = bounds.last;
        self.measured.forget(self.sealed_to);
        Ok(rows)
    }

    /// Says on disk what is sealed, after which it may leave.
    fn mark(&mut self) -> io::Result<()> {
        if self.log.marked_to < self.sealed_to || self.log.undecided {
            let marked = match self.log.has_room(record::SEALED_BYTES) {
                true => self.log.mark(self.synced_seq + 1 + count(self.written), self.sealed_to),
                false => self.begin_segment(),
            };
            self.or_leave_segment(marked)?;
        }
        self.log.remove_sealed();
        Ok(())
    }
}

/// Encodes as many of the first rows as one batch file may hold, with who sends them and what they were measured under.
pub(crate) fn encode(
    named: (&SourceName, Option<&str>),
    epoch: Epoch,
    first_seq: i64,
    readings: &[Reading],
) -> io::Result<(usize, Vec<u8>)> {
    encode_within(batch::SIZE_MAX, named, epoch, first_seq, &readings.into(), &mut Encoder::default())
}

/// Encodes as many of the first rows as a file of so many bytes may hold.
fn encode_within(
    bytes_max: u64,
    (source, configuration): (&SourceName, Option<&str>),
    epoch: Epoch,
    first_seq: i64,
    readings: &Spans<'_>,
    encoder: &mut Encoder,
) -> io::Result<(usize, Vec<u8>)> {
    let mut rows = readings.len().min(SEAL_ROWS);
    loop {
        let encoded = encoder.bytes(source, epoch, first_seq, readings.clone().first(rows), configuration);
        let bytes = encoded.map_err(io::Error::other)?;
        if bytes.len() as u64 <= bytes_max.min(batch::SIZE_MAX) || rows == 1 {
            return Ok((rows, Vec::from(bytes)));
        }
        rows /= 2;
    }
}
