//! Which of a stream's numbers were ingested long after they had landed, and when: no I/O, and the clock is told.
//!
//! Landed batches stay for the grace period after they were *ingested*, so that after a week in which the pipeline stood
//! still there is something left to replay. When a batch landed is the store's to say; when it was ingested is not, and a
//! record of each would cost as much as the batches. So it is assumed that a batch is ingested soon after it landed
//! (within [`tolerance_us`], by which all stay longer), and only what came later than that is remembered, in the commit
//! that takes it: up to which number, and when. As transactions of the table this goes back with a table that is
//! restored, and is gone with one that is lost.
//!
//! `:late/<source>/<epoch>/<field>`, at most five names a stream, however often it is late. A pipeline that is
//! always late (one that runs once a week) keeps nothing for ever: a run of late commits ends after a grace period, and
//! the one before it counts on its own until then.

/// What stands before late numbers. No source has such a name.
const PREFIX: &str = ":late/";

/// A batch that is ingested within this part of the grace period is not late, and none goes before it is over.
const TOLERATED_PART: i64 = 24;

/// By how much later than the grace period after its landing a batch may go that was not late.
pub(super) const fn tolerance_us(grace_us: i64) -> i64 {
    grace_us / TOLERATED_PART
}

/// The late numbers of a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Late {
    /// The last of them; everything up to it was ingested by `at_us`. 0 where none was late.
    until: i64,
    /// When the first commit of this run of late ones was made.
    since_us: i64,
    /// When the last one was.
    at_us: i64,
    /// The last number of the run before.
    former_until: i64,
    /// By when everything up to that was ingested.
    former_at_us: i64,
}

impl Late {
    /// After a batch that ends with this number was ingested late.
    pub(super) const fn took(self, last: i64, now_us: i64, grace_us: i64) -> Self {
        if last <= self.until {
            // It filled a hole below: what lies there came by now, and not by what was noted before.
            Self { at_us: now_us, former_until: 0, former_at_us: 0, ..self }
        } else if self.until == 0 || now_us.saturating_sub(self.since_us) >= grace_us {
            let (former_until, former_at_us) = (self.until, self.at_us);
            Self { until: last, since_us: now_us, at_us: now_us, former_until, former_at_us }
        } else {
            Self { until: last, at_us: now_us, ..self }
        }
    }

    /// By when a batch that ends with this number was ingested, if it may have been late.
    pub(super) const fn ingested_us(self, last: i64) -> Option<i64> {
        if last <= self.former_until {
            Some(self.former_at_us)
        } else if last <= self.until {
            Some(self.at_us)
        } else {
            None
        }
    }

    /// Whether anything of the stream was late.
    pub(super) const fn is_some(self) -> bool {
        self.until > 0
    }

    /// The transactions that make `self` of what it was before.
    pub(super) fn moved_from(self, before: Self, stream: &str) -> Vec<(String, i64)> {
        let changed = self.fields().into_iter().zip(before.fields()).filter(|(now, before)| now != before);
        changed.map(|((field, number), _)| (format!("{PREFIX}{stream}/{field}"), number)).collect()
    }

    const fn fields(self) -> [(&'static str, i64); 5] {
        [
            ("until", self.until),
            ("since", self.since_us),
            ("at", self.at_us),
            ("former-until", self.former_until),
            ("former-at", self.former_at_us),
        ]
    }

    pub(super) fn set(&mut self, field: &str, number: i64) {
        match field {
            "until" => self.until = number,
            "since" => self.since_us = number,
            "at" => self.at_us = number,
            "former-until" => self.former_until = number,
            "former-at" => self.former_at_us = number,
            _ => {}
        }
    }
}

/// The stream, `<source>/<epoch>`, and the field of a transaction that says something of late numbers.
pub(super) fn named(app_id: &str) -> Option<(&str, &str)> {
    app_id.strip_prefix(PREFIX)?.rsplit_once('/')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GRACE_US: i64 = 1_000;
    const STREAM: &str = "landfall-01/00";

    #[test]
    fn what_was_late_survives_the_log() {
        let late = Late::default().took(5, 10, GRACE_US).took(9, 2_000, GRACE_US);
        let mut read = Late::default();
        for (app_id, number) in late.moved_from(Late::default(), STREAM) {
            let (stream, field) = named(&app_id).expect("of late numbers");
            assert_eq!(stream, STREAM);
            read.set(field, number);
        }
        assert_eq!(read, late);
        assert_eq!(late.moved_from(late, STREAM), [], "what did not move costs nothing");
        assert_eq!((late.ingested_us(5), late.ingested_us(9), late.ingested_us(10)), (Some(10), Some(2_000), None));
    }

    proptest! {
        /// Batches that are taken in turn, or fill what was passed, each of them late, with pauses in between: no number
        /// goes before its period is over, and without fillings none stays for more than two, and a pause.
        #[test]
        fn no_number_goes_before_its_time_and_none_stays_for_ever(
            steps in prop::collection::vec((1_i64..600, prop::bool::weighted(0.1)), 1..60),
            with_fillings: bool,
        ) {
            let (mut late, mut now_us, mut last) = (Late::default(), 0, 0);
            let mut there: Vec<(i64, i64)> = Vec::new();
            for (pause_us, is_filling) in steps {
                now_us += pause_us;
                // A run removes what may go by what was known before it took anything.
                for (number, ingested_us) in std::mem::take(&mut there) {
                    let goes = late.ingested_us(number).is_none_or(|by_us| by_us + GRACE_US <= now_us);
                    prop_assert!(!goes || ingested_us + GRACE_US <= now_us, "{} went too early", number);
                    let age_us = now_us - ingested_us;
                    prop_assert!(goes || with_fillings || age_us <= 2 * GRACE_US + 600, "{} stays: {}", number, age_us);
                    if !goes {
                        there.push((number, ingested_us));
                    }
                }
                let number = if is_filling && with_fillings && last > 2 { last / 2 } else { last + 2 };
                last = last.max(number);
                late = late.took(number, now_us, GRACE_US);
                there.push((number, now_us));
            }
        }
    }
}
