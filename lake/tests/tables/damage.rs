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

/// Someone removed the newest commit: its checkpoint was read, and nothing could be written any more. The error said a number and
/// no way back, and nothing else told of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_newest_commit_that_is_gone_is_told_with_the_way_back() {
    let (folder, lake, mut table) = of_commits(3).await;
    table.write_checkpoint().await.expect("written");
    std::fs::remove_file(commit_path(&folder, 3)).expect("there");
    drop((lake, table));
    let place = "tables/readings/_delta_log/00000000000000000003.json";
    let mut table = Table::open(&anew(&folder), READINGS).await.expect("opened").expect("there");
    assert_eq!(table.version(), 3, "it can be read");
    let refused = append(&mut table, &[row("a/b", 3, 1.0)], None).await.expect_err("nothing can follow").to_string();
    assert!(refused.contains(place) && refused.contains("nothing can be written after it"), "{refused}");
    assert!(refused.contains("hint: see \"What is lost when\" in docs/backup.md"), "{refused}");
    assert_eq!(damaged(&folder).await, [place]);
    // The way back: what that commit brought is committed again.
    let log = folder.path().join("tables/readings/_delta_log");
    std::fs::remove_file(log.join("00000000000000000003.checkpoint.parquet")).expect("there");
    std::fs::remove_file(log.join("_last_checkpoint")).expect("there");
    assert_eq!(damaged(&folder).await, [""; 0]);
    let mut table = Table::open(&anew(&folder), READINGS).await.expect("opened").expect("there");
    assert_eq!((table.version(), table.transaction("ingest")), (2, Some(1)));
    append(&mut table, &[row("a/b", 2, 1.0)], Some(("ingest", 2))).await.expect("committed");
    assert!(count(&anew(&folder)).await.contains("| 3 | 3.0 |"));
}

/// The objects of the log of `readings` that are damaged.
async fn damaged(folder: &tempfile::TempDir) -> Vec<String> {
    let found = Table::damage_of_log(&anew(folder), READINGS).await.expect("read");
    found.into_iter().map(|damage| damage.key).collect()
}

/// Delta goes by `_last_checkpoint`, our reader by what lies there: all was well, and nobody could write.
#[tokio::test(flavor = "multi_thread")]
async fn a_last_checkpoint_that_is_not_there_is_told_with_the_way_back() {
    let (folder, lake, mut table) = of_commits(3).await;
    table.write_checkpoint().await.expect("written");
    drop((lake, table));
    let log = folder.path().join("tables/readings/_delta_log");
    std::fs::remove_file(log.join("00000000000000000003.checkpoint.parquet")).expect("there");
    let mut table = Table::open(&anew(&folder), READINGS).await.expect("opened").expect("there");
    let refused =
        append(&mut table, &[row("a/b", 3, 1.0)], None).await.expect_err("Delta does not find it").to_string();
    assert!(refused.contains("_last_checkpoint`: it names a checkpoint of version 3"), "{refused}");
    assert!(refused.contains("hint: where the commits are there, move the checkpoint and `_last_checkpoint` away"));
    assert_eq!(damaged(&folder).await, ["tables/readings/_delta_log/_last_checkpoint"]);
    std::fs::remove_file(log.join("_last_checkpoint")).expect("there");
    assert_eq!(damaged(&folder).await, [""; 0]);
    append(&mut table, &[row("a/b", 3, 1.0)], None).await.expect("committed");
}

/// All commits are there, and a checkpoint that was cut short stopped every command without a word of what to do.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_checkpoint_is_told_with_the_way_back() {
    let (folder, lake, mut table) = of_commits(3).await;
    table.write_checkpoint().await.expect("written");
    drop((lake, table));
    let log = folder.path().join("tables/readings/_delta_log");
    let checkpoint = log.join("00000000000000000003.checkpoint.parquet");
    let whole = std::fs::read(&checkpoint).expect("there");
    for cut in [&whole[..whole.len() / 2], &[]] {
        std::fs::write(&checkpoint, cut).expect("written");
        let refused = Table::open(&anew(&folder), READINGS).await.expect_err("it is cut").to_string();
        assert!(refused.contains("00000000000000000003.checkpoint.parquet"), "{refused}");
        assert!(refused.contains("hint: where the commits are there, move the checkpoint and `_last_checkpoint` away"));
        assert_eq!(damaged(&folder).await, ["tables/readings/_delta_log/00000000000000000003.checkpoint.parquet"]);
    }
    std::fs::remove_file(&checkpoint).expect("there");
    std::fs::remove_file(log.join("_last_checkpoint")).expect("there");
    let mut table = Table::open(&anew(&folder), READINGS).await.expect("opened").expect("there");
    append(&mut table, &[row("a/b", 3, 1.0)], Some(("ingest", 3))).await.expect("committed");
    assert!(count(&anew(&folder)).await.contains("| 4 | 4.0 |"));
    assert_eq!(damaged(&folder).await, [""; 0]);
}

/// One damaged commit of `hourly` stopped every query, of readings too, and a server could not start.
#[tokio::test]
async fn damaged_hours_keep_nobody_from_readings() {
    let (folder, lake, _) = of_commits(2).await;
    Table::open_or_create(&lake, TableName::Hourly).await.expect("created");
    Table::open_or_create(&lake, TableName::Daily).await.expect("created");
    std::fs::write(folder.path().join("tables/hourly/_delta_log/00000000000000000000.json"), "").expect("written");
    let answer = async |sql: &str| {
        let lake = anew(&folder);
        ask(&lake, Access::Staff, sql).await
    };
    for table in ["readings", "observations"] {
        let rows = answer(&format!("SELECT count(*) AS counted FROM {table}")).await;
        assert!(rows.contains("| 2 "), "{table}: {rows}");
    }
    assert!(!answer("SELECT * FROM daily").await.starts_with("error"));
    let told = answer("SELECT * FROM hourly").await;
    assert!(told.starts_with("error") && told.contains("move `tables/hourly` away"), "{told}");
}
