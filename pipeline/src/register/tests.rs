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

/// A city that prepares its lake has a file of sensors without a line. Where `register` was off in a process (another one runs
/// it) ingest waited for a register for good: nothing said that there was one.
#[tokio::test]
async fn a_register_without_a_line_is_a_register() {
    let place = Place::new();
    let header = |text: &str| format!("{}\n", text.lines().next().expect("a header"));
    let files = place.files(&header(SITES), &header(SENSORS));
    assert!(!is_there(&place.lake).await.expect("asked"));
    register(&place.lake, &files).await.expect("registered");
    assert!(is_there(&place.reopened()).await.expect("asked"));
    let before = place.version(TableName::Sensors).await;
    let outcome = register(&place.lake, &files).await.expect("registered");
    assert!(outcome.sensors.is_empty() && load(&place.lake).await.expect("loaded").is_empty());
    assert_eq!(place.version(TableName::Sensors).await, before, "it is said once");
    assert_eq!(register(&place.lake, &place.files(SITES, SENSORS)).await.expect("registered").sensors.added, 1);
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
    let files = RegisterFiles { may_end_all: true, ..place.files(SITES, header) };
    let outcome = register(&place.lake, &files).await.expect("registered");
    assert_eq!(outcome.sensors, Changes { added: 0, changed: 0, closed: 1 });
    let (_, history) = sensors_history(&place.lake).await.expect("read");
    let told: Vec<_> = history
        .iter()
        .map(|row| (row.row.high, row.valid_from_us - NOW_US, row.valid_to_us.map(|end| end - NOW_US)))
        .collect();
    assert_eq!(told, [(Some(40.0), 0, Some(10)), (Some(35.0), 10, Some(20))]);
    assert!(load(&place.lake).await.expect("loaded").is_empty());
}

