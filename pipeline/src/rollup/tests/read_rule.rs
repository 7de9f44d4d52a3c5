//! The read rule: whatever version of `readings` a session is pinned at, and of whichever its rollups are, older or newer: `hourly`
//! and `daily` say what the readings of the session's version say.

use std::fmt::Write;
use std::sync::Arc;

use tjern_lake::rollup::{RegisterTables, RollupTable, Spans, TOUCHED_NOTE};
use tjern_lake::session::session_on;
use tjern_lake::{Access, SessionSettings};

use super::judge::judged;
use super::*;
use crate::tables::{collect, conform, engine};

/// How a session reads a rollup: rightly, or in one of the ways in which it would be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reader {
    Right,
    /// Takes the table as it is, whatever was committed later.
    IgnoresWhatCameLater,
    /// Takes the table as it is where it is newer than the readings.
    ForgetsThatItMayBeNewer,
}

/// A moment of a lake: everything as a session would find it.
#[derive(Debug, Clone)]
struct Pinned {
    readings: Table,
    hourly: Option<Table>,
    daily: Option<Table>,
    sensors: Option<Table>,
    installations: Option<Table>,
    /// What had happened.
    story: String,
}

impl Pinned {
    async fn of(place: &Place, story: &str) -> Self {
        let open = async |name| Table::open(&place.lake, name).await.expect("opened");
        Self {
            readings: open(TableName::Readings).await.expect("there"),
            hourly: open(TableName::Hourly).await,
            daily: open(TableName::Daily).await,
            sensors: open(TableName::Sensors).await,
            installations: open(TableName::Installations).await,
            story: story.to_owned(),
        }
    }

    /// This moment's readings with the rollups of another.
    fn with_rollups_of(&self, other: &Self) -> Self {
        let story = format!("readings after {}, rollups of {}", self.story, other.story);
        Self { hourly: other.hourly.clone(), daily: other.daily.clone(), story, ..self.clone() }
    }

    fn rollup(&self, name: TableName) -> Option<&Table> {
        if name == TableName::Hourly { self.hourly.as_ref() } else { self.daily.as_ref() }
    }

    async fn session(&self) -> datafusion::prelude::SessionContext {
        let settings = SessionSettings { access: Access::Staff, timezone: oslo(), memory_bytes: 256 << 20 };
        let pinned = TableName::ALL.map(|name| {
            let table = match name {
                TableName::Readings => Some(self.readings.clone()),
                TableName::Hourly | TableName::Daily => self.rollup(name).cloned(),
                TableName::Sensors => self.sensors.clone(),
                TableName::Installations => self.installations.clone(),
                _ => None,
            };
            (name, table)
        });
        session_on(self.readings.lake(), &settings, &pinned).await.expect("a session")
    }

    async fn readings(&self) -> RecordBatch {
        self.rows_of(&self.readings).await
    }

    async fn rows_of(&self, table: &Table) -> RecordBatch {
        let schema = tjern_lake::schema::arrow(table.name());
        let batches = collect(&engine(table.lake()).expect("an engine"), table.provider()).await.expect("read");
        let batches: Vec<_> = batches.iter().map(|batch| conform(batch, &schema).expect("its columns")).collect();
        arrow::compute::concat_batches(&schema, &batches).expect("one schema")
    }

    /// What a reader says of a rollup.
    async fn said(&self, name: TableName, reader: Reader) -> Rolled {
        let of = self.rollup(name).and_then(|table| table.transaction(VERSION_TRANSACTION));
        let as_it_is = match reader {
            Reader::Right => false,
            Reader::IgnoresWhatCameLater => of.is_some_and(|of| of < self.readings.version()),
            Reader::ForgetsThatItMayBeNewer => of.is_some_and(|of| of > self.readings.version()),
        };
        if as_it_is && let Some(table) = self.rollup(name) {
            return rolled_of(&self.rows_of(table).await);
        }
        let grid = if name == TableName::Hourly { Grid::Hours } else { Grid::Days(oslo()) };
        let (rollup, readings) = (self.rollup(name).cloned(), Some(self.readings.clone()));
        let register = RegisterTables { sensors: self.sensors.clone(), installations: self.installations.clone() };
        let table = RollupTable::new(name, grid, rollup, readings, register);
        rolled_rows(
            name,
            &collect(&engine(self.readings.lake()).expect("an engine"), Arc::new(table)).await.expect("read"),
        )
    }

    /// What SQL says of a part of a rollup, in a session as a server opens it.
    async fn asked(&self, name: TableName, filter: &str) -> Rolled {
        let session = self.session().await;
        let sql = format!("SELECT * FROM {name} WHERE {filter}");
        rolled_rows(name, &session.sql(&sql).await.expect("planned").collect().await.expect("answered"))
    }

