//! The register's rules, against real tables.

use super::*;
use crate::testing::{NOW_US, Place, Row};
use arrow::array::Array;

const SITES: &str = "site,name_nb,name_nn,name_en,kind,latitude,longitude,official_ids\n\
    landfalltjern,Landfalltjern,Landfalltjern,Landfall Tarn,tarn,59.7441,10.1902,yr:0-10014\n";
const SENSORS: &str = "id,site,quantity,name_nb,name_nn,name_en,unit,kind,class,interval,low,high,sources\n\
    landfalltjern/water_temperature,landfalltjern,water_temperature,Vanntemperatur,,,Cel,sample,public,1h,-2,40,landfall-01\n";

fn problems(result: Result<RegisterOutcome, RegisterError>) -> Vec<RegisterProblem> {
    match result {
        Err(RegisterError::Wrong(problems)) => problems,
        other => panic!("expected problems, got {other:?}"),
    }
}

#[tokio::test]
async fn what_the_files_say_stands_in_the_tables() {
    let place = Place::new();
    let files = place.files(SITES, SENSORS);
    let outcome = register(&place.lake, &files).await.expect("registered");
    assert_eq!((outcome.sites.added, outcome.sensors.added), (1, 1));
    let loaded = load(&place.lake).await.expect("loaded");
    let sensor = loaded.get("landfalltjern/water_temperature").expect("registered");
    assert_eq!(
        (sensor.kind, sensor.class, sensor.low, sensor.high),
        (Kind::Sample, Class::Public, Some(-2.0), Some(40.0))
    );
    assert_eq!((sensor.name_nb.as_deref(), sensor.name_nn.as_deref()), (Some("Vanntemperatur"), None));
    assert!(sensor.accepts("landfall-01") && !sensor.accepts("landfall-02"));
    assert_eq!(place.rows(TableName::Sites).await.num_rows(), 1);
}

#[tokio::test]
async fn what_is_unchanged_is_not_committed_again() {
    let place = Place::new();
    let files = place.files(SITES, SENSORS);
    register(&place.lake, &files).await.expect("registered");
    let before = (place.version(TableName::Sites).await, place.version(TableName::Sensors).await);
    let outcome = register(&place.lake, &files).await.expect("registered");
    assert!(outcome.found && outcome.sites.is_empty() && outcome.sensors.is_empty());
    assert_eq!((place.version(TableName::Sites).await, place.version(TableName::Sensors).await), before);
}

#[tokio::test]
async fn a_change_keeps_what_was_before() {
    let place = Place::new();
    register(&place.lake, &place.files(SITES, SENSORS)).await.expect("registered");
    place.clock.set_us(NOW_US + 10);
    let outcome =
        register(&place.lake, &place.files(SITES, &SENSORS.replace(",40,", ",35,"))).await.expect("registered");
    assert_eq!(outcome.sensors, Changes { added: 0, changed: 1, closed: 0 });
    place.clock.set_us(NOW_US + 20);
    let header = SENSORS.lines().next().expect("a header");
    let outcome = register(&place.lake, &place.files(SITES, header)).await.expect("registered");
    assert_eq!(outcome.sensors, Changes { added: 0, changed: 0, closed: 1 });
    let (_, history) = sensors_history(&place.lake).await.expect("read");
    let told: Vec<_> = history
        .iter()
        .map(|row| (row.row.high, row.valid_from_us - NOW_US, row.valid_to_us.map(|end| end - NOW_US)))
        .collect();
    assert_eq!(told, [(Some(40.0), 0, Some(10)), (Some(35.0), 10, Some(20))]);
    assert!(load(&place.lake).await.expect("loaded").is_empty());
}

/// Two pipelines that start in an empty lake would else register everything twice.
#[tokio::test]
async fn two_at_once_register_once() {
    let place = Place::new();
    let files = place.files(SITES, SENSORS);
    let (one, other) = tokio::join!(register(&place.lake, &files), register(&place.lake, &files));
    let added = one.expect("registered").sensors.added + other.expect("registered").sensors.added;
    assert_eq!(added, 1);
    assert_eq!(place.rows(TableName::Sensors).await.num_rows(), 1);
    assert_eq!(place.rows(TableName::Sites).await.num_rows(), 1);
}

