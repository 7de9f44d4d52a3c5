//! Useful, not only conformant: faults put into a real lake are found, and the lake itself is left alone.
//!
//! The lake is that of Zürich, at Tiefenbrunnen and Mythenquai, in 2020 (City of Zürich,
//! "sid_wapo_wetterstationen", CC0): a row every ten minutes from January to October.
//! `TJERN_MEASUREMENTS` names the folder; without it these tests skip, saying so. The series has faults
//! of its own: 70 °C on 23 May, and from 25 May to 2 June a probe that hung in the air and then said
//! 0.0; what is flagged there is right, and nothing is put in there.

use std::path::PathBuf;

use super::super::series::{Series, flags};
use super::*;

const SEED: u64 = 20_200_704;
const EACH: usize = 40;
const DAY_US: i64 = 24 * HOUR_US;

/// What a city would write for this lake, beside what is built in: by month, wide, since cold water from
/// below comes up in spring. Deep water has 4 to 5 °C all year.
const SEASONS: &str = "tjern/t,climatology,12-3,suspect=4..11\ntjern/t,climatology,4,suspect=4.5..18\n\
    tjern/t,climatology,5,suspect=6..22 fail=3..30\ntjern/t,climatology,6,suspect=8..25 fail=3..32\n\
    tjern/t,climatology,7,suspect=11..28 fail=3..34\ntjern/t,climatology,8,suspect=14..28 fail=3..34\n\
    tjern/t,climatology,9,suspect=13..25 fail=3..32\ntjern/t,climatology,10-11,suspect=7..20";

/// From and to, in hours of 2020: when the probe itself was out of order.
const KNOWN_FAULTS: [(&str, &str); 2] =
    [("2020-05-23T06:00:00Z", "2020-05-23T13:00:00Z"), ("2020-05-25T10:00:00Z", "2020-06-02T18:30:00Z")];

fn measurements() -> Option<PathBuf> {
    let folder = std::env::var_os("TJERN_MEASUREMENTS").filter(|folder| !folder.is_empty());
    if folder.is_none() {
        println!("SKIPPED: TJERN_MEASUREMENTS does not name the folder with the measurements (tests/peers/README.md)");
    }
    folder.map(PathBuf::from)
}

/// Times and values of a column, in order.
fn read(folder: &std::path::Path, station: &str, column: &str) -> Vec<(i64, Option<f64>)> {
    let path = folder.join(format!("zurich_{station}_2020_10min.csv.gz"));
    let unpacked = std::process::Command::new("gzip").arg("-dc").arg(&path).output().expect("gzip");
    assert!(unpacked.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&unpacked.stderr));
    let text = String::from_utf8(unpacked.stdout).expect("text");
    let mut lines = text.lines();
    let place = lines.next().and_then(|header| header.split(',').position(|name| name == column)).expect("the column");
    let rows = lines.map(|line| {
        let fields: Vec<&str> = line.split(',').collect();
        let civil: jiff::civil::DateTime = fields[0].parse().expect("a time");
        let winter = civil.to_zoned(jiff::tz::TimeZone::UTC).expect("a time").timestamp().as_microsecond() - HOUR_US;
        (winter, fields[place].parse().ok())
    });
    let rows: std::collections::BTreeMap<_, _> = rows.collect();
    rows.into_iter().collect()
}

fn series(rows: &[(i64, Option<f64>)]) -> Series {
    Series {
        time_us: rows.iter().map(|(time_us, _)| *time_us).collect(),
        value: rows.iter().map(|(_, value)| *value).collect(),
        came: vec![0; rows.len()],
        counts: vec![true; rows.len()],
    }
}

fn sensor_of(quantity: &str, unit: &str, kind: crate::register::Kind) -> SensorRow {
    let id = format!("tjern/{quantity}").parse().expect("an id");
    SensorRow { id, unit: unit.to_owned(), kind, interval: Some("10min".to_owned()), ..sensor(None, None) }
}

fn water() -> rules::SensorRules {
    let row = sensor_of("water_temperature", "Cel", crate::register::Kind::Sample);
    super::rules_of(row, &SEASONS.replace("tjern/t,", "tjern/water_temperature,"))
}

/// The moments that are suspect or failed.
fn flagged(rows: &[(i64, Option<f64>)], rules: &rules::SensorRules) -> Vec<i64> {
    let tests = flags(&series(rows), rules).expect("flags");
    let bad = rows
        .iter()
        .zip(tests)
        .filter(|((_, value), tests)| value.is_some() && aggregate(*tests) > Quality::NotEvaluated);
    bad.map(|((time_us, _), _)| *time_us).collect()
}

