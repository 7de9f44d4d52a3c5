//! Readings from memory to the log: written as records, synced, and within the bounds on the segments and on memory.

use std::io;

use tjern_readings::rows::Rows;

use super::super::locked;
use super::super::record;
use super::super::sealed::{SealedKind, SealedObject};
use super::{Core, Piece, UNSEALED_MAX, count};

/// Records are written together up to about so many bytes.
const WRITE_BYTES: usize = 32 << 10;

impl Core {
    pub(super) fn try_writing(&mut self) -> bool {
        let result = self.write_pending();
        self.or_leave_segment(result).is_ok()
    }

    pub(super) fn try_committing(&mut self) -> bool {
        let result = self.commit();
        self.or_leave_segment(result).is_ok()
    }

    /// After an error nothing is known of what was not synced: it is written anew, elsewhere.
    pub(super) fn or_leave_segment(&mut self, result: io::Result<()>) -> io::Result<()> {
        if let Err(error) = &result {
            self.log.leave(self.synced_seq);
            self.written = 0;
            self.writing.begins(error, "the spool cannot write; readings wait in memory");
        }
        result
    }

    fn write_pending(&mut self) -> io::Result<()> {
        self.recover_if_due()?;
        self.hold_folder()?;
        if self.finish_due {
            self.finish_epoch()?;
        }
        while self.written < self.pending.len() {
            if self.write_records()? == 0 {
                self.begin_segment()?;
            }
        }
        Ok(())
    }

    /// Makes sure that the folder's name leads to the one that is held. Where that is another now, and certain to be right, all that no
    /// sealed file has is written to it anew, under its numbers.
    pub(super) fn hold_folder(&mut self) -> io::Result<()> {
        let Err(away) = self.disk.check() else { return Ok(()) };
        if self.recovery_due.is_some() {
            return Err(away);
        }
        self.disk.regain(&|seen| self.log.whose(seen))?;
        tracing::warn!(
            "the spool's folder was another, or deleted: its log goes on in the one that has the name now; hint: batches that are not in it are told to the lake as gaps"
        );
        self.log.leave(self.synced_seq);
        self.written = 0;
        self.complete_renewal()?;
        self.seal_pieces()?;
        self.begin_segment()
    }

    /// Writes as many records as one write takes and the segment has room for, and says how many readings they hold.
    fn write_records(&mut self) -> io::Result<usize> {
        let mut rest = self.pending.spans();
        rest.advance(self.written);
        let (mut records, mut taken) = (Vec::with_capacity(room_bytes(rest.len())), 0);
        let next_seq = self.synced_seq + 1 + count(self.written);
        let (configuration, alike) = (self.measured.at(next_seq).map(str::to_owned), self.measured.alike(next_seq));
        if self.log.configuration != configuration {
            records.extend(record::encode_configuration(next_seq, configuration.as_deref()));
        }
        let mut rest = rest.first(alike);
        let mut known = locked(&self.known);
        while !rest.is_empty() && records.len() < WRITE_BYTES {
            let (whole, first_seq) = (records.len(), self.synced_seq + 1 + count(self.written + taken));
            let more = record::encode_next(&mut records, first_seq, &mut rest, &mut known);
            if !self.log.has_room(records.len()) {
                records.truncate(whole);
                break;
            }
            taken += more;
        }
        drop(known);
        if taken > 0 {
            self.log.write(&records)?;
            self.log.configuration = configuration;
            self.written += taken;
        }
        Ok(taken)
    }

    /// Syncs what was written; from then on it counts.
    fn commit(&mut self) -> io::Result<()> {
        if self.written == 0 {
            return Ok(());
        }
        self.log.sync()?;
        let first_seq = self.synced_seq + 1;
        self.synced_seq += count(self.written);
        let synced = self.pending.take_first(self.written);
        self.written = 0;
        locked(&self.known).note_all_synced(synced.spans());
        self.confirms.answer(self.pending.len());
        self.add_unsealed(first_seq, synced);
        Ok(())
    }