/// An editor or a sync left the header alone: every sensor ended, with status 0 and not a word.
#[tokio::test]
async fn a_file_that_lost_its_lines_ends_no_sensor() {
    let place = Place::new();
    let second = "landfalltjern/level,landfalltjern,level,,,,m,sample,public,1h,,,\n";
    register(&place.lake, &place.files(SITES, &format!("{SENSORS}{second}"))).await.expect("registered");
    let before = place.version(TableName::Sensors).await;
    let header = SENSORS.lines().next().expect("a header");
    let told = problems(register(&place.lake, &place.files(SITES, header)).await);
    let shown = told[0].to_string();
    for part in ["sensors.csv:1", "each of the 2 sensors that are registered would end", "register --end-all"] {
        assert!(shown.contains(part), "no {part:?} in {shown}");
    }
    assert_eq!((place.version(TableName::Sensors).await, load(&place.lake).await.expect("loaded").len()), (before, 2));
    // One line is enough: it says which sensors there are.
    let outcome = register(&place.lake, &place.files(SITES, SENSORS)).await.expect("registered");
    assert_eq!(outcome.sensors, Changes { added: 0, changed: 0, closed: 1 });
    let said = RegisterFiles { may_end_all: true, ..place.files(SITES, header) };
    assert_eq!(register(&place.lake, &said).await.expect("registered").sensors.closed, 1);
    register(&place.lake, &place.files(SITES, header)).await.expect("whoever registers next finds nothing to end");
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
async fn where_a_counter_begins_again_is_above_zero_and_a_counters() {
    let place = Place::new();
    let line = |kind: &str, wraps_at: &str| {
        let header = "id,site,quantity,unit,kind,class,wraps_at";
        place.files(SITES, &format!("{header}\nlandfalltjern/way,landfalltjern,way,m,{kind},public,{wraps_at}\n"))
    };
    for (kind, wraps_at, part) in [
        ("counter", "0", "a counter begins again above zero; hint: write the number after its last one"),
        ("counter", "-5", "above zero"),
        ("counter", "inf", "`inf` is out of range"),
        ("counter", "many", "`many` is not a number"),
        ("sample", "65536", "a sensor of the kind `sample` does not wrap"),
    ] {
        let told = problems(register(&place.lake, &line(kind, wraps_at)).await);
        let shown: Vec<_> = told.iter().map(ToString::to_string).collect();
        assert!(shown.len() == 1 && shown[0].contains("column `wraps_at`: "), "{shown:?}");
        assert!(shown[0].contains(part), "no {part:?} in {shown:?}");
    }
    let wraps_at = async |text: &str| {
        register(&place.lake, &line("counter", text)).await.expect("registered");
        load(&place.lake).await.expect("loaded").get("landfalltjern/way").expect("registered").wraps_at
    };
    assert_eq!((wraps_at("6553.6").await, wraps_at("").await), (Some(6_553.6), None), "it may change");
}

/// A table of before there was the column: nobody may be left with a register that cannot be read.
#[tokio::test]
async fn a_table_without_the_newest_column_is_read_and_gets_it_with_the_next_change() {
    let place = Place::new();
    let counter = "id,site,quantity,unit,kind,class\nlandfalltjern/way,landfalltjern,way,m,counter,public\n";
    register(&place.lake, &place.files(SITES, counter)).await.expect("registered");
    let folder = place.folder.path().join("lake/tables/sensors");
    as_it_was_without(&folder, "wraps_at");
    let place = Place { lake: place.reopened(), ..place };
    let columns_of = |version: i64| {
        let path = folder.join(format!("_delta_log/{version:020}.json"));
        let text = std::fs::read_to_string(path).expect("a commit");
        text.lines().find(|line| line.starts_with("{\"metaData\"")).map(str::to_owned)
    };
    assert!(!columns_of(0).expect("a new table has columns").contains("wraps_at"), "the canary: it is of before");
    let loaded = load(&place.lake).await.expect("loaded");
    assert_eq!(loaded.get("landfalltjern/way").expect("registered").wraps_at, None);
    let again = register(&place.lake, &place.files(SITES, counter)).await.expect("registered");
    assert!(again.sensors.is_empty(), "a line without it says what it said");
    place.clock.advance_us(10);
    let header = "id,site,quantity,unit,kind,class,wraps_at";
    let wrapping = format!("{header}\nlandfalltjern/way,landfalltjern,way,m,counter,public,65536\n");
    register(&place.lake, &place.files(SITES, &wrapping)).await.expect("registered");
    let told = columns_of(2).expect("other programs are told");
    assert!(told.contains("wraps_at") && told.contains("valid_to"), "{told}");
    let place = Place { lake: place.reopened(), ..place };
    let (_, history) = sensors_history(&place.lake).await.expect("read");
    assert_eq!(history.iter().map(|row| row.row.wraps_at).collect::<Vec<_>>(), [None, Some(65_536.0)]);
    place.clock.advance_us(10);
    register(&place.lake, &place.files(SITES, counter)).await.expect("registered");
    assert_eq!(columns_of(3), None, "once");
}

/// Makes a table what it was when a column was not there yet: in its log, and in the one file that it has.
fn as_it_was_without(folder: &Path, column: &str) {
    use parquet::arrow::ArrowWriter;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    let log = |version: i64| folder.join(format!("_delta_log/{version:020}.json"));
    let created = std::fs::read_to_string(log(0)).expect("the first commit");
    let begins = created.find(&format!("{{\\\"name\\\":\\\"{column}\\\"")).expect("the column");
    let ends = begins + created[begins..].find("}}").expect("its end") + 2;
    assert_eq!(&created[begins - 1..begins], ",", "it is the last one");
    std::fs::write(log(0), format!("{}{}", &created[..begins - 1], &created[ends..])).expect("written");
    let files = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let file = files.into_iter().find(|path| path.extension().is_some_and(|end| end == "parquet")).expect("a file");
    let reader = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(&file).expect("opened"));
    let batches: Vec<_> = reader.expect("Parquet").build().expect("read").map(|batch| batch.expect("rows")).collect();
    let kept = |batch: &RecordBatch| {
        let columns: Vec<usize> =
            (0..batch.num_columns()).filter(|place| batch.schema().field(*place).name() != column).collect();
        batch.project(&columns).expect("columns")
    };
    let before = std::fs::metadata(&file).expect("there").len();
    let rows = kept(&batches[0]);
    let mut writer =
        ArrowWriter::try_new(std::fs::File::create(&file).expect("made"), rows.schema(), None).expect("open");
    batches.iter().for_each(|batch| writer.write(&kept(batch)).expect("written"));
    writer.close().expect("closed");
    let after = std::fs::metadata(&file).expect("there").len();
    let committed = std::fs::read_to_string(log(1)).expect("the second commit");
    let size = |bytes: u64| format!("\"size\":{bytes}");
    assert!(committed.contains(&size(before)), "{committed}");
    std::fs::write(log(1), committed.replace(&size(before), &size(after))).expect("written");
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
        let files = place.files(SITES, SENSORS.lines().next().expect("a header"));
        register(&place.lake, &RegisterFiles { may_end_all: true, ..files }).await.expect("closed");
        problems(register(&place.lake, &place.files(SITES, &sensors)).await);
    }
}

