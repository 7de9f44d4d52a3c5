//! When which stream is looked at: no I/O, and the clock is told.
//!
//! A store bills each request, and most looks find nothing. So a source that sends at least once a minute is
//! looked at when its next batch is due, judged by when its last ones landed, and then as often as allowed
//! until it is there; all the others, and whatever is new, are found by a look everywhere once per
//! `idle_every`. A source that was due and is silent is left to those looks again.

use std::collections::{HashMap, VecDeque};

use tjern_readings::clock::SECOND_US;
use tjern_readings::store::LakeUrl;

use super::landing::{Stream, Zone};

/// A source that sends at least once in this time is waited for; a minute, and what its way may take.
const FREQUENT_US: i64 = 75_000_000;

/// How many of the last arrivals are remembered.
const ARRIVALS: usize = 8;

/// So many times its longest gap a stream may be late before it is left to the looks everywhere.
const PATIENCE_GAPS: i64 = 3;

/// How often one looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Polling {
    /// The least time between two looks at a source.
    pub every_us: i64,
    /// The time between two looks everywhere.
    pub idle_us: i64,
}

impl Polling {
    /// A cloud bills each request: what is looked at because it may be due is looked at every 2 s, all the rest
    /// every 57 s. A folder of this machine costs nothing: every 2 s and every 5 s.
    #[must_use]
    pub fn of(lake: &LakeUrl) -> Self {
        let idle_us = if lake.local_folder().is_some() { 5 } else { 57 } * SECOND_US;
        Self { every_us: 2 * SECOND_US, idle_us }
    }
}

/// What to look at now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    Streams(Vec<Stream>),
    Everywhere,
}

#[derive(Debug)]
pub(super) struct Schedule {
    polling: Polling,
    everywhere_us: i64,
    rhythms: HashMap<Stream, Rhythm>,
    /// How far the store's clock is ahead of ours at least; it dates the arrivals.
    ahead_us: i64,
}

#[derive(Debug, Default)]
struct Rhythm {
    /// By the store's clock.
    arrivals: VecDeque<i64>,
    next_us: Option<i64>,
}

impl Schedule {
    pub(super) fn new(polling: Polling) -> Self {
        Self { polling, everywhere_us: i64::MIN, rhythms: HashMap::new(), ahead_us: 0 }
    }

    pub(super) const fn polling(&mut self, polling: Polling) {
        self.polling = polling;
    }

    /// What is due. A clock that was set back makes everything due.
    pub(super) fn due(&self, now_us: i64) -> Due {
        if now_us >= self.everywhere_us || now_us < self.everywhere_us.saturating_sub(2 * self.polling.idle_us) {
            return Due::Everywhere;
        }
        let is_due = |rhythm: &Rhythm| rhythm.next_us.is_some_and(|next_us| now_us >= next_us);
        let mut due: Vec<_> =
            self.rhythms.iter().filter(|(_, rhythm)| is_due(rhythm)).map(|(stream, _)| stream.clone()).collect();
        due.sort();
        if due.is_empty() { Due::Nothing } else { Due::Streams(due) }
    }

    /// Takes note of a look everywhere.
    pub(super) fn looked_everywhere(&mut self, now_us: i64) {
        self.everywhere_us = now_us.saturating_add(self.polling.idle_us);
    }

    /// Takes note of what was seen just now.
    pub(super) fn saw(&mut self, zone: &Zone, now_us: i64) {
        for (stream, seen) in zone {
            let rhythm = self.rhythms.entry(stream.clone()).or_default();
            let newest = rhythm.arrivals.back().copied().unwrap_or(i64::MIN);
            let mut arrived: Vec<_> = seen.items.iter().map(|item| item.landed_us).filter(|us| *us > newest).collect();
            arrived.sort_unstable();
            if let Some(last) = arrived.last() {
                // What lies in the future by our clock was dated by one that is ahead.
                self.ahead_us = self.ahead_us.max(last.saturating_sub(now_us));
            }
            rhythm.arrivals.extend(arrived);
            while rhythm.arrivals.len() > ARRIVALS {
                rhythm.arrivals.pop_front();
            }
            rhythm.next_us = rhythm.next(now_us, self.ahead_us, self.polling);
        }
    }

    /// A stream that ends is waited for no more.
    pub(super) fn forget(&mut self, stream: &Stream) {
        self.rhythms.remove(stream);
    }
}