    /// What is on disk, numbered from `first_seq` on, waits for sealing.
    pub(crate) fn add_unsealed(&mut self, first_seq: i64, more: Rows) {
        match self.unsealed.back_mut() {
            Some(Piece::Readings { readings, .. }) => readings.append(more),
            _ => self.unsealed.push_back(Piece::Readings { first_seq, readings: more }),
        }
    }

    /// Begins the next segment, within the bound on the whole spool.
    pub(crate) fn begin_segment(&mut self) -> io::Result<()> {
        if self.finish_due {
            return self.finish_epoch();
        }
        self.commit()?;
        if self.unsealed_rows() >= UNSEALED_MAX {
            return Err(io::Error::other("too many readings wait for sealing, which fails"));
        }
        // The next segment says what is sealed, which frees those that hold nothing else: for that the bound may
        // be passed for a moment.
        let freed = self.log.freed_by_next(self.synced_seq, self.sealed_to);
        let length = self.log.next_length(&mut locked(&self.known));
        if !self.make_room(length, freed)? && self.log.marked_to == self.sealed_to {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "the spool has reached its `max_bytes`"));
        }
        let configuration = self.measured.at(self.synced_seq + 1);
        self.log.begin_segment(self.synced_seq + 1, self.sealed_to, &self.known, configuration)?;
        self.log.remove_sealed();
        Ok(())
    }

    /// Drops the oldest sealed batches until so many bytes fit once others are freed. Says whether they do.
    pub(super) fn make_room(&mut self, bytes: u64, freed: u64) -> io::Result<bool> {
        while self.log.bytes() - freed + self.shelf.bytes() + bytes > self.settings.max_bytes {
            if let Some(withdrawn) = self.shelf.drop_withdrawn()? {
                self.dropped_batches += u64::from(withdrawn.kind == SealedKind::Batch);
                if withdrawn.kind == SealedKind::Batch {
                    self.dropped_readings += withdrawn.bounds.count().unsigned_abs();
                }
                tracing::error!(path = %withdrawn.path().display(), "the spool is full: what the lake has no place for was dropped");
                continue;
            }
            let is_batch = |object: &&SealedObject| object.kind == SealedKind::Batch;
            let oldest = self.shelf.offered(self.log.epoch, self.log.marked_to).find(is_batch).cloned();
            let Some(batch) = oldest else { return Ok(false) };
            self.shelf.replace_with_gap(&batch, "spool_full", self.clock.now_us())?;
            self.dropped_batches += 1;
            self.dropped_readings += batch.bounds.count().unsigned_abs();
            tracing::error!(bounds = %batch.bounds, "the spool is full: its oldest batch was dropped, a gap says so; hint: raise `max_bytes`, or look why nothing is uploaded");
        }
        Ok(true)
    }

    pub(super) fn forget_oldest(&mut self) {
        let surplus = (self.pending.len() - self.written).saturating_sub(self.pending_max);
        if surplus > 0 {
            if self.dropped_from_memory == 0 {
                let max = self.pending_max;
                tracing::error!(
                    max,
                    "memory is full too while the disk refuses readings: the oldest are lost from now on; hint: free the disk, or replace it"
                );
            }
            let written = self.pending.take_first(self.written);
            drop(self.pending.take_first(surplus));
            let kept = std::mem::replace(&mut self.pending, written);
            self.pending.append(kept);
            self.measured.lose(self.synced_seq + count(self.written), surplus);
            self.confirms.lose();
            self.dropped_readings += surplus as u64;
            self.dropped_from_memory += surplus as u64;
        }
    }
}

/// About what the records of so many readings take, and one write at most.
const fn room_bytes(readings: usize) -> usize {
    let (bytes, most) = (readings * 16 + 64, WRITE_BYTES + record::READINGS_MAX * 16);
    if bytes < most { bytes } else { most }
}
