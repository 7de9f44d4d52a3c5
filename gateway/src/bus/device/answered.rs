//! What an answer is written down as: a round where each of its points has a value for one and the same slot and there is
//! nothing else to say, as nearly all do; readings one by one otherwise.

use std::sync::Arc;

use tjern_readings::reading::Reading;
use tjern_readings::round::Round;
use tjern_readings::rows::Rows;
use tjern_readings::sensor::SensorId;

use super::super::point::Ended;

/// Of fewer readings a round would take more memory than they do.
const ROUND_LEAST: usize = 4;

/// Gathers the ends of a request's slots, in the order of its points.
#[derive(Debug)]
pub(super) struct Answered<'request> {
    sensors: &'request Arc<[SensorId]>,
    /// How many points have been told of.
    told: usize,
    time_us: i64,
    /// Of a round, as far as it is one.
    values: Vec<f64>,
    /// All, where it is none.
    readings: Option<Vec<Reading>>,
}

impl<'request> Answered<'request> {
    /// Of a request for these.
    pub(super) fn new(sensors: &'request Arc<[SensorId]>) -> Self {
        let (values, readings) = match sensors.len() {
            count if count < ROUND_LEAST => (Vec::new(), Some(Vec::with_capacity(count))),
            count => (Vec::with_capacity(count), None),
        };
        Self { sensors, told: 0, time_us: 0, values, readings }
    }

    /// The next point's slot ended with this; `None` where nothing is to be written down.
    #[inline]
    pub(super) fn add(&mut self, ended: Option<Ended>) {
        match ended {
            Some(Ended { time_us, result: Ok(value), lag_ms: None }) if self.goes_on(time_us) && value.is_finite() => {
                self.time_us = time_us;
                self.values.push(value);
            }
            other => self.add_reading(other),
        }
        self.told += 1;
    }

    fn goes_on(&self, time_us: i64) -> bool {
        self.readings.is_none() && (self.told == 0 || self.time_us == time_us)
    }

    fn add_reading(&mut self, ended: Option<Ended>) {
        let (sensors, time_us, values) = (self.sensors, self.time_us, &mut self.values);
        let readings = self.readings.get_or_insert_with(|| {
            let before = sensors.iter().zip(values.drain(..));
            before.map(|(sensor, value)| Reading::of(sensor.clone(), time_us, value)).collect()
        });
        readings.extend(ended.map(|ended| ended.reading(sensors[self.told].clone())));
    }

    pub(super) fn rows(self) -> Rows {
        let (sensors, time_us, values) = (self.sensors, self.time_us, self.values);
        match self.readings {
            Some(readings) => readings.into(),
            None => Round::new(Arc::clone(sensors), time_us, values).map(Rows::from).expect("a value for each sensor"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tjern_readings::reading::Cause;
    use tjern_readings::rows::Span;

    use super::*;

    fn ended() -> impl Strategy<Value = Option<Ended>> {
        let result =
            prop_oneof![9 => (-1e9..1e9).prop_map(Ok), 1 => Just(Ok(f64::NAN)), 1 => Just(Err(Cause::Timeout))];
        let time_us = prop_oneof![9 => Just(7_i64), 1 => Just(8)];
        let lag_ms = prop_oneof![9 => Just(None), 1 => Just(Some(1_500))];
        let ended = (time_us, result, lag_ms).prop_map(|(time_us, result, lag_ms)| Ended { time_us, result, lag_ms });
        prop_oneof![9 => ended.prop_map(Some), 1 => Just(None)]
    }

    proptest! {
        /// Whatever is to be said of one point, the others' readings are what they would have been.
        #[test]
        fn an_answer_is_written_down_as_its_readings(ends in prop::collection::vec(ended(), 0..9)) {
            let sensors: Arc<[SensorId]> =
                (0..ends.len()).map(|number| format!("mast/number-{number}").parse().expect("valid")).collect();
            let plain: Vec<Reading> = sensors.iter().zip(&ends)
                .filter_map(|(sensor, ended)| Some((*ended)?.reading(sensor.clone()))).collect();
            let mut answered = Answered::new(&sensors);
            ends.iter().for_each(|ended| answered.add(*ended));
            let rows = answered.rows();
            let are_plain = ends.iter().flatten().all(|ended| {
                ended.time_us == 7 && ended.lag_ms.is_none() && ended.result.is_ok_and(f64::is_finite)
            });
            let is_round = ends.len() < ROUND_LEAST || rows.spans().all(|span| matches!(span, Span::Round(_)));
            prop_assert!(is_round || !are_plain || ends.contains(&None), "{:?}", ends);
            prop_assert_eq!(Vec::from(rows), plain);
        }
    }
}