    /// What is wrong with what a reader says, of both rollups, by plain SQL.
    async fn wrong(&self, reader: Reader) -> Option<String> {
        let readings = self.readings().await;
        let right = [judged(&readings, TableName::Hourly).await, judged(&readings, TableName::Daily).await];
        self.differs(reader, &right).await
    }

    /// What the rollups should say, by a plain loop, which is quicker than SQL.
    async fn right(&self) -> [Rolled; 2] {
        let rows = crate::testing::rows_of(&self.readings().await);
        let hour = |time_us: i64| time_us - time_us.rem_euclid(HOUR_US);
        [computed(&rows, kind_by_name, hour), computed(&rows, kind_by_name, civil_day)]
    }

    async fn differs(&self, reader: Reader, right: &[Rolled; 2]) -> Option<String> {
        for (name, right) in [TableName::Hourly, TableName::Daily].into_iter().zip(right) {
            let said = self.said(name, reader).await;
            if let Some(difference) = difference(&said, right) {
                return Some(format!("{}: {name}: {difference}", self.story));
            }
        }
        None
    }
}

fn rolled_rows(name: TableName, batches: &[RecordBatch]) -> Rolled {
    let schema = tjern_lake::schema::arrow(name);
    let batches: Vec<_> = batches.iter().map(|batch| conform(batch, &schema).expect("its columns")).collect();
    rolled_of(&arrow::compute::concat_batches(&schema, &batches).expect("one schema"))
}

/// Before and after the short civil day of March begins.
const HOURS: [&str; 2] = ["2026-03-28T20:00:00Z", "2026-03-29T00:00:00Z"];

/// What a lake has before the story begins: some readings of each kind on two days, with gaps.
fn beginning() -> Vec<Row> {
    let mut rows = Vec::new();
    for (place, sensor) in SENSORS.iter().chain(&METERS).enumerate() {
        for start in HOURS {
            for slot in [0, 1, 2, 9, 10] {
                let value = f64::from(u32::try_from(place).expect("few")) * 10.0 + slot as f64 * 7.5;
                rows.push(Row::new(sensor, us(start) + slot * 20 * MINUTE_US, value));
            }
        }
    }
    rows
}

/// What may happen to `readings`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    /// Readings of the gap, such without a value, and such that ingest refused: where there is another, and where there is none.
    Late,
    /// A higher revision of some, a fault among them.
    Corrected,
    /// Readings get another flag, as quality control commits it: files are rewritten, and a note says for which rows.
    Judged,
    Compacted,
}

const EVENTS: [Event; 4] = [Event::Late, Event::Corrected, Event::Judged, Event::Compacted];

async fn happen(place: &Place, event: Event) {
    let each = |of: &dyn Fn(&str, i64) -> Vec<Row>| -> Vec<Row> {
        SENSORS
            .iter()
            .chain(&METERS)
            .flat_map(|sensor| HOURS.iter().flat_map(move |start| of(sensor, us(start))))
            .collect()
    };
    match event {
        Event::Late => {
            let late = |sensor: &str, start: i64| {
                vec![
                    Row::new(sensor, start + 5 * 20 * MINUTE_US, 33.25),
                    Row::new(sensor, start + 6 * 20 * MINUTE_US, None),
                    Row::new(sensor, start + 10 * 20 * MINUTE_US, 777.0).revision(3).refused(Cause::NotAssigned),
                    Row::new(sensor, start + 11 * 20 * MINUTE_US, 778.0).refused(Cause::Unit),
                ]
            };
            place.ingest(&each(&late)).await;
        }
        Event::Corrected => {
            let corrected = |sensor: &str, start: i64| {
                vec![
                    Row::new(sensor, start + 2 * 20 * MINUTE_US, 1.5).revision(1),
                    Row::new(sensor, start + 9 * 20 * MINUTE_US, 400.0).revision(1).quality(4),
                ]
            };
            place.ingest(&each(&corrected)).await;
        }
        Event::Judged => judge(place).await,
        Event::Compacted => place.compact().await,
    }
}

async fn judge(place: &Place) {
    let mut table = Table::open(&place.lake, TableName::Readings).await.expect("opened").expect("there");
    let mut rows = place.readings().await;
    let mut touched = Spans::default();
    for row in rows.iter_mut().filter(|row| row.quality == 2 && row.time_us % HOUR_US == 20 * MINUTE_US) {
        row.quality = 4;
        touched.add(&row.sensor, [row.time_us]);
    }
    let rows = crate::tables::sorted(&crate::testing::batch_of(&rows), &["sensor", "time"]).expect("sorted");
    let file = tjern_lake::write_file(&place.lake, TableName::Readings, &[rows]).await.expect("written");
    let mut commit = crate::testing::commit(Operation::Quality, vec![file], table.files());
    commit.notes.insert(TOUCHED_NOTE.to_owned(), touched.note().expect("few"));
    table.commit(commit).await.expect("committed");
}

