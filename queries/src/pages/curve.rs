//! Curves of values over time, and what they say: lowest, highest, and which way it goes.

use std::collections::HashMap;

use tjern_readings::clock::SECOND_US;

use crate::latest::Observation;
use crate::rows::{ColumnError, float_at, floats, integer_at, texts, times_us};
use crate::sql::Answer;

/// How far back the trend looks.
const TREND_US: i64 = 3 * 3600 * SECOND_US;
/// How far from that moment the value may lie that it is compared with.
const TREND_SLACK_US: i64 = 75 * 60 * SECOND_US;
/// A smaller difference is none: half of the last digit shown, on both ends.
const STEADY: f64 = 0.15;

/// One value of a curve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Point {
    pub(crate) time_us: i64,
    pub(crate) value: f64,
}

/// The curves of some sensors.
pub(crate) type Curves = HashMap<String, Vec<Point>>;

/// Which way it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trend {
    Rising,
    Falling,
    Steady,
}

/// Reads an answer with `sensor`, `time` and `value`, in the order of time.
pub(crate) fn read(answer: &Answer) -> Result<Curves, ColumnError> {
    let mut curves = Curves::new();
    for batch in &answer.batches {
        let (sensors, times, values) = (texts(batch, "sensor")?, times_us(batch, "time")?, floats(batch, "value")?);
        for row in 0..batch.num_rows() {
            let (Some(time_us), Some(value)) = (integer_at(&times, row), float_at(&values, row)) else { continue };
            let point = Point { time_us, value };
            match curves.get_mut(sensors.value(row)) {
                Some(points) => points.push(point),
                None => {
                    curves.insert(sensors.value(row).to_owned(), vec![point]);
                }
            }
        }
    }
    Ok(curves)
}

/// The lowest and the highest value.
pub(crate) fn extremes(points: &[Point]) -> Option<(f64, f64)> {
    let values = || points.iter().map(|point| point.value);
    (!points.is_empty()).then(|| (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max)))
}

/// The trend of the last hours, and the difference; nothing where the curve does not reach back.
pub(crate) fn trend(newest: Observation, points: &[Point]) -> Option<(Trend, f64)> {
    let then_us = newest.time_us.saturating_sub(TREND_US);
    let distance = |point: &Point| point.time_us.abs_diff(then_us);
    let then = points.iter().min_by_key(|point| distance(point))?;
    if distance(then) > TREND_SLACK_US.unsigned_abs() {
        return None;
    }
    let difference = newest.value - then.value;
    let trend = match difference {
        _ if difference.abs() < STEADY => Trend::Steady,
        _ if difference > 0.0 => Trend::Rising,
        _ => Trend::Falling,
    };
    Some((trend, difference))
}

/// The runs of points without a hole longer than this: a line is never drawn across silence.
pub(crate) fn runs(points: &[Point], hole_us: i64) -> impl Iterator<Item = &[Point]> {
    points.chunk_by(move |one, next| next.time_us.saturating_sub(one.time_us) <= hole_us)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_US: i64 = 3600 * SECOND_US;

    fn points(pairs: &[(i64, f64)]) -> Vec<Point> {
        pairs.iter().map(|(hour, value)| Point { time_us: hour * HOUR_US, value: *value }).collect()
    }

    fn newest(hour: i64, value: f64) -> Observation {
        Observation { time_us: hour * HOUR_US, value, quality: 1 }
    }

    #[test]
    fn the_trend_compares_with_three_hours_ago() {
        let curve = points(&[(0, 20.0), (7, 13.0), (8, 13.2), (10, 14.0)]);
        assert_eq!(trend(newest(10, 13.5), &curve).expect("it reaches back").0, Trend::Rising);
        assert_eq!(trend(newest(10, 12.5), &curve).expect("it reaches back").0, Trend::Falling);
        assert_eq!(trend(newest(10, 13.1), &curve).expect("it reaches back").0, Trend::Steady);
        assert_eq!(trend(newest(20, 13.1), &curve), None);
        assert_eq!(trend(newest(20, 13.1), &[]), None);
    }

    #[test]
    fn no_line_crosses_a_hole() {
        let curve = points(&[(0, 1.0), (1, 1.0), (5, 1.0), (6, 1.0)]);
        let lengths: Vec<_> = runs(&curve, 2 * HOUR_US).map(<[Point]>::len).collect();
        assert_eq!(lengths, [2, 2]);
    }
}
