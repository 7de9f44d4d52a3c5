//! Held against `ioos_qc` 3.0.0, flag by flag. `ioos_qc.json` are its flags on an hourly series with a
//! spike, −327.68, a flat line, a missing value, a step, a probe in the air and six hours without a
//! reading. Every difference stands here and is explained in `docs/quality.md`.

use super::super::series::{Series, flags};
use super::*;

struct Vectors {
    series: Series,
    expected: serde_json::Value,
}

fn vectors() -> Vectors {
    let json: serde_json::Value = serde_json::from_str(include_str!("ioos_qc.json")).expect("JSON");
    let list = |name: &str| json[name].as_array().expect("a list").clone();
    let time = |text: &serde_json::Value| text.as_str().expect("text").parse::<jiff::Timestamp>().expect("a time");
    let time_us: Vec<i64> = list("time").iter().map(|text| time(text).as_microsecond()).collect();
    let value: Vec<Option<f64>> = list("value").iter().map(serde_json::Value::as_f64).collect();
    let rows = time_us.len();
    let series = Series { time_us, value, came: vec![0; rows], counts: vec![true; rows] };
    Vectors { series, expected: json["expected"].clone() }
}

/// Our flag in QARTOD's numbers.
fn qartod(value: Option<f64>, flag: i32) -> i64 {
    match (value, flag) {
        (None, _) => 9,
        (_, 0) => 2,
        (_, 1) => 1,
        (_, 2) => 3,
        (_, flag) => i64::from(flag) + 1,
    }
}

/// Where we differ, as `row: theirs ours`, runs of rows together.
fn differences(vectors: &Vectors, name: &str, ours: impl Fn(usize) -> i64) -> String {
    let theirs = vectors.expected[name].as_array().expect("flags");
    let mut told: Vec<(usize, usize, i64, i64)> = Vec::new();
    for (row, theirs) in theirs.iter().enumerate() {
        let (theirs, ours) = (theirs.as_i64().expect("a flag"), ours(row));
        if theirs == ours {
            continue;
        }
        match told.last_mut() {
            Some((_, last, one, other)) if *last + 1 == row && (*one, *other) == (theirs, ours) => *last = row,
            _ => told.push((row, row, theirs, ours)),
        }
    }
    let told = told.iter().map(|(first, last, theirs, ours)| {
        let rows = if first == last { first.to_string() } else { format!("{first}-{last}") };
        format!("{rows}: {theirs} {ours}")
    });
    told.collect::<Vec<_>>().join(", ")
}

/// One test by itself, with the parameters of the fixture.
fn alone(test: Bits, line: &str, name: &str) -> String {
    let vectors = vectors();
    let mut lines = line.to_owned();
    for other in crate::register::Test::ALL.iter().filter(|other| Bits::of(**other) != test) {
        lines.push_str(&format!("\ntjern/t,{other},,off"));
    }
    let tests = flags(&vectors.series, &rules_of(sensor(None, None), &lines)).expect("flags");
    differences(&vectors, name, |row| qartod(vectors.series.value[row], test.get(tests[row])))
}

#[test]
fn each_test_says_what_ioos_qc_says_or_we_say_why_not() {
    let gross_range = "tjern/t,range,,suspect=-0.5..30 fail=-2..40";
    assert_eq!(alone(Bits::Range, gross_range, "gross_range"), "");
    // 119 and 121 are beside a missing value: we look at the next one there is.
    let spike = "tjern/t,spike,,suspect=1.5 fail=4";
    assert_eq!(alone(Bits::Spike, spike, "spike_differential"), "119: 2 1, 121: 2 1");
    // The first reading has none before it: nothing can be said.
    let rate = "tjern/t,rate_of_change,,suspect=2 fail=5 per=1h";
    assert_eq!(alone(Bits::RateOfChange, rate, "rate_of_change"), "0: 1 2");
    // Before a window is full nothing can be said, at the beginning nor after six hours without a reading.
    let flat = "tjern/t,flat_line,,suspect=5h fail=8h tolerance=0.01";
    assert_eq!(alone(Bits::FlatLine, flat, "flat_line"), "0-4: 1 2, 202-204: 1 2");
    // A missing value does not silence a whole day after it.
    let attenuated = "tjern/t,attenuated_signal,,suspect=0.3 fail=0.05 period=24h count=12";
    assert_eq!(alone(Bits::AttenuatedSignal, attenuated, "attenuated"), "121-143: 2 1");
    // There is nothing before the first one.
    assert_eq!(alone(Bits::Gap, "tjern/t,gap,,longer=2h", "time_gap"), "0: 1 4, 120: 1 9");
}

/// All tests together: what failed by itself is nobody's neighbour.
#[test]
fn all_tests_together_flag_what_is_wrong_and_not_what_is_beside_it() {
    let vectors = vectors();
    let lines = "tjern/t,range,,suspect=-0.5..30 fail=-2..40\ntjern/t,spike,,suspect=1.5 fail=4\n\
        tjern/t,rate_of_change,,suspect=2 fail=5 per=1h\ntjern/t,flat_line,,suspect=5h fail=8h tolerance=0.01\n\
        tjern/t,attenuated_signal,,suspect=0.3 fail=0.05 period=24h count=12\ntjern/t,gap,,longer=2h";
    let tests = flags(&vectors.series, &rules_of(sensor(None, None), lines)).expect("flags");
    let ours = |row: usize| match vectors.series.value[row] {
        None => 9,
        Some(_) => i64::from(aggregate(tests[row]).code()),
    };
    // Their spike is the average, which takes the neighbours of a spike for spikes (29, 31, 59, 61, 149, 179), and
    // the step back from a spike is a rate to them (31, 61, 151). The reading after a gap (200) is as good as any. A
    // missing value (120) is missing.
    let told = "29: 4 1, 31: 4 1, 59: 4 1, 61: 4 1, 120: 1 9, 149: 3 1, 151: 3 1, 179: 4 1, 200: 4 1";
    assert_eq!(differences(&vectors, "aggregate", ours), told);
}
