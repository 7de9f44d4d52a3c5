//! The spool's folder goes away under a running gateway, and comes back, or never does: what was in it is lost only
//! where it is certain that it was.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tjern_readings::clock::Clock;

use super::super::sealed::SealedKind;
use super::super::{Spool, SpoolError, SpoolSettings};
use super::model::{readings, settings};

/// A spool in a real folder, and the places where that folder can be.
struct Site {
    place: tempfile::TempDir,
    dir: PathBuf,
    away: PathBuf,
}

impl Site {
    fn new() -> Self {
        let place = tempfile::tempdir().expect("a folder");
        let (dir, away) = (place.path().join("spool"), place.path().join("away"));
        Self { place, dir, away }
    }

    fn settings(&self) -> SpoolSettings {
        SpoolSettings { dir: self.dir.clone(), sync_every: Duration::from_millis(5), ..settings(1 << 20) }
    }

    fn open(&self) -> Spool {
        Spool::open(self.settings(), Clock::manual(0)).expect("opened")
    }

    fn take_away(&self) {
        fs::rename(&self.dir, &self.away).expect("moved");
    }

    fn give_back(&self) {
        fs::rename(&self.away, &self.dir).expect("moved back");
    }

    /// Another start finds the spool as it should be: numbers from 1 to this one, in batches and in order.
    async fn expect_batches(&self, bounds: &[(i64, i64)]) {
        let spool = self.open();
        assert!(spool.seal().await, "{:?}", spool.status());
        let found: Vec<_> =
            spool.sealed().await.iter().map(|one| (one.kind, one.bounds.first, one.bounds.last)).collect();
        let wanted: Vec<_> = bounds.iter().map(|(first, last)| (SealedKind::Batch, *first, *last)).collect();
        assert_eq!(found, wanted);
        assert_eq!((spool.status().bad_records, spool.status().dropped_readings), (0, 0));
        spool.close().await;
    }
}

async fn until_synced(spool: &Spool) {
    let synced = async {
        while !spool.sync().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), synced).await.expect("the spool's folder is there again");
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("listed").flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// With a point an hour `/health` failed for an hour after the disk was there again: nothing came that could show it.
#[tokio::test]
async fn a_folder_that_is_back_is_no_trouble_though_nothing_comes() {
    let site = Site::new();
    let spool = site.open();
    spool.append(readings(0, 10)).await;
    assert!(spool.seal().await);
    site.take_away();
    assert!(!spool.seal().await && spool.status().in_trouble, "{:?}", spool.status());
    site.give_back();
    assert!(spool.seal().await && !spool.status().in_trouble, "{:?}", spool.status());
    spool.close().await;
    site.expect_batches(&[(1, 10)]).await;
}

/// A disk that was unmounted for a minute: what was not found meanwhile became gaps, and 90 s of all sensors were
/// missing in the lake, while their batches lay whole on the disk.
#[tokio::test]
async fn a_batch_that_is_not_found_while_the_folder_is_away_is_no_gap() {
    let site = Site::new();
    let spool = site.open();
    spool.append(readings(0, 10)).await;
    assert!(spool.seal().await);
    let batch = spool.sealed().await[0].clone();
    site.take_away();
    // As a folder under a mount point, with what others wrote there.
    fs::create_dir_all(site.dir.join("learned")).expect("created");
    let error = spool.bytes(&batch).await.expect_err("it is not there");
    assert!(error.to_string().contains("another folder has the name"), "{error}");
    spool.give_up(&batch).await;
    spool.append(readings(10, 5)).await;
    assert!(!spool.seal().await, "that is not the spool's folder");
    assert!(spool.status().in_trouble, "{:?}", spool.status());
    assert_eq!(names_in(&site.dir), ["learned"], "nothing is written to a folder of another");
    fs::remove_dir_all(&site.dir).expect("removed");
    spool.append(readings(15, 5)).await;
    assert!(!spool.sync().await && !site.dir.exists(), "nothing is made in its place");
    site.give_back();
    until_synced(&spool).await;
    assert!(spool.bytes(&batch).await.is_ok() && !spool.status().in_trouble);
    spool.close().await;
    site.expect_batches(&[(1, 10), (11, 20)]).await;
}

