//! Whatever is done with rounds is what would be done with their readings.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::reading::Cause;
use crate::sensor::SensorId;

/// What is done, with numbers that each makes of it what it needs.
#[derive(Debug, Clone)]
enum Step {
    Round(Vec<f64>, i64),
    Readings(Vec<(i64, Option<f64>)>),
    TakeFirst(usize),
    Retain(i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let value = || (-100_i32..100).prop_map(f64::from);
    let step = prop_oneof![
        (prop::collection::vec(value(), 0..6), -9_i64..9).prop_map(|(values, time_us)| Step::Round(values, time_us)),
        prop::collection::vec((-9_i64..9, prop::option::of(value())), 0..4).prop_map(Step::Readings),
        (0_usize..12).prop_map(Step::TakeFirst),
        (-9_i64..9).prop_map(Step::Retain),
    ];
    prop::collection::vec(step, 0..30)
}

fn sensor(number: usize) -> SensorId {
    format!("mast/number-{number}").parse().expect("valid")
}

fn readings(told: &[(i64, Option<f64>)]) -> Vec<Reading> {
    let reading = |(number, (time_us, value)): (usize, &(i64, Option<f64>))| {
        Reading::from_result(sensor(number), *time_us, value.ok_or(Cause::Timeout))
    };
    told.iter().enumerate().map(reading).collect()
}

proptest! {
    /// A gateway that lost a reading, or gave it to another sensor, where a round is cut in two or stands beside others.
    #[test]
    fn rounds_are_their_readings(steps in steps(), most in 1_usize..8, cut in 0_usize..20) {
        let (mut rows, mut plain) = (Rows::default(), Vec::new());
        for step in steps {
            match step {
                Step::Round(values, time_us) => {
                    let list: Arc<[SensorId]> = (0..values.len()).map(sensor).collect();
                    plain.extend(list.iter().zip(&values).map(|(sensor, value)| Reading::of(sensor.clone(), time_us, *value)));
                    rows.append(Round::new(list, time_us, values).expect("finite").into());
                }
                Step::Readings(told) => {
                    plain.extend(readings(&told));
                    rows.append(readings(&told).into());
                }
                Step::TakeFirst(count) => {
                    let taken = plain.drain(..count.min(plain.len())).collect::<Vec<_>>();
                    prop_assert_eq!(Vec::from(rows.take_first(count)), taken);
                }
                Step::Retain(time_us) => {
                    plain.retain(|reading| reading.time_us != time_us);
                    rows.retain(|reading| reading.time_us != time_us);
                }
            }
            prop_assert_eq!(rows.len(), plain.len());
            prop_assert_eq!(rows.iter().collect::<Vec<_>>(), plain.clone());
        }
        let (mut spans, mut walked) = (rows.spans().first(cut), Vec::new());
        let expected = &plain[..cut.min(plain.len())];
        prop_assert_eq!(spans.clone().times_us(), Spans::from(expected).times_us());
        while let Some(span) = spans.peek(most) {
            prop_assert!((1..=most).contains(&span.len()), "{} of {}", span.len(), most);
            walked.extend(span.readings());
            spans.advance(span.len());
        }
        prop_assert_eq!((walked.as_slice(), spans.len()), (expected, 0));
        let mut rest = rows.spans();
        rest.advance(cut);
        prop_assert_eq!(rest.flat_map(Span::readings).collect::<Vec<_>>(), &plain[cut.min(plain.len())..]);
        prop_assert_eq!(Vec::from(rows), plain);
    }
}

#[test]
fn a_round_is_of_values_that_are_there() {
    let list: Arc<[SensorId]> = (0..2).map(sensor).collect();
    assert_eq!(Round::new(Arc::clone(&list), 1, vec![1.0]), None);
    assert_eq!(Round::new(Arc::clone(&list), 1, vec![1.0, f64::NAN]), None);
    assert!(Round::new(list, 1, vec![1.0, -0.0]).is_some());
}
