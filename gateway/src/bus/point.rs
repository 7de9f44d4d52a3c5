//! A point while it is read: which slot is due, and which of its results are written down.

use std::sync::Arc;
use std::time::Duration;

use tjern_readings::configuration::Period;
use tjern_readings::reading::{Cause, Reading};
use tjern_readings::sensor::SensorId;

use super::BusContext;
use super::state::{Latest, ShownPoint};
use crate::config::{PointCommon, PointTerms};
use crate::grid::{Due, Moment, Schedule};
use crate::value::NoValue;

/// So many failures in a row are written down each; after that, one every `down_report`.
pub(super) const FAILURES_TO_DOWN: u32 = 3;

/// What holds for every point of a bus.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) timeout: Duration,
    pub(super) down_report: Period,
}

/// How a slot ended that is to be written down.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Ended {
    /// The slot.
    pub(super) time_us: i64,
    pub(super) result: Result<f64, Cause>,
    pub(super) lag_ms: Option<i32>,
}

impl Ended {
    /// As a reading of this sensor.
    pub(super) fn reading(self, sensor: SensorId) -> Reading {
        Reading::from_result(sensor, self.time_us, self.result).with_lag_ms(self.lag_ms)
    }
}

/// A point and where it stands.
#[derive(Debug)]
pub(super) struct PointState {
    pub(super) sensor: SensorId,
    pub(super) schedule: Schedule,
    terms: Arc<PointTerms>,
    newest_us: Moment,
    written_us: Moment,
    down_report_us: i64,
    failures: u32,
    cause: Option<Cause>,
}

impl PointState {
    pub(super) fn new(common: &PointCommon, limits: Limits, context: &BusContext) -> Self {
        Self {
            newest_us: Moment::of(context.newest_us(&common.sensor)),
            sensor: common.sensor.clone(),
            schedule: Schedule::new(common.terms.grid),
            terms: Arc::clone(&common.terms),
            down_report_us: limits.down_report.micros(),
            failures: 0,
            cause: None,
            written_us: Moment::NONE,
        }
    }

    /// By which raw numbers the device says that it has no value.
    #[inline]
    pub(super) fn no_value(&self) -> &NoValue {
        &self.terms.no_value
    }

    /// What others see of the point that does not change.
    pub(super) fn shown(common: &PointCommon) -> ShownPoint {
        ShownPoint { sensor: common.sensor.clone(), every_us: common.terms.grid.every_us() }
    }

    /// How many results in a row had no value.
    #[inline]
    pub(super) const fn failures(&self) -> u32 {
        self.failures
    }

    /// Why the last result had no value.
    #[inline]
    pub(super) const fn cause(&self) -> Option<Cause> {
        self.cause
    }

    /// Ends a slot with its result (a raw number, or why there is none), and says what is to be
    /// written down. `asked_us` is when the poll began, `answered_us` when it ended; `latest` is where others see how the
    /// point is.
    #[inline]
    pub(super) fn conclude(
        &mut self,
        due: Due,
        raw: Result<f64, Cause>,
        (asked_us, answered_us): (i64, i64),
        latest: &mut Latest,
    ) -> Option<Ended> {
        self.schedule.begin(due);
        let result = self.value_of(raw);
        self.failures = if result.is_ok() { 0 } else { self.failures.saturating_add(1) };
        self.cause = result.err();
        self.show(due.slot_us, result, (asked_us, answered_us), latest);
        let grid = self.schedule.grid();
        let sign_of_life_only =
            due.first && (!grid.is_fresh(due.slot_us, asked_us) || self.newest_us.get() >= Some(due.slot_us));
        if sign_of_life_only || !self.shall_be_written(due.slot_us) {
            return None;
        }
        self.written_us = Moment::of(Some(due.slot_us));
        // A clock that was set back meanwhile makes no answer come before its slot.
        let lag_ms = grid.lag_ms(due.slot_us, answered_us.max(due.slot_us));
        Some(Ended { time_us: due.slot_us, result, lag_ms })
    }

    /// The reading of a moment that the device named itself (a raw number, or why there is none), if it
    /// is to be written down.
    pub(super) fn conclude_dated(
        &mut self,
        time_us: i64,
        raw: Result<f64, Cause>,
        now_us: i64,
        latest: &mut Latest,
    ) -> Option<Reading> {
        let result = self.value_of(raw);
        self.failures = if result.is_ok() { 0 } else { self.failures.saturating_add(1) };
        self.cause = result.err();
        self.show(time_us, result, (now_us, now_us), latest);
        if !self.shall_be_written(time_us) {
            return None;
        }
        self.written_us = Moment::of(Some(time_us));
        Some(Reading::from_result(self.sensor.clone(), time_us, result))
    }

