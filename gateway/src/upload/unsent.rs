//! The configurations that batches name and the lake may not have: the one in force, and, after reloads and starts while
//! the lake was away, those before it.
//!
//! They lie in the spool's folder too, `configurations/<sha256>.toml`, without secrets, until the lake has them: readings that are
//! sealed after a power cut name the configuration that they were measured under, whatever the file says by then.
//! Limits: [`UNSENT_MAX`]. A disk that refuses one costs the text after a power cut, and no reading.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::warn;

use crate::spool::{Disk, Folder, replace};

/// Somebody who reloads more often than this while the lake is away loses the oldest texts; no reading.
const UNSENT_MAX: usize = 32;

/// Where they lie in the spool's folder.
const FOLDER: &str = "configurations";

/// What the name of each ends with.
const SUFFIX: &str = ".toml";

/// Hashes and texts, shared by an uploader and its successors.
#[derive(Debug, Clone, Default)]
pub struct Unsent {
    texts: Arc<Mutex<Vec<(String, String)>>>,
    /// The spool's folder, where they are kept.
    dir: Option<PathBuf>,
}

impl Unsent {
    /// Those that earlier runs left in a spool's folder. Blocks.
    pub(crate) fn kept_in(dir: &Path) -> Self {
        let unsent = Self { dir: Some(dir.to_owned()), ..Self::default() };
        match read(&Folder::shared(dir)) {
            Ok(found) => found.iter().for_each(|(sha256, text)| drop(unsent.note(sha256, text))),
            Err(error) => warn!("configurations of earlier runs cannot be read, and do not come to the lake: {error}"),
        }
        unsent
    }

    /// A configuration that batches will name.
    pub(super) fn add(&self, sha256: &str, text: &str) {
        drop(self.note(sha256, text));
    }

    /// The same, on disk before anything names it. Blocks.
    pub(crate) fn keep(&self, sha256: &str, text: &str) {
        let surplus = self.note(sha256, text);
        let Some(dir) = &self.dir else { return };
        let disk = Folder::shared(dir);
        surplus.iter().for_each(|(sha256, _)| forget(&disk, sha256));
        let path = path_of(sha256);
        if disk.read(&path).is_ok_and(|there| there == text.as_bytes()) {
            return;
        }
        let kept = disk.create_folder(Path::new(FOLDER)).and_then(|()| replace(&disk, &path, text.as_bytes()));
        if let Err(error) = kept {
            warn!(
                "the configuration cannot be kept beside its readings: should the power go before the lake has it, nobody knows it any more: {error}"
            );
        }
    }

    /// Notes one, and gives the oldest where that makes one too many.
    fn note(&self, sha256: &str, text: &str) -> Option<(String, String)> {
        let mut unsent = self.lock();
        if let Some((_, known)) = unsent.iter_mut().find(|(known, _)| known == sha256) {
            // An earlier version kept it, which knew fewer words for secrets.
            text.clone_into(known);
            return None;
        }
        let surplus = (unsent.len() == UNSENT_MAX).then(|| unsent.remove(0));
        unsent.push((sha256.to_owned(), text.to_owned()));
        surplus
    }

    /// What is to be sent, oldest first.
    pub(super) fn all(&self) -> Vec<(String, String)> {
        self.lock().clone()
    }

    /// The lake has it.
    pub(super) async fn sent(&self, sha256: &str) {
        self.lock().retain(|(known, _)| known != sha256);
        if let Some(dir) = self.dir.clone() {
            let sha256 = sha256.to_owned();
            // A file that stays is compared with the lake's once more after the next start.
            let _ = tokio::task::spawn_blocking(move || forget(&Folder::shared(&dir), &sha256)).await;
        }
    }

    /// Held for a few instructions, none of which can panic half-way.
    fn lock(&self) -> MutexGuard<'_, Vec<(String, String)>> {
        self.texts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn path_of(sha256: &str) -> PathBuf {
    Path::new(FOLDER).join(format!("{sha256}{SUFFIX}"))
}

/// What is in the folder under the name of a hash.
fn read(disk: &dyn Disk) -> io::Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for entry in disk.list(Path::new(FOLDER))? {
        let is_hash = |word: &&str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        let Some(sha256) = entry.name.strip_suffix(SUFFIX).filter(is_hash).filter(|_| !entry.is_folder) else {
            continue;
        };
        match disk.read(&path_of(sha256)).and_then(|bytes| String::from_utf8(bytes).map_err(io::Error::other)) {
            Ok(text) => found.push((sha256.to_owned(), text)),
            Err(error) => {
                warn!("a configuration of an earlier run cannot be read, and does not come to the lake: {error}")
            }
        }
    }
    Ok(found)
}

fn forget(disk: &dyn Disk, sha256: &str) {
    match disk.remove(&path_of(sha256)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            warn!("cannot remove a configuration that the lake has: {error}");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_configuration_from_before_a_reload_is_sent_too() {
        let unsent = Unsent::default();
        unsent.add("a", "first");
        unsent.clone().add("b", "second");
        unsent.add("b", "second");
        assert_eq!(unsent.all().len(), 2);
        unsent.sent("a").await;
        assert_eq!(unsent.all(), [("b".to_owned(), "second".to_owned())]);
        (0..100).for_each(|number| unsent.add(&number.to_string(), ""));
        assert_eq!(unsent.all().len(), UNSENT_MAX);
    }

    /// A power cut before the first upload, and another file at the next start: batches named a configuration that nobody had.
    #[tokio::test]
    async fn a_configuration_from_before_a_power_cut_is_sent_too() {
        let folder = tempfile::tempdir().expect("a folder");
        let hash = |number: usize| format!("{number:064x}");
        let before = Unsent::kept_in(folder.path());
        before.keep(&hash(1), "first");
        drop(before);
        std::fs::write(folder.path().join(FOLDER).join("notes.toml"), "a person's").expect("written");
        let after = Unsent::kept_in(folder.path());
        after.keep(&hash(2), "second");
        assert_eq!(after.all(), [(hash(1), "first".to_owned()), (hash(2), "second".to_owned())]);
        after.sent(&hash(1)).await;
        assert_eq!(Unsent::kept_in(folder.path()).all(), [(hash(2), "second".to_owned())]);
        (3..100).for_each(|number| after.keep(&hash(number), ""));
        let files = std::fs::read_dir(folder.path().join(FOLDER)).expect("a folder").count();
        assert_eq!((after.all().len(), files), (UNSENT_MAX, UNSENT_MAX + 1), "and the person's");
        // A spool's folder that is away is not made by this.
        let away = folder.path().join("away");
        Unsent::kept_in(&away).keep(&hash(1), "first");
        assert!(!away.exists());
    }
}
