//! What damage in a log is to who reads it and to who writes on.

use std::path::PathBuf;

use tjern_lake::LakeError;

use super::*;

const READINGS: TableName = TableName::Readings;

fn commit_path(folder: &tempfile::TempDir, version: i64) -> PathBuf {
    folder.path().join(format!("tables/readings/_delta_log/{version:020}.json"))
}

/// A lake of so many commits, each of a reading.
async fn of_commits(count: i64) -> (tempfile::TempDir, Lake, Table) {
    let (folder, lake) = a_lake();
    let mut table = Table::open_or_create(&lake, READINGS).await.expect("created");
    for hour in 0..count {
        append(&mut table, &[row("a/b", hour, 1.0)], Some(("ingest", hour))).await.expect("committed");
    }
    (folder, lake, table)
}

/// The same lake as another process opens it.
fn anew(folder: &tempfile::TempDir) -> Lake {
    Lake::open(&LakeUrl::folder(folder.path()).expect("absolute")).expect("opened")
}

/// A power cut left a commit of 0 bytes. It counted as one that brought nothing: 100,000 readings were gone, the progress of later
/// commits said that they were there, and nobody was told.
#[tokio::test]
async fn an_emptied_commit_is_damage_and_not_an_empty_commit() {
    for emptied in ["", "\n", "{}\n", "{\"checkpointMetadata\":{\"version\":1}}\n"] {
        for version in [0, 2, 3] {
            let (folder, _, _) = of_commits(3).await;
            std::fs::write(commit_path(&folder, version), emptied).expect("written");
            let opened = Table::open(&anew(&folder), READINGS).await;
            let Err(LakeError::Log { place, .. }) = &opened else { panic!("{version}, {emptied:?}: {opened:?}") };
            assert!(place.ends_with(&format!("{version:020}.json")), "{place}");
            assert_eq!(damaged(&folder).await, [place.as_str()]);
        }
    }
}

/// What changed nothing of the rows is a commit like others.
#[tokio::test]
async fn a_commit_that_says_only_what_it_is_for_is_none() {
    let (folder, _, _) = of_commits(1).await;
    for (version, line) in [(2, r#"{"commitInfo":{"operation":"OPTIMIZE"}}"#), (3, r#"{"domainMetadata":{}}"#)] {
        std::fs::write(commit_path(&folder, version), line).expect("written");
    }
    let table = Table::open(&anew(&folder), READINGS).await.expect("opened").expect("there");
    assert_eq!((table.version(), table.files().len()), (3, 1));
}

/// A process that has read the commit before knows its files. Delta, which makes the checkpoint, reads the log again: with a
/// checkpoint that does not name them they were gone for good, and there was nothing left to find.
#[tokio::test(flavor = "multi_thread")]
async fn no_checkpoint_is_made_over_an_emptied_commit() {
    let (folder, lake, mut table) = of_commits(48).await;
    std::fs::write(commit_path(&folder, 20), "").expect("written");
    let refused = table.write_checkpoint().await;
    assert!(matches!(&refused, Err(LakeError::Log { place, .. }) if place.ends_with("20.json")), "{refused:?}");
    // The fiftieth commit makes one by itself.
    let refused = append(&mut table, &[row("a/b", 48, 1.0)], Some(("ingest", 48))).await;
    assert!(matches!(&refused, Err(CommitError::Failed(LakeError::Log { .. }))), "{refused:?}");
    assert!(!commit_path(&folder, 49).exists(), "nothing is committed");
    let log = folder.path().join("tables/readings/_delta_log");
    let names = std::fs::read_dir(log).expect("there").map(|entry| entry.expect("read").file_name());
    let made: Vec<_> = names.filter(|name| name.to_string_lossy().contains("checkpoint")).collect();
    assert!(made.is_empty(), "{made:?}");
    assert_eq!(lake.versions().borrow().get(READINGS).map(|version| version.version), Some(48));
}

/// The objects of the log of `readings` that are damaged.
async fn damaged(folder: &tempfile::TempDir) -> Vec<String> {
    let found = Table::damage_of_log(&anew(folder), READINGS).await.expect("read");
    found.into_iter().map(|damage| damage.key).collect()
}
