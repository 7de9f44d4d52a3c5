//! Whether a device answers, and how often one that does not is asked.
//!
//! A device is healthy; after an answer that did not come it is suspect, and after the third it is down. What it costs
//! the others is bounded by what its failures really take of the bus, timeout and drain included:
//!
//! - *suspect*: it is asked again after as long as its failure took, so that others are served in between, and only
//!   within [`SUSPECT_WINDOW`] of its first failure; where its failures take too long for that, it is asked as one
//!   that is down;
//! - *down*: after pauses that grow from half a second to a minute, a tenth more or less by chance, and never sooner
//!   than [`COST_FACTOR`] times what the last failure on its bus took ([`Budget`], which all such devices of a bus
//!   share), which may be more than a minute. A repaired device costs nothing, so of twenty that come back at once each
//!   is asked as soon as the one before has answered.
//!
//! Where no other device of the bus is healthy nobody is delayed, and pauses stay short.

use std::time::Duration;

use tjern_readings::reading::Cause;
use tokio::time::Instant;

use super::point::FAILURES_TO_DOWN;
use super::state::DeviceState as Shown;

const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Where nobody is delayed.
const PAUSE_MAX_ALONE: Duration = Duration::from_secs(5);

/// A device that stops answering has so long to be found out by asking at once.
const SUSPECT_WINDOW: Duration = Duration::from_secs(12);

/// A device that is down may take one part in so many of its bus. A failure with its drain is as long as two periods
/// at worst, and each may cost the others a slot and a part of one: three in eighty stay under 5 %.
pub(super) const COST_FACTOR: u32 = 40;

/// How devices that do not answer are asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Policy {
    cost_factor: u32,
    pauses: bool,
}

impl Policy {
    pub(super) const DEFAULT: Self = Self { cost_factor: COST_FACTOR, pauses: true };

    /// At every slot, as a gateway does that does not think of it: a test has to catch that.
    #[cfg(test)]
    pub(super) const CARELESS: Self = Self { cost_factor: 0, pauses: false };
}

/// What is known about a device.
#[derive(Debug)]
pub(super) struct Health {
    policy: Policy,
    failures: u32,
    first_failed: Option<Instant>,
    down: bool,
    /// It is asked from here on, as far as it alone is concerned.
    ask_at: Option<Instant>,
    pause: Duration,
    /// It is asked at the expense of the bus's budget.
    on_budget: bool,
    cause: Cause,
    /// It was asked together with others and did not answer.
    is_alone: bool,
}

/// When the next device that does not answer may be asked, and the next that is busy.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Budget {
    next: Option<Instant>,
    busy: Option<Instant>,
}

impl Budget {
    /// From when on a device that is busy may be asked once more, which takes so long: of the bus's time one part in
    /// [`COST_FACTOR`], whoever is busy.
    pub(super) fn for_busy(&self, cost: Duration, now: Instant) -> Instant {
        self.busy.map_or(now, |busy| busy.max(now)) + cost * COST_FACTOR
    }

    /// One will be, by such a moment.
    pub(super) const fn spend_on_busy(&mut self, until: Instant) {
        self.busy = Some(until);
    }
}

/// What a result changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing that is worth a line.
    None,
    /// It went down.
    Down,
    /// It is back.
    Back,
}

impl Health {
    pub(super) const fn new(policy: Policy) -> Self {
        Self {
            policy,
            failures: 0,
            first_failed: None,
            down: false,
            ask_at: None,
            pause: Duration::ZERO,
            on_budget: false,
            cause: Cause::Timeout,
            is_alone: false,
        }
    }

    /// It was asked together with others, and was among those that did not answer: it is asked alone until it has.
    pub(super) const fn was_silent_in_company(&mut self) {
        self.is_alone = true;
    }

    /// Whether it may be asked together with others.
    pub(super) const fn is_sociable(&self) -> bool {
        self.is_healthy() && !self.is_alone
    }

    /// Whether nothing has failed since the last answer.
    pub(super) const fn is_healthy(&self) -> bool {
        self.failures == 0
    }

    pub(super) const fn shown(&self) -> Shown {
        match (self.failures, self.down) {
            (0, _) => Shown::Healthy,
            (_, false) => Shown::Suspect,
            (_, true) => Shown::Down,
        }
    }

    /// Until when the device is not asked, if it is not asked now, and why. `others` is whether somebody else on
    /// the bus is healthy.
    pub(super) fn resting(&self, budget: Budget, others: bool, now: Instant) -> Option<(Instant, Cause)> {
        let budgeted = budget.next.filter(|_| self.on_budget && others);
        let until = self.ask_at.max(budgeted)?;
        (until > now).then_some((until, self.cause))
    }

    /// It answered, if only with an exception.
    pub(super) fn answered(&mut self) -> Change {
        let was_down = self.down;
        *self = Self::new(self.policy);
        if was_down { Change::Back } else { Change::None }
    }