fn is_known_fault(time_us: i64) -> bool {
    let moment = |text: &str| text.parse::<jiff::Timestamp>().expect("a time").as_microsecond();
    KNOWN_FAULTS.iter().any(|(from, to)| (moment(from)..moment(to)).contains(&time_us))
}

fn years(rows: &[(i64, Option<f64>)]) -> f64 {
    let (first, last) = (rows[0].0, rows[rows.len() - 1].0);
    (last - first) as f64 / (365.25 * DAY_US as f64)
}

/// All series of the lake: the station's column, and the sensor that a city would register for it.
fn all_series() -> Vec<(&'static str, &'static str, rules::SensorRules)> {
    use crate::register::Kind::{Angle, IntervalMean, Sample};
    let common = [
        ("air_temperature", "air_temperature", "Cel", Sample),
        ("humidity", "humidity", "%", Sample),
        ("wind_gust_max_10min", "wind_gust", "m/s", Sample),
        ("wind_speed_avg_10min", "wind_speed", "m/s", IntervalMean),
        ("wind_force_avg_10min", "wind_force", "1", IntervalMean),
        ("wind_direction", "wind_direction", "deg", Angle),
        ("windchill", "windchill", "Cel", Sample),
        ("dew_point", "dew_point", "Cel", Sample),
    ];
    let mut all = vec![
        ("tiefenbrunnen", "water_temperature", water()),
        ("tiefenbrunnen", "barometric_pressure_qfe", super::rules_of(sensor_of("pressure", "hPa", Sample), "")),
    ];
    for station in ["tiefenbrunnen", "mythenquai"] {
        for (column, quantity, unit, kind) in common {
            all.push((station, column, super::rules_of(sensor_of(quantity, unit, kind), "")));
        }
    }
    all
}

#[test]
fn a_real_lake_is_left_alone() {
    let Some(folder) = measurements() else { return };
    for (station, column, rules) in all_series() {
        let rows = read(&folder, station, column);
        let flagged = flagged(&rows, &rules);
        let false_flags = flagged.iter().filter(|time_us| column != "water_temperature" || !is_known_fault(**time_us));
        let false_flags: Vec<_> = false_flags
            .map(|time_us| jiff::Timestamp::from_microsecond(*time_us).expect("a time").to_string())
            .collect();
        let a_year = false_flags.len() as f64 / years(&rows);
        let mut made: Vec<_> = rules.tests.keys().filter(|test| rules.lines(**test).next().is_some()).collect();
        made.sort_unstable_by_key(|test| format!("{test:?}"));
        println!(
            "{station} {column}: {} readings, {} flagged, {a_year:.1} false flags a year, by {made:?}: {:?}",
            rows.len(),
            flagged.len(),
            &false_flags[..false_flags.len().min(8)]
        );
        assert!(
            a_year <= 5.0,
            "{station} {column}: {a_year:.1} false flags a year: {:?}",
            false_flags.first().zip(false_flags.last())
        );
    }
}

/// What was found of the faults of a kind.
#[derive(Debug, Default, Clone, Copy)]
struct Found {
    /// Faults in which a reading is flagged.
    caught: usize,
    /// Readings with a wrong value, and those of them that are flagged.
    wrong: usize,
    flagged: usize,
}

/// Numbers from a seed, without a crate (Sebastiano Vigna, "splitmix64").
struct Luck(u64);

impl Luck {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From `low` to `high`.
    fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    OutOfTheWater,
    Stuck,
    Drifting,
    NoProbe,
    CounterJumpsBack,
}

/// A stretch of the lake with a fault in it, and the moments at which it is wrong.
struct Broken {
    rows: Vec<(i64, Option<f64>)>,
    from_us: i64,
    to_us: i64,
}

/// Cuts a stretch with ten days before the fault and puts it in.
fn broken(
    rows: &[(i64, Option<f64>)],
    days: f64,
    luck: &mut Luck,
    change: impl Fn(i64, f64, f64) -> Option<f64>,
) -> Broken {
    let long_us = (days * DAY_US as f64) as i64;
    loop {
        let first = (luck.next() as usize) % rows.len();
        let from_us = rows[first].0;
        let to_us = from_us + long_us;
        let clear = |time_us: i64| !is_known_fault(time_us) && !is_known_fault(time_us - 10 * DAY_US);
        let whole = rows[0].0 < from_us - 11 * DAY_US && to_us + 2 * DAY_US < rows[rows.len() - 1].0;
        if !whole
            || rows[first].1.is_none()
            || !(0..=40).all(|day| clear(from_us + day * DAY_US) || from_us + (day - 1) * DAY_US > to_us)
        {
            continue;
        }
        let near = rows.iter().filter(|(time_us, _)| (from_us - 10 * DAY_US..to_us + DAY_US).contains(time_us));
        let start = rows[first].1.unwrap_or_default();
        let put = near.map(|(time_us, value)| {
            let wrong = (from_us..to_us).contains(time_us);
            (*time_us, if wrong { value.and_then(|value| change(*time_us, value, start)) } else { *value })
        });
        return Broken { rows: put.collect(), from_us, to_us };
    }
}

