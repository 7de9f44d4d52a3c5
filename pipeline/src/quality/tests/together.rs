//! Sensors that are judged together get the flags that each would get by itself.
//!
//! What it would cost: the last reading of one lake beside the first of the next is a spike, a step, a line that is not
//! flat.

use super::super::flags::NOT_EVALUATED;
use super::super::rules::SensorRules;
use super::super::series::{Series, flags, flags_of_alike, flags_of_apart};
use super::*;
use crate::register::{Kind, NotGood};
use tjern_lake::rollup::{Installed, Instruments};

const ALL_TESTS: &str = "tjern/t,range,,suspect=0..25 fail=-2..40\ntjern/t,climatology,6-6,suspect=..19\n\
    tjern/t,climatology,7-8,suspect=..21\ntjern/t,spike,,suspect=1.5 fail=4\n\
    tjern/t,rate_of_change,,suspect=2 fail=5 per=1h\ntjern/t,flat_line,,suspect=4h fail=7h tolerance=0.05\n\
    tjern/t,attenuated_signal,,suspect=0.4 fail=0.1 period=6h\ntjern/t,exposure,,suspect=6 period=12h\n\
    tjern/t,gap,,longer=2h";

fn rules_of_all_tests() -> SensorRules {
    rules_of(sensor(Some(-5.0), Some(45.0)), ALL_TESTS)
}

fn rules_of_a_counter() -> SensorRules {
    let row = SensorRow { kind: Kind::Counter, interval: Some("1h".to_owned()), ..sensor(None, None) };
    rules_of(row, "tjern/t,backward,,on")
}

/// Where series begin: today, in other centuries, and so late that nothing has room behind it.
const BEGINS_US: [i64; 4] = [NOW_US, -62_000_000_000_000_000, 253_000_000_000_000_000, i64::MAX - 1_000 * HOUR_US];

fn series() -> impl Strategy<Value = Series> {
    let value = prop_oneof![
        8 => (90..240_i32).prop_map(|tenths| Some(f64::from(tenths) / 10.0)),
        4 => Just(Some(15.0)),
        1 => Just(None),
        1 => prop::sample::select(vec![Some(-327.68), Some(f64::NAN), Some(f64::INFINITY)]),
    ];
    let reading = (0..9_i64, value, 0..4_i32, 0..12_u8);
    let readings = prop::collection::vec(reading, 0..40);
    (prop::sample::select(BEGINS_US.to_vec()), readings).prop_map(|(begins_us, readings)| {
        let (mut series, mut time_us) = (Series::default(), begins_us);
        for (hours, value, came, luck) in readings {
            // Half an hour, mostly; two words of one moment; a long silence.
            time_us += match hours {
                0 => 0,
                8 => 30 * HOUR_US,
                _ => HOUR_US / 2,
            };
            if series.time_us.last() == Some(&time_us)
                && let Some(counts) = series.counts.last_mut()
            {
                *counts = false;
            }
            series.time_us.push(time_us);
            series.value.push(value);
            series.came.push(if luck == 0 { came } else { 0 });
            series.counts.push(true);
        }
        series
    })
}

proptest! {
    // Each case makes dozens of plans.
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 4, ..ProptestConfig::default() })]

    #[test]
    fn flags_are_those_that_each_sensor_would_get_by_itself(
        all in prop::collection::vec((series(), option::of((0..20_i64, 1..10_i64))), 1..7),
        is_counter: bool,
    ) {
        let rules = if is_counter { rules_of_a_counter() } else { rules_of_all_tests() };
        let own = |series: &Series, event: Option<(i64, i64)>| {
            let began = series.time_us.first().copied().unwrap_or(0);
            let not_good = event.map(|(after, long)| NotGood {
                from_us: began + after * HOUR_US,
                to_us: began + (after + long) * HOUR_US,
                quality: Quality::Fail,
            });
            // And another instrument since then.
            let line = |(after, _)| Installed { instrument: None, serial: None, from_us: began + after * HOUR_US, to_us: None };
            let instruments = Instruments::of(event.map(line));
            SensorRules { not_good: not_good.into_iter().collect(), instruments, ..rules.clone() }
        };
        let rules: Vec<SensorRules> = all.iter().map(|(series, event)| own(series, *event)).collect();
        let together: Vec<_> = all.iter().map(|(series, _)| series).zip(&rules).collect();
        prop_assert!(rules.iter().all(|others| others.are_alike(&rules[0])));
        let each: Vec<Vec<i32>> =
            together.iter().map(|(series, rules)| flags(series, rules).expect("flags")).collect();
        prop_assert_eq!(flags_of_alike(&together).expect("flags"), each);
    }
}

/// The canary: with a distance of a minute the neighbour's readings count.
#[test]
fn series_that_stand_too_close_are_caught() {
    let of = |value: f64| Series {
        time_us: (0..12).map(|slot| NOW_US + slot * HOUR_US / 2).collect(),
        value: vec![Some(value); 12],
        came: vec![NOT_EVALUATED; 12],
        counts: vec![true; 12],
    };
    let (rules, cold, warm) = (rules_of_all_tests(), of(4.0), of(22.0));
    let together = [(&cold, &rules), (&warm, &rules)];
    let each = [flags(&cold, &rules).expect("flags"), flags(&warm, &rules).expect("flags")];
    assert_eq!(flags_of_alike(&together).expect("flags"), each);
    assert_ne!(flags_of_apart(&together, &rules, 60_000_000).expect("flags"), each);
}

/// A bound of one sensor is not that of another, and a meter is no thermometer.
#[test]
fn rules_that_differ_in_anything_are_not_alike() {
    let rules = rules_of_all_tests();
    let lower = rules_of(sensor(Some(-6.0), Some(45.0)), ALL_TESTS);
    let seldom = SensorRow { interval: Some("1h".to_owned()), ..sensor(Some(-5.0), Some(45.0)) };
    let steeper = ALL_TESTS.replace("fail=5 per", "fail=6 per");
    let others =
        [lower, rules_of(seldom, ALL_TESTS), rules_of(sensor(Some(-5.0), Some(45.0)), &steeper), rules_of_a_counter()];
    assert!(others.iter().all(|others| !rules.are_alike(others) && !others.are_alike(&rules)));
    assert!(rules.are_alike(&rules_of_all_tests()));
    let wrapping = SensorRules { wraps_at: Some(100.0), ..rules_of_a_counter() };
    assert!(!rules_of_a_counter().are_alike(&wrapping));
}