#[tokio::test]
async fn every_problem_of_both_files_is_told_with_its_place() {
    let place = Place::new();
    let sites = "site,latitude,longitude\nLandfall,59,10\nå,,\nelva,91,10\nelva,59,\n";
    let sensors = "id,site,quantity,unit,kind,class,interval,low,high,sources\n\
        elva/level,elva,level,m,sample,secret,1h,,,\n\
        elva/level,elva,depth,m,sample,public,1h,,,\n\
        elva,elva,level,m,sample,public,1h,,,\n\
        elva/flow,elva,flow,,mean,public,1 hour,5,5,A B\n\
        elva/ph,elva,ph,1,sample,public,1h,1,2\n";
    let told = problems(register(&place.lake, &place.files(sites, sensors)).await);
    let at: Vec<_> = told
        .iter()
        .map(|problem| {
            let file = problem.path.file_name().expect("a name").to_string_lossy().into_owned();
            (file, problem.line, problem.column.as_deref().unwrap_or("").to_owned())
        })
        .collect();
    let expected = [
        ("sites.csv", 2, "site"),
        ("sites.csv", 3, "site"),
        ("sites.csv", 4, "latitude"),
        ("sites.csv", 5, "longitude"),
        ("sensors.csv", 2, "class"),
        ("sensors.csv", 3, "quantity"),
        ("sensors.csv", 4, "id"),
        ("sensors.csv", 5, "unit"),
        ("sensors.csv", 5, "kind"),
        ("sensors.csv", 5, "interval"),
        ("sensors.csv", 5, "high"),
        ("sensors.csv", 5, "sources"),
        ("sensors.csv", 6, ""),
    ];
    let expected: Vec<_> =
        expected.iter().map(|(file, line, column)| ((*file).to_owned(), *line, (*column).to_owned())).collect();
    assert_eq!(at, expected, "{told:#?}");
    let shown = told[4].to_string();
    for part in ["sensors.csv:2", "column `class`", "`secret` is none of public, internal, personal", "hint: "] {
        assert!(shown.contains(part), "no {part:?} in {shown}");
    }
    assert_eq!(place.rows(TableName::Sites).await.num_rows(), 0, "half a register was written");
}

#[tokio::test]
async fn headers_are_held_against_the_columns() {
    let place = Place::new();
    for (sensors, part) in [
        ("id,site,quantity,unit,kind,class,hgih\n", "column `hgih`: not a column of this file"),
        ("id,site,quantity,unit,kind\n", "column `class`: the column is missing"),
        ("id,site,site,quantity,unit,kind,class\n", "column `site`: the column stands there twice"),
        ("id;site;quantity;unit;kind;class\n", "separated by semicolons"),
    ] {
        let told = problems(register(&place.lake, &place.files(SITES, sensors)).await);
        assert!(told[0].to_string().contains(part), "{}", told[0]);
        assert_eq!(told[0].line, 1);
    }
}

#[tokio::test]
async fn the_order_of_columns_a_byte_order_mark_and_windows_lines_are_fine() {
    let place = Place::new();
    let sensors =
        "\u{feff}class,kind,unit,quantity,site,id\r\npublic,state,1,door,landfalltjern,landfalltjern/door\r\n";
    register(&place.lake, &place.files(SITES, sensors)).await.expect("registered");
    assert_eq!(
        load(&place.lake).await.expect("loaded").get("landfalltjern/door").map(|row| row.kind),
        Some(Kind::State)
    );
}

#[tokio::test]
async fn ids_stand_once_and_sites_must_be_there() {
    let place = Place::new();
    let line = "elva/level,elva,level,m,sample,public\n";
    let twice = format!("id,site,quantity,unit,kind,class\n{line}{line}");
    let told = problems(register(&place.lake, &place.files("site\nelva\n", &twice)).await);
    assert!(told[0].to_string().contains("`elva/level` stands on line 2 already"), "{}", told[0]);
    let told = problems(
        register(&place.lake, &place.files("site\nother\n", &format!("id,site,quantity,unit,kind,class\n{line}")))
            .await,
    );
    assert!(told[0].to_string().contains("there is no site `elva`"), "{}", told[0]);
}

