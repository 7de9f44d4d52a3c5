//! What is sealed, until it leaves: offered to the lake, taken away once it has it, or put aside.

use tjern_readings::batch;

use super::super::kept;
use super::super::sealed::{self, SealedKind, SealedObject};
use super::Core;

impl Core {
    /// What may go to the lake, oldest first.
    pub(crate) fn offered(&self) -> Vec<SealedObject> {
        if self.log.undecided {
            return Vec::new();
        }
        self.shelf.offered(self.log.epoch, self.log.marked_to).cloned().collect()
    }

    /// Takes an object away that the lake has. The last of an epoch that is still to be closed stays until the word of
    /// that is on disk: after the next start nobody would know of the epoch any more. Says whether it is away.
    pub(crate) fn remove(&mut self, object: &SealedObject) -> bool {
        let is_due = self.close_due.iter().any(|(epoch, _)| *epoch == object.epoch);
        if is_due && self.shelf.of(object.epoch).count() == 1 && self.close_due_epochs().is_err() {
            return false;
        }
        self.shelf.remove(object);
        true
    }

    /// Puts a gap in the place of a batch whose file is damaged, or missing in the spool's own folder.
    pub(crate) fn give_up(&mut self, object: &SealedObject) {
        if self.takeover_due || !self.shelf.objects.contains(object) {
            // The file may be well, and its folder not have its name yet; or it went to make room.
            return;
        }
        let damage = match sealed::read(&*self.disk, object) {
            Err(error) => error.to_string(),
            // What it says is not asked of it.
            Ok(_) if object.kind != SealedKind::Batch => return,
            Ok(bytes) => match batch::decode(&bytes) {
                // A disk that failed for a moment is none that lost the batch.
                Ok(_) => return,
                Err(error) => {
                    self.keep_damaged(object, &bytes);
                    error.to_string()
                }
            },
        };
        if let Err(away) = self.disk.check() {
            tracing::debug!(bounds = %object.bounds, error = %away, "whether a batch is damaged will be seen in the spool's folder");
            return;
        }
        let now_us = self.clock.now_us();
        let replaced = match object.kind {
            SealedKind::Batch => self.shelf.replace_with_gap(object, "damaged", now_us),
            SealedKind::Gap => {
                self.shelf.write_again(object, sealed::gap_text(object.bounds, "damaged", now_us).as_bytes())
            }
            SealedKind::Closed => self.shelf.write_again(object, &sealed::closed_text(object.bounds.last)),
        };
        match replaced {
            Ok(()) if object.kind == SealedKind::Batch => {
                tracing::error!(bounds = %object.bounds, error = damage, "a batch in the spool cannot be read: a gap has taken its place");
                self.bad_records += 1;
            }
            Ok(()) => {}
            Err(error) => self.sealing.begins(&error, "cannot put a gap in the place of a damaged batch"),
        }
    }

    fn keep_damaged(&self, object: &SealedObject, bytes: &[u8]) {
        if let Err(error) = kept::keep(&*self.disk, &self.kept_name(object), bytes) {
            tracing::warn!(bounds = %object.bounds, %error, "cannot keep a copy of a damaged batch");
        }
    }

    /// Takes an object off the shelf for which the lake has no place, once a copy is kept. Where none can be, the
    /// file stays where it is and is not offered again by this run: nothing waits for it, and it is the first to go
    /// when room is needed.
    pub(crate) fn set_aside(&mut self, object: &SealedObject) {
        if !self.shelf.objects.contains(object) || self.disk.check().is_err() {
            // Nothing is offered of a folder that is away: the lake is asked again once it is back.
            return;
        }
        self.set_aside_objects += 1;
        let bytes = sealed::read(&*self.disk, object);
        match bytes.and_then(|bytes| kept::keep(&*self.disk, &self.kept_name(object), &bytes)) {
            Ok(()) => self.shelf.remove(object),
            Err(error) => {
                tracing::error!(path = %object.path().display(), %error, "no copy of it can be kept: the file stays where it is, and the next start tries again");
                self.shelf.withdraw(object);
            }
        }
    }

    fn kept_name(&self, object: &SealedObject) -> String {
        format!("{}-{}", self.clock.now_us(), sealed::file_name(object.kind, object.bounds))
    }
}
