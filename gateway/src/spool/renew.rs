//! How an epoch ends and the next begins.
//!
//! Three ways:
//! - **Left behind**: after a long outage what was sealed drains under the old epoch, and what comes from
//!   now on goes first, under the new one. The `closed` file of the old one is written once the new one
//!   is on disk: a power cut in between finds either an open epoch, or a former one that recovery closes.
//! - **Finished**: the epoch's numbers can no longer be trusted to grow (a damaged segment). What is on
//!   disk is sealed under the old epoch and sent as that; a `closed` file follows it.
//! - **Renewed**: this folder is a copy of another one (a clone, a restored image), which uses the same
//!   numbers. What was not sent is numbered anew under a new epoch, and the old one is left to whoever
//!   goes on with it: it is not closed, since its last number is not ours to know.
//!
//! In each one header is the turning point: that of the new epoch's first segment. Before it is on
//! disk everything is as it was; after it, the old epoch's segments do not count, and where the header
//! names a replaced epoch, neither do that epoch's sealed files.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use tjern_readings::batch;
use tjern_readings::keys::Bounds;
use tjern_readings::reading::Reading;
use tjern_readings::sensor::Epoch;

use super::core::{Core, count, encode};
use super::sealed::{self, SealedKind, SealedObject};

impl Core {
    /// Begins a new epoch for everything that was not sent, but for the readings that the lake has under
    /// their numbers. Says whether that worked; if not, nothing has changed.
    pub(crate) fn renew(&mut self, landed: &HashMap<i64, Reading>) -> bool {
        if self.log.undecided {
            // Nothing was offered, so the caller cannot know what the lake has of it.
            self.seal();
            return false;
        }
        let renewed = self.seal() && {
            let result = self.take_over(landed);
            if let Err(error) = &result {
                self.sealing.begins(error, "the spool cannot begin a new epoch");
            }
            result.is_ok()
        };
        renewed && self.complete_renewal().is_ok()
    }

    fn take_over(&mut self, landed: &HashMap<i64, Reading>) -> io::Result<()> {
        let (former, epoch) = (self.log.epoch, Epoch::random());
        let folder = sealed::renewing_folder(epoch);
        let (ours, others): (Vec<_>, Vec<_>) =
            self.shelf.objects.iter().cloned().partition(|object| object.epoch == former);
        let mut renewed = Vec::new();
        for object in &ours {
            let last = renewed.last().map_or(0, |object: &SealedObject| object.bounds.last);
            renewed.extend(self.renumber(object, (epoch, last + 1), &folder, landed)?);
        }
        let last = renewed.last().map_or(0, |object| object.bounds.last);
        self.log.begin_epoch(epoch, Some(former), last, &self.known, self.measured.at(self.synced_seq + 1))?;
        self.measured.renumber(self.synced_seq, last);
        tracing::warn!(%former, %epoch, objects = renewed.len(), "the spool began a new epoch; what was not sent has new numbers");
        (self.synced_seq, self.sealed_to, self.claim) = (last, last, None);
        self.takeover_due = true;
        self.shelf.objects = others.into_iter().chain(renewed).collect();
        Ok(())
    }

    /// Writes an object again with numbers from `first_seq` on. A file that cannot be read becomes a gap.
    fn renumber(
        &self,
        object: &SealedObject,
        (epoch, first_seq): (Epoch, i64),
        folder: &Path,
        landed: &HashMap<i64, Reading>,
    ) -> io::Result<Vec<SealedObject>> {
        let bytes = match self.disk.read(&object.path()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            bytes => bytes?,
        };
        let decoded = match object.kind {
            SealedKind::Batch => {
                let decoded = batch::decode(&bytes);
                decoded.and_then(|batch| batch.readings().map(|readings| (readings, batch.header.configuration))).ok()
            }
            SealedKind::Gap | SealedKind::Closed => None,
        };
        let mut renewed = Vec::new();
        let mut put = |bounds, kind, bytes: &[u8]| {
            sealed::write(&*self.disk, folder, &sealed::file_name(kind, bounds), bytes)?;
            renewed.push(SealedObject { epoch, bounds, kind, length: bytes.len() as u64 });
            io::Result::Ok(())
        };
        let Some((mut readings, configuration)) = decoded else {
            let bounds = Bounds { first: first_seq, last: first_seq + object.bounds.count() - 1 };
            put(bounds, SealedKind::Gap, sealed::gap_text(bounds, "renewed", self.clock.now_us()).as_bytes())?;
            return Ok(renewed);
        };
        let mut numbers = object.bounds.first..;
        readings.retain(|reading| numbers.next().and_then(|seq| landed.get(&seq)) != Some(reading));
        let (mut first, mut rest) = (first_seq, readings.as_slice());
        while !rest.is_empty() {
            let (rows, bytes) = encode((&self.settings.source, configuration.as_deref()), epoch, first, rest)?;
            put(Bounds { first, last: first + count(rows) - 1 }, SealedKind::Batch, &bytes)?;
            (first, rest) = (first + count(rows), &rest[rows..]);
        }
        Ok(renewed)
    }