    #[inline]
    fn value_of(&self, raw: Result<f64, Cause>) -> Result<f64, Cause> {
        let value = self.terms.scaling.apply(self.terms.no_value.sift(raw?)?);
        // A scale may be too large for what the device says.
        if value.is_finite() { Ok(value) } else { Err(Cause::NotANumber) }
    }

    #[inline]
    fn show(&self, slot_us: i64, result: Result<f64, Cause>, (asked_us, answered_us): (i64, i64), latest: &mut Latest) {
        latest.slot_us = Moment::of(Some(slot_us));
        latest.value = result.ok().filter(|value| value.is_finite()).unwrap_or(f64::NAN);
        latest.cause = result.err();
        latest.answered_us = Moment::of(Some(answered_us));
        latest.round_trip_us = u32::try_from(answered_us - asked_us).unwrap_or(u32::MAX);
        latest.missed = self.schedule.missed();
        latest.failures = self.failures;
    }

    #[inline]
    fn shall_be_written(&self, slot_us: i64) -> bool {
        let waited = |written_us: i64| (slot_us - written_us).abs() >= self.down_report_us;
        self.failures <= FAILURES_TO_DOWN || self.written_us.get().is_none_or(waited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grid::Grid;
    use crate::value::Scaling;

    const SECOND_US: i64 = 1_000_000;
    const START_US: i64 = 1_700_000_000 * SECOND_US;

    fn point(newest_us: Option<i64>) -> PointState {
        let sensor: SensorId = "tarn/water_temperature".parse().expect("valid");
        let grid = Grid::new(Period::from_seconds(10), Duration::ZERO);
        let terms = PointTerms { grid, no_value: NoValue::default(), scaling: Scaling::default(), unit: None };
        PointState {
            sensor,
            schedule: Schedule::new(grid),
            terms: Arc::new(terms),
            newest_us: Moment::of(newest_us),
            down_report_us: 300 * SECOND_US,
            failures: 0,
            cause: None,
            written_us: Moment::NONE,
        }
    }

    fn poll(point: &mut PointState, now_us: i64, raw: Result<f64, Cause>) -> Option<Reading> {
        let due = point.schedule.due(now_us).expect("due");
        let ended = point.conclude(due, raw, (now_us, now_us), &mut Latest::default());
        ended.map(|ended| ended.reading(point.sensor.clone()))
    }

    #[test]
    fn a_first_poll_in_the_middle_of_a_slot_only_shows_that_the_device_lives() {
        assert_eq!(poll(&mut point(None), START_US + 5 * SECOND_US, Ok(1.0)), None);
        let reading = poll(&mut point(None), START_US + SECOND_US / 2, Ok(1.0)).expect("the slot is fresh");
        assert_eq!((reading.time_us, reading.value), (START_US, Some(1.0)));
    }

    /// 1.7e308 with a scale of 10 was shown as `ok`, without a value, and the log said nothing.
    #[test]
    fn a_value_that_its_scale_makes_too_large_is_none_and_says_so() {
        let mut point = point(None);
        let grid = point.terms.grid;
        let scaling = Scaling::new(10.0, 0.0);
        point.terms = Arc::new(PointTerms { grid, no_value: NoValue::default(), scaling, unit: None });
        let (mut latest, now_us) = (Latest::default(), START_US);
        let due = point.schedule.due(now_us).expect("due");
        let ended = point.conclude(due, Ok(1.7e308), (now_us, now_us), &mut latest).expect("a reading");
        assert_eq!(ended.result, Err(Cause::NotANumber));
        assert_eq!((point.cause(), point.failures(), latest.cause), (Some(Cause::NotANumber), 1, ended.result.err()));
    }

    #[test]
    fn a_restart_within_a_slot_does_not_store_it_twice() {
        assert_eq!(poll(&mut point(Some(START_US)), START_US + 1, Ok(1.0)), None);
        assert!(poll(&mut point(Some(START_US - 10 * SECOND_US)), START_US + 1, Ok(1.0)).is_some());
    }

    #[test]
    fn a_device_that_is_down_writes_a_row_now_and_then_and_no_flood() {
        let mut point = point(None);
        let written: Vec<i64> = (0..100)
            .filter_map(|slot| poll(&mut point, START_US + slot * 10 * SECOND_US, Err(Cause::Timeout)))
            .map(|reading| (reading.time_us - START_US) / SECOND_US)
            .collect();
        assert_eq!(written, [0, 10, 20, 320, 620, 920]);
        let back = poll(&mut point, START_US + 1_000 * SECOND_US, Ok(4.0)).expect("a value is always written");
        assert_eq!(back.value, Some(4.0));
    }
}
