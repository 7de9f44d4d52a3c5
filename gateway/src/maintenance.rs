//! Maintenance: readings of sensors that somebody is working on are marked, so that nobody takes them
//! for weather.
//!
//! A thermometer in a technician's hand measures the hand. `tjern-gateway maintenance on` writes into
//! `maintenance.toml` in the spool's folder which sensors that holds for, from when until when; a gateway
//! reads the file when it starts and when it has changed, and gives readings whose *time* lies within the
//! quality 4 and the cause `maintenance`. The value stays: it is what came. A reading without a value
//! keeps its own cause. Since the file says from when until when, it does not matter when it is read, and
//! the command works without a gateway too.
//!
//! The command knows the machine's clock, and readings are dated by the gateway's, which is another one while the machine's is not
//! known or fell back (`dating`). So a window also says from when until when by the time since the machine began
//! (`since_boot`), which both can read; a gateway of the same boot goes by that, whatever the clocks say. Limits: after a reboot only
//! the clock is left; a device's own times are compared with the gateway's, so that they are not marked while that is not known.

mod file;
mod marking;
mod pattern;
mod since_boot;

use tjern_readings::clock::Clock;

pub use file::{FILE, MaintenanceError, change, read};
pub(crate) use marking::{Maintenance, MaintenanceTold};
pub use pattern::{SensorPattern, UnknownPattern};
pub use since_boot::SinceBoot;

/// A time of maintenance: the end is not part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Whose.
    pub sensors: SensorPattern,
    /// From when by the machine's clock, in microseconds since 1970 UTC.
    pub from_us: i64,
    /// Until when.
    pub until_us: i64,
    /// The same by the time since the machine began; files of earlier versions do not say it.
    pub since_boot: Option<UpSpan>,
}

/// A time in a boot of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpSpan {
    /// Which boot.
    pub boot: String,
    /// How long after that it begins, in microseconds.
    pub from_us: i64,
    /// How long after that it ends.
    pub until_us: i64,
}

/// A moment, by all that a machine has to tell it.
#[derive(Debug, Clone)]
pub struct Now {
    /// What its clock says, right or wrong.
    pub clock_us: i64,
    /// How long it has been up, where it says so.
    pub since_boot: Option<SinceBoot>,
}

impl Now {
    /// Of this machine.
    #[must_use]
    pub fn of_machine() -> Self {
        Self { clock_us: Clock::system().now_us(), since_boot: SinceBoot::now() }
    }
}

impl Window {
    fn new(sensors: SensorPattern, now: &Now, for_us: i64) -> Self {
        let up_span = |SinceBoot { boot, up_us }: &SinceBoot| UpSpan {
            boot: boot.clone(),
            from_us: *up_us,
            until_us: up_us.saturating_add(for_us),
        };
        let since_boot = now.since_boot.as_ref().map(up_span);
        Self { sensors, from_us: now.clock_us, until_us: now.clock_us.saturating_add(for_us), since_boot }
    }

    /// How long it has been under way, and how long it is to go on, both below zero where that is past or to come.
    fn around_us(&self, now: &Now) -> (i64, i64) {
        let (from_us, until_us, now_us) = match (&self.since_boot, &now.since_boot) {
            (Some(span), Some(now)) if span.boot == now.boot => (span.from_us, span.until_us, now.up_us),
            _ => (self.from_us, self.until_us, now.clock_us),
        };
        (now_us.saturating_sub(from_us), until_us.saturating_sub(now_us))
    }

    /// How long it goes on; nothing, or less, once it is over.
    #[must_use]
    pub fn left_us(&self, now: &Now) -> i64 {
        self.around_us(now).1
    }

    /// Whether both of its reckonings can be set anew.
    fn is_of_boot(&self, now: &Now) -> bool {
        self.since_boot.as_ref().map(|span| &span.boot) == now.since_boot.as_ref().map(|now| &now.boot)
    }