    /// Gives the folder of a takeover its name, and removes that of the replaced epoch for good: the next
    /// takeover's header will not name it again.
    pub(crate) fn complete_renewal(&mut self) -> io::Result<()> {
        if !self.takeover_due {
            return Ok(());
        }
        let gathered = sealed::renewing_folder(self.log.epoch);
        if !self.disk.list(&gathered)?.is_empty() {
            self.disk.rename(&gathered, &sealed::folder(self.log.epoch))?;
        }
        if let Some(replaced) = self.log.replaced {
            self.disk.remove_folder(&sealed::folder(replaced))?;
        }
        self.disk.create_folder(Path::new(sealed::SEALED))?;
        self.disk.sync_folder(Path::new(sealed::SEALED))?;
        self.takeover_due = false;
        Ok(())
    }

    /// Ends the epoch after what it has on disk, and begins a new one.
    pub(crate) fn finish_epoch(&mut self) -> io::Result<()> {
        self.seal_pieces()?;
        let former = self.log.epoch;
        self.close_epoch(former)?;
        self.log.begin_epoch(Epoch::random(), None, 0, &self.known, self.measured.at(self.synced_seq + 1))?;
        self.measured.renumber(self.synced_seq, 0);
        tracing::warn!(%former, epoch = %self.log.epoch, "the spool began a new epoch after damage");
        (self.synced_seq, self.sealed_to, self.claim) = (0, 0, None);
        self.finish_due = false;
        self.forget_damaged();
        Ok(())
    }

    /// Seals everything under this epoch, and begins a new one for what comes from now on. Says whether
    /// that worked; if not, all goes on under the old one.
    pub(crate) fn begin_live_epoch(&mut self) -> bool {
        if self.log.undecided || self.finish_due || !self.seal() || self.takeover_due {
            return false;
        }
        let (former, last) = (self.log.epoch, self.sealed_to);
        let configuration = self.measured.at(self.synced_seq + 1);
        if let Err(error) = self.log.begin_epoch(Epoch::random(), None, 0, &self.known, configuration) {
            self.sealing.begins(&error, "the spool cannot begin a new epoch");
            return false;
        }
        self.measured.renumber(self.synced_seq, 0);
        tracing::info!(%former, epoch = %self.log.epoch, "the spool began a new epoch; what waits drains under the former one");
        (self.synced_seq, self.sealed_to, self.attempted) = (0, 0, None);
        if last > 0
            && let Err(error) = self.close_epoch_at(former, last)
        {
            tracing::warn!(epoch = %former, %error, "cannot write that an epoch is finished; this is tried again");
            self.close_due.push((former, last));
        }
        true
    }

    /// The same, unless this run has given out numbers of an epoch that an earlier one began.
    pub(crate) fn begin_live_epoch_if_unused(&mut self) -> bool {
        let is_used = |core: &Self| {
            let claim = core.claim.filter(|claim| claim.epoch == core.log.epoch);
            claim.is_some_and(|claim| core.synced_seq >= claim.first_seq)
        };
        self.seal() && !is_used(self) && self.begin_live_epoch()
    }

    /// Writes the word that an epoch is finished, where the shelf has anything of it.
    pub(crate) fn close_epoch(&mut self, epoch: Epoch) -> io::Result<()> {
        let Some(last) = self.shelf.last_of(epoch) else { return Ok(()) };
        if self.shelf.of(epoch).any(|object| object.kind == SealedKind::Closed) {
            return Ok(());
        }
        self.close_epoch_at(epoch, last)
    }

    /// Writes the words that are still due; what was written is due no longer, also where a later one fails.
    pub(crate) fn close_due_epochs(&mut self) -> io::Result<()> {
        while let Some(&(epoch, last)) = self.close_due.first() {
            self.close_epoch_at(epoch, last)?;
            self.close_due.remove(0);
        }
        Ok(())
    }

    fn close_epoch_at(&mut self, epoch: Epoch, last: i64) -> io::Result<()> {
        let bounds = Bounds { first: last, last };
        self.shelf.add(epoch, bounds, SealedKind::Closed, &sealed::closed_text(last))?;
        // Behind the epoch's files, and before those of other epochs: the order of sending.
        self.shelf.objects.make_contiguous().sort_by_key(|object| object.epoch == self.log.epoch);
        Ok(())
    }

    /// Removes damaged segments, of which a copy is kept.
    pub(crate) fn forget_damaged(&mut self) {
        let active = self.log.active.as_ref().map(|segment| segment.path.clone());
        for path in std::mem::take(&mut self.damaged_segments) {
            if Some(&path) != active.as_ref() {
                drop(self.disk.remove(&path));
            }
        }
    }
}
