//! Loggers and instruments that print lines, over TCP and over a serial port: what they say of the time,
//! what a bad wire does to them, and what they do when somebody pulls the plug.

mod common;

use std::collections::HashMap;
use std::time::Duration;

use common::{Buses, config, point, soon};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use tjern_gateway::lines::nmea::checksum;
use tjern_readings::clock::Clock;
use tjern_readings::reading::{Cause, Quality, Reading};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::time::{Interval, MissedTickBehavior, interval};

const SECOND_US: i64 = 1_000_000;

/// A bus of text lines with one device.
fn bus(place: &str, device: &str, points: &[String]) -> String {
    format!(
        "[[bus]]\nname = \"mast\"\nkind = \"text-lines\"\n{place}\n[[bus.device]]\nname = \"logger\"\n{device}\n{}",
        points.concat()
    )
}

/// A device's beat: where the machine is slow the device is, too, and never two beats come at once.
fn beat(every_ms: u64) -> Interval {
    let mut ticks = interval(Duration::from_millis(every_ms));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// A time as a logger in Oslo that keeps standard time writes it.
fn written(time_us: i64) -> String {
    let zone = TimeZone::fixed(jiff::tz::offset(1));
    let time = Timestamp::from_microsecond(time_us).expect("in range").to_zoned(zone);
    time.strftime("%d.%m.%Y %H:%M:%S").to_string()
}

/// Ten minutes' means, printed together every hour, the last hour's once more: the gateway once kept one
/// of them, dated by itself.
#[tokio::test]
async fn what_a_logger_dumps_is_stored_once_each_with_the_loggers_own_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let start_us = Clock::system().now_us() / SECOND_US * SECOND_US - 7_200 * SECOND_US;
    let line = move |row: i64| format!("\"{}\";{},5;{}\r\n", written(start_us + row * 600 * SECOND_US), row, row + 100);
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("the gateway connects");
        let mut question = [0; 64];
        for first in [0, 0, 6] {
            assert!(stream.read(&mut question).await.is_ok_and(|count| count > 0), "the gateway asks");
            let dump: String = (first..first + 6).map(line).collect();
            stream.write_all(dump.as_bytes()).await.expect("the gateway listens");
        }
        std::future::pending::<()>().await;
    });
    let place = format!("address = \"{address}\"\npoll = \"DUMP\\r\\n\"\ntimeout = \"300ms\"\nterminator = \"\\r\\n\"");
    let device = "time_column = 1\ntime_format = \"%d.%m.%Y %H:%M:%S\"\ntime_zone = \"+01:00\"";
    let points = [
        point("mast/air_temperature", "column = 2\nevery = \"700ms\"\nscale = 10"),
        point("mast/humidity", "column = 3\nevery = \"700ms\""),
    ];
    let mut buses = Buses::start(&config(&bus(&place, device, &points)));
    let mut got: HashMap<(String, i64), f64> = HashMap::new();
    while got.len() < 24 {
        let reading = buses.next().await;
        let Some(value) = reading.value else { panic!("{reading:?}") };
        assert_eq!((reading.quality, reading.cause), (Quality::NotEvaluated, None));
        let twice = got.insert((reading.sensor.as_str().to_owned(), reading.time_us), value);
        assert_eq!(twice, None, "{reading:?} came twice");
    }
    for row in 0..12_i32 {
        let time_us = start_us + i64::from(row) * 600 * SECOND_US;
        assert_eq!(got[&("mast/air_temperature".to_owned(), time_us)], f64::from(row) * 10.0 + 5.0);
        assert_eq!(got[&("mast/humidity".to_owned(), time_us)], f64::from(row + 100));
    }
    buses.end().await;
}