fn orders(events: &[Event]) -> Vec<Vec<Event>> {
    if events.is_empty() {
        return vec![Vec::new()];
    }
    let mut orders = Vec::new();
    for (place, first) in events.iter().enumerate() {
        let mut rest = events.to_vec();
        rest.remove(place);
        for mut order in self::orders(&rest) {
            order.insert(0, *first);
            orders.push(order);
        }
    }
    orders
}

/// A lake in which these events happen in this order; rolled up after each. Every moment of it.
async fn moments(place: &Place, order: &[Event]) -> Vec<Pinned> {
    register_all(place).await;
    place.ingest(&beginning()).await;
    let mut moments = vec![Pinned::of(place, "the beginning without rollups").await];
    rollup(&place.lake, &oslo()).await.expect("rolled up");
    moments.push(Pinned::of(place, "the beginning").await);
    let mut story = String::new();
    for event in order {
        happen(place, *event).await;
        rollup(&place.lake, &oslo()).await.expect("rolled up");
        write!(story, "{event:?} ").expect("written");
        moments.push(Pinned::of(place, &story).await);
    }
    moments
}

/// The first of all pairs of a version of `readings` and one of the rollups that a reader gets wrong.
async fn wrong_pair(moments: &[Pinned], reader: Reader) -> Option<String> {
    for readings in &moments[1..] {
        let right = readings.right().await;
        for rollups in moments {
            let wrong = readings.with_rollups_of(rollups).differs(reader, &right).await;
            if wrong.is_some() {
                return wrong;
            }
        }
    }
    None
}

/// A late reading, a correction, quality control and a compaction in every order; readers at every pair of versions,
/// older and newer than the rollups, and where there are none. A quick run has every order of the three changes, with the
/// compaction at another place in each; a campaign has all 24.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_in_every_order_are_read_rightly_at_every_pair_of_versions() {
    let orders = if std::env::var_os("PROPTEST_CASES").is_some() {
        orders(&EVENTS)
    } else {
        let mut orders = orders(&EVENTS[..3]);
        let places = (0..4).cycle();
        orders.iter_mut().zip(places).for_each(|(order, place)| order.insert(place, Event::Compacted));
        orders
    };
    for order in orders {
        let place = Place::new();
        let moments = moments(&place, &order).await;
        assert_eq!(wrong_pair(&moments, Reader::Right).await, None, "{order:?}");
    }
}

/// The canary: readers that are wrong in the two ways in which this rule can be got wrong are caught.
#[tokio::test]
async fn readers_that_forget_half_of_the_rule_are_caught() {
    let place = Place::new();
    let moments = moments(&place, &EVENTS[..2]).await;
    for reader in [Reader::IgnoresWhatCameLater, Reader::ForgetsThatItMayBeNewer] {
        assert!(wrong_pair(&moments, reader).await.is_some(), "{reader:?} is not caught");
    }
}

/// Whether a row is asked for.
type Chosen = Box<dyn Fn(&(String, i64, i8)) -> bool>;

/// A dashboard asks for some sensors and some time: what it gets is that part of the whole.
#[tokio::test]
async fn a_part_that_is_asked_for_is_that_part_of_the_whole() {
    let place = Place::new();
    let moments = moments(&place, &EVENTS).await;
    let (newest, beginning) = (moments.last().expect("some"), &moments[1]);
    for pinned in
        [newest.with_rollups_of(beginning), beginning.with_rollups_of(newest), newest.with_rollups_of(&moments[0])]
    {
        for name in [TableName::Hourly, TableName::Daily] {
            let whole = pinned.asked(name, "true").await;
            let from = us("2026-03-28T23:00:00Z");
            let cases: [(&str, Chosen); 5] = [
                ("sensor = 'tjern/counter'", Box::new(|key| key.0 == "tjern/counter")),
                (
                    "sensor IN ('tjern/angle', 'tjern/counter') AND quality = 2",
                    Box::new(|key| (key.0 == "tjern/angle" || key.0 == "tjern/counter") && key.2 == 2),
                ),
                ("time >= '2026-03-28T23:00:00Z'", Box::new(move |key| key.1 >= from)),
                (
                    "time < '2026-03-28T23:00:00Z' AND sensor LIKE '%er'",
                    Box::new(move |key| key.1 < from && key.0.ends_with("er")),
                ),
                ("false", Box::new(|_| false)),
            ];
            for (filter, is_in) in cases {
                let part = pinned.asked(name, filter).await;
                let wanted: Rolled =
                    whole.iter().filter(|(key, _)| is_in(key)).map(|(key, sums)| (key.clone(), sums.clone())).collect();
                assert_eq!(difference(&part, &wanted), None, "{}: {name} WHERE {filter}", pinned.story);
            }
        }
    }
}

