//! What is wrong now: each kind of condition is found by a module of its own.
//!
//! Bounded work: readings are looked at from [`Seen::from_us`] on only, which prunes files; a source that was silent for
//! longer is known from the watch's own state, and sensors that measure more seldom are looked for now and then
//! ([`readings::Slow`]).

pub mod configurations;
pub mod disks;
pub mod holes;
pub mod jobs;
pub mod readings;
pub mod refused;
pub mod strays;
pub mod tokens;
mod values;

use jiff::Timestamp;
use jiff::tz::TimeZone;

pub use readings::Seen;
pub use values::limits;

/// A moment as people of the city write it.
pub(super) fn local(time_us: i64, timezone: &TimeZone) -> String {
    let time = Timestamp::from_microsecond(time_us).unwrap_or_default();
    time.to_zoned(timezone.clone()).strftime("%Y-%m-%d %H:%M %Z").to_string()
}

/// A length of time in the largest unit that leaves nothing of interest out.
pub(super) fn length(us: i64) -> String {
    let minutes = us / 60_000_000;
    match minutes {
        0..120 => format!("{minutes} min"),
        120..2_880 => format!("{} h", minutes / 60),
        _ => format!("{} d", minutes / 1_440),
    }
}