/// A logger that prints its last nine rows at each question, and one that prints all newest first, over the hour that comes twice:
/// the second hour had the values of the first, and its own were dropped; newest first, the first hour was lost.
#[tokio::test]
async fn the_hour_that_comes_twice_is_stored_as_two() {
    let first_us = "2025-10-25T23:00:00Z".parse::<Timestamp>().expect("a time").as_microsecond();
    let zone = TimeZone::get("Europe/Oslo").expect("a zone");
    let at = move |row: i64| first_us + row * 600 * SECOND_US;
    let line = move |row: i64| {
        let time = Timestamp::from_microsecond(at(row)).expect("in range").to_zoned(zone.clone());
        format!("{};{row}\r\n", time.strftime("%Y-%m-%d %H:%M:%S"))
    };
    let rolling: Vec<String> = (9..=24).map(|end| (end - 9..end).map(&line).collect()).collect();
    let falling = vec![(0..24).rev().map(&line).collect::<String>()];
    for print_outs in [rolling, falling] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("the gateway connects");
            let mut question = [0; 64];
            for print_out in print_outs {
                assert!(stream.read(&mut question).await.is_ok_and(|count| count > 0), "the gateway asks");
                stream.write_all(print_out.as_bytes()).await.expect("the gateway listens");
            }
            std::future::pending::<()>().await;
        });
        let place = format!("address = \"{address}\"\npoll = \"D\"\ntimeout = \"200ms\"");
        let device = "time_column = 1\ntime_format = \"%Y-%m-%d %H:%M:%S\"\ntime_zone = \"Europe/Oslo\"";
        let mut buses =
            Buses::start(&config(&bus(&place, device, &[point("mast/value", "column = 2\nevery = \"400ms\"")])));
        let mut got = HashMap::new();
        while got.len() < 24 {
            let reading = buses.first("a row", |reading| reading.value.is_some()).await;
            got.insert(reading.time_us, reading.value);
        }
        for row in 0..24_i32 {
            assert_eq!(got[&at(row.into())], Some(f64::from(row)), "row {row}");
        }
        let counts = buses.states().snapshot()[0].lines.expect("they are counted");
        assert_eq!(counts.undecided, 0, "{counts:?}");
        buses.end().await;
    }
}

/// After each restart the logger's whole memory was stored again. What it wrote while it could not be reached is older than
/// the reading that says so, and is stored all the same.
#[tokio::test]
async fn what_a_logger_dumps_again_after_a_restart_is_not_stored_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let start_us = Clock::system().now_us() / SECOND_US * SECOND_US - 7_200 * SECOND_US;
    let line = move |row: i64| format!("{};{row}\r\n", written(start_us + row * 60 * SECOND_US));
    let place = format!("address = \"{address}\"\npoll = \"DUMP\\r\\n\"\ntimeout = \"100ms\"\nterminator = \"\\r\\n\"");
    let device = "time_column = 1\ntime_format = \"%d.%m.%Y %H:%M:%S\"\ntime_zone = \"+01:00\"";
    let config = config(&bus(&place, device, &[point("mast/value", "column = 2\nevery = \"300ms\"")]));
    for (dumped, new) in [(0..6, 0..6), (0..12, 6..12), (3..20, 12..20)] {
        let mut buses = Buses::start_with(&config, Some(folder.path().to_owned()));
        let (mut stream, _) = soon("a connection", listener.accept()).await.expect("the gateway connects");
        let mut question = [0; 64];
        assert!(stream.read(&mut question).await.is_ok_and(|count| count > 0), "the gateway asks");
        // It does not answer at first.
        let silent = buses.first("no answer", |reading| reading.value.is_none()).await;
        assert!(silent.time_us > start_us + 20 * 60 * SECOND_US);
        assert!(stream.read(&mut question).await.is_ok_and(|count| count > 0), "the gateway asks");
        stream.write_all(dumped.map(line).collect::<String>().as_bytes()).await.expect("the gateway listens");
        for row in new {
            let reading = buses.first("a row", |reading| reading.value.is_some()).await;
            assert_eq!(reading.time_us, start_us + row * 60 * SECOND_US);
        }
        buses.end().await;
    }
}