    /// It did not, which kept the bus from everything else for so long.
    pub(super) fn failed(
        &mut self,
        cause: Cause,
        (cost, now): (Duration, Instant),
        budget: &mut Budget,
        others: bool,
    ) -> Change {
        self.failures = self.failures.saturating_add(1);
        self.cause = cause;
        let first = *self.first_failed.get_or_insert(now.checked_sub(cost).unwrap_or(now));
        let in_time = now.saturating_duration_since(first) + 2 * cost <= SUSPECT_WINDOW || !others;
        let confirmed = self.failures >= FAILURES_TO_DOWN || self.failures > 1 && !in_time;
        if !confirmed && in_time {
            self.ask_at = Some(if others && self.policy.pauses { now + cost } else { now });
            return Change::None;
        }
        let longest = if others { PAUSE_MAX } else { PAUSE_MAX_ALONE };
        self.pause = (self.pause * 2).clamp(PAUSE_MIN, longest);
        let jitter = 0.9 + 0.2 * fastrand::f64();
        self.ask_at = self.policy.pauses.then(|| now + self.pause.mul_f64(jitter));
        self.on_budget = true;
        budget.next = budget.next.max(Some(now + cost * self.policy.cost_factor));
        let goes_down = confirmed && !self.down;
        self.down |= confirmed;
        if goes_down { Change::Down } else { Change::None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENTH: Duration = Duration::from_millis(100);

    /// When a dead device is asked within a time, in tenths of a second.
    fn asked(cost: Duration, others: bool, tenths: u32) -> Vec<u32> {
        let (mut health, mut budget, start) = (Health::new(Policy::DEFAULT), Budget::default(), Instant::now());
        let (mut asked, mut busy_until) = (Vec::new(), start);
        for tenth in 0..tenths {
            let now = start + TENTH * tenth;
            if now >= busy_until && health.resting(budget, others, now).is_none() {
                asked.push(tenth);
                busy_until = now + cost;
                health.failed(Cause::Timeout, (cost, busy_until), &mut budget, others);
            }
        }
        asked
    }

    #[test]
    fn a_dead_device_is_asked_ever_more_seldom_and_comes_back_at_once() {
        let asked = asked(TENTH, true, 36_000);
        assert_eq!(asked[..3], [0, 2, 4], "others are served between the first failures");
        assert!((55..80).contains(&asked.len()), "asked {} times in an hour", asked.len());
        let (mut health, mut budget, now) = (Health::new(Policy::DEFAULT), Budget::default(), Instant::now());
        let changes = [(); 3].map(|()| health.failed(Cause::Crc, (TENTH, now), &mut budget, true));
        assert_eq!(changes, [Change::None, Change::None, Change::Down]);
        assert_eq!(health.resting(budget, true, now).map(|(_, cause)| cause), Some(Cause::Crc));
        assert_eq!((health.answered(), health.resting(budget, true, now)), (Change::Back, None));
    }

    #[test]
    fn what_a_failure_costs_bounds_how_often_it_may_happen() {
        for (cost_s, window_s) in [(1, 600), (2, 600), (4, 1_200), (10, 3_600)] {
            let asked = asked(Duration::from_secs(cost_s), true, u32::try_from(window_s * 10).expect("small"));
            // From ten seconds after its first failure on.
            let late = asked.iter().filter(|tenth| **tenth >= 100).count() as u64;
            assert!(late * cost_s * 33 <= window_s, "a failure of {cost_s} s happens {late} times in {window_s} s");
            assert!(late >= 3, "a device that is down is asked now and then: {asked:?}");
        }
    }

    /// After a power cut in a street its meters went down together, and were all asked in the same moments from then on.
    #[test]
    fn devices_that_went_down_together_are_not_asked_together() {
        let now = Instant::now();
        let mut pauses: Vec<Duration> = (0..50)
            .map(|_| {
                let mut health = Health::new(Policy::DEFAULT);
                for _ in 0..6 {
                    health.failed(Cause::Timeout, (TENTH, now), &mut Budget::default(), true);
                }
                health.resting(Budget::default(), true, now).expect("it is down").0 - now
            })
            .collect();
        pauses.sort();
        let (shortest, longest) = (pauses[0], pauses[49]);
        assert!(longest > shortest.mul_f64(1.05), "{shortest:?} to {longest:?}");
        assert!(longest <= shortest.mul_f64(1.1 / 0.9), "{shortest:?} to {longest:?}");
        pauses.dedup();
        assert!(pauses.len() > 40, "{} different ones", pauses.len());
    }

    #[test]
    fn where_nobody_is_delayed_it_is_asked_every_few_seconds() {
        let asked = asked(Duration::from_secs(1), false, 6_000);
        assert!(asked.len() >= 90, "{} times in ten minutes", asked.len());
    }

    #[test]
    fn devices_that_are_down_share_one_budget() {
        let (mut budget, now, cost) = (Budget::default(), Instant::now(), Duration::from_secs(1));
        let mut devices = [(); 5].map(|()| Health::new(Policy::DEFAULT));
        for device in &mut devices {
            for _ in 0..3 {
                device.failed(Cause::Timeout, (cost, now), &mut budget, true);
            }
        }
        let later = now + cost * COST_FACTOR + Duration::from_secs(1);
        assert!(devices.iter().all(|device| device.resting(budget, true, later).is_none()));
        devices[0].failed(Cause::Timeout, (cost, later), &mut budget, true);
        assert!(devices.iter().all(|device| device.resting(budget, true, later).is_some()));
    }
}
