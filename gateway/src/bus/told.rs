//! What a bus says in the log, for tests that count its lines.

use std::io;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// A second listener, beside that of a test. Of a single one `tracing` asks only the thread that comes to a line of code
/// first, and takes its answer for that of all threads (tracing-core 0.1.36, `callsite::dispatchers`): a line that another
/// test wrote first, with nobody listening, would be missing here.
static BESIDE: LazyLock<tracing::Dispatch> =
    LazyLock::new(|| tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default()));

/// What was said, as it would stand in the log.
#[derive(Clone, Default)]
pub(super) struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// What is said on this thread from now on, as long as the guard lives.
    pub(super) fn listen() -> (Self, tracing::subscriber::DefaultGuard) {
        LazyLock::force(&BESIDE);
        let log = Self::default();
        let writer = log.clone();
        let told = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        (log, tracing::subscriber::set_default(told))
    }

    pub(super) fn lines(&self) -> Vec<String> {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).lines().map(ToOwned::to_owned).collect()
    }

    /// How many lines hold this text.
    pub(super) fn count(&self, text: &str) -> usize {
        self.lines().iter().filter(|line| line.contains(text)).count()
    }
}