/// A sensor that was registered after it was summed up counts by its kind at once.
#[tokio::test]
async fn a_sensor_registered_since_is_read_by_its_kind() {
    let place = Place::new();
    place.ingest(&beginning()).await;
    rollup(&place.lake, &oslo()).await.expect("rolled up");
    let before = Pinned::of(&place, "before the register").await;
    register_all(&place).await;
    let after = Pinned::of(&place, "after the register").await;
    assert_eq!(after.wrong(Reader::Right).await, None);
    // And who does not know the register yet is not told by a rollup that does.
    rollup(&place.lake, &oslo()).await.expect("rolled up");
    let newer = Pinned::of(&place, "a newer rollup").await;
    let unregistered = before.with_rollups_of(&newer).said(TableName::Hourly, Reader::Right).await;
    let then = before.said(TableName::Hourly, Reader::Right).await;
    assert_eq!(difference(&unregistered, &then), None);
}

/// Commits that were cleaned away, and files that vacuum took, tell nothing any more: then all that is asked for is computed.
#[tokio::test]
async fn what_cannot_be_told_any_more_is_computed() {
    let place = Place::new();
    let moments = moments(&place, &[Event::Late, Event::Compacted]).await;
    let log = place.folder.path().join("lake/tables/readings/_delta_log");
    let pinned = moments[3].with_rollups_of(&moments[1]);
    std::fs::remove_file(log.join(format!("{:020}.json", pinned.readings.version() - 1))).expect("removed");
    assert_eq!(pinned.wrong(Reader::Right).await, None);
    let place = Place::new();
    let moments = self::moments(&place, &[Event::Late, Event::Compacted]).await;
    for file in moments[2].readings.files() {
        let path = place.folder.path().join("lake/tables/readings").join(&file.path);
        std::fs::remove_file(path).expect("removed");
    }
    // Another process, which has not looked at that file before.
    let lake = place.reopened();
    let open = async |name| Table::open(&lake, name).await.expect("opened");
    let fresh = Pinned {
        readings: open(TableName::Readings).await.expect("there"),
        sensors: open(TableName::Sensors).await,
        installations: open(TableName::Installations).await,
        ..moments[3].with_rollups_of(&moments[1])
    };
    assert_eq!(fresh.wrong(Reader::Right).await, None);
}

/// A step of a story that has any length.
#[derive(Debug, Clone)]
enum Step {
    Rows(Vec<Row>),
    Event(Event),
    /// Quality control itself, by a range that some values are out of.
    Controlled,
    RolledUp,
}

fn stories() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => prop::collection::vec(row(), 1..15).prop_map(Step::Rows),
        1 => Just(Step::Event(Event::Judged)),
        1 => Just(Step::Controlled),
        1 => Just(Step::Event(Event::Compacted)),
        2 => Just(Step::RolledUp),
    ];
    prop::collection::vec(step, 3..9)
}

/// Whatever happens in whatever order: three computations say the same of every pair of versions that is looked at.
#[test]
fn stories_by_chance_are_read_rightly() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { Config::default().cases } else { 4 };
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let places = prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 4);
    let told = runner.run(&(stories(), places), |(steps, chosen)| {
        runtime.block_on(async {
            let place = Place::new();
            register_within(&place, "-1000,90").await;
            place.ingest(&beginning()).await;
            let mut moments = vec![Pinned::of(&place, "the beginning").await];
            let mut seq = 100;
            for (number, step) in steps.iter().enumerate() {
                match step {
                    Step::Rows(rows) => {
                        let mut rows = rows.clone();
                        for row in &mut rows {
                            seq += 1;
                            row.seq = seq;
                        }
                        place.ingest(&rows).await;
                    }
                    Step::Event(event) => happen(&place, *event).await,
                    Step::Controlled => drop(crate::quality::control(&place.lake).await.expect("judged")),
                    Step::RolledUp => {
                        rollup(&place.lake, &oslo()).await.expect("rolled up");
                        assert_exact(&place, kind_by_name).await;
                    }
                }
                moments.push(Pinned::of(&place, &format!("step {number}")).await);
            }
            for (readings, rollups) in chosen {
                let (readings, rollups) = (readings.get(&moments), rollups.get(&moments));
                assert_eq!(readings.with_rollups_of(rollups).wrong(Reader::Right).await, None, "{steps:?}");
            }
            let (first, last) = (&moments[0], moments.last().expect("some"));
            for pinned in [last.clone(), first.with_rollups_of(last), last.with_rollups_of(&moments[moments.len() / 2])]
            {
                assert_eq!(pinned.wrong(Reader::Right).await, None, "{steps:?}");
            }
        });
        Ok(())
    });
    told.unwrap_or_else(|failure| panic!("{failure}"));
}