/// A byte of a row was damaged on its way. When the logger printed its memory once more the row was whole, and was not stored:
/// its time was stored already, without a value.
#[tokio::test]
async fn a_row_that_was_damaged_is_stored_when_it_comes_whole() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let place = format!(
        "address = \"{}\"\npoll = \"DUMP\\r\\n\"\ntimeout = \"100ms\"",
        listener.local_addr().expect("an address")
    );
    let device = "time_column = 1\ntime_format = \"unix\"";
    let mut buses =
        Buses::start(&config(&bus(&place, device, &[point("mast/value", "column = 2\nevery = \"300ms\"")])));
    let start = Clock::system().now_us() / SECOND_US - 7_200;
    let (mut stream, _) = soon("a connection", listener.accept()).await.expect("the gateway connects");
    let mut got = Vec::new();
    // Damaged twice, then whole twice, and a last row that ends the story.
    for rows in ["12.x", "12.x", "12.5", "12.5", "12.x\n{};7"] {
        let mut question = [0; 64];
        assert!(stream.read(&mut question).await.is_ok_and(|count| count > 0), "the gateway asks");
        let text = format!("{start};{}\n", rows.replace("{}", &(start + 60).to_string()));
        stream.write_all(text.as_bytes()).await.expect("the gateway listens");
    }
    while got.last() != Some(&(60, Some(7.0))) {
        let reading = buses.next().await;
        got.push((reading.time_us / SECOND_US - start, reading.value));
    }
    assert_eq!(got, [(0, None), (0, Some(12.5)), (60, Some(7.0))]);
    buses.end().await;
}

/// A damaged row of a logger's memory was stored again, without a value, after each restart.
#[tokio::test]
async fn a_row_that_was_damaged_is_stored_once_over_restarts_until_it_comes_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let place = format!(
        "address = \"{}\"\npoll = \"DUMP\\r\\n\"\ntimeout = \"100ms\"",
        listener.local_addr().expect("an address")
    );
    let device = "time_column = 1\ntime_format = \"unix\"";
    let config = config(&bus(&place, device, &[point("mast/value", "column = 2\nevery = \"300ms\"")]));
    let start = Clock::system().now_us() / SECOND_US - 7_200;
    let mut got = Vec::new();
    for (life, row) in (0..).zip(["12.x", "12.x", "12.5", "12.x"]) {
        let mut buses = Buses::start_with(&config, Some(folder.path().to_owned()));
        let (mut stream, _) = soon("a connection", listener.accept()).await.expect("the gateway connects");
        assert!(stream.read(&mut [0; 64]).await.is_ok_and(|count| count > 0), "the gateway asks");
        // The last row ends each life's story.
        let text = format!("{start};{row}\n{};{life}\n", start + 60 + life);
        stream.write_all(text.as_bytes()).await.expect("the gateway listens");
        loop {
            let reading = buses.next().await;
            got.push((reading.time_us / SECOND_US - start, reading.value));
            if got.last() == Some(&(60 + life, Some(life as f64))) {
                break;
            }
        }
        buses.end().await;
    }
    got.retain(|(after_s, _)| *after_s == 0);
    assert_eq!(got, [(0, None), (0, Some(12.5))]);
}

/// A device does not wait for a gateway: the first line after a start was its second half, and a number like any other.
#[tokio::test]
async fn half_a_line_at_the_start_is_no_value() {
    let (mut ours, theirs) = tokio_serial::SerialStream::pair().expect("a pseudo terminal");
    let port = tokio_serial::SerialPort::name(&theirs).expect("it has a name");
    let printing = tokio::spawn(async move {
        let mut ticks = interval(Duration::from_millis(2));
        for byte in b"1234567.5\r\n".iter().cycle() {
            ticks.tick().await;
            if ours.write_all(&[*byte]).await.is_err() {
                return;
            }
        }
    });
    let body = "column = 1\nevery = \"50ms\"";
    let text = config(&bus(&format!("port = \"{port}\"\ntimeout = \"200ms\""), "", &[point("mast/value", body)]));
    for _ in 0..4 {
        let mut buses = Buses::start(&text);
        let reading = buses.first("a value", |reading| reading.value.is_some()).await;
        assert_eq!(reading.value, Some(1_234_567.5));
        buses.end().await;
    }
    printing.abort();
    drop(theirs);
}

/// A logger that sends a line when it has one, and hangs up: the line began after the connection was made, since that was
/// silent before.
#[tokio::test]
async fn a_connection_for_each_line_loses_none_that_comes_after_a_silence() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let start = Clock::system().now_us() / SECOND_US - 7_200;
    tokio::spawn(async move {
        for row in 0.. {
            let (mut stream, _) = listener.accept().await.expect("the gateway connects");
            let mut ticks = beat(600);
            ticks.tick().await;
            ticks.tick().await;
            stream.write_all(format!("{};{row}\r\n", start + row).as_bytes()).await.expect("the gateway listens");
        }
    });
    let place = format!("address = \"{address}\"");
    let device = "time_column = 1\ntime_format = \"unix\"";
    let body = "column = 2\nevery = \"10s\"";
    let mut buses = Buses::start(&config(&bus(&place, device, &[point("site/level", body)])));
    for _ in 0..3 {
        let reading = buses.first("a row", |reading| reading.value.is_some()).await;
        assert_eq!(Some((reading.time_us / SECOND_US - start) as f64), reading.value);
    }
    buses.end().await;
}