impl Rhythm {
    /// When this stream is to be looked at next, if it is worth a look of its own.
    fn next(&self, now_us: i64, ahead_us: i64, polling: Polling) -> Option<i64> {
        let pairs = self.arrivals.iter().zip(self.arrivals.iter().skip(1));
        let mut gaps: Vec<i64> = pairs.map(|(one, next)| next.saturating_sub(*one)).collect();
        gaps.sort_unstable();
        let (least, most) = (*gaps.first()?, *gaps.last()?);
        let last = self.arrivals.back()?.saturating_sub(ahead_us);
        let is_frequent = gaps[gaps.len() / 2] <= FREQUENT_US;
        let is_silent = now_us > last.saturating_add(PATIENCE_GAPS * most.max(polling.every_us));
        if !is_frequent || is_silent {
            return None;
        }
        let expected = last.saturating_add(least).saturating_sub(polling.every_us);
        Some(expected.max(now_us.saturating_add(polling.every_us)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::landing::LandedEpoch;
    use super::super::sequence::Item;
    use super::*;
    use tjern_readings::keys::Bounds;
    use tjern_readings::sensor::Epoch;

    const POLLING: Polling = Polling { every_us: 2 * SECOND_US, idle_us: 50 * SECOND_US };

    fn stream(name: &str) -> Stream {
        (name.parse().expect("valid"), Epoch::from_bytes([1; 16]))
    }

    fn zone(name: &str, landed_us: &[i64]) -> Zone {
        let bounds = Bounds { first: 1, last: 1 };
        let item = |landed_us: &i64| Item { bounds, gap: false, landed_us: *landed_us, bytes: 1_000 };
        let items = landed_us.iter().map(item).collect();
        let epoch = LandedEpoch { items, partial: true, ..LandedEpoch::default() };
        Zone::from([(stream(name), epoch)])
    }

    /// Plays a source against a schedule: how late its batches were found, and how many requests were made.
    fn played(schedule: &mut Schedule, landings_us: &[i64], skew_us: i64, until_us: i64) -> (Vec<i64>, u64) {
        let (mut late, mut requests, mut found) = (Vec::new(), 0, 0);
        for now_us in (0..until_us).step_by(usize::try_from(POLLING.every_us).expect("small")) {
            let due = schedule.due(now_us);
            if due == Due::Nothing {
                continue;
            }
            requests += 1;
            let there = landings_us.iter().take_while(|landed_us| **landed_us <= now_us).count();
            late.extend(landings_us[found..there].iter().map(|landed_us| now_us - landed_us));
            let dated: Vec<_> = landings_us[found..there].iter().map(|landed_us| landed_us + skew_us).collect();
            found = there;
            schedule.saw(&zone("landfall-01", &dated), now_us);
            if due == Due::Everywhere {
                schedule.looked_everywhere(now_us);
            }
        }
        (late, requests)
    }

    /// The promise: what a source sends once a minute is seen within seconds, and it costs a few looks.
    #[test]
    fn a_source_that_sends_every_minute_is_waited_for() {
        for skew_us in [0, 4 * SECOND_US, -4 * SECOND_US] {
            let mut random = fastrand::Rng::with_seed(3);
            let landings: Vec<_> = (1..200).map(|n| n * 60 * SECOND_US + random.i64(0..2 * SECOND_US)).collect();
            let (late, requests) = played(&mut Schedule::new(POLLING), &landings, skew_us, 200 * 60 * SECOND_US);
            let mut settled = late[10..].to_vec();
            settled.sort_unstable();
            let worst = settled[settled.len() * 99 / 100];
            assert!(
                worst <= 4 * SECOND_US,
                "99 of 100 within {} s, the store's clock {skew_us} us off",
                worst / SECOND_US
            );
            assert!(requests < 200 * 7, "{requests} requests in 200 minutes");
        }
    }

    /// An hourly source costs the looks everywhere and nothing more, and is found within a minute.
    #[test]
    fn an_hourly_source_costs_no_look_of_its_own() {
        let landings: Vec<_> = (1..24).map(|n| n * 3_600 * SECOND_US + 17 * SECOND_US).collect();
        let day_us = 86_400 * SECOND_US;
        let (late, requests) = played(&mut Schedule::new(POLLING), &landings, 0, day_us);
        assert_eq!(late.len(), 23);
        assert!(late.iter().all(|late_us| *late_us <= 50 * SECOND_US), "{late:?}");
        assert_eq!(requests, 86_400 / 50);
    }

    /// A frequent source that falls silent for days must not be asked for every two seconds.
    #[test]
    fn a_silent_source_is_left_alone() {
        let landings: Vec<_> = (1..60).map(|n| n * 10 * SECOND_US).collect();
        let mut schedule = Schedule::new(POLLING);
        played(&mut schedule, &landings, 0, 600 * SECOND_US);
        let (_, requests) = played(&mut schedule, &[], 0, 86_400 * SECOND_US);
        assert!(requests <= 86_400 / 50 + 30, "{requests}");
    }
}