/// The log lay in a deleted file and the lock was gone, while `/health` said `ok`: a `kill -9` took 120 readings that were
/// told to be on disk, and a second gateway began on the same folder.
#[tokio::test]
async fn a_folder_that_was_deleted_is_written_anew_and_is_ours() {
    let site = Site::new();
    let spool = site.open();
    spool.append(readings(0, 10)).await;
    assert!(spool.sync().await);
    fs::remove_dir_all(&site.dir).expect("deleted");
    spool.append(readings(10, 5)).await;
    until_synced(&spool).await;
    assert!(matches!(Spool::open(site.settings(), Clock::manual(0)), Err(SpoolError::Locked { .. })));
    // As after `kill -9`: a copy of what is on disk.
    let copy = Site::new();
    copy_folder(&site.dir, &copy.dir);
    copy.expect_batches(&[(1, 10), (11, 15)]).await;
    spool.close().await;
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("created");
    for entry in fs::read_dir(from).expect("listed").flatten() {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() { copy_folder(&from, &to) } else { fs::copy(&from, &to).map(|_| ()).expect("copied") }
    }
}

/// What was deleted with the folder is told to the lake as missing: it waited for it for ever.
#[tokio::test]
async fn batches_that_were_deleted_with_the_folder_become_gaps() {
    let site = Site::new();
    let spool = site.open();
    spool.append(readings(0, 10)).await;
    assert!(spool.seal().await);
    let batch = spool.sealed().await[0].clone();
    fs::remove_dir_all(&site.dir).expect("deleted");
    spool.give_up(&batch).await;
    assert_eq!(spool.sealed().await, std::slice::from_ref(&batch), "not before the folder is known to be ours");
    spool.append(readings(10, 5)).await;
    until_synced(&spool).await;
    spool.give_up(&batch).await;
    let found: Vec<_> = spool.sealed().await.iter().map(|one| (one.kind, one.bounds.first, one.bounds.last)).collect();
    assert_eq!(found, [(SealedKind::Gap, 1, 10)]);
    spool.close().await;
}

/// A disk that is plugged in again is another device, and its lock another file: it is the spool's, as its log says.
#[tokio::test]
async fn a_disk_that_is_plugged_in_again_is_known_by_its_log() {
    let site = Site::new();
    let spool = site.open();
    spool.append(readings(0, 10)).await;
    assert!(spool.sync().await);
    site.take_away();
    copy_folder(&site.away, &site.dir);
    spool.append(readings(10, 5)).await;
    until_synced(&spool).await;
    assert!(matches!(Spool::open(site.settings(), Clock::manual(0)), Err(SpoolError::Locked { .. })));
    spool.close().await;
    site.expect_batches(&[(1, 10), (11, 15)]).await;
}

/// A gateway elsewhere went on with the disk that was taken out: its numbers are given.
#[tokio::test]
async fn a_disk_that_another_went_on_with_is_not_taken() {
    let site = Site::new();
    let spool = site.open();
    spool.append(readings(0, 10)).await;
    assert!(spool.sync().await);
    site.take_away();
    copy_folder(&site.away, &site.dir);
    let other = site.open();
    other.append(readings(100, 10)).await;
    assert!(other.sync().await);
    other.close().await;
    spool.append(readings(10, 5)).await;
    assert!(!spool.sync().await && spool.status().in_trouble);
    // The right one again.
    fs::rename(&site.dir, site.place.path().join("other")).expect("moved");
    site.give_back();
    until_synced(&spool).await;
    spool.close().await;
    site.expect_batches(&[(1, 15)]).await;
}
