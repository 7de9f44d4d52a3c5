//! Objects of the spool of which something is known until they leave.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::spool::SealedObject;

/// A few objects: at most what fails at once, and what is kept from leaving.
#[derive(Debug, Default)]
pub(super) struct Noted(Mutex<Vec<SealedObject>>);

impl Noted {
    pub(super) fn add(&self, object: &SealedObject) {
        let mut noted = self.lock();
        if !noted.contains(object) {
            noted.push(object.clone());
        }
    }

    pub(super) fn has(&self, object: &SealedObject) -> bool {
        self.lock().contains(object)
    }

    /// Forgets what does not wait any more; returns what does.
    pub(super) fn keep(&self, waiting: &[SealedObject]) -> Vec<SealedObject> {
        let mut noted = self.lock();
        noted.retain(|object| waiting.contains(object));
        noted.clone()
    }

    /// Held for a few instructions, none of which can panic half-way.
    fn lock(&self) -> MutexGuard<'_, Vec<SealedObject>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