/// A logger whose battery died counts from the year 2000; its values are as good as they were.
#[tokio::test]
async fn a_value_with_a_time_that_cannot_be_is_kept_under_its_slot_and_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("the gateway connects");
        let mut stream = BufReader::new(stream);
        let mut question = String::new();
        while stream.read_line(&mut question).await.is_ok_and(|count| count > 0) {
            stream.write_all(b"2000-01-01 00:17:00 12.5\r\n").await.expect("the gateway listens");
        }
    });
    let place = format!("address = \"{address}\"\npoll = \"?\\n\"\ntimeout = \"5s\"");
    let device = "time_pattern = '^(?<time>\\S+ \\S+) '\ntime_format = \"%Y-%m-%d %H:%M:%S\"";
    let body = "column = 3\nseparator = \"whitespace\"\nevery = \"200ms\"";
    let mut buses = Buses::start(&config(&bus(&place, device, &[point("mast/value", body)])));
    let reading = buses.first("a value", |reading| reading.value.is_some()).await;
    assert_eq!((reading.value, reading.cause), (Some(12.5), Some(Cause::ClockEstimated)));
    assert_eq!((reading.quality, reading.time_us % 200_000), (Quality::NotEvaluated, 0));
    buses.end().await;
}

/// Noise, a lost checksum, half lines, a line that never ends: no wrong value, and the next good line counts.
#[tokio::test]
async fn a_bad_wire_gives_no_wrong_value() {
    let (mut ours, theirs) = tokio_serial::SerialStream::pair().expect("a pseudo terminal");
    let port = tokio_serial::SerialPort::name(&theirs).expect("it has a name");
    let printing = tokio::spawn(async move {
        let good = |value: &str| {
            let body = format!("YXMTW,{value},C");
            format!("${body}*{:02X}\r\n", checksum(&body))
        };
        let right = good("12.3");
        let mut ticks = interval(Duration::from_millis(20));
        for turn in 0_usize.. {
            ticks.tick().await;
            let damaged = match turn % 6 {
                0 => right.clone().into_bytes(),
                1 => right.replace("12.3", "92.3").into_bytes(),
                // The star was hit: what is left looks like a sentence without a checksum.
                2 => right.replace("12.3", "82.3").replace('*', ",").into_bytes(),
                3 => vec![0xFF; 700],
                4 => format!("$YXMTW,12{}", good("12.3")).into_bytes(),
                _ => b"\r\n$PXMTW,72.3,C\r\n$YXMT\r\n".to_vec(),
            };
            if ours.write_all(&damaged).await.is_err() {
                return;
            }
        }
    });
    let place = format!("port = \"{port}\"\ntimeout = \"2s\"\nmax_line = 82");
    let body = "sentence = \"MTW\"\nfield = 1\nevery = \"50ms\"";
    let mut buses = Buses::start(&config(&bus(&place, "", &[point("mast/water_temperature", body)])));
    let mut values = 0;
    while values < 30 {
        let reading: Reading = buses.next().await;
        match (reading.value, reading.cause) {
            (Some(value), None) => assert_eq!(value, 12.3),
            (None, Some(Cause::Crc | Cause::Timeout)) => {}
            other => panic!("{other:?}"),
        }
        values += i32::from(reading.value.is_some());
    }
    buses.end().await;
    printing.abort();
    drop(theirs);
}

