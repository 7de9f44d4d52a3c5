//! The jobs: each once, to the end, or all on their schedules.
//!
//! [`list`] has every job with its schedule, [`job`] says what a job is, [`once`] runs one and [`daemon`] all
//! of them until they are told to stop. How each ran last is in the lake ([`record`]), how they fare now is told
//! by [`door`], which tells other processes of commits too ([`versions`]).

pub mod cron;
pub mod daemon;
pub mod door;
pub mod job;
pub mod list;
pub mod metrics;
pub mod once;
mod prepared;
mod quiet;
pub mod record;
pub mod schedule;
pub mod settings;
pub mod states;
mod unchanged;
pub mod versions;

pub use cron::Cron;
pub use daemon::{announce, run};
pub use door::Door;
pub use job::{Done, Job, JobError};
pub use list::{Entry, entries, entries_of, personal_entries};
pub use record::{Outcome, Run};
pub use schedule::Schedule;
pub use settings::{JobSettings, Schedules};
pub use states::States;
pub use versions::told_tables;
