//! A power cut at each call of the disk while a bus's file is replaced: the file is whole, and no older than what was said to
//! be written.

use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};

use super::*;
use crate::spool::tests::memory::{Crash, Lie, Memory, Plan, Snapshot};

/// Versions that are written one after the other.
const VERSIONS: usize = 20;

/// What is looked at of each boundary.
const CRASHES: [Crash; 6] = [Crash::Nothing, Crash::All, Crash::Torn, Crash::Torn, Crash::Sectors, Crash::Sectors];

/// A version is longer than a sector.
fn version(number: usize) -> String {
    format!("{number}\n").repeat(300)
}

fn number_of(text: &str) -> Result<usize, String> {
    let number = text.lines().next().and_then(|line| line.parse().ok()).ok_or("it says nothing")?;
    if text == version(number) { Ok(number) } else { Err(format!("only a part of version {number} is there")) }
}

/// Replaces a bus's file of times again and again, and looks at all that a power cut may leave of it. How many images that
/// were, and how many had the newest version before that was said.
fn replace_and_cut(lie: Lie) -> Result<(usize, usize), String> {
    let (snapshots, boundaries) = sync_channel(1_024);
    let marks: Arc<Mutex<usize>> = Arc::default();
    let disk = Memory::new(Plan::Well).telling(lie).watched(snapshots, Arc::clone(&marks));
    let place = (Path::new("learned"), "bus", TIMES);
    for number in 1..=VERSIONS {
        store(&disk, place, &version(number)).expect("written");
        *marks.lock().expect("nobody panics with it") = number;
    }
    let boundaries: Vec<Snapshot> = boundaries.try_iter().collect();
    let (mut random, mut ahead) = (fastrand::Rng::with_seed(7), 0);
    for ((written, state), crash) in boundaries.iter().flat_map(|boundary| CRASHES.map(|crash| (boundary, crash))) {
        let image = Memory::image_of(state, crash, &mut random);
        let found = match image.read(&path(place.0, place.1, place.2)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            bytes => number_of(&String::from_utf8_lossy(&bytes.map_err(|error| error.to_string())?))?,
        };
        if found < *written {
            return Err(format!("version {found} is there, and {written} was said to be written"));
        }
        ahead += usize::from(found > *written);
    }
    Ok((boundaries.len() * CRASHES.len(), ahead))
}

#[test]
fn a_power_cut_leaves_the_old_times_or_the_new_ones() {
    let (images, ahead) = replace_and_cut(Lie::None).unwrap_or_else(|error| panic!("{error}"));
    assert!(images >= 480 && ahead > 0, "{images} images, of which {ahead} had a version before that was said");
}

/// The canaries: a build that renames what is not synced, and one that does not sync the name.
#[test]
fn a_build_that_replaces_a_file_without_a_sync_is_caught() {
    for lie in [Lie::FileSyncs, Lie::FolderSyncs] {
        let caught = replace_and_cut(lie);
        assert!(caught.is_err(), "{lie:?} would pass");
    }
}
