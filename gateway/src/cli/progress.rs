//! A bar on stderr for what takes long, where stderr is a terminal.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

const BAR: usize = 24;

/// How far something is.
#[derive(Debug)]
pub struct Progress {
    total: u64,
    begun: Instant,
    is_shown: bool,
}

impl Progress {
    /// So many steps are to come.
    #[must_use]
    pub fn new(total: u64) -> Self {
        Self { total, begun: Instant::now(), is_shown: std::io::stderr().is_terminal() }
    }

    /// So many are done; this is under way.
    pub fn show(&self, done: u64, what: &str) {
        if self.is_shown {
            let line = line(done, self.total, self.begun.elapsed(), what);
            // A bar that cannot be drawn stops nothing.
            let _ = write!(std::io::stderr(), "\r\x1b[K{line}");
        }
    }

    /// Takes the bar away, for a line of data or for good.
    pub fn clear(&self) {
        if self.is_shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

fn line(done: u64, total: u64, elapsed: Duration, what: &str) -> String {
    let permille = (done * 1_000).checked_div(total).and_then(|done| u32::try_from(done).ok()).unwrap_or(1_000);
    let share = f64::from(permille) / 1e3;
    let filled = BAR * permille as usize / 1_000;
    let bar = "#".repeat(filled);
    let left = if done == 0 { None } else { Some(elapsed.mul_f64((1.0 - share).max(0.0) / share.max(0.001))) };
    let left = left.map_or_else(|| "estimating".to_owned(), |left| format!("{} left", duration(left)));
    format!("[{bar:<BAR$}] {:3.0} %  {left}  {what}", share * 100.0)
}

/// Minutes and seconds.
#[must_use]
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64().ceil();
    if seconds < 60.0 {
        return format!("{seconds:.0} s");
    }
    let seconds = duration.as_secs();
    format!("{} min {} s", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_grows_and_what_is_left_is_estimated() {
        let at = |done| line(done, 200, Duration::from_secs(10), "unit 5");
        assert_eq!(at(0), "[                        ]   0 %  estimating  unit 5");
        assert_eq!(at(100), "[############            ]  50 %  10 s left  unit 5");
        assert_eq!(at(200), "[########################] 100 %  0 s left  unit 5");
        assert_eq!(duration(Duration::from_secs(125)), "2 min 5 s");
    }
}
