//! How often the server looks for newer tables, by what a look costs and how often data come. No I/O.
//!
//! A look is made when somebody asks, and never else. In a folder of this machine it costs nothing, and an answer is
//! a second old at most. A cloud bills each request, so there:
//!
//! - `readings` is looked at after a thirtieth of the time for which nothing came, a second at least and not a minute:
//!   of what comes every minute an answer is two seconds old, and what comes every hour costs a look a minute, where
//!   somebody asks that often;
//! - the rollups follow `readings`, so they are looked at once it moved, until they moved too; beside that every
//!   half hour;
//! - the register changes when people change it: every ten minutes; which instrument hung where, by which counters are summed up and
//!   nothing is shown or hidden, every hour.
//!
//! Where the pipeline works in the same process and shares the lake, what it commits is known without a look; where it is
//! in another one and tells of its commits ([`told`](crate::told)), as far as a table is found as it was told. What is
//! left are commits of others (a correction at the command line): every five minutes at least. Of tables that are told
//! of, all but `readings` are looked at once in an hour: the pipeline's own jobs bring them up to date.

use std::time::Duration;

use tjern_lake::TableName;

/// How old a look may be where it costs nothing.
const FREE: Duration = Duration::from_secs(1);
/// The shortest and the longest time between two looks at `readings`.
const READINGS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(57));
/// So many looks are made in the time for which nothing came.
const READINGS_LOOKS: u32 = 30;
/// How old a look at a rollup may be that is about to follow `readings`.
const FOLLOWING: Duration = Duration::from_secs(57);
/// So long after `readings` moved a rollup may follow.
const FOLLOWS_WITHIN: Duration = Duration::from_secs(10 * 60);
/// How old a look at a rollup may be that has nothing to follow.
const ROLLUPS: Duration = Duration::from_secs(30 * 60);
/// How old a look at the register may be.
const REGISTER: Duration = Duration::from_secs(10 * 60);
/// How old a look at the installations may be.
const INSTALLATIONS: Duration = Duration::from_secs(55 * 60);
/// How old a look may be where this process knows by itself what the pipeline commits.
const SHARED: Duration = Duration::from_secs(5 * 60);

/// How old a look at a rollup or the register may be that was found as the pipeline tells. Files that were removed stay for
/// an hour at least, and so long a version can be read.
const TOLD: Duration = Duration::from_secs(55 * 60);

/// What looks cost, and who commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Looks {
    /// Nothing.
    Free,
    /// Each is billed.
    Billed,
    /// Each is billed, and the pipeline's commits are known without one: it shares the lake.
    Shared,
    /// Each is billed, and the pipeline tells of its commits, in words that were found to be true.
    Told,
}

impl Looks {
    /// The same, where what was told of a table is what was found.
    pub(crate) const fn told(self) -> Self {
        match self {
            Self::Free | Self::Shared => self,
            Self::Billed | Self::Told => Self::Told,
        }
    }

    /// How old a look at a table may be. `readings` has not moved for `readings_rest`, the table itself for `rests`.
    pub(crate) fn age_max(self, table: TableName, rests: Duration, readings_rest: Duration) -> Duration {
        match (self, table) {
            (Self::Free, _) => FREE,
            (Self::Shared | Self::Told, TableName::Readings) => SHARED,
            (Self::Told, _) => TOLD,
            (Self::Billed, TableName::Readings) => (readings_rest / READINGS_LOOKS).clamp(READINGS.0, READINGS.1),
            (Self::Billed, TableName::Hourly | TableName::Daily) => {
                let is_behind = rests > readings_rest && readings_rest < FOLLOWS_WITHIN;
                if is_behind { FOLLOWING } else { ROLLUPS }
            }
            (Self::Shared, TableName::Hourly | TableName::Daily) => ROLLUPS,
            (Self::Billed | Self::Shared, TableName::Installations) => INSTALLATIONS,
            (_, _) => REGISTER,
        }
    }

    /// How old a look may be that found no table: whoever makes the lake is at it.
    pub(crate) const fn age_max_of_none(self) -> Duration {
        match self {
            Self::Free => FREE,
            Self::Billed | Self::Shared | Self::Told => FOLLOWING,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_comes_often_is_looked_at_often_and_what_is_silent_seldom() {
        let age = |seconds: u64| Looks::Billed.age_max(TableName::Readings, SECOND, Duration::from_secs(seconds));
        assert_eq!((age(0), age(60), age(600), age(3_600)), (SECOND, 2 * SECOND, 20 * SECOND, 57 * SECOND));
    }

    #[test]
    fn a_rollup_is_looked_at_while_it_has_something_to_follow() {
        let age = |rests: u64, readings: u64| {
            Looks::Billed.age_max(TableName::Daily, Duration::from_secs(rests), Duration::from_secs(readings))
        };
        assert_eq!(age(3_600, 30), FOLLOWING);
        assert_eq!(age(10, 70), ROLLUPS, "it followed");
        assert_eq!(age(3_600, 1_200), ROLLUPS, "what moved was a compaction: nothing followed");
    }

    #[test]
    fn what_is_told_is_looked_at_for_others_commits_only() {
        let told = |looks: Looks, table| looks.told().age_max(table, 60 * SECOND, 60 * SECOND);
        assert_eq!(told(Looks::Billed, TableName::Readings), SHARED);
        assert_eq!(told(Looks::Billed, TableName::Sensors), TOLD);
        assert_eq!((told(Looks::Free, TableName::Readings), Looks::Shared.told()), (FREE, Looks::Shared));
    }

    #[test]
    fn a_folder_of_this_machine_is_looked_at_every_second() {
        assert!(TableName::ALL.iter().all(|table| Looks::Free.age_max(*table, SECOND, SECOND) == FREE));
    }
}