fn days(from_us: i64, to_us: i64) -> f64 {
    (to_us - from_us) as f64 / DAY_US as f64
}

#[test]
fn faults_that_are_put_in_are_caught() {
    let Some(folder) = measurements() else { return };
    println!("seed {SEED}");
    let mut luck = Luck(SEED);
    let lake = read(&folder, "tiefenbrunnen", "water_temperature");
    let air: std::collections::HashMap<i64, Option<f64>> =
        read(&folder, "tiefenbrunnen", "air_temperature").into_iter().collect();
    // The way of the wind in metres: a counter that only grows.
    let mut way = 0.0;
    let wind = read(&folder, "tiefenbrunnen", "wind_speed_avg_10min").into_iter().map(|(time_us, speed)| {
        way += speed.unwrap_or(0.0) * 600.0;
        (time_us, speed.map(|_| way))
    });
    let wind: Vec<(i64, Option<f64>)> = wind.collect();
    let water = water();
    let counter = super::rules_of(sensor_of("wind_way", "m", crate::register::Kind::Counter), "");
    assert!(flagged(&wind, &counter).is_empty(), "a counter that only grows");
    let mut found = std::collections::BTreeMap::new();
    for _ in 0..EACH {
        let tenth = |value: f64| Some((value * 10.0).round() / 10.0);
        let long = luck.between(0.5, 5.0);
        let in_air = broken(&lake, long, &mut luck, |time_us, _, _| air.get(&time_us).copied().flatten());
        let long = luck.between(4.0, 14.0);
        let stuck = broken(&lake, long, &mut luck, |_, _, start| Some(start));
        let (long, slope) =
            (luck.between(14.0, 30.0), luck.between(0.3, 1.0) * if luck.next().is_multiple_of(2) { 1.0 } else { -1.0 });
        let begun = std::cell::Cell::new(None);
        let drifting = broken(&lake, long, &mut luck, |time_us, value, _| {
            let from_us = begun.get().unwrap_or(time_us);
            begun.set(Some(from_us));
            tenth(value + slope * days(from_us, time_us))
        });
        let long = luck.between(0.007, 0.2);
        let no_probe = broken(&lake, long, &mut luck, |_, _, _| Some(-327.68));
        let (long, share) = (luck.between(0.007, 5.0), luck.between(0.05, 1.0));
        let back = broken(&wind, long, &mut luck, |_, value, start| Some(value - share * start));
        let all = [
            (Fault::OutOfTheWater, in_air, &water),
            (Fault::Stuck, stuck, &water),
            (Fault::Drifting, drifting, &water),
            (Fault::NoProbe, no_probe, &water),
            (Fault::CounterJumpsBack, back, &counter),
        ];
        for (fault, broken, rules) in all {
            let is_in = |time_us: i64| (broken.from_us..broken.to_us).contains(&time_us);
            let flagged = flagged(&broken.rows, rules).into_iter().filter(|time_us| is_in(*time_us)).count();
            let wrong = broken.rows.iter().filter(|(time_us, value)| is_in(*time_us) && value.is_some()).count();
            let of_kind: &mut Found = found.entry(fault).or_default();
            of_kind.caught += usize::from(flagged > 0);
            of_kind.wrong += wrong;
            of_kind.flagged += flagged;
            if flagged == 0 {
                let from = jiff::Timestamp::from_microsecond(broken.from_us).expect("a time");
                println!("missed: {fault:?} from {from} for {:.1} days", days(broken.from_us, broken.to_us));
            }
        }
    }
    for (fault, Found { caught, wrong, flagged }) in &found {
        let percent = 100.0 * *flagged as f64 / *wrong as f64;
        println!("{fault:?}: {caught} of {EACH} caught; {flagged} of {wrong} wrong readings flagged, {percent:.1} %");
    }
    let sum = |of: fn(&Found) -> usize| found.values().map(of).sum::<usize>();
    let (caught, wrong, flagged) = (sum(|kind| kind.caught), sum(|kind| kind.wrong), sum(|kind| kind.flagged));
    println!("all: {caught} caught; {flagged} of {wrong} wrong readings flagged");
    assert!(caught * 100 >= 5 * EACH * 95, "caught {caught} of {}", 5 * EACH);
}
