//! When a job is due.

use std::time::Duration;

use tjern_readings::configuration::Period;

/// When a job is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schedule {
    /// So long after its last run began.
    Every(Duration),
}

impl From<Period> for Schedule {
    fn from(period: Period) -> Self {
        Self::Every(period.duration())
    }
}
