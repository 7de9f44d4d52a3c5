//! How far long work is: a bar on stderr, for a terminal.

use std::io::Write;
use std::time::{Duration, Instant};

const WIDTH: u16 = 24;

/// How often it is drawn.
const DRAWN_EVERY: Duration = Duration::from_millis(100);

/// A bar. It goes away when it is dropped.
#[derive(Debug)]
pub(crate) struct Bar {
    begun: Instant,
    last: Option<Instant>,
}

impl Bar {
    /// A bar for work that begins now.
    pub(crate) fn new() -> Self {
        Self { begun: Instant::now(), last: None }
    }

    /// So much of the whole is done; this is under way. What comes too soon after the last is left out.
    pub(crate) fn show(&mut self, done: u64, total: u64, what: &str) {
        if self.last.unwrap_or(self.begun).elapsed() < DRAWN_EVERY {
            return;
        }
        self.last = Some(Instant::now());
        let share = share(done, total);
        // A bar that cannot be drawn stops nothing.
        let _ = write!(std::io::stderr(), "\r\x1b[K{}", line(share, self.begun.elapsed(), what));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if self.last.is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

/// From 0 to 1.
fn share(done: u64, total: u64) -> f64 {
    let permille = done.min(total).saturating_mul(1_000).checked_div(total);
    permille.and_then(|permille| u32::try_from(permille).ok()).map_or(1.0, |permille| f64::from(permille) / 1e3)
}

fn line(share: f64, elapsed: Duration, what: &str) -> String {
    let is_filled = |place: &u16| f64::from(*place) <= share * f64::from(WIDTH);
    let bar = "#".repeat((1..=WIDTH).filter(is_filled).count());
    let width = usize::from(WIDTH);
    format!("[{bar:<width$}] {:3.0} %  {}  {what}", share * 100.0, left(share, elapsed))
}

/// An estimate, as people say it.
fn left(share: f64, elapsed: Duration) -> String {
    if share <= 0.0 {
        return "estimating".to_owned();
    }
    let seconds = (elapsed.as_secs_f64() * (1.0 - share) / share).ceil();
    if seconds < 60.0 { format!("{seconds:.0} s left") } else { format!("{:.0} min left", (seconds / 60.0).ceil()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_grows_and_what_is_left_is_estimated() {
        let at = |done| line(share(done, 200), Duration::from_secs(100), "merge 1 of 2");
        assert_eq!(at(0), "[                        ]   0 %  estimating  merge 1 of 2");
        assert_eq!(at(50), "[######                  ]  25 %  5 min left  merge 1 of 2");
        assert_eq!(at(200), "[########################] 100 %  0 s left  merge 1 of 2");
        assert!(line(share(0, 0), Duration::ZERO, "").contains("100 %"), "nothing to do is done");
    }
}
