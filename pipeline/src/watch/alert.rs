//! What can be wrong, and the event that it begins or ends.

use serde::{Deserialize, Serialize};

use crate::jobs::record::Moment;

/// What is wrong, in a word of a closed list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A source has sent nothing for too long.
    SourceSilent,
    /// A sensor has given no value for too long.
    SensorLate,
    /// Numbers of a source are missing.
    Hole,
    /// A job fails.
    JobFailed,
    /// A job has not run for too long.
    JobLate,
    /// A disk is nearly full.
    Disk,
    /// A token is about to expire, or has.
    Token,
    /// A value is outside of what was set.
    Limit,
    /// A source writes a sensor that the register gives to others.
    NotAssigned,
    /// A source's unit differs from the register's.
    Unit,
    /// A source sends readings of the future.
    Future,
    /// A configuration that a source's batches name is not in the store, or they name none by what they say.
    Configuration,
    /// Objects in the landing zone belong to nobody, and are never ingested.
    Stray,
}

impl Kind {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SourceSilent => "source_silent",
            Self::SensorLate => "sensor_late",
            Self::Hole => "hole",
            Self::JobFailed => "job_failed",
            Self::JobLate => "job_late",
            Self::Disk => "disk",
            Self::Token => "token",
            Self::Limit => "limit",
            Self::NotAssigned => "not_assigned",
            Self::Unit => "unit",
            Self::Future => "future",
            Self::Configuration => "configuration",
            Self::Stray => "stray",
        }
    }
}

/// Something that is wrong now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// What.
    pub kind: Kind,
    /// With what: a source, a sensor, a job, a folder. With the kind, what makes it the same one again.
    pub subject: String,
    /// In a sentence.
    pub text: String,
}

impl Condition {
    /// What makes it the same one again.
    #[must_use]
    pub fn key(&self) -> String {
        Self::key_of(self.kind, &self.subject)
    }

    /// What makes one of this kind, with this, the same one again.
    #[must_use]
    pub fn key_of(kind: Kind, subject: &str) -> String {
        format!("{}:{subject}", kind.as_str())
    }
}

/// Whether it begins or is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It begins.
    Begun,
    /// It is over.
    Ended,
}

/// What is told. The names are part of the webhook's documented body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The same for the same event: what was told before, after all, can be told from what is new.
    pub id: String,
    /// Whether it begins or is over.
    pub change: Change,
    /// What is wrong.
    pub kind: Kind,
    /// With what.
    pub subject: String,
    /// In a sentence, as it was when it began.
    pub text: String,
    /// When it was first seen, UTC.
    pub since: Moment,
    /// When it was seen to be over, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Moment>,
}
