//! Which lake a folder's address meant: the lake's own id, remembered in the spool's folder (`lake.toml`).
//!
//! `file:///mnt/lake` without its disk is a folder like any other. Batches that go there leave the spool and are missing in the lake.
//! So a folder that has another id than the one that is remembered for its address, or none, is not written to, and not
//! created either: what waits stays in the spool, and the folder is looked at again with the next round. Who means it so removes the file.
//!
//! Limits: a spool that remembers nothing (a new one, one of an earlier version) takes what is there; a lake that nobody may write to has no id. Clouds are
//! what their URL says. No lock: a disk that goes between the look and the first put is found by the store itself.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tjern_readings::store::LakeUrl;
use tjern_readings::store::local::identity;
use tracing::{info, warn};

use crate::spool::{Disk, Folder, replace};

/// The file, in the spool's folder.
pub(crate) const FILE: &str = "lake.toml";

const VERSION: u32 = 1;

/// Why a folder is not taken for the lake.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KnownLakeError {
    /// It is not the lake that it was, or no lake.
    #[error(
        "the folder `{folder}` {what}: nothing is put there, and readings stay in the spool; hint: is its disk mounted? where this folder is the lake from now on (it was restored, or begun anew on another disk), remove `{file}`"
    )]
    Other {
        /// The lake's folder.
        folder: PathBuf,
        /// What it is instead.
        what: &'static str,
        /// What remembers the other.
        file: PathBuf,
    },
    /// Nobody knows which lake it is.
    #[error(
        "cannot find out which lake is in `{folder}`: {source}; hint: may the gateway's user read its folder `.staged`?"
    )]
    Folder {
        /// The lake's folder.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What was remembered cannot be had.
    #[error(
        "cannot read `{file}`, which says which lake this spool's readings go to: {reason}; hint: make it readable for the gateway's user; or, where the lake's disk is certainly mounted, remove it"
    )]
    Memory {
        /// The file.
        file: PathBuf,
        /// Why.
        reason: String,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct MemoryFile {
    version: u32,
    lake: String,
    id: String,
}

/// Fails where the folder of this address is not the lake that it was. Creates nothing. Blocks.
pub(crate) fn check(file: &Path, lake: &LakeUrl) -> Result<(), KnownLakeError> {
    let Some(folder) = lake.local_folder() else { return Ok(()) };
    let Some(known) = load(file)?.filter(|known| known.lake == lake.to_string()) else { return Ok(()) };
    let what = match id_of(&folder)? {
        Some(id) if id == known.id => return Ok(()),
        Some(_) => "has another lake than the one that this spool's readings went to",
        None => "has no lake, and the one that this spool's readings went to was there",
    };
    Err(KnownLakeError::Other { folder, what, file: file.to_owned() })
}

/// Remembers which lake an address means that was opened and may be written to. Blocks.
pub(crate) fn remember(file: &Path, lake: &LakeUrl) -> Result<(), KnownLakeError> {
    // The folder may have become another one since it was looked at.
    check(file, lake)?;
    let Some(folder) = lake.local_folder() else { return Ok(()) };
    let id = match id_of(&folder) {
        Ok(Some(id)) => id,
        Ok(None) => return Ok(()),
        // Nothing is known of this address: it is taken as it is.
        Err(error) => {
            warn!("a start without the lake's disk would not be noticed: {error}");
            return Ok(());
        }
    };
    let known = MemoryFile { version: VERSION, lake: lake.to_string(), id };
    if load(file)?.is_some_and(|there| there.lake == known.lake) {
        return Ok(());
    }
    match store(file, &known) {
        Ok(()) => info!(%lake, id = known.id, "this is the lake from now on"),
        Err(error) => {
            warn!(file = %file.display(), "cannot remember which lake it is: a start without its disk would not be noticed: {error}");
        }
    }
    Ok(())
}

fn id_of(folder: &Path) -> Result<Option<String>, KnownLakeError> {
    identity(folder).map_err(|source| KnownLakeError::Folder { folder: folder.to_owned(), source })
}

fn load(file: &Path) -> Result<Option<MemoryFile>, KnownLakeError> {
    let refused = |reason: String| KnownLakeError::Memory { file: file.to_owned(), reason };
    let (disk, name) = place_of(file);
    let text = match disk.read(&name).and_then(|bytes| String::from_utf8(bytes).map_err(io::Error::other)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        text => text.map_err(|error| refused(error.to_string()))?,
    };
    let known: MemoryFile = toml::from_str(&text).map_err(|error| refused(error.message().to_owned()))?;
    if known.version != VERSION {
        return Err(refused(format!("its version is {}", known.version)));
    }
    Ok(Some(known))
}

/// Writes it in place of an older one; either is there after a power cut.
fn store(file: &Path, known: &MemoryFile) -> io::Result<()> {
    let head = "# Written by the gateway: which lake this spool's readings go to. Without it the next lake that is found at this address is taken \
                for it.\n";
    let text = head.to_owned() + &toml::to_string(known).map_err(io::Error::other)?;
    let (disk, name) = place_of(file);
    replace(&disk, &name, text.as_bytes())
}

/// The folder that a file lies in, and its name there.
fn place_of(file: &Path) -> (Folder, PathBuf) {
    let above = file.parent().unwrap_or(Path::new(""));
    (Folder::shared(above), file.file_name().map_or_else(PathBuf::new, PathBuf::from))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use tjern_readings::store::Store;

    struct Place {
        above: tempfile::TempDir,
        lake: LakeUrl,
        memory: PathBuf,
    }

    impl Place {
        fn new() -> Self {
            let above = tempfile::tempdir().expect("a folder");
            let lake = LakeUrl::folder(&above.path().join("mnt/lake")).expect("absolute");
            let memory = above.path().join(FILE);
            Self { above, lake, memory }
        }

        /// As an uploader begins.
        fn begin(&self) -> Result<(), KnownLakeError> {
            check(&self.memory, &self.lake)?;
            Store::open(&self.lake).expect("opened");
            remember(&self.memory, &self.lake)
        }

        /// The disk is mounted, or not: another folder is there then.
        fn swap(&self) {
            let (there, away, between) =
                (self.above.path().join("mnt"), self.above.path().join("away"), self.above.path().join("between"));
            fs::create_dir_all(&away).expect("there");
            fs::rename(&there, &between).and_then(|()| fs::rename(&away, &there)).expect("swapped");
            fs::rename(&between, &away).expect("swapped");
        }
    }

    /// A box started without its disk: batches went into the folder below, left the spool, and nobody found them.
    #[test]
    fn a_start_without_the_disk_takes_no_folder_for_the_lake() {
        let place = Place::new();
        place.begin().expect("a first start takes what is there");
        place.begin().expect("and finds it again");
        place.swap();
        let error = place.begin().expect_err("no disk").to_string();
        assert!(error.contains("has no lake") && error.contains("mounted?") && error.contains(FILE), "{error}");
        assert_eq!(fs::read_dir(place.above.path().join("mnt")).expect("listed").count(), 0, "nothing was made there");
        // An earlier start, or another program, may have taken it for one.
        Store::open(&place.lake).expect("opened");
        let error = place.begin().expect_err("no disk").to_string();
        assert!(error.contains("another lake"), "{error}");
        place.swap();
        place.begin().expect("it is mounted");
    }

    #[test]
    fn a_lake_that_is_meant_is_taken_once_the_file_is_gone() {
        let place = Place::new();
        place.begin().expect("taken");
        place.swap();
        place.begin().expect_err("another");
        fs::remove_file(&place.memory).expect("removed");
        place.begin().expect("taken");
        place.swap();
        place.begin().expect_err("the one before is another one now");
        let elsewhere = LakeUrl::folder(&place.above.path().join("elsewhere")).expect("absolute");
        check(&place.memory, &elsewhere).expect("nothing is known of that address");
        for text in ["", "version = 2\nlake = \"x\"\nid = \"y\"\n", "\u{0}"] {
            fs::write(&place.memory, text).expect("written");
            let error = place.begin().expect_err("it says nothing").to_string();
            assert!(error.contains("cannot read") && error.contains("hint:"), "{error}");
        }
    }

    /// Two gateways of one machine share a lake, and one of them is of an earlier version.
    #[test]
    fn a_lake_and_a_spool_of_before_go_on() {
        let place = Place::new();
        Store::open(&place.lake).expect("opened");
        let folder = place.lake.local_folder().expect("local");
        fs::remove_dir_all(folder.join(".staged/lake")).expect("a lake of before");
        place.begin().expect("taken");
        let other = place.above.path().join("other.toml");
        check(&other, &place.lake).and_then(|()| remember(&other, &place.lake)).expect("the same");
        assert_eq!(fs::read_to_string(&other).expect("written"), fs::read_to_string(&place.memory).expect("written"));
    }
}
