//! Something that is kept for the next time, and let go of when that does not come soon.
//!
//! Some devices answer one client only, and one that keeps an idle connection keeps all others out.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;

/// Keeps one thing; after `idle` it is dropped.
pub(super) struct Parked<T> {
    kept: Arc<Mutex<Option<T>>>,
    idle: Option<Duration>,
    timer: Option<AbortOnDropHandle<()>>,
}

impl<T> Drop for Parked<T> {
    /// Its timer ends a moment later, and would keep the thing until then from who opens it anew.
    fn drop(&mut self) {
        drop(self.kept.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl<T: Send + 'static> Parked<T> {
    /// Keeps nothing yet; without an idle time what it keeps stays for ever.
    pub(super) fn new(idle: Option<Duration>) -> Self {
        Self { kept: Arc::new(Mutex::new(None)), idle, timer: None }
    }

    fn lock(&self) -> MutexGuard<'_, Option<T>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_there(&self) -> bool {
        self.lock().is_some()
    }

    pub(super) fn take(&mut self) -> Option<T> {
        self.timer = None;
        self.lock().take()
    }

    pub(super) fn park(&mut self, thing: T) {
        *self.lock() = Some(thing);
        let Some(idle) = self.idle else { return };
        let kept = Arc::clone(&self.kept);
        self.timer = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            tokio::time::sleep(idle).await;
            drop(kept.lock().unwrap_or_else(PoisonError::into_inner).take());
        })));
    }
}

impl<T: Send + 'static> std::fmt::Debug for Parked<T> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(if self.is_there() { "Parked(something)" } else { "Parked(nothing)" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_not_asked_for_is_let_go_of() {
        let thing = Arc::new(());
        let mut parked = Parked::new(Some(Duration::from_millis(10)));
        parked.park(Arc::clone(&thing));
        let gone = async {
            while Arc::strong_count(&thing) > 1 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), gone).await.expect("let go of");
        assert_eq!((parked.is_there(), parked.take()), (false, None));
    }

    #[tokio::test]
    async fn what_is_kept_goes_with_who_keeps_it() {
        let thing = Arc::new(());
        let mut parked = Parked::new(Some(Duration::from_secs(3_600)));
        parked.park(Arc::clone(&thing));
        drop(parked);
        assert_eq!(Arc::strong_count(&thing), 1, "its timer keeps it");
    }

    #[tokio::test]
    async fn what_is_asked_for_in_time_is_there_and_has_no_timer_left() {
        let mut parked = Parked::new(Some(Duration::from_secs(3_600)));
        parked.park(7);
        assert_eq!((parked.take(), parked.timer.is_none()), (Some(7), true));
        let mut parked = Parked::new(None);
        parked.park(7);
        assert_eq!((parked.timer.is_none(), parked.take()), (true, Some(7)));
    }
}
