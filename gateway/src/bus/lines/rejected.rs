//! Lines that gave no value, told in the log: the newest now and then, and not each.
//!
//! What a device says is text from elsewhere: what would drive a terminal is escaped, and a long line is cut.

use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use crate::lines::counters::LineFate;

/// At most one line is told in so much time.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// So much of a line is told.
const TOLD_CHARACTERS: usize = 120;

/// What was told of rejected lines, and what was not.
#[derive(Debug, Default)]
pub(super) struct RejectedLines {
    told_at: Option<Instant>,
    untold: u64,
}

impl RejectedLines {
    /// A line came: if it is one that gave no value where one was looked for, it is told, now and then.
    pub(super) fn note(&mut self, bus: &str, line: &str, fate: LineFate) {
        let Some(why) = reason(fate) else { return };
        if self.told_at.is_some_and(|at| at.elapsed() < TELL_EVERY) {
            self.untold += 1;
            return;
        }
        let (line, others) = (shown(line), std::mem::take(&mut self.untold));
        warn!(bus, line, others, "{why}");
        self.told_at = Some(Instant::now());
    }
}

/// What is wrong with a line; lines for no point and repeated ones are as they should be.
const fn reason(fate: LineFate) -> Option<&'static str> {
    match fate {
        LineFate { bad_checksum: true, .. } => Some("a line with a wrong checksum is not used"),
        LineFate { unparsed: true, .. } => Some("a line has no number where a point looks for one"),
        LineFate { forgotten: 1.., .. } => {
            Some("a line's time is among those too many to be remembered: it is stored already, or not stored at all")
        }
        LineFate { undecided: 1.., .. } => Some(
            "a time comes twice when summer ends, and nothing tells which of the two it is: it is not stored; hint: let the device keep winter's time all year, and write that as `time_zone`, like \"+01:00\"",
        ),
        LineFate { skipped_hour: true, .. } => Some(
            "a line's time is one that its zone leaves out in spring: the device does not change to summer time, and what it tells is an hour off from then on; hint: write winter's offset as `time_zone`, like \"+01:00\"",
        ),
        LineFate { bad_time: true, .. } => Some("a line's time cannot be read or believed"),
        _ => None,
    }
}

/// A line as it stands in the log.
pub(super) fn shown(line: &str) -> String {
    let mut shown: String = line.chars().take(TOLD_CHARACTERS).flat_map(char::escape_debug).collect();
    if line.chars().count() > TOLD_CHARACTERS {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_device_that_talks_nonsense_does_not_flood_the_log() {
        let mut rejected = RejectedLines::default();
        let bad = LineFate { wanted: true, unparsed: true, ..LineFate::default() };
        rejected.note("mast", "T=xx", bad);
        for _ in 0..1_000 {
            rejected.note("mast", "T=xx", bad);
            rejected.note("mast", "T=12", LineFate { wanted: true, ..LineFate::default() });
        }
        assert_eq!(rejected.untold, 1_000);
        tokio::time::advance(TELL_EVERY).await;
        rejected.note("mast", "T=xx", bad);
        assert_eq!(rejected.untold, 0, "the next one is told with how many were not");
    }

    #[test]
    fn what_a_device_says_does_not_drive_a_terminal() {
        assert_eq!(shown("\u{1b}[2J12.3"), "\\u{1b}[2J12.3");
        assert_eq!(shown(&"x".repeat(500)).chars().count(), TOLD_CHARACTERS + 1);
    }
}
