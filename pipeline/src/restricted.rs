//! What another program sets on a table that keeps everybody from writing to it. Ingest asked five times whether a commit had taken
//! place that could not, and named no way back; `verify` and `status` said that all was well.

use serde_json::{Value, json};
use tjern_lake::{CommitError, LakeError, Operation, Table, TableName};

use crate::compact::CompactSettings;
use crate::quality::{ControlError, control};
use crate::status::status;
use crate::testing::{NOW_US, Place, Row, batch_of, commit};
use crate::verify::verify;

/// Appends a commit of another program to the log of `readings`.
async fn committed_by_others(place: &Place, actions: &[Value]) {
    let version = place.version(TableName::Readings).await.expect("a table") + 1;
    let lines: String = actions.iter().map(|action| format!("{action}\n")).collect();
    let folder = place.folder.path().join("lake/tables/readings/_delta_log");
    std::fs::write(folder.join(format!("{version:020}.json")), lines).expect("written");
}

/// What the first commit says that the table is, with a property more.
fn with_property(place: &Place, key: &str, value: &str) -> Value {
    let first = place.folder.path().join("lake/tables/readings/_delta_log/00000000000000000000.json");
    let first = std::fs::read_to_string(first).expect("read");
    let mut actions = first.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let mut action = actions.rfind(|action| action.get("metaData").is_some()).expect("a table");
    action["metaData"]["configuration"][key] = json!(value);
    action
}

async fn one_more(place: &Place, minute: i64) -> Result<i64, CommitError> {
    let lake = place.reopened();
    let mut table = Table::open(&lake, TableName::Readings).await.expect("opened").expect("there");
    let row = Row { seq: minute, ..Row::new("t", NOW_US + minute * 60_000_000, 18.0) };
    let file = tjern_lake::write_file(&lake, TableName::Readings, &[batch_of(&[row])]).await.expect("written");
    table.commit(commit(Operation::Ingest, vec![file], vec![])).await
}

/// What `verify` and `status` say of `readings`.
async fn told(place: &Place) -> (Vec<String>, Option<String>) {
    let lake = place.reopened();
    let problems = verify(&lake, &mut |_, _| ()).await.expect("read").problems;
    let found = status(&lake, &CompactSettings::default()).await.expect("read");
    (problems.into_iter().map(|problem| problem.what).collect(), found.restricted.get("readings").cloned())
}

#[tokio::test]
async fn a_constraint_of_another_program_is_told_as_what_it_is_until_it_is_taken_back() {
    let place = Place::new();
    place.ingest(&[Row::new("t", NOW_US, 18.5)]).await;
    assert_eq!(told(&place).await, (Vec::new(), None));
    let raised = json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 3}});
    committed_by_others(&place, &[raised, with_property(&place, "delta.constraints.v", "value < 1000")]).await;
    let refused = one_more(&place, 1).await;
    let Err(CommitError::Restricted(error)) = refused else { panic!("{refused:?}") };
    assert!(matches!(*error, LakeError::Restricted { .. }));
    let said = error.to_string();
    assert!(
        said.contains("another program gave table `readings` features") && said.contains("checkConstraints"),
        "{said}"
    );
    assert!(said.contains("docs/backup.md"), "{said}");
    assert_eq!(told(&place).await, (vec![said.clone()], Some(said)));
    assert_eq!(place.readings().await.len(), 1, "it is read as before");

    let lowered = json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}});
    committed_by_others(&place, &[lowered, with_property(&place, "delta.note", "as it was")]).await;
    one_more(&place, 2).await.expect("committed");
    assert_eq!(told(&place).await, (Vec::new(), None));
}

/// Readings came on, and whatever replaces files failed.
#[tokio::test]
async fn a_table_to_which_others_let_nobody_but_append_is_told_too() {
    let place = Place::new();
    place.register(&["t,Cel,sample,public,-2,40"]).await;
    place.ingest(&[Row::new("t", NOW_US, 99.0)]).await;
    committed_by_others(&place, &[with_property(&place, "delta.appendOnly", "true")]).await;
    one_more(&place, 1).await.expect("committed");
    let refused = control(&place.reopened()).await;
    let Err(ControlError::Commit(CommitError::Restricted(error))) = refused else { panic!("{refused:?}") };
    let said = error.to_string();
    assert!(said.contains("`delta.appendOnly`"), "{said}");
    assert_eq!(told(&place).await, (vec![said.clone()], Some(said)));
    committed_by_others(&place, &[with_property(&place, "delta.appendOnly", "false")]).await;
    control(&place.reopened()).await.expect("judged");
    assert_eq!(told(&place).await, (Vec::new(), None));
}