/// A rollup over metres and feet would be of neither.
#[tokio::test]
async fn unit_and_kind_of_a_sensor_with_readings_do_not_change() {
    let place = Place::new();
    let changed = SENSORS.replace(",Cel,", ",K,");
    register(&place.lake, &place.files(SITES, SENSORS)).await.expect("registered");
    register(&place.lake, &place.files(SITES, &changed)).await.expect("nothing was read yet");
    register(&place.lake, &place.files(SITES, SENSORS)).await.expect("nothing was read yet");
    let reading = Row { sensor: "landfalltjern/water_temperature".to_owned(), ..Row::new("x", NOW_US, 18.5) };
    place.ingest(&[reading]).await;
    for (sensors, column) in [(changed, "unit"), (SENSORS.replace(",sample,", ",counter,"), "kind")] {
        let told = problems(register(&place.lake, &place.files(SITES, &sensors)).await);
        assert_eq!((told[0].line, told[0].column.as_deref()), (2, Some(column)));
        assert!(told[0].to_string().contains("a new id replaces it"), "{}", told[0]);
        // Nor by leaving it out first.
        register(&place.lake, &place.files(SITES, SENSORS.lines().next().expect("a header"))).await.expect("closed");
        problems(register(&place.lake, &place.files(SITES, &sensors)).await);
    }
}

#[tokio::test]
async fn what_has_readings_in_the_common_lake_does_not_become_personal() {
    let place = Place::new();
    let personal = SENSORS.replace(",public,", ",personal,");
    register(&place.lake, &place.files(SITES, &personal)).await.expect("nothing was read yet");
    let reading = Row { sensor: "landfalltjern/water_temperature".to_owned(), ..Row::new("x", NOW_US, 18.5) };
    place.ingest(&[reading]).await;
    let told = problems(register(&place.lake, &place.files(SITES, &personal)).await);
    assert!(told[0].to_string().contains("erase its readings first"), "{}", told[0]);
    register(&place.lake, &place.files(SITES, SENSORS)).await.expect("public is fine");
}

#[tokio::test]
async fn without_files_there_is_nothing_to_do_unless_they_were_named() {
    let place = Place::new();
    let mut files = RegisterFiles {
        sites: "no/sites.csv".into(),
        sensors: "no/sensors.csv".into(),
        rules: OptionalFile { path: "no/quality.csv".into(), required: false },
        installations: OptionalFile { path: "no/installations.csv".into(), required: false },
        events: OptionalFile { path: "no/events.csv".into(), required: false },
        timezone: TimeZone::UTC,
        required: false,
    };
    assert!(!register(&place.lake, &files).await.expect("nothing to do").found);
    assert!(place.version(TableName::Sensors).await.is_some(), "missing tables are created");
    files.required = true;
    let refused = register(&place.lake, &files).await;
    assert!(matches!(refused, Err(RegisterError::Unreadable { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_file_in_another_encoding_is_named_with_its_line() {
    let place = Place::new();
    let files = place.files(SITES, SENSORS);
    std::fs::write(&files.sites, b"site,name_nb\na,a\nb,\xd8rn\n").expect("written");
    let told = problems(register(&place.lake, &files).await);
    assert_eq!(told[0].line, 3);
    assert!(told[0].to_string().contains("UTF-8"));
}

#[tokio::test]
async fn history_reads_back_as_it_was_written() {
    let place = Place::new();
    register(&place.lake, &place.files(SITES, SENSORS)).await.expect("registered");
    let batch = place.rows(TableName::Sites).await;
    let rows = table::sites_of(&batch).expect("read");
    assert_eq!(table::sites_batch(&rows).expect("written"), batch);
    assert!(batch.column_by_name("valid_to").expect("a column").is_null(0));
}
