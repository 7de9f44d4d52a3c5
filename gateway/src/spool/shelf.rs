//! The shelf: the sealed files that wait, oldest first, and what they take of the disk.
//!
//! An object is *offered* to the lake only once the log says on disk that its numbers are sealed. Before
//! that it must stay: it alone says so.
//!
//! A gap takes the place of a batch; past [`GAPS_MAX`] of them it takes that of the gap before it too, so that an outage
//! of years leaves no more files than one of days. On disk, each step synced: the gap is written, the batch goes, the
//! narrower gap goes. A file that is on disk and does not count (a gap that was not finished, a narrower one that could
//! not be removed) is *stale*: whatever has numbers in common with it leaves only once it is gone for good, since alone it
//! would be sent at the next start.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use tjern_readings::keys::Bounds;
use tjern_readings::sensor::Epoch;

use super::disk::{BLOCK_BYTES, Disk};
use super::sealed::{self, SealedKind, SealedObject};

/// So many gaps of an epoch wait side by side; the newest of them grows from then on. The oldest ones, which may be on
/// their way to the lake, stay as they are.
pub(crate) const GAPS_MAX: usize = 64;

/// The sealed files of all epochs, the current one's last.
#[derive(Debug)]
pub(crate) struct Shelf {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) objects: VecDeque<SealedObject>,
    /// Gaps on disk that do not count.
    pub(crate) stale: Vec<SealedObject>,
    /// Files for which the lake has no place, and `kept` neither: none of them is offered.
    pub(crate) withdrawn: Vec<SealedObject>,
    /// [`GAPS_MAX`], but for tests.
    pub(crate) gaps_max: usize,
}

/// What a file of so many bytes takes of a disk: whole blocks.
pub(crate) const fn on_disk(length: u64) -> u64 {
    length.next_multiple_of(BLOCK_BYTES)
}

impl Shelf {
    /// The space that the files take.
    pub(crate) fn bytes(&self) -> u64 {
        self.objects.iter().chain(&self.withdrawn).map(|object| on_disk(object.length)).sum()
    }

    /// Writes a file, on disk when this returns.
    pub(crate) fn add(&mut self, epoch: Epoch, bounds: Bounds, kind: SealedKind, bytes: &[u8]) -> io::Result<()> {
        sealed::write(&*self.disk, &sealed::folder(epoch), &sealed::file_name(kind, bounds), bytes)?;
        self.objects.push_back(SealedObject { epoch, bounds, kind, length: bytes.len() as u64 });
        Ok(())
    }

    /// Writes a gap, or the word that an epoch is finished, again, where its file is missing: what it says is known.
    pub(crate) fn write_again(&mut self, object: &SealedObject, bytes: &[u8]) -> io::Result<()> {
        sealed::write(
            &*self.disk,
            &sealed::folder(object.epoch),
            &sealed::file_name(object.kind, object.bounds),
            bytes,
        )?;
        let known = self.objects.iter_mut().filter(|known| *known == object);
        known.for_each(|known| known.length = bytes.len() as u64);
        Ok(())
    }

    /// What waits of an epoch.
    pub(crate) fn of(&self, epoch: Epoch) -> impl Iterator<Item = &SealedObject> {
        self.objects.iter().filter(move |object| object.epoch == epoch)
    }

    /// The last number of an epoch that waits.
    pub(crate) fn last_of(&self, epoch: Epoch) -> Option<i64> {
        self.of(epoch).map(|object| object.bounds.last).max()
    }

    /// What may go to the lake, oldest first.
    pub(crate) fn offered(&self, epoch: Epoch, marked_to: i64) -> impl Iterator<Item = &SealedObject> {
        self.objects.iter().filter(move |object| object.epoch != epoch || object.bounds.last <= marked_to)
    }

    /// Takes an object away that the lake has. A file that cannot be removed is found again at the next
    /// start, compared with the lake's, and taken away then.
    pub(crate) fn remove(&mut self, object: &SealedObject) {
        let Some(place) = self.objects.iter().position(|kept| kept == object) else { return };
        self.objects.remove(place);
        if let Err(error) = self.forget_stale(object).and_then(|()| self.disk.remove(&object.path())) {
            tracing::warn!(path = %object.path().display(), %error, "cannot remove a sealed file that the lake has");
        }
    }

    /// Offers an object no longer, and leaves its file.
    pub(crate) fn withdraw(&mut self, object: &SealedObject) {
        if let Some(place) = self.objects.iter().position(|kept| kept == object) {
            self.withdrawn.extend(self.objects.remove(place));
        }
    }

    /// Removes the oldest file that is offered no longer; says which.
    pub(crate) fn drop_withdrawn(&mut self) -> io::Result<Option<SealedObject>> {
        let Some(oldest) = self.withdrawn.first() else { return Ok(None) };
        self.disk.remove(&oldest.path())?;
        Ok(Some(self.withdrawn.remove(0)))
    }

    /// Removes the files that do not count and have numbers in common with this one, for good.
    fn forget_stale(&mut self, object: &SealedObject) -> io::Result<()> {
        while let Some(place) = self.stale.iter().position(|stale| stale.overlaps(object)) {
            self.disk.remove(&self.stale[place].path())?;
            self.disk.sync_folder(&sealed::folder(object.epoch))?;
            self.stale.remove(place);
        }
        Ok(())
    }

    /// Puts a gap in the place of a batch.
    pub(crate) fn replace_with_gap(&mut self, object: &SealedObject, reason: &str, time_us: i64) -> io::Result<()> {
        let Some(place) = self.objects.iter().position(|kept| kept == object) else { return Ok(()) };
        self.forget_stale(object)?;
        let narrower = self.gap_to_widen(place, reason);
        let first = narrower.as_ref().map_or(object.bounds.first, |gap| gap.bounds.first);
        let bounds = Bounds { first, last: object.bounds.last };
        let text = sealed::gap_text(bounds, reason, time_us);
        let folder = sealed::folder(object.epoch);
        let gap = SealedObject { epoch: object.epoch, bounds, kind: SealedKind::Gap, length: text.len() as u64 };
        self.stale.push(gap.clone());
        sealed::write(&*self.disk, &folder, &sealed::file_name(SealedKind::Gap, bounds), text.as_bytes())?;
        self.disk.remove(&object.path())?;
        self.disk.sync_folder(&folder)?;
        self.stale.retain(|stale| *stale != gap);
        self.objects[place] = gap;
        if let Some(narrower) = narrower {
            self.objects.remove(place - 1);
            self.stale.push(narrower.clone());
            if let Err(error) = self.forget_stale(&narrower) {
                tracing::warn!(path = %narrower.path().display(), %error, "cannot remove a gap that a wider one tells; this is tried again");
            }
        }
        Ok(())
    }

    /// The gap before a place that takes its numbers along, where enough of them wait and it says the same.
    fn gap_to_widen(&self, place: usize, reason: &str) -> Option<SealedObject> {
        let object = &self.objects[place];
        let before = self.objects.get(place.checked_sub(1)?)?;
        let is_gap = |one: &&SealedObject| one.kind == SealedKind::Gap && one.epoch == object.epoch;
        let is_next = is_gap(&before) && before.bounds.last + 1 == object.bounds.first;
        let is_many = || self.objects.range(..place).filter(is_gap).count() >= self.gaps_max;
        let says_the_same = || {
            let text = sealed::read(&*self.disk, before).unwrap_or_default();
            sealed::gap_reason(&text).as_deref() == Some(reason)
        };
        (is_next && is_many() && says_the_same()).then(|| before.clone())
    }
}
