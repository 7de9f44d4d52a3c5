//! The configurations that batches name and the lake may not have: the one in force, and, after reloads while
//! the lake was away, those before it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Somebody who reloads more often than this while the lake is away loses the oldest texts; no reading.
const UNSENT_MAX: usize = 32;

/// Hashes and texts, shared by an uploader and its successors.
#[derive(Debug, Clone, Default)]
pub struct Unsent(Arc<Mutex<Vec<(String, String)>>>);

impl Unsent {
    /// A configuration that batches will name.
    pub(super) fn add(&self, sha256: &str, text: &str) {
        let mut unsent = self.lock();
        if unsent.iter().any(|(known, _)| known == sha256) {
            return;
        }
        if unsent.len() == UNSENT_MAX {
            unsent.remove(0);
        }
        unsent.push((sha256.to_owned(), text.to_owned()));
    }

    /// What is to be sent, oldest first.
    pub(super) fn all(&self) -> Vec<(String, String)> {
        self.lock().clone()
    }

    /// The lake has it.
    pub(super) fn sent(&self, sha256: &str) {
        self.lock().retain(|(known, _)| known != sha256);
    }

    /// Held for a few instructions, none of which can panic half-way.
    fn lock(&self) -> MutexGuard<'_, Vec<(String, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_from_before_a_reload_is_sent_too() {
        let unsent = Unsent::default();
        unsent.add("a", "first");
        unsent.clone().add("b", "second");
        unsent.add("b", "second");
        assert_eq!(unsent.all().len(), 2);
        unsent.sent("a");
        assert_eq!(unsent.all(), [("b".to_owned(), "second".to_owned())]);
        (0..100).for_each(|number| unsent.add(&number.to_string(), ""));
        assert_eq!(unsent.all().len(), UNSENT_MAX);
    }
}
