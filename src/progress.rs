//! How far long work is: a bar on stderr where that is a terminal, and elsewhere a line in the log now and then.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

const WIDTH: usize = 24;

/// How often the bar is drawn.
const DRAWN_EVERY: Duration = Duration::from_millis(100);
/// How often a line goes into the log.
const LOGGED_EVERY: Duration = Duration::from_secs(10);

/// A bar, or the lines in its place.
#[derive(Debug)]
pub(crate) struct Bar {
    job: &'static str,
    begun: Instant,
    last: Option<Instant>,
    is_terminal: bool,
}

impl Bar {
    /// A bar for a job that begins now.
    pub(crate) fn new(job: &'static str) -> Self {
        Self { job, begun: Instant::now(), last: None, is_terminal: std::io::stderr().is_terminal() }
    }

    /// So much of the whole is done; this is under way. What comes too soon after the last is left out.
    pub(crate) fn show(&mut self, done: u64, total: u64, what: &str) {
        let every = if self.is_terminal { DRAWN_EVERY } else { LOGGED_EVERY };
        if self.last.unwrap_or(self.begun).elapsed() < every {
            return;
        }
        self.last = Some(Instant::now());
        let share = share(done, total);
        let left = left(share, self.begun.elapsed());
        if self.is_terminal {
            // A bar that cannot be drawn stops nothing.
            let _ = write!(std::io::stderr(), "\r\x1b[K{}", line(share, &left, what));
        } else {
            tracing::info!(job = self.job, percent = (share * 100.0).floor(), left, "{what}");
        }
    }

    /// Takes the bar away.
    pub(crate) fn clear(&mut self) {
        if self.is_terminal && self.last.is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

/// From 0 to 1.
fn share(done: u64, total: u64) -> f64 {
    let permille = done.min(total).saturating_mul(1_000).checked_div(total);
    permille.and_then(|permille| u32::try_from(permille).ok()).map_or(1.0, |permille| f64::from(permille) / 1e3)
}

/// An estimate, as people say it.
fn left(share: f64, elapsed: Duration) -> String {
    if share <= 0.0 {
        return "estimating".to_owned();
    }
    let seconds = elapsed.mul_f64((1.0 - share) / share).as_secs_f64().ceil();
    if seconds < 60.0 { format!("{seconds:.0} s left") } else { format!("{:.0} min left", (seconds / 60.0).ceil()) }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a bar's width")]
fn line(share: f64, left: &str, what: &str) -> String {
    let bar = "#".repeat((WIDTH as f64 * share) as usize);
    format!("[{bar:<WIDTH$}] {:3.0} %  {left}  {what}", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_grows_and_what_is_left_is_estimated() {
        let at = |done| {
            let share = share(done, 200);
            line(share, &left(share, Duration::from_secs(100)), "merge 1 of 2")
        };
        assert_eq!(at(0), "[                        ]   0 %  estimating  merge 1 of 2");
        assert_eq!(at(50), "[######                  ]  25 %  5 min left  merge 1 of 2");
        assert_eq!(at(200), "[########################] 100 %  0 s left  merge 1 of 2");
        assert_eq!(share(0, 0), 1.0, "nothing to do is done");
    }
}
