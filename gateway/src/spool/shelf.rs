//! The shelf: the sealed files that wait, oldest first, and what they take of the disk.
//!
//! An object is *offered* to the lake only once the log says on disk that its numbers are sealed. Before
//! that it must stay: it alone says so.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use tjern_readings::keys::Bounds;
use tjern_readings::sensor::Epoch;

use super::disk::Disk;
use super::sealed::{self, SealedKind, SealedObject};

/// The sealed files of all epochs, the current one's last.
#[derive(Debug)]
pub(crate) struct Shelf {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) objects: VecDeque<SealedObject>,
    /// Batches beside which a gap may lie that was not finished.
    pub(crate) half_dropped: Vec<SealedObject>,
    /// Files for which the lake has no place, and `kept` neither: none of them is offered.
    pub(crate) withdrawn: Vec<SealedObject>,
}

impl Shelf {
    /// The space that the files take.
    pub(crate) fn bytes(&self) -> u64 {
        self.objects.iter().chain(&self.withdrawn).map(|object| object.length).sum()
    }

    /// Writes a file, on disk when this returns.
    pub(crate) fn add(&mut self, epoch: Epoch, bounds: Bounds, kind: SealedKind, bytes: &[u8]) -> io::Result<()> {
        sealed::write(&*self.disk, &sealed::folder(epoch), &sealed::file_name(kind, bounds), bytes)?;
        self.objects.push_back(SealedObject { epoch, bounds, kind, length: bytes.len() as u64 });
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
        if let Err(error) = self.forget_half_drop(object).and_then(|()| self.disk.remove(&object.path())) {
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

    /// The gap must be gone for good before its batch is: alone it would be sent at the next start.
    fn forget_half_drop(&mut self, object: &SealedObject) -> io::Result<()> {
        if let Some(place) = self.half_dropped.iter().position(|kept| kept == object) {
            let folder = sealed::folder(object.epoch);
            self.disk.remove(&folder.join(sealed::file_name(SealedKind::Gap, object.bounds)))?;
            self.disk.sync_folder(&folder)?;
            self.half_dropped.remove(place);
        }
        Ok(())
    }

    /// Puts a gap in the place of a batch.
    pub(crate) fn replace_with_gap(&mut self, object: &SealedObject, reason: &str, time_us: i64) -> io::Result<()> {
        let Some(place) = self.objects.iter().position(|kept| kept == object) else { return Ok(()) };
        let text = sealed::gap_text(object.bounds, reason, time_us);
        let folder = sealed::folder(object.epoch);
        if !self.half_dropped.contains(object) {
            self.half_dropped.push(object.clone());
        }
        sealed::write(&*self.disk, &folder, &sealed::file_name(SealedKind::Gap, object.bounds), text.as_bytes())?;
        self.disk.remove(&object.path())?;
        self.disk.sync_folder(&folder)?;
        let gap = SealedObject { kind: SealedKind::Gap, length: text.len() as u64, ..object.clone() };
        self.objects[place] = gap;
        self.half_dropped.retain(|kept| kept != object);
        Ok(())
    }
}