    fn set_end(&mut self, now: &Now, for_us: i64) {
        self.until_us = now.clock_us.saturating_add(for_us);
        if let (Some(span), Some(now)) = (&mut self.since_boot, &now.since_boot)
            && span.boot == now.boot
        {
            span.until_us = now.up_us.saturating_add(for_us);
        }
    }
}

/// Begins maintenance of some sensors, or makes one that is under way longer.
pub fn begin(windows: &mut Vec<Window>, sensors: SensorPattern, now: &Now, for_us: i64) {
    let is_under_way = |window: &&mut Window| {
        let (since_us, left_us) = window.around_us(now);
        window.sensors == sensors && since_us >= 0 && left_us > 0 && window.is_of_boot(now)
    };
    if let Some(window) = windows.iter_mut().find(is_under_way) {
        window.set_end(now, for_us);
        return;
    }
    // One of an earlier boot, or by a clock that was ahead: this word is newer.
    end(windows, Some(&sensors), now);
    windows.push(Window::new(sensors, now, for_us));
}

/// Ends what is under way or to come: of these sensors, or all of it. How many times of maintenance that were.
pub fn end(windows: &mut Vec<Window>, sensors: Option<&SensorPattern>, now: &Now) -> usize {
    let ends = |window: &Window| window.left_us(now) > 0 && sensors.is_none_or(|sensors| *sensors == window.sensors);
    let before = windows.iter().filter(|window| ends(window)).count();
    windows.retain_mut(|window| {
        if !ends(window) {
            return true;
        }
        window.set_end(now, 0);
        // One that was to come is gone.
        window.around_us(now).0 > 0
    });
    before
}

#[cfg(test)]
mod testing {
    use tjern_readings::clock::SECOND_US;

    use super::{Now, SensorPattern};

    pub(super) const NOW_US: i64 = 1_790_000_000 * SECOND_US;
    pub(super) const HOUR_US: i64 = 3_600 * SECOND_US;

    pub(super) fn pattern(text: &str) -> SensorPattern {
        text.parse().expect("a pattern")
    }

    /// By a machine's clock alone.
    pub(super) fn at(clock_us: i64) -> Now {
        Now { clock_us, since_boot: None }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{HOUR_US, NOW_US, at, pattern};
    use super::*;

    fn up(clock_us: i64, up_us: i64) -> Now {
        let since_boot = Some(SinceBoot { boot: "first".to_owned(), up_us });
        Now { clock_us, since_boot }
    }

    /// The clock came during the work: it was 1970 when that began.
    #[test]
    fn a_window_ends_by_the_time_that_passed_and_not_by_the_clock() {
        let mut windows = Vec::new();
        begin(&mut windows, pattern("a/b"), &up(20, 100), HOUR_US);
        let later = up(NOW_US, 100 + HOUR_US / 2);
        assert_eq!(windows[0].left_us(&later), HOUR_US / 2);
        begin(&mut windows, pattern("a/b"), &later, HOUR_US);
        assert_eq!((windows.len(), windows[0].left_us(&later)), (1, HOUR_US), "it is made longer");
        assert_eq!(end(&mut windows, None, &later), 1);
        let span = windows[0].since_boot.as_ref().expect("it says so");
        assert_eq!((span.from_us, span.until_us), (100, 100 + HOUR_US / 2), "what was measured before stays marked");
    }

    /// The clock was a day ahead when it began, and after a reboot good readings were to be marked a day later.
    #[test]
    fn a_new_word_ends_what_an_earlier_boot_left() {
        let mut windows = Vec::new();
        begin(&mut windows, pattern("a/b"), &at(NOW_US + 24 * HOUR_US), HOUR_US);
        begin(&mut windows, pattern("a/b"), &up(NOW_US, 7), HOUR_US);
        assert_eq!(windows.len(), 1);
        assert_eq!((windows[0].from_us, windows[0].left_us(&up(0, 7))), (NOW_US, HOUR_US));
    }
}
