//! A run that is being written, on a thread of its own.
//!
//! The thread ends before whoever began it: also where the run is dropped, and nobody wants it any more.

use std::path::Path;
use std::thread::{Builder, JoinHandle};

use super::run::Run;
use super::sort::SortError;

/// What comes of a run.
type Written = Result<Run, SortError>;

/// A run that is being written.
pub(super) struct Spill(Option<JoinHandle<Written>>);

impl Spill {
    /// Begins to write.
    pub(super) fn begin(folder: &Path, write: impl FnOnce() -> Written + Send + 'static) -> Result<Self, SortError> {
        let thread = Builder::new().name("tjern-spill".to_owned()).spawn(write);
        // A system that has no thread left has no room for the run either.
        let thread = thread.map_err(|source| SortError::Spill { folder: folder.to_owned(), source })?;
        Ok(Self(Some(thread)))
    }

    /// Waits for the run. A panic goes on here.
    pub(super) fn end(mut self) -> Written {
        let thread = self.0.take().expect("it is there until it ends");
        thread.join().unwrap_or_else(|cause| std::panic::resume_unwind(cause))
    }
}

impl Drop for Spill {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            // Nobody wants the run, nor what became of it.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::channel;

    use super::*;

    fn gone() -> Written {
        Err(SortError::Spill { folder: "gone".into(), source: std::io::Error::other("full") })
    }

    /// Rows that could not be written and of which nobody heard would be missing from the files.
    #[test]
    fn an_error_and_a_panic_of_the_thread_reach_whoever_waits() {
        let error = Spill::begin(Path::new("."), gone).and_then(Spill::end).err().expect("it failed");
        assert!(error.to_string().contains("full"), "{error}");
        let spill = Spill::begin(Path::new("."), || panic!("it broke")).expect("begun");
        let cause = catch_unwind(AssertUnwindSafe(|| spill.end().is_ok())).expect_err("it panicked");
        assert_eq!(cause.downcast_ref::<&str>(), Some(&"it broke"));
    }

    /// A run that is stopped leaves no thread that still writes to the disk.
    #[test]
    fn whoever_drops_it_waits_for_its_thread() {
        let done = Arc::new(AtomicBool::new(false));
        let (go, wait) = channel::<()>();
        let told = Arc::clone(&done);
        let spill = Spill::begin(Path::new("."), move || {
            // Ends when the sender is dropped.
            let _ = wait.recv();
            told.store(true, Ordering::SeqCst);
            gone()
        });
        assert!(!done.load(Ordering::SeqCst));
        drop(go);
        drop(spill.expect("begun"));
        assert!(done.load(Ordering::SeqCst));
    }
}
