//! Flags, one reading at a time and in the tables.

use super::*;
use crate::testing::{NOW_US, Place, Row, batch_of, rows_of};
use proptest::option;
use proptest::prelude::*;

mod cuts;
mod fixtures;
mod job;
mod meters;
mod real;
mod together;

const HOUR_US: i64 = 3_600_000_000;

/// A city with one sensor, by rules as `quality.csv` has them.
fn rules_of(sensor: SensorRow, lines: &str) -> rules::SensorRules {
    let text = format!("sensors,test,months,parameters\n{lines}\n");
    let rows = crate::register::read_rules(std::path::Path::new("quality.csv"), &text).expect("rules");
    let rules = rows.iter().map(|line| line.row.rule().expect("a rule")).collect();
    let id = sensor.id.to_string();
    Rulebook::new(Register::of([sensor]), rules).of(&id).expect("registered")
}

fn sensor(low: Option<f64>, high: Option<f64>) -> SensorRow {
    SensorRow {
        id: "tjern/t".parse().expect("valid"),
        name_nb: None,
        name_nn: None,
        name_en: None,
        unit: "Cel".to_owned(),
        kind: crate::register::Kind::Sample,
        class: crate::register::Class::Public,
        interval: None,
        low,
        high,
        sources: None,
        wraps_at: None,
    }
}

fn flag(row: Row, low: Option<f64>, high: Option<f64>) -> (i8, Option<i32>) {
    let evaluated = evaluate(&batch_of(&[row]), &Register::of([sensor(low, high)]).into()).expect("evaluated");
    let row = &rows_of(&evaluated)[0];
    (row.quality, row.tests)
}

#[test]
fn a_value_outside_of_what_is_plausible_fails() {
    let water = |value: f64| flag(Row::new("t", 0, value), Some(-2.0), Some(40.0));
    assert_eq!(water(18.5), (1, Some(GOOD)));
    assert_eq!(water(-2.0), (1, Some(GOOD)));
    assert_eq!(water(40.0), (1, Some(GOOD)));
    assert_eq!(water(-327.68), (4, Some(FAIL)));
    assert_eq!(water(40.1), (4, Some(FAIL)));
    assert_eq!(flag(Row::new("t", 0, 50.0), Some(-2.0), None), (1, Some(GOOD)));
    assert_eq!(flag(Row::new("t", 0, 50.0), None, Some(40.0)), (4, Some(FAIL)));
}

#[test]
fn without_a_range_nothing_is_said() {
    assert_eq!(flag(Row::new("t", 0, 18.5), None, None), (2, None));
    assert_eq!(flag(Row::new("other", 0, 18.5), Some(0.0), Some(1.0)), (2, None));
    assert_eq!(flag(Row::new("t", 0, None), Some(0.0), Some(1.0)), (9, None));
    assert_eq!(flag(Row::new("t", 0, None).quality(2), Some(0.0), Some(1.0)), (9, None));
}

#[test]
fn a_flag_that_came_is_never_improved() {
    for (came, inside, outside) in [(3, 3, 4), (4, 4, 4), (1, 1, 4)] {
        assert_eq!(flag(Row::new("t", 0, 5.0).quality(came), Some(0.0), Some(10.0)).0, inside);
        assert_eq!(flag(Row::new("t", 0, 50.0).quality(came), Some(0.0), Some(10.0)).0, outside);
        assert_eq!(flag(Row::new("t", 0, 5.0).quality(came), None, None).0, came);
    }
}

#[test]
fn rows_without_the_columns_are_refused() {
    let rows = batch_of(&[Row::new("t", 0, 1.0)]).project(&[0, 1, 2, 3]).expect("columns");
    assert!(matches!(evaluate(&rows, &Said::default()), Err(QualityError::Column { column: "tests", .. })));
}

fn range() -> impl Strategy<Value = (Option<f64>, Option<f64>)> {
    (option::of(-50.0..0.0), option::of(0.0..50.0))
}

proptest! {
    /// Whatever ranges were tried before: the flag is what the last range says of the reading as it
    /// came.
    #[test]
    fn only_the_last_range_counts(
        value in option::of(-100.0..100.0),
        came in prop::sample::select(vec![1_i8, 2, 3, 4]),
        before in prop::collection::vec(range(), 0..4),
        last in range(),
    ) {
        let row = Row::new("t", 0, value);
        let row = if value.is_some() { row.quality(came) } else { row };
        let direct = flag(row.clone(), last.0, last.1);
        let mut rows = batch_of(std::slice::from_ref(&row));
        for (low, high) in before.into_iter().chain([last, last]) {
            rows = evaluate(&rows, &Register::of([sensor(low, high)]).into()).expect("evaluated");
        }
        let after = &rows_of(&rows)[0];
        // Whether it was looked at may be remembered as "nothing found".
        prop_assert_eq!((after.quality, after.tests.unwrap_or(0)), (direct.0, direct.1.unwrap_or(0)));
        if let Some(value) = value {
            let outside = last.0.is_some_and(|low| value < low) || last.1.is_some_and(|high| value > high);
            prop_assert!(!outside || after.quality == 4);
            prop_assert!(came < 3 || after.quality >= came);
        } else {
            prop_assert_eq!(after.quality, 9);
        }
    }
}
