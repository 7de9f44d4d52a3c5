//! A bus of lines that talk by themselves, in simulated time: what silence says, and what a machine's own stalls do not.

use std::path::PathBuf;
use std::time::Duration;

use tjern_readings::clock::Clock;
use tjern_readings::configuration::ConfigText;
use tjern_readings::reading::{Cause, Reading};
use tjern_readings::rows::Rows;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, advance, sleep};
use tokio_util::sync::CancellationToken;

use super::remembered::Told;
use super::stored_times::decode;
use super::{Actor, Times};
use crate::bus::point::Limits;
use crate::bus::state::BusStates;
use crate::bus::told::Log;
use crate::bus::{BusContext, DeviceTimes, LeftBehind, Newest, OnDisk, READINGS_QUEUE};
use crate::clock::Witness;
use crate::config::{BusKind, Config};
use crate::dating::{ClockPolicy, Dater, Sensors};
use crate::lines::counters::LineCounts;
use crate::modbus::faults::{Dial, FarEnd};
use crate::run::Appender;
use crate::spool::{Spool, SpoolSettings};

const START_US: i64 = 1_700_000_000_000_000;

/// The way into a spool, and who says what is on its disk.
type IntoSpool = (mpsc::Sender<Rows>, OnDisk);

/// A bus at work, and its line.
struct Listening {
    line: mpsc::UnboundedReceiver<FarEnd>,
    received: mpsc::Receiver<Rows>,
    waiting: Vec<Reading>,
    states: BusStates,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Listening {
    async fn begin(place: &str, points: &str) -> Self {
        Self::begin_over((None, None), place, points).await
    }

    /// The same, where its readings go to a spool, and what is learned into a folder.
    async fn begin_over((spool, learned): (Option<IntoSpool>, Option<PathBuf>), place: &str, points: &str) -> Self {
        let text = format!(
            "version = 1\ngateway = \"test\"\nlake = \"memory:///\"\n[spool]\ndir = \"unused\"\n\
             [[bus]]\nname = \"line\"\nkind = \"text-lines\"\naddress = \"127.0.0.1:1\"\n{place}\n[[bus.device]]\nname = \"logger\"\n{points}"
        );
        let config = Config::parse(&ConfigText::new("test.toml", text)).expect("a good configuration");
        let bus = &config.buses()[0];
        let limits = Limits { timeout: bus.timeout, down_report: bus.down_report };
        let BusKind::TextLines { place, poll, framing, points } = &bus.kind else { unreachable!("lines of text") };
        let wire = (place.clone(), poll.clone(), framing.clone());
        let (to_test, received) = mpsc::channel(READINGS_QUEUE);
        let (readings, on_disk) = spool.unwrap_or((to_test, OnDisk::default()));
        let (clock, stop, states) = (Clock::manual(START_US), CancellationToken::new(), BusStates::new());
        let times = Times::load(learned.clone(), bus.name.clone(), points, on_disk.clone()).await;
        let context = BusContext {
            clock: clock.clone(),
            readings,
            left: LeftBehind::default(),
            newest: Newest::from_fn(|_| None),
            stop: stop.clone(),
            states: states.clone(),
            learned,
            device_times: DeviceTimes::default(),
            on_disk,
        };
        let mut actor = Actor::new(bus.name.clone(), wire, (points.clone(), times), limits, context);
        let (dial, line) = Dial::to_a_story();
        actor.dial = Some(dial);
        let (start, running) = (Instant::now(), tokio::spawn(actor.run()));
        tokio::spawn(async move {
            loop {
                clock.set_us(START_US + i64::try_from(start.elapsed().as_micros()).expect("short"));
                sleep(Duration::from_millis(5)).await;
            }
        });
        Self { line, received, waiting: Vec::new(), states, stop, running }
    }

    async fn connection(&mut self) -> FarEnd {
        self.line.recv().await.expect("the gateway connects")
    }

    async fn next(&mut self) -> Reading {
        while self.waiting.is_empty() {
            self.waiting = self.received.recv().await.expect("the bus runs").into();
        }
        self.waiting.remove(0)
    }

    fn counts(&self) -> LineCounts {
        self.states.snapshot()[0].lines.expect("they are counted")
    }

    async fn end(self) {
        self.stop.cancel();
        self.running.await.expect("it ends");
    }
}

fn point(sensor: &str, rest: &str) -> String {
    format!("[[bus.device.point]]\nsensor = \"{sensor}\"\n{rest}\n")
}

/// A terminal server passes on what its logger prints, to whoever connects, from then on: the rests of lines were values,
/// 7.8, 3.45 and 5, after each connection that broke.
#[tokio::test(start_paused = true)]
async fn half_a_line_at_the_start_is_no_value_over_tcp_either() {
    let points = point("site/level", "column = 1\nevery = \"50ms\"");
    let mut bus = Listening::begin("timeout = \"200ms\"", &points).await;
    // It prints on while nobody is connected.
    let mut printed = b"123.45;67.8\r\n".iter().cycle().skip(1);
    for _ in 0..5 {
        let mut logger = bus.connection().await;
        for byte in printed.by_ref().take(13 * 20 + 3) {
            sleep(Duration::from_millis(2)).await;
            logger.write(&[*byte]).await;
        }
        drop(logger);
        let mut values = 0;
        loop {
            let reading = bus.next().await;
            match (reading.value, reading.cause) {
                (Some(value), _) => assert_eq!(value, 123.45),
                (None, Some(Cause::Unreachable)) if values > 0 => break,
                _ => {}
            }
            values += i32::from(reading.value.is_some());
        }
    }
    bus.end().await;
}

/// The box was busy for a tenth of a second while half of a line was there: the other half waited in the port's buffer, and
/// the silence was the box's and not the line's. The line was dropped.
#[tokio::test(start_paused = true)]
async fn a_stall_of_the_box_is_no_silence_of_the_line() {
    const LINES: u64 = 40;
    let points = point("site/level", "column = 1\nevery = \"500ms\"");
    let mut bus = Listening::begin("length = 14", &points).await;
    let mut logger = bus.connection().await;
    sleep(Duration::from_secs(1)).await;
    for line in 0..LINES {
        logger.write(b"123.45;").await;
        sleep(Duration::from_millis(10)).await;
        logger.write(b"067.80;").await;
        // Nobody else has a turn before so much time is over.
        advance(Duration::from_millis(if line % 2 == 0 { 90 } else { 300 })).await;
        sleep(Duration::from_millis(400)).await;
    }
    let counts = bus.counts();
    assert_eq!((counts.lines, counts.dropped), (LINES, 0), "{counts:?}");
    // A line that lost its end is told from that: nothing waited.
    logger.write(b"123.45;").await;
    sleep(Duration::from_millis(400)).await;
    logger.write(b"123.45;067.80;").await;
    sleep(Duration::from_millis(400)).await;
    let counts = bus.counts();
    assert_eq!((counts.lines, counts.dropped), (LINES + 1, 1), "{counts:?}");
    while let Ok(rows) = bus.received.try_recv() {
        let is_right = |reading: &Reading| reading.value.is_none_or(|value| value == 123.45);
        assert!(Vec::from(rows).iter().all(is_right), "no value of another place");
    }
    bus.end().await;
}

/// A logger whose numbers part thousands: 1 and 1.001 were stored for 1,000 and 1,001, as good, and nobody was told.
#[tokio::test(start_paused = true)]
async fn a_comma_that_may_part_thousands_is_told_once_a_point() {
    for (decimal, value, told) in [("", Some(1.0), 1), ("decimal = \"point\"\n", Some(1_000.0), 0)] {
        let (log, _guard) = Log::listen();
        let points = point("site/level", &format!("pattern = \"L=(?<value>[-0-9.,]+)\"\n{decimal}every = \"1s\""));
        let mut bus = Listening::begin("timeout = \"200ms\"", &points).await;
        let mut logger = bus.connection().await;
        sleep(Duration::from_secs(1)).await;
        for _ in 0..20 {
            logger.write(b"L=1,000\r\n").await;
            sleep(Duration::from_secs(1)).await;
        }
        let last = loop {
            let reading = bus.next().await;
            if reading.value.is_some() {
                break reading;
            }
        };
        assert_eq!(last.value, value, "{decimal}");
        assert_eq!(log.count("may part thousands"), told, "{:#?}", log.lines());
        bus.end().await;
    }
}

/// A counter past 2⁵³ was rounded, and stored as good; on Modbus it was not.
#[tokio::test(start_paused = true)]
async fn a_whole_number_that_no_value_holds_is_stored_as_missing() {
    let points = point("site/count", "column = 1\nevery = \"1s\"");
    let mut bus = Listening::begin("timeout = \"200ms\"", &points).await;
    let mut logger = bus.connection().await;
    sleep(Duration::from_secs(1)).await;
    logger.write(b"9007199254740993\r\n").await;
    let said = loop {
        let reading = bus.next().await;
        assert_eq!(reading.value, None, "{reading:?}");
        if reading.cause == Some(Cause::Precision) {
            break reading;
        }
        logger.write(b"9007199254740993\r\n").await;
    };
    assert_eq!(said.sensor.as_str(), "site/count");
    bus.end().await;
}

/// A row of a logger, so many seconds after the start less so many.
fn row(after_s: i64, behind_s: i64, value: &str) -> Vec<u8> {
    format!("{};{value}\r\n", START_US / 1_000_000 + after_s - behind_s).into_bytes()
}

const DATED: &str = "time_column = 1\ntime_format = \"unix\"\n";

/// A logger that hung printed its last line each second: no reading for days, `/health` was ok, and nothing stood in the log.
#[tokio::test(start_paused = true)]
async fn a_logger_that_prints_one_line_again_and_again_is_told() {
    let (log, _guard) = Log::listen();
    let points = DATED.to_owned()
        + &point("site/level", "column = 2\nevery = \"2s\"")
        + &point("site/flow", "column = 2\nevery = \"2s\"");
    let mut bus = Listening::begin("timeout = \"200ms\"", &points).await;
    let mut logger = bus.connection().await;
    sleep(Duration::from_secs(1)).await;
    let stuck = |bus: &Listening| {
        let device = bus.states.snapshot().remove(0).devices.remove(0);
        device.points.iter().filter(|point| point.nothing_new_since_us.is_some()).count()
    };
    for second in 1..50 {
        logger.write(&row(second, 0, "7.5")).await;
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!((stuck(&bus), log.count("nothing new came")), (0, 0), "it works");
    for _ in 0..60 {
        logger.write(&row(50, 0, "7.5")).await;
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!((stuck(&bus), log.count("nothing new came")), (0, 0), "not yet");
    for _ in 0..300 {
        logger.write(&row(50, 0, "7.5")).await;
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!((stuck(&bus), log.count("nothing new came")), (2, 1), "{:#?}", log.lines());
    for second in 410..420 {
        logger.write(&row(second, 0, "7.5")).await;
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!((stuck(&bus), log.count("new readings again")), (0, 1), "{:#?}", log.lines());
    bus.end().await;
}

/// A logger that was 400 days behind: its rows lay in a year that nobody looks at, and all was well everywhere.
#[tokio::test(start_paused = true)]
async fn a_logger_of_another_year_is_told_with_how_far() {
    const DAYS_400: i64 = 400 * 86_400;
    for (behind_s, said) in [(DAYS_400, "400 days behind"), (-86_400 * 30, "30 days ahead of")] {
        let (log, _guard) = Log::listen();
        let points = DATED.to_owned() + &point("site/level", "column = 2\nevery = \"1s\"");
        let mut bus = Listening::begin("timeout = \"200ms\"", &points).await;
        let mut logger = bus.connection().await;
        sleep(Duration::from_secs(1)).await;
        for second in 1..200 {
            logger.write(&row(second, behind_s, "7.5")).await;
            sleep(Duration::from_secs(1)).await;
        }
        let ahead = |bus: &Listening| bus.states.snapshot()[0].devices[0].time_ahead_us.map(|us| us / 86_400_000_000);
        let days = ahead(&bus).expect("it is told");
        assert!((days + behind_s / 86_400).abs() <= 1, "{days}");
        assert_eq!(log.count(said), 1, "{:#?}", log.lines());
        logger.write(&row(200, 0, "7.5")).await;
        sleep(Duration::from_secs(2)).await;
        assert_eq!((ahead(&bus), log.count("near the gateway's again")), (None, 1), "{:#?}", log.lines());
        bus.end().await;
    }
}

/// A minute after a row came its time was on disk, whether the row was or not: where the spool is synced once an hour, or its
/// disk refuses, what the logger printed again after a power cut was taken for stored, and lost.
#[tokio::test(start_paused = true)]
async fn no_time_is_on_disk_whose_reading_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = SpoolSettings {
        dir: folder.path().to_owned(),
        max_bytes: 64 << 20,
        sync_every: Duration::from_secs(3_600),
        source: "test".parse().expect("valid"),
        configuration: None,
    };
    let wall = Clock::manual(START_US);
    let spool = Spool::open(settings.clone(), wall.clone()).expect("it opens");
    let policy = ClockPolicy { patience_us: 0, trusted: true, witness: Witness::at(folder.path()) };
    let (dater, _) = Dater::begin(spool.clone(), settings, &wall, Sensors::default(), policy);
    let (appender, readings, _, on_disk) = Appender::start(dater);
    let learned = folder.path().join("learned");
    let points = "time_column = 1\ntime_format = \"unix\"\n".to_owned()
        + &point("site/level", "column = 2\nevery = \"24h\"\nphase = \"12h\"");
    let over = (Some((readings, on_disk)), Some(learned.clone()));
    let mut bus = Listening::begin_over(over, "timeout = \"200ms\"", &points).await;
    let mut logger = bus.connection().await;
    sleep(Duration::from_secs(1)).await;
    let row = |number: i64| START_US / 1_000_000 - 1_000 + number * number;
    let known = || {
        let text = std::fs::read_to_string(learned.join("line.times.toml")).unwrap_or("version = 1".to_owned());
        let told = decode(&text).expect("it is read").remove(&"site/level".parse().expect("valid")).unwrap_or_default();
        (0..3).filter(|number| told.stored.look(row(*number) * 1_000_000) == Told::Repeated).collect::<Vec<_>>()
    };
    for number in 0..2 {
        logger.write(format!("{};7.5\r\n", row(number)).as_bytes()).await;
        sleep(Duration::from_secs(200)).await;
    }
    assert_eq!(
        (spool.status().synced_seq, known()),
        (1, vec![0]),
        "the first is synced at once, the second in an hour"
    );
    sleep(Duration::from_secs(3_600)).await;
    assert_eq!((spool.status().synced_seq, known()), (2, vec![0, 1]));
    logger.write(format!("{};7.5\r\n", row(2)).as_bytes()).await;
    sleep(Duration::from_secs(10)).await;
    assert_eq!((spool.status().synced_seq, known()), (2, vec![0, 1]));
    bus.end().await;
    assert_eq!((spool.status().synced_seq, known()), (3, vec![0, 1, 2]), "a bus that ends waits for it");
    assert!(appender.finish().await, "it ends");
    spool.close().await;
}

/// The first question of a slot was lost, or its answer garbled, and everything after it would have been answered: no slot had a
/// value, an hour each.
#[tokio::test(start_paused = true)]
async fn a_question_that_is_lost_or_garbled_is_asked_again_in_its_slot() {
    let points = point("site/level", "column = 1\nevery = \"20s\"");
    for first in [&b""[..], b"what?\r\n"] {
        let mut bus = Listening::begin("poll = \"?\\n\"\ntimeout = \"200ms\"", &points).await;
        let mut logger = bus.connection().await;
        for slot in 0..4 {
            logger.read::<2>().await;
            logger.write(first).await;
            logger.read::<2>().await;
            logger.write(b"7.5\r\n").await;
            let reading = bus.next().await;
            assert_eq!((reading.value, reading.time_us), (Some(7.5), START_US + slot * 20_000_000));
        }
        bus.end().await;
    }
}

/// Who does not answer at all is asked twice in the first slot, once in those after it, and his slots end with their cause.
#[tokio::test(start_paused = true)]
async fn a_device_that_is_silent_is_not_asked_all_the_time() {
    let points = point("site/level", "column = 1\nevery = \"20s\"");
    let mut bus = Listening::begin("poll = \"?\\n\"\ntimeout = \"200ms\"", &points).await;
    let mut logger = bus.connection().await;
    for slot in 0..3 {
        for _ in 0..if slot == 0 { 2 } else { 1 } {
            logger.read::<2>().await;
        }
        let reading = bus.next().await;
        assert_eq!((reading.cause, reading.time_us), (Some(Cause::Timeout), START_US + slot * 20_000_000));
    }
    bus.end().await;
}

/// How many of the rows of a logger that `/learned` knows of, and which file that says.
fn known_rows(learned: &std::path::Path, rows: std::ops::Range<i64>) -> (usize, Option<u64>) {
    use std::os::unix::fs::MetadataExt;
    let file = learned.join("line.times.toml");
    let text = std::fs::read_to_string(&file).unwrap_or("version = 1".to_owned());
    let told = decode(&text).expect("it is read").remove(&"site/level".parse().expect("valid")).unwrap_or_default();
    let known = rows.filter(|row| told.stored.look(row * 1_000_000) == Told::Repeated).count();
    (known, std::fs::metadata(file).ok().map(|file| file.ino()))
}

/// A bus that lost its power nine seconds after each start stored the logger's whole memory again, each time: it wrote down after a
/// minute what was told. A logger that never stops must not wear out the card for that.
#[tokio::test(start_paused = true)]
async fn a_whole_memory_is_not_stored_again_after_a_power_cut_in_the_first_minute() {
    let folder = tempfile::tempdir().expect("a folder");
    let learned = folder.path().join("learned");
    let (readings, mut received) = mpsc::channel(READINGS_QUEUE);
    tokio::spawn(async move { while received.recv().await.is_some() {} });
    let points = "time_column = 1\ntime_format = \"unix\"\n".to_owned()
        + &point("site/level", "column = 2\nevery = \"24h\"\nphase = \"12h\"");
    let over = (Some((readings, OnDisk::kept())), Some(learned.clone()));
    let mut bus = Listening::begin_over(over, "timeout = \"200ms\"", &points).await;
    let mut logger = bus.connection().await;
    sleep(Duration::from_secs(1)).await;
    let first = START_US / 1_000_000 - 100_000;
    let print = |rows: std::ops::Range<i64>| rows.map(|row| format!("{};7.5\r\n", first + row)).collect::<String>();
    logger.write(print(0..300).as_bytes()).await;
    sleep(Duration::from_secs(6)).await;
    assert_eq!(known_rows(&learned, first..first + 300).0, 300, "seven seconds after the start");
    logger.write(print(300..350).as_bytes()).await;
    sleep(Duration::from_secs(10)).await;
    assert_eq!(known_rows(&learned, first..first + 350).0, 300, "a few rows wait for their minute");
    let (mut files, mut last) = (0, None);
    for second in 0..300 {
        logger.write(print(350 + second * 20..370 + second * 20).as_bytes()).await;
        sleep(Duration::from_secs(1)).await;
        let (_, file) = known_rows(&learned, 0..0);
        files += usize::from(file != last);
        last = file;
    }
    assert!((6..=14).contains(&files), "{files} files in five minutes");
    bus.end().await;
    assert_eq!(known_rows(&learned, first..first + 6_350).0, 6_350);
}

/// A bus that got another name in the configuration stored its logger's memory a second time, and so did one that got a sensor of
/// another bus, or back one that had been taken out for a while.
#[tokio::test(start_paused = true)]
async fn a_sensors_times_are_found_under_whatever_bus_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let learned = folder.path().join("learned");
    let dated = |sensor: &str| {
        "time_column = 1\ntime_format = \"unix\"\n".to_owned()
            + &point(sensor, "column = 2\nevery = \"24h\"\nphase = \"12h\"")
    };
    let row = START_US / 1_000_000 - 1_000;
    let listen = async |sensor: &str| {
        let (readings, mut received) = mpsc::channel(READINGS_QUEUE);
        let over = (Some((readings, OnDisk::kept())), Some(learned.clone()));
        let mut bus = Listening::begin_over(over, "timeout = \"200ms\"", &dated(sensor)).await;
        let mut logger = bus.connection().await;
        sleep(Duration::from_secs(1)).await;
        logger.write((0..20).map(|step| format!("{};7.5\r\n", row + step * 10)).collect::<String>().as_bytes()).await;
        sleep(Duration::from_secs(2)).await;
        bus.end().await;
        let mut stored = 0;
        while let Ok(rows) = received.try_recv() {
            stored += rows.len();
        }
        stored
    };
    assert_eq!((listen("site/level").await, listen("site/level").await), (20, 0), "each once");
    std::fs::rename(learned.join("line.times.toml"), learned.join("another%20name.times.toml")).expect("renamed");
    assert_eq!(listen("site/level").await, 0, "it was on a bus of another name");
    std::fs::remove_file(learned.join("another%20name.times.toml")).expect("removed");
    assert_eq!(listen("site/rain").await, 20);
    assert_eq!(listen("site/level").await, 0, "it was taken out for a while");
}

/// What a gauge printed at these times after the start, numbered: which slot has which line, and its lag. Slots without one are left out.
async fn gauge(every: &str, timeout: &str, printed_ms: &[u64]) -> Vec<(i64, i64, Option<i32>)> {
    let place = format!("timeout = \"{timeout}\"");
    let mut bus = Listening::begin(&place, &point("site/rain", &format!("column = 1\nevery = \"{every}\""))).await;
    let (start, mut logger) = (Instant::now(), bus.connection().await);
    for (line, at_ms) in printed_ms.iter().enumerate() {
        tokio::time::sleep_until(start + Duration::from_millis(*at_ms)).await;
        logger.write(format!("{line}\r\n").as_bytes()).await;
    }
    sleep(Duration::from_secs(50)).await;
    let mut stored = Vec::new();
    while let Ok(rows) = bus.received.try_recv() {
        let said = Vec::from(rows)
            .into_iter()
            .filter_map(|row| row.value.map(|line| ((row.time_us - START_US) / 1_000_000, line as i64, row.lag_ms)));
        stored.extend(said);
    }
    bus.end().await;
    stored
}

/// A rain gauge's millimetres since its last line were summed up twice, at each start and after each line that was lost: the line
/// that ended a slot's wait stood for the next slot as well.
#[tokio::test(start_paused = true)]
async fn a_line_gives_one_slot_its_value_and_no_other() {
    for offset_ms in [50, 200, 500, 970] {
        let printed: Vec<u64> = (0..30)
            .filter(|second| ![7, 8, 15].contains(second))
            .map(|second| 1_000 * (second + 1) + offset_ms)
            .collect();
        let stored = gauge("1s", "500ms", &printed).await;
        assert!(stored.is_sorted_by(|one, other| one.1 < other.1), "twice, {offset_ms} ms behind the slot: {stored:?}");
        assert!(stored.len() >= 25, "{offset_ms} ms: {stored:?}");
    }
}

/// The line of 15:00:02 was the reading of 16:00, good and without a word, and so for good.
#[tokio::test(start_paused = true)]
async fn a_line_that_comes_right_behind_its_slot_is_that_slots() {
    let slots_ms: Vec<u64> = (1..20).map(|slot| slot * 60_000).collect();
    for late_ms in [2_000, 4_000, 5_000] {
        let behind: Vec<u64> = slots_ms.iter().map(|slot_ms| slot_ms + 40_000 + late_ms).collect();
        // Slots are the full minutes since 1970, which the start is 20 s behind.
        let stored = gauge("1min", "500ms", &behind).await;
        for (slot_s, line, lag_ms) in &stored {
            assert_eq!((*slot_s, *lag_ms), (100 + line * 60, None), "{stored:?}");
        }
        assert_eq!(stored.len(), behind.len(), "{stored:?}");
        // Somebody pressed its button in between: the line after that is its own slot's again.
        let mut pressed = behind.clone();
        pressed.insert(5, behind[4] + 20_000);
        let stored = gauge("1min", "500ms", &pressed).await;
        assert_eq!(stored.last(), Some(&(100 + 18 * 60, 19, None)), "{stored:?}");
    }
}

/// A line that was there before its slot says by its lag when it came: nobody could tell that a value was an hour old.
#[tokio::test(start_paused = true)]
async fn a_line_from_before_its_slot_says_when_it_came() {
    // The slots are 40 s, 100 s, … behind the start; the lines 20 s behind those.
    let printed: Vec<u64> = (1..10).map(|slot| slot * 60_000).collect();
    let stored = gauge("1min", "500ms", &printed).await;
    assert_eq!(stored.len(), printed.len(), "{stored:?}");
    for (slot_s, line, lag_ms) in stored {
        let came_ms = slot_s * 1_000 + i64::from(lag_ms.expect("it came long before"));
        assert!((came_ms - (line + 1) * 60_000).abs() <= 20, "line {line} came at {came_ms} ms");
    }
}
