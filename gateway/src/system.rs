//! The gateway's own readings: how it fares, as sensors below `_system/<gateway>/`.
//!
//! | sensor | says |
//! |---|---|
//! | `spool_age_s` | how old the oldest reading is that is sealed and waits for the lake, or cannot be sealed; 0 where none waits |
//! | `upload_lag_s` | how long after its newest reading's time the last batch was in the lake |
//! | `clock_offset_ms` | how far the clock was ahead, once, when one came that was not known at the start |
//! | `uptime_s` | how long the gateway has been running |
//!
//! They cost nothing of their own: one set an hour joins the readings of others on their way into the spool,
//! in the same record, the same sync and the same batch. While nothing else comes, they wait; what
//! comes late carries its lag, as any reading does. They stand for the full hour, and the hour
//! in which the gateway began has none.

use std::fmt;

use tjern_readings::clock::{Clock, SECOND_US};
use tjern_readings::reading::Reading;
use tjern_readings::sensor::{NameError, SYSTEM_SITE, SensorId, SourceName};
use tokio::time::Instant;

use crate::upload::UploadState;

/// One set in this time.
const EVERY_US: i64 = 3_600 * SECOND_US;

/// A clock that was set back by more than this was wrong before.
const CLOCK_WAS_WRONG_US: i64 = 24 * EVERY_US;

/// Makes the gateway's own readings.
pub struct SystemReadings {
    clock: Clock,
    upload: UploadState,
    clock_offset_ms: Box<dyn Fn() -> Option<i64> + Send>,
    sensors: Sensors,
    began: Instant,
    /// The hour of the last set, at first that of the start.
    hour_us: i64,
}

struct Sensors {
    spool_age: SensorId,
    upload_lag: SensorId,
    clock_offset: SensorId,
    uptime: SensorId,
}

impl Sensors {
    fn of(gateway: &SourceName) -> Result<Self, NameError> {
        let sensor = |quantity: &str| format!("{SYSTEM_SITE}/{gateway}/{quantity}").parse();
        Ok(Self {
            spool_age: sensor("spool_age_s")?,
            upload_lag: sensor("upload_lag_s")?,
            clock_offset: sensor("clock_offset_ms")?,
            uptime: sensor("uptime_s")?,
        })
    }
}

impl SystemReadings {
    /// For a gateway that begins now. `clock_offset_ms` says how far the clock is ahead of the true time, if
    /// that is known.
    ///
    /// # Errors
    /// [`NameError`] where the source's name is not a gateway's.
    pub fn new(
        gateway: &SourceName,
        clock: Clock,
        upload: UploadState,
        clock_offset_ms: impl Fn() -> Option<i64> + Send + 'static,
    ) -> Result<Self, NameError> {
        Ok(Self {
            sensors: Sensors::of(gateway)?,
            hour_us: hour_of(clock.now_us()),
            clock,
            upload,
            clock_offset_ms: Box::new(clock_offset_ms),
            began: Instant::now(),
        })
    }

    /// This hour's set, if it has not gone yet: for who has others on their way.
    pub fn due(&mut self) -> Vec<Reading> {
        let now_us = self.clock.now_us();
        let hour_us = hour_of(now_us);
        let is_new = hour_us > self.hour_us || hour_us < self.hour_us - CLOCK_WAS_WRONG_US;
        if !is_new {
            return Vec::new();
        }
        self.hour_us = hour_us;
        let late_ms = (now_us - hour_us) / 1_000;
        // As for any sensor: worth a word from a tenth of the period on.
        let lag_ms = i32::try_from(late_ms).ok().filter(|_| now_us - hour_us > EVERY_US / 10);
        let set = self.values(now_us).into_iter().filter_map(|(sensor, value)| Some((sensor, value?)));
        set.map(|(sensor, value)| Reading::of(sensor.clone(), hour_us, value).with_lag_ms(lag_ms)).collect()
    }

    fn values(&self, now_us: i64) -> [(&SensorId, Option<f64>); 4] {
        let upload = self.upload.snapshot();
        let seconds = |duration_us: i64| Some(whole(duration_us.max(0) / SECOND_US));
        [
            (&self.sensors.spool_age, seconds(upload.oldest_waiting_us.map_or(0, |oldest_us| now_us - oldest_us))),
            (&self.sensors.upload_lag, upload.last_lag_us.and_then(seconds)),
            (&self.sensors.clock_offset, (self.clock_offset_ms)().map(whole)),
            (&self.sensors.uptime, i64::try_from(self.began.elapsed().as_secs()).ok().map(whole)),
        ]
    }
}

impl fmt::Debug for SystemReadings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SystemReadings").field("hour_us", &self.hour_us).finish_non_exhaustive()
    }
}

fn hour_of(time_us: i64) -> i64 {
    time_us.div_euclid(EVERY_US) * EVERY_US
}

#[expect(clippy::cast_precision_loss, reason = "durations in seconds and milliseconds are far below 2⁵³")]
const fn whole(number: i64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const START_US: i64 = 20_000 * 24 * EVERY_US + EVERY_US / 2;

    fn system(clock: &Clock, offset_ms: Option<i64>) -> SystemReadings {
        let gateway = "landfall-01".parse().expect("valid");
        SystemReadings::new(&gateway, clock.clone(), UploadState::default(), move || offset_ms).expect("a gateway")
    }

    /// What is due, as texts.
    fn due(system: &mut SystemReadings, clock: &Clock, now_us: i64) -> Vec<(String, i64, Option<f64>)> {
        clock.set_us(now_us);
        system.due().into_iter().map(|own| (own.sensor.to_string(), own.time_us, own.value)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn one_set_is_due_an_hour() {
        let clock = Clock::manual(START_US);
        let mut system = system(&clock, Some(-7));
        assert_eq!(due(&mut system, &clock, START_US), [], "the hour of the start has none");
        tokio::time::advance(std::time::Duration::from_secs(1801)).await;
        let hour_us = START_US + EVERY_US / 2;
        let set = due(&mut system, &clock, hour_us + 1_000_000);
        let expected = [("spool_age_s", 0.0), ("clock_offset_ms", -7.0), ("uptime_s", 1801.0)];
        let named = |(name, value): (&str, f64)| (format!("_system/landfall-01/{name}"), hour_us, Some(value));
        assert_eq!(set, expected.map(named));
        assert_eq!(due(&mut system, &clock, hour_us + EVERY_US - 1), [], "once an hour");
        assert_eq!(due(&mut system, &clock, hour_us - EVERY_US), [], "a clock set back a little");
        assert_eq!(due(&mut system, &clock, hour_us - 30 * 24 * EVERY_US).len(), 3, "a clock that was wrong");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_known_is_not_written_and_what_is_late_says_so() {
        let clock = Clock::manual(START_US);
        let mut system = system(&clock, None);
        clock.set_us(START_US + EVERY_US + EVERY_US / 4);
        let set = system.due();
        let names: Vec<_> = set.iter().map(|own| own.sensor.quantity()).collect();
        assert_eq!(names, ["spool_age_s", "uptime_s"]);
        assert!(set.iter().all(|own| own.lag_ms == Some(45 * 60_000)), "{set:?}");
    }
}
