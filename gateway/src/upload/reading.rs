//! Files of credentials are read on threads of their own: one for each file, for as long as the process lives, however often and by
//! whom it is asked.
//!
//! A disk on a server that is gone holds whoever reads from it, and nobody can end that. Uploaders come and go with each reload, so that
//! what is under way is known here and not to them. What was read is handed to those who wait, and kept nowhere.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use tjern_readings::store::credentials::CredentialsError;
use tokio::sync::watch;

use super::credentials::Said;

/// What a file says, or why that is not known.
pub(super) type Answer = Result<Said, Arc<CredentialsError>>;

/// A file that is being read.
type UnderWay = watch::Receiver<Option<Answer>>;

static UNDER_WAY: LazyLock<Mutex<HashMap<PathBuf, UnderWay>>> = LazyLock::new(Mutex::default);

/// What a file says; nothing where the process ends meanwhile. Whoever gives it up and asks again waits for the same reading.
pub(super) async fn said(path: &Path) -> Option<Answer> {
    said_by(path, Said::by).await
}

async fn said_by(
    path: &Path,
    read: impl FnOnce(&Path) -> Result<Said, CredentialsError> + Send + 'static,
) -> Option<Answer> {
    let mut answer = begun(path, read);
    answer.wait_for(Option::is_some).await.ok()?.clone()
}

/// The reading that is under way; it is begun where none is.
fn begun(path: &Path, read: impl FnOnce(&Path) -> Result<Said, CredentialsError> + Send + 'static) -> UnderWay {
    let mut under_way = locked();
    // One whose runtime ended before it began answers nobody.
    if let Some(one) = under_way.get(path).filter(|one| one.has_changed().is_ok()) {
        return one.clone();
    }
    let (say, answer) = watch::channel(None);
    under_way.insert(path.to_owned(), answer.clone());
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || {
        let said = read(&path).map_err(Arc::new);
        // Whoever asks from now on wants to know what it says then.
        locked().remove(&path);
        say.send_replace(Some(said));
    });
    answer
}

/// Held for a few instructions, none of which can panic half-way.
fn locked() -> MutexGuard<'static, HashMap<PathBuf, UnderWay>> {
    UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc;

    use futures::poll;

    use super::*;

    /// Each reload, and each look whether the file had changed, left a thread behind on a disk that did not answer.
    #[tokio::test]
    async fn however_often_it_is_asked_a_silent_file_holds_one_thread() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lake.env");
        let begun = Arc::new(AtomicU32::new(0));
        let silent = || {
            let (release, held) = mpsc::channel::<()>();
            let begun = Arc::clone(&begun);
            let read = move |path: &Path| {
                begun.fetch_add(1, Ordering::Relaxed);
                let _ = held.recv();
                Said::by(path)
            };
            (release, read)
        };
        let (releases, mut asking): (Vec<_>, Vec<_>) = (0..5)
            .map(|_| {
                let (release, read) = silent();
                (release, Box::pin(said_by(&path, read)))
            })
            .unzip();
        for ask in &mut asking {
            assert!(poll!(ask).is_pending());
        }
        // All but the last give it up.
        let last = asking.pop().expect("five");
        drop(asking);
        std::fs::write(&path, "AWS_REGION=x\n").expect("written");
        drop(releases);
        let answer = last.await.expect("an answer").expect("read");
        assert_eq!((answer.text.as_str(), begun.load(Ordering::Relaxed)), ("AWS_REGION=x\n", 1));
        std::fs::write(&path, "AWS_REGION=y\n").expect("written");
        let anew = said(&path).await.expect("an answer").expect("read");
        assert_eq!(anew.text, "AWS_REGION=y\n", "nothing is kept");
    }
}
