//! Rows that come alone, each a print-out of its own, from a device that nobody asks: it prints a row when it has it.
//!
//! So each is as far from the gateway's time as the one before, however far that is: the device's clock may be off, or a row be
//! printed when the time that it stands for is over. Of a row whose time comes twice that leaves one moment.
//!
//! Limits: nothing is known before a row came alone whose moment was certain, and of a device whose clock is set within the hour.

use crate::lines::time::Moments;

use super::SLACK_US;

/// How far the last row that came alone was from the gateway's time.
#[derive(Debug, Default)]
pub(super) struct Alone {
    ahead_us: Option<i64>,
}

impl Alone {
    /// A row came alone, and this is its moment.
    pub(super) fn note(&mut self, time_us: i64, now_us: i64) {
        self.ahead_us = Some(time_us.saturating_sub(now_us));
    }

    /// The moment of a row that came alone, where one of its two is as far from now as the last row's was.
    pub(super) fn moment(&self, moments: Moments, now_us: i64) -> Option<i64> {
        let ahead_us = self.ahead_us?;
        let is_as_far = |time_us: &i64| time_us.saturating_sub(now_us).abs_diff(ahead_us) <= SLACK_US.unsigned_abs();
        let (early_us, late_us) = (moments.early_us(), moments.late_us());
        match (is_as_far(&early_us), is_as_far(&late_us)) {
            (true, false) => Some(early_us),
            (false, true) => Some(late_us),
            _ => None,
        }
    }
}