/// 18 degrees Celsius had come before the line that says degrees Fahrenheit, and were published as such without a word.
#[tokio::test]
async fn a_sensor_that_had_readings_before_its_first_line_is_told() {
    let place = Place::new();
    let reading = Row { sensor: "landfalltjern/water_temperature".to_owned(), ..Row::new("x", NOW_US, 18.0) };
    place.ingest(&[reading]).await;
    let files = place.files(SITES, SENSORS);
    assert_eq!(register(&place.lake, &files).await.expect("registered").earlier, 1);
    assert_eq!(register(&place.lake, &files).await.expect("registered").earlier, 0, "once");
}

/// Hours and days stay when retention takes the readings: those of a home were left in the common lake, and metres became feet.
#[tokio::test]
async fn what_was_summed_up_binds_as_readings_do() {
    let place = Place::new();
    register(&place.lake, &place.files(SITES, SENSORS)).await.expect("registered");
    let sensor = "landfalltjern/water_temperature".to_owned();
    place.ingest(&[Row { sensor, ..Row::new("x", NOW_US, 18.5) }.quality(1)]).await;
    crate::rollup::rollup(&place.lake, &jiff::tz::TimeZone::UTC).await.expect("summed up");
    let mut table = Table::open(&place.lake, TableName::Readings).await.expect("opened").expect("there");
    let gone = crate::testing::commit(Operation::Retention, Vec::new(), table.files());
    table.commit(gone).await.expect("committed");
    for changed in [SENSORS.replace(",public,", ",personal,"), SENSORS.replace(",Cel,", ",K,")] {
        problems(register(&place.lake, &place.files(SITES, &changed)).await);
    }
}

