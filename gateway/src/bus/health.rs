//! Whether a device answers: healthy, or down and asked again after growing pauses.

use std::time::Duration;

use tjern_readings::reading::Cause;
use tokio::time::Instant;

use super::point::FAILURES_TO_DOWN;

const PAUSE_MIN: Duration = Duration::from_millis(500);
/// A device that shares its bus may cost the others this little.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// A device that has its bus to itself delays nobody.
const PAUSE_MAX_ALONE: Duration = Duration::from_secs(5);

/// What is known about a device.
#[derive(Debug)]
pub(super) struct Health {
    pause_max: Duration,
    failures: u32,
    down: Option<Down>,
}

#[derive(Debug)]
struct Down {
    cause: Cause,
    pause: Duration,
    ask_at: Instant,
}

/// What a result changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing that is worth a line.
    None,
    /// It went down.
    Down,
    /// It is back.
    Back,
}

impl Health {
    pub(super) const fn new(alone: bool) -> Self {
        Self { pause_max: if alone { PAUSE_MAX_ALONE } else { PAUSE_MAX }, failures: 0, down: None }
    }

    /// Whether nothing has failed since the last answer.
    pub(super) const fn is_healthy(&self) -> bool {
        self.failures == 0
    }

    /// Whether it is asked after pauses only.
    pub(super) const fn is_down(&self) -> bool {
        self.down.is_some()
    }

    /// Why the device is not asked now, if it is not.
    pub(super) fn resting(&self, now: Instant) -> Option<Cause> {
        self.down.as_ref().filter(|down| now < down.ask_at).map(|down| down.cause)
    }

    /// It answered, if only with an exception.
    pub(super) fn answered(&mut self) -> Change {
        self.failures = 0;
        if self.down.take().is_some() { Change::Back } else { Change::None }
    }

    /// It did not.
    pub(super) fn failed(&mut self, cause: Cause, now: Instant) -> Change {
        self.failures = self.failures.saturating_add(1);
        if self.failures < FAILURES_TO_DOWN {
            return Change::None;
        }
        let pause = self.down.as_ref().map_or(PAUSE_MIN, |down| (down.pause * 2).min(self.pause_max));
        let jitter = 0.9 + 0.2 * fastrand::f64();
        let went_down = self.down.is_none();
        self.down = Some(Down { cause, pause, ask_at: now + pause.mul_f64(jitter) });
        if went_down { Change::Down } else { Change::None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_device_is_asked_ever_more_seldom_and_comes_back_at_once() {
        let (mut health, start) = (Health::new(false), Instant::now());
        assert_eq!([(); 2].map(|()| health.failed(Cause::Timeout, start)), [Change::None; 2]);
        assert_eq!((health.resting(start), health.failed(Cause::Timeout, start)), (None, Change::Down));
        let mut asked = 0;
        for tenth in 0..36_000 {
            let now = start + Duration::from_millis(100) * tenth;
            if health.resting(now).is_none() {
                asked += 1;
                assert_eq!(health.failed(Cause::Timeout, now), Change::None);
            }
        }
        assert!((55..80).contains(&asked), "asked {asked} times in an hour");
        assert_eq!((health.answered(), health.resting(start)), (Change::Back, None));
    }
}