/// Frames of a fixed length over a serial port, of which every third loses its end.
#[tokio::test]
async fn frames_of_a_fixed_length_find_their_start_again_after_a_pause() {
    let (mut ours, theirs) = tokio_serial::SerialStream::pair().expect("a pseudo terminal");
    let port = tokio_serial::SerialPort::name(&theirs).expect("it has a name");
    let printing = tokio::spawn(async move {
        let mut question = [0; 16];
        for turn in 0_usize.. {
            if ours.read(&mut question).await.is_err() {
                return;
            }
            let whole = b"T+0012.3H00450\x03\x04";
            let frame = if turn % 3 == 1 { &whole[..9] } else { &whole[..] };
            ours.write_all(frame).await.expect("the gateway listens");
        }
    });
    let place = format!("port = \"{port}\"\npoll = \"\\u0005\"\nlength = 16\ntimeout = \"100ms\"");
    let body = "pattern = '^T(?<value>[+0-9.]+)H'\nevery = \"300ms\"";
    let mut buses = Buses::start(&config(&bus(&place, "", &[point("mast/value", body)])));
    buses.first("a value", |reading| reading.value == Some(12.3)).await;
    buses.first("the broken frame", |reading| reading.cause == Some(Cause::Timeout)).await;
    buses.first("a value again", |reading| reading.value == Some(12.3)).await;
    buses.end().await;
    printing.abort();
    drop(theirs);
}

/// Frames of a fixed length every 250 ms, of which one lost a byte: all after it were shifted, for ever, and good by their
/// quality. A gateway that begins to listen within one is no better off.
#[tokio::test]
async fn a_lost_byte_shifts_no_frame_of_a_fixed_length() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("the gateway connects");
        stream.write_all(b"3.45;067.80;").await.expect("the gateway listens");
        let mut ticks = beat(250);
        for turn in 0_usize.. {
            ticks.tick().await;
            let frame = if turn % 4 == 2 { &b"12.45;067.80;"[..] } else { b"123.45;067.80;" };
            if stream.write_all(frame).await.is_err() {
                return;
            }
        }
    });
    let place = format!("address = \"{address}\"\nlength = 14");
    let points = [("level", 1), ("flow", 2)]
        .map(|(name, column)| point(&format!("site/{name}"), &format!("column = {column}\nevery = \"500ms\"")));
    let mut buses = Buses::start(&config(&bus(&place, "", &points)));
    let mut values = 0;
    while values < 20 {
        let reading = buses.next().await;
        let Some(value) = reading.value else { continue };
        assert_eq!(value, if reading.sensor.as_str() == "site/level" { 123.45 } else { 67.8 }, "{reading:?}");
        values += 1;
    }
    buses.end().await;
}

/// A device's wind had a checksum like all it says, and lost it with the star: 9214.8 was a good value, since the point had
/// not seen one of its own yet.
#[tokio::test]
async fn a_lost_checksum_is_noticed_by_all_points_of_a_device() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let place = format!("address = \"{}\"\ndown_report = \"100ms\"", listener.local_addr().expect("an address"));
    let points = [("water", "MTW"), ("wind", "MWV")].map(|(name, sentence)| {
        point(&format!("site/{name}"), &format!("sentence = \"{sentence}\"\nfield = 1\nevery = \"100ms\""))
    });
    let mut buses = Buses::start(&config(&bus(&place, "", &points)));
    let body = "YXMTW,12.3,C";
    let water = format!("${body}*{:02X}\r\n", checksum(body));
    let wind = "$WIMWV,9214.8,R,0.1,M,A\r\n";
    // The device is the same after a connection that broke.
    for first in [water.as_str(), wind] {
        let (mut stream, _) = soon("a connection", listener.accept()).await.expect("the gateway connects");
        stream.write_all(first.as_bytes()).await.expect("the gateway listens");
        let water = water.clone();
        let printing = tokio::spawn(async move {
            let mut ticks = beat(20);
            while stream.write_all(format!("{wind}{water}").as_bytes()).await.is_ok() {
                ticks.tick().await;
            }
        });
        for _ in 0..5 {
            buses.first("the water", |reading| reading.value == Some(12.3)).await;
            let is_late = |reading: &Reading| matches!(reading.cause, Some(Cause::Unreachable | Cause::Timeout));
            let is_wind = |reading: &Reading| reading.sensor.as_str() == "site/wind" && !is_late(reading);
            let lost = buses.first("the wind", is_wind).await;
            assert_eq!((lost.value, lost.cause), (None, Some(Cause::Crc)), "{lost:?}");
        }
        printing.abort();
        buses.first("that it is gone", |reading| reading.cause == Some(Cause::Unreachable)).await;
    }
    buses.end().await;
}