/// Half a file of sensors let a home's readings in.
#[tokio::test]
async fn a_personal_sensor_without_a_line_is_kept_out_until_another_class_is_said() {
    let place = Place::new();
    let (sensor, personal) = ("landfalltjern/water_temperature", SENSORS.replace(",public,", ",personal,"));
    let is_kept_out = async |sensors: &str| {
        register(&place.lake, &place.files(SITES, sensors)).await.expect("registered");
        load(&place.lake).await.expect("loaded").is_personal(sensor)
    };
    assert!(is_kept_out(&personal).await);
    let other = "landfalltjern/level,landfalltjern,level";
    let rest = personal.replace("landfalltjern/water_temperature,landfalltjern,water_temperature", other);
    assert!(is_kept_out(&rest).await, "its line is gone");
    assert!(!is_kept_out(SENSORS).await, "its line says another class");
    assert!(
        !is_kept_out(&SENSORS.replace("landfalltjern/water_temperature,landfalltjern,water_temperature", other)).await
    );
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
    let mut files = place.files(SITES, SENSORS);
    (files.sites, files.sensors, files.required) = ("no/sites.csv".into(), "no/sensors.csv".into(), false);
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

const INSTALLATIONS: &str = "sensor,instrument,serial,depth_m,calibrated,gain,offset,installed,removed,note\n\
    landfalltjern/water_temperature,Aanderaa 4080,12-3,0.5,2026-04-01,1.002,-0.05,2026-04-15T10:00,2026-10-01,\n\
    landfalltjern/water_temperature,Aanderaa 4080,12-4,0.5,,,,2026-10-01,,the spare one\n";
const EVENTS: &str = "sensor,kind,quality,began,ended,note\n\
    landfalltjern/*,ice,3,2026-01-05,2026-03-20,\n\
    landfalltjern/water_temperature,out_of_water,,2026-06-01T08:00,2026-06-01T12:00,low water\n\
    landfalltjern/water_temperature,vandalism,4,2026-06-20T22:15:00+02:00,,\n";

fn write_more(place: &Place, installations: &str, events: &str) -> RegisterFiles {
    let files = place.files(SITES, SENSORS);
    std::fs::write(&files.installations.path, installations).expect("written");
    std::fs::write(&files.events.path, events).expect("written");
    files
}

#[tokio::test]
async fn instruments_and_events_have_tables_with_history() {
    let place = Place::new();
    let files = write_more(&place, INSTALLATIONS, EVENTS);
    let outcome = register(&place.lake, &files).await.expect("registered");
    assert_eq!((outcome.installations.added, outcome.events.added), (2, 3));
    assert_eq!(place.rows(TableName::Installations).await.num_rows(), 2);
    let again = register(&place.lake, &files).await.expect("registered");
    assert!(again.installations.is_empty() && again.events.is_empty());
    // The vandals were found out to be gone: the event has an end now, and what was said before stays.
    let ended = EVENTS.replace("22:15:00+02:00,,", "22:15:00+02:00,2026-06-21T09:00,");
    let outcome = register(&place.lake, &write_more(&place, INSTALLATIONS, &ended)).await.expect("registered");
    assert_eq!(outcome.events, Changes { added: 0, changed: 1, closed: 0 });
    assert_eq!(place.rows(TableName::Events).await.num_rows(), 4);
    // A file that is not there says nothing.
    std::fs::remove_file(&files.events.path).expect("removed");
    let outcome = register(&place.lake, &files).await.expect("registered");
    assert!(outcome.events.is_empty());
}

#[tokio::test]
async fn events_say_when_readings_are_not_good() {
    let place = Place::new();
    register(&place.lake, &write_more(&place, INSTALLATIONS, EVENTS)).await.expect("registered");
    let (version, history) = events_history(&place.lake).await.expect("loaded");
    let events = Events::of(history.into_iter().filter(|row| row.valid_to_us.is_none()).map(|row| row.row.row));
    assert!(version > 0 && !events.is_empty());
    let at = |text: &str| {
        let time_us = crate::times::moment(text, &TimeZone::get("Europe/Oslo").expect("known")).expect("a time");
        not_good_at(&events.of_sensor("landfalltjern/water_temperature"), time_us)
    };
    use tjern_readings::reading::Quality::{Fail, Suspect};
    assert_eq!(at("2026-01-04T23:59"), None);
    assert_eq!(at("2026-01-05"), Some(Suspect), "all of the place");
    assert_eq!(at("2026-03-20"), None, "the end does not belong to it");
    assert_eq!(at("2026-06-01T08:00"), Some(Fail), "what says nothing else fails");
    assert_eq!(at("2026-06-01T12:00"), None);
    assert_eq!(at("2030-01-01"), Some(Fail), "it goes on");
    assert_eq!(events.of_sensor("elva/level"), []);
    assert_eq!(events.of_sensor("landfalltjern/depth-2m/water_temperature").len(), 1);
}

#[tokio::test]
async fn what_is_wrong_with_instruments_and_events_is_told_with_its_line() {
    let place = Place::new();
    for (installations, events, part) in [
        (
            INSTALLATIONS.replace("12-4,0.5,,,,2026-10-01", "12-4,0.5,,,,2026-09-01"),
            EVENTS.to_owned(),
            "another instrument then",
        ),
        (INSTALLATIONS.replace("1.002", "0"), EVENTS.to_owned(), "it is zero"),
        (INSTALLATIONS.replace("2026-04-01,1", "April,1"), EVENTS.to_owned(), "installations.csv:2"),
        (
            INSTALLATIONS.replace("water_temperature,Aanderaa 4080,12-4", "x,Aanderaa 4080,12-4"),
            EVENTS.to_owned(),
            "no sensor `landfalltjern/x`",
        ),
        (INSTALLATIONS.to_owned(), EVENTS.replace("ice,3", "ice,1"), "neither 3 nor 4"),
        (INSTALLATIONS.to_owned(), EVENTS.replace("ice", "snow"), "is none of maintenance"),
        (INSTALLATIONS.to_owned(), EVENTS.replace("landfalltjern/*", "klopptjern/*"), "no sensor `klopptjern/*`"),
        (INSTALLATIONS.to_owned(), EVENTS.replace("2026-06-01T12:00", "2026-06-01T07:00"), "is not after `began`"),
        (INSTALLATIONS.to_owned(), EVENTS.replace("2026-01-05", "2026-03-29T02:30"), "put forward"),
    ] {
        let found = problems(register(&place.lake, &write_more(&place, &installations, &events)).await);
        assert!(found.iter().any(|problem| problem.to_string().contains(part)), "{found:?} does not say {part:?}");
    }
    assert_eq!(place.version(TableName::Events).await, None, "nothing was written");
}

const HOME: &str = "id,site,quantity,unit,kind,class\ntjern/level,tjern,level,m,sample,";

/// An ingest in another process had read that a sensor is not personal, and committed its readings after it was looked whether
/// there are any: they were in the common lake, of a sensor that is personal.
#[tokio::test]
async fn an_ingest_that_read_the_register_before_is_refused() {
    let place = Place::new();
    let files = |class: &str| place.files("site,name_nb\ntjern,\n", &format!("{HOME}{class}\n"));
    register(&place.lake, &files("internal")).await.expect("registered");
    place.ingest(&[Row::new("other", NOW_US, 1.0)]).await;
    // The other process: it has read the register, and is about to commit.
    let mut readings = Table::open(&place.reopened(), TableName::Readings).await.expect("opened").expect("there");
    let count = readings.transaction(crate::ingest::INGEST).unwrap_or(0) + 1;
    register(&place.lake, &files("personal")).await.expect("registered");
    let prepared = Commit {
        transactions: vec![(crate::ingest::INGEST.to_owned(), count)],
        ..crate::testing::commit(Operation::Ingest, vec![], vec![])
    };
    let refused = readings.commit(prepared).await;
    assert!(matches!(refused, Err(CommitError::Conflict { .. })), "{refused:?}");
    readings.refresh().await.expect("there");
    assert_eq!(readings.transaction(crate::ingest::INGEST), Some(count), "ingest reads everything anew");
    let version = readings.version();
    register(&place.lake, &files("personal")).await.expect("registered");
    assert_eq!(place.version(TableName::Readings).await, Some(version), "what did not change costs no commit");
}

/// What such an ingest committed just before it was told is found and named.
#[tokio::test]
async fn what_came_in_between_the_look_and_the_commit_is_found() {
    let place = Place::new();
    let path = place.folder.path().join("sensors.csv");
    let files = place.files("site,name_nb\ntjern,\n", &format!("{HOME}personal\n"));
    let lines = read_files(&files).await.expect("read").expect("there").sensors;
    place.ingest(&[Row::new("level", NOW_US, 1.0)]).await;
    Table::open_or_create(&place.lake, TableName::Sensors).await.expect("a table");
    let found = problems(
        fence::keep_out(&place.lake, &path, &fence::personal(&place.lake, &lines))
            .await
            .map(|()| RegisterOutcome::default()),
    );
    assert!(found[0].message.contains("has readings in the common lake"), "{found:?}");
    let of_persons = place.reopened().of_persons();
    assert!(fence::personal(&of_persons, &lines).is_empty(), "there they belong");
}