/// A logger's memory of five weeks, newest first: all past 4,097 lines counted as stored, and was lost.
#[tokio::test]
async fn a_long_memory_that_is_printed_newest_first_is_stored_all() {
    const ROWS: i64 = 5_000;
    let folder = tempfile::tempdir().expect("a folder");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let place = format!(
        "address = \"{}\"\npoll = \"DUMP\\r\\n\"\ntimeout = \"150ms\"",
        listener.local_addr().expect("an address")
    );
    let device = "time_column = 1\ntime_format = \"%d.%m.%Y %H:%M:%S\"\ntime_zone = \"+01:00\"";
    let config = config(&bus(&place, device, &[point("site/level", "column = 2\nevery = \"400ms\"")]));
    let start_us = Clock::system().now_us() / SECOND_US * SECOND_US - 601 * ROWS * SECOND_US;
    let dump = |rows: i64| -> String {
        (0..rows).rev().map(|row| format!("{};{row}\r\n", written(start_us + row * 600 * SECOND_US))).collect()
    };
    // After a restart it prints all once more, and a row that is new.
    for (rows, news) in [(ROWS, 0..ROWS), (ROWS + 1, ROWS..ROWS + 1)] {
        let new = u64::try_from(news.end - news.start).expect("some");
        let mut buses = Buses::start_with(&config, Some(folder.path().to_owned()));
        let (mut stream, _) = soon("a connection", listener.accept()).await.expect("the gateway connects");
        let text = dump(rows);
        let answering = tokio::spawn(async move {
            let mut question = [0; 64];
            while stream.read(&mut question).await.is_ok_and(|count| count > 0) {
                stream.write_all(text.as_bytes()).await.expect("the gateway listens");
            }
        });
        for row in news.rev() {
            let reading = buses.first("a row", |reading| reading.value.is_some()).await;
            assert_eq!((reading.time_us - start_us, reading.value), (row * 600 * SECOND_US, Some(row as f64)));
        }
        let mut looks = interval(Duration::from_millis(5));
        let counts = soon("all once more", async {
            loop {
                looks.tick().await;
                let counts = buses.states().snapshot()[0].lines.expect("they are counted");
                if counts.lines >= 2 * u64::try_from(ROWS).expect("small") {
                    return counts;
                }
            }
        })
        .await;
        assert_eq!((counts.repeated, counts.forgotten), (counts.lines - new, 0), "{counts:?}");
        buses.end().await;
        answering.abort();
    }
}

/// `watch` and the metrics showed the bus's name in the place of each device on it.
#[tokio::test]
async fn devices_on_one_line_are_shown_by_their_names() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let place = format!("address = \"{}\"", listener.local_addr().expect("an address"));
    let of = |sensor: &str| point(sensor, "column = 1\nevery = \"1h\"");
    let first = bus(&place, "", &[of("mast/air_temperature"), of("mast/humidity")]);
    let text = format!("{first}[[bus.device]]\nname = \"anemometer\"\n{}", of("mast/wind_speed"));
    let buses = Buses::start(&config(&text));
    let mut looks = interval(Duration::from_millis(5));
    let shown = soon("the bus", async {
        loop {
            looks.tick().await;
            if let [bus] = &buses.states().snapshot()[..] {
                return bus.devices.clone();
            }
        }
    })
    .await;
    let shown: Vec<(&str, usize)> = shown.iter().map(|device| (device.device.as_str(), device.points.len())).collect();
    assert_eq!(shown, [("logger", 2), ("anemometer", 1)]);
    buses.end().await;
}

/// A device server that restarts is found again, and its first half line is no value.
#[tokio::test]
async fn a_connection_that_broke_is_made_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let body = "pattern = '^T=(?<value>[0-9.]+)$'\nevery = \"100ms\"";
    let place = format!("address = \"{address}\"\ntimeout = \"50ms\"");
    let mut buses = Buses::start(&config(&bus(&place, "", &[point("mast/value", body)])));
    for value in [11.5, 22.5, 33.5] {
        let (mut stream, _) = soon("a connection", listener.accept()).await.expect("the gateway connects");
        let printing = tokio::spawn(async move {
            let mut ticks = interval(Duration::from_millis(20));
            let text = format!("T={value}\r\n");
            while stream.write_all(text.as_bytes()).await.is_ok() {
                ticks.tick().await;
            }
        });
        buses.first("its value", |reading| reading.value == Some(value)).await;
        printing.abort();
        buses.first("that it is gone", |reading| reading.cause == Some(Cause::Unreachable)).await;
    }
    buses.end().await;
}
