//! Whether the machine's clock can be believed.
//!
//! A box without a battery begins in 1970, or, with `fake-hwclock`, when it was last shut down. Its clock is
//! **believed** where the system says that it was synchronised (not after now by the clock itself: then somebody has set it back
//! since); where the system says that it was not, only with a battery clock that says the same; and, but for the first, only if
//! it does not lie before what is known already: the newest reading, and this software's own age.
//!
//! Many boards have a clock chip and no battery for it: it counts from 1970 or 2000 after a power cut, while the machine's
//! clock goes on from the time that was saved last. So what such a chip says is looked at, and not whether there is one.
//!
//! The system's word is the file that `systemd-timesyncd` touches after each synchronisation (its manual:
//! `/run/systemd/timesync/synchronized`), or what chrony answers where it runs. Others say it only through a system call;
//! there the word is missing, and the rest of the rule decides.

mod chrony;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tjern_readings::clock::{Clock, SECOND_US};

pub use chrony::{ChronyError, Tracking};

/// This software is not older: 2026-11-01.
const NOT_BEFORE_US: i64 = 1_793_491_200 * SECOND_US;

/// A device's own clock may have put the newest reading so far ahead. A clock that falls back by more while the gateway runs
/// is as little believed as one that begins so.
pub(crate) const BEHIND_MAX_US: i64 = 900 * SECOND_US;

const YEAR_US: i64 = 366 * 86_400 * SECOND_US;

/// What a time service set is looked at within so long.
const SET_BACK_SLACK_US: i64 = 60 * SECOND_US;

const SYNCHRONISED: &str = "run/systemd/timesync/synchronized";
const BATTERY_CLOCKS: &str = "sys/class/rtc";

/// One of these is there while chrony runs.
const CHRONY: [&str; 2] = ["run/chrony", "run/chronyd.pid"];

/// What is said of the clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClockWord {
    /// Whether it was synchronised; `None` where nobody says so.
    pub is_synchronised: Option<bool>,
    /// How far it is ahead of the true time, in milliseconds, where somebody reckons it.
    pub ahead_ms: Option<i64>,
}

/// What the time service says of when it set the clock last.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mark {
    /// Nobody says.
    Unsaid,
    /// Not yet.
    Never,
    /// `systemd-timesyncd` touched its file, by the clock as it was then.
    Touched(i64),
    /// What chrony answers.
    Tracked(Tracking),
}

impl Mark {
    /// When the clock was set, by what it said then: where that stays as it was, nobody has set it since.
    #[must_use]
    pub fn time_us(self) -> Option<i64> {
        match self {
            Self::Unsaid | Self::Never => None,
            Self::Touched(touched_us) => Some(touched_us),
            Self::Tracked(tracking) => tracking.followed_us(),
        }
    }

    /// Whether the time service set the clock since so long ago, by a clock that says this; `None` where none says so. One of
    /// before the clock fell lies in its future, until the clock comes there again: it has to be known then by [`Self::time_us`].
    #[must_use]
    pub fn is_since(self, wall_us: i64, ago_us: i64) -> Option<bool> {
        let earliest_us = wall_us.saturating_sub(ago_us).saturating_sub(SET_BACK_SLACK_US);
        match self {
            _ if wall_us < NOT_BEFORE_US => Some(false),
            Self::Unsaid => None,
            Self::Never => Some(false),
            Self::Touched(touched_us) => {
                Some((earliest_us..=wall_us.saturating_add(SET_BACK_SLACK_US)).contains(&touched_us))
            }
            Self::Tracked(tracking) => Some(tracking.has_followed_since(wall_us, ago_us)),
        }
    }
}

/// Who is asked about the clock. Clones share what they have seen.
#[derive(Debug, Clone)]
pub struct Witness {
    root: PathBuf,
    chrony: SocketAddr,
    /// The last mark that lay ahead of the clock: somebody has set that back since, and the mark is of another time, also once the
    /// clock has come there again.
    ahead_us: Arc<AtomicI64>,
}

impl Witness {
    /// This machine.
    #[must_use]
    pub fn system() -> Self {
        Self::at(Path::new("/"))
    }

    /// A folder that looks like one, for tests.
    #[must_use]
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_owned(), chrony: chrony::DOOR, ahead_us: Arc::new(AtomicI64::new(i64::MIN)) }
    }

    /// Where the machine's own files are.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Whether the clock was synchronised; `None` where nobody says so. Where chrony is silent this blocks for a
    /// second.
    #[must_use]
    pub fn is_synchronised(&self) -> Option<bool> {
        self.word().is_synchronised
    }

    /// All that is said of the clock. Blocks as [`Self::is_synchronised`].
    #[must_use]
    pub fn word(&self) -> ClockWord {
        match self.mark() {
            Mark::Unsaid => ClockWord::default(),
            Mark::Never => ClockWord { is_synchronised: Some(false), ahead_ms: None },
            Mark::Touched(_) => ClockWord { is_synchronised: Some(true), ahead_ms: None },
            Mark::Tracked(tracking) => {
                ClockWord { is_synchronised: Some(tracking.is_synchronised()), ahead_ms: tracking.ahead_ms() }
            }
        }
    }

    /// When the time service set the clock last, as far as it says so. Blocks as [`Self::is_synchronised`].
    #[must_use]
    pub fn mark(&self) -> Mark {
        let file = self.root.join(SYNCHRONISED);
        if let Ok(found) = file.metadata() {
            return Mark::Touched(touched_us(&found).unwrap_or(0));
        }
        if let Some(Ok(tracking)) = self.chrony() {
            return Mark::Tracked(tracking);
        }
        // The folder is there while the service runs.
        if file.parent().is_some_and(Path::is_dir) { Mark::Never } else { Mark::Unsaid }
    }

    /// What chrony says, where it runs. Blocks as [`Self::is_synchronised`].
    #[must_use]
    pub fn chrony(&self) -> Option<Result<Tracking, ChronyError>> {
        CHRONY.iter().any(|path| self.root.join(path).exists()).then(|| chrony::ask(self.chrony))
    }

    /// Whether a battery clock says the same as the wall clock, to [`BEHIND_MAX_US`]. One that is set to local time does not.
    fn has_battery_clock_at(&self, wall_us: i64) -> bool {
        let clocks = std::fs::read_dir(self.root.join(BATTERY_CLOCKS)).into_iter().flatten().flatten();
        clocks
            .filter_map(|clock| {
                std::fs::read_to_string(clock.path().join("since_epoch")).ok()?.trim().parse::<i64>().ok()
            })
            .any(|seconds| seconds.saturating_mul(SECOND_US).abs_diff(wall_us) <= BEHIND_MAX_US.unsigned_abs())
    }

    /// Whether the clock was synchronised, and is that one still by what it says now.
    fn synchronised_at(&self, wall_us: i64) -> Option<bool> {
        let mark = self.mark();
        let Some(time_us) = mark.time_us() else { return (mark != Mark::Unsaid).then_some(false) };
        if time_us > wall_us.saturating_add(SET_BACK_SLACK_US) {
            self.ahead_us.store(time_us, Ordering::Relaxed);
        }
        Some(time_us != self.ahead_us.load(Ordering::Relaxed))
    }

    /// Whether the wall clock is believed by somebody who knows of this time.
    #[must_use]
    pub fn believes(&self, wall_us: i64, known_us: i64) -> bool {
        match self.synchronised_at(wall_us) {
            Some(true) => wall_us >= NOT_BEFORE_US,
            Some(false) if !self.has_battery_clock_at(wall_us) => false,
            _ => wall_us >= known_us.saturating_sub(BEHIND_MAX_US),
        }
    }
}

fn touched_us(file: &std::fs::Metadata) -> Option<i64> {
    let touched = file.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    i64::try_from(touched.as_micros()).ok()
}

/// The newest time that is known: that of a reading, or of this software. An estimate is none: it may have begun with a
/// clock that was wrong, and would be believed more than one that is right, start after start. A reading that lies more than a
/// year ahead of a clock that may be right was made by a clock that was wrong.
#[must_use]
pub fn known_us(newest_us: Option<i64>, wall_us: i64) -> i64 {
    let is_absurd = |newest_us: &i64| wall_us >= NOT_BEFORE_US && *newest_us > wall_us.saturating_add(YEAR_US);
    newest_us.filter(|newest_us| !is_absurd(newest_us)).unwrap_or(NOT_BEFORE_US).max(NOT_BEFORE_US)
}

/// The clock to work with: the machine's, or, where somebody who knows of one time does not believe it, an estimate that
/// goes on from the newest time that was ever told, estimates too.
#[must_use]
pub fn working(wall: &Clock, known_us: i64, newest_us: Option<i64>, witness: &Witness) -> Clock {
    if witness.believes(wall.wall_us(), known_us) {
        return wall.clone();
    }
    wall.estimating_from(known_us.max(newest_us.unwrap_or(known_us)).max(wall.wall_us()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::net::UdpSocket;

    const NOW_US: i64 = NOT_BEFORE_US + 30 * 86_400 * SECOND_US;

    fn machine(files: &[&str]) -> (tempfile::TempDir, Witness) {
        let folder = tempfile::tempdir().expect("a folder");
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().expect("a parent")).expect("created");
            fs::write(path, "").expect("written");
        }
        let witness = Witness::at(folder.path());
        (folder, witness)
    }

    #[test]
    fn what_is_before_the_newest_reading_is_not_believed() {
        let (_folder, silent) = machine(&[]);
        assert_eq!(silent.is_synchronised(), None);
        assert!(!silent.believes(0, known_us(None, 0)), "1970");
        assert!(silent.believes(NOW_US, known_us(None, NOW_US)));
        assert!(
            silent.believes(NOW_US, known_us(Some(NOW_US + 600 * SECOND_US), NOW_US)),
            "a device's clock may be ahead"
        );
        assert!(!silent.believes(NOW_US, known_us(Some(NOW_US + 3_600 * SECOND_US), NOW_US)));
        assert!(silent.believes(NOW_US, known_us(Some(NOW_US + 2 * YEAR_US), NOW_US)), "once a clock said 2038");
    }

    /// `fake-hwclock` gives the time of the last shutdown, which lies after every reading.
    #[test]
    fn without_a_battery_a_clock_is_believed_once_it_was_synchronised() {
        let (folder, witness) = machine(&["run/systemd/timesync/other"]);
        assert_eq!(witness.is_synchronised(), Some(false));
        assert!(!witness.believes(NOW_US, known_us(None, NOW_US)));
        touch(&folder, NOW_US - SECOND_US);
        assert_eq!(witness.is_synchronised(), Some(true));
        assert!(witness.believes(NOW_US, NOW_US + 86_400 * SECOND_US), "a reading from the future changes nothing");
        assert!(!witness.believes(0, known_us(None, 0)));
    }

    /// After six hours without power `systemd-timesyncd` set the clock to where it was before. A chip without a battery passed
    /// for the proof that it was right: readings were dated six hours wrong, and nothing said so.
    #[test]
    fn a_clock_chip_is_believed_by_what_it_says() {
        let (folder, battery) =
            machine(&["run/systemd/timesync/other", "sys/class/rtc/rtc0/name", "sys/class/rtc/rtc1/since_epoch"]);
        let known_us = known_us(Some(NOW_US - 60 * SECOND_US), NOW_US);
        assert!(!battery.believes(NOW_US, known_us), "it says nothing");
        let says = |seconds: i64| {
            let file = folder.path().join("sys/class/rtc/rtc1/since_epoch");
            fs::write(file, format!("{seconds}\n")).expect("written");
            battery.believes(NOW_US, known_us)
        };
        let now = NOW_US / SECOND_US;
        assert!(!says(40), "it began with the box");
        assert!(!says(946_684_840), "in 2000");
        assert!(!says(now + 6 * 3_600), "it kept the time, and nobody set the clock by it");
        assert!(says(now + 2), "a battery keeps the time without a network");
    }

    fn touch(folder: &tempfile::TempDir, touched_us: i64) {
        let file = fs::File::create(folder.path().join(SYNCHRONISED)).expect("created");
        let touched = std::time::UNIX_EPOCH + std::time::Duration::from_micros(touched_us.unsigned_abs());
        file.set_modified(touched).expect("touched");
    }

    /// A clock that was ahead is set right by the time service; one that somebody else sets is not right for that.
    #[test]
    fn a_time_service_that_set_the_clock_back_is_told_from_others() {
        let (_folder, silent) = machine(&[]);
        let is_since = |witness: &Witness, wall_us| witness.mark().is_since(wall_us, 100 * SECOND_US);
        assert_eq!((is_since(&silent, NOW_US), is_since(&silent, 20)), (None, Some(false)));
        let (folder, witness) = machine(&[SYNCHRONISED]);
        for (touched_us, is_meant) in
            [(NOW_US - 90 * SECOND_US, true), (NOW_US - 600 * SECOND_US, false), (NOW_US + 3_600 * SECOND_US, false)]
        {
            touch(&folder, touched_us);
            assert_eq!(is_since(&witness, NOW_US), Some(is_meant), "{touched_us}");
            assert_eq!(witness.mark().time_us(), Some(touched_us));
        }
        let (_folder, waiting) = machine(&["run/systemd/timesync/other"]);
        assert_eq!((is_since(&waiting, NOW_US), waiting.mark().time_us()), (Some(false), None));
    }

    /// Somebody set the clock back an hour, and a restart believed it: it had been synchronised, under another time.
    #[test]
    fn a_start_does_not_believe_a_clock_that_lies_before_its_last_synchronisation() {
        let (folder, witness) = machine(&[SYNCHRONISED]);
        let (with_battery, battery) = machine(&["sys/class/rtc/rtc0/name", SYNCHRONISED]);
        for (at, witness) in [(&folder, &witness), (&with_battery, &battery)] {
            touch(at, NOW_US);
            assert!(witness.believes(NOW_US + SECOND_US, NOW_US) && witness.believes(NOW_US - 30 * SECOND_US, NOW_US));
            assert!(!witness.believes(NOW_US - 3_600 * SECOND_US, NOW_US));
        }
        assert!(!witness.believes(NOW_US + SECOND_US, NOW_US), "that it came there again changes nothing");
        touch(&folder, NOW_US + 10 * SECOND_US);
        assert!(witness.believes(NOW_US + 20 * SECOND_US, NOW_US + 86_400 * SECOND_US), "it was set once more");
    }

    /// With chrony nobody was asked, and a box without a battery was believed with the time of its last shutdown.
    #[test]
    fn chrony_is_asked_where_it_runs() {
        let (folder, mut witness) = machine(&[]);
        assert!(witness.chrony().is_none(), "it does not run here");
        fs::create_dir_all(folder.path().join("run/chrony")).expect("created");
        for (behind_ms, expected) in [(90_000, false), (3, true)] {
            let door = UdpSocket::bind("127.0.0.1:0").expect("bound");
            witness.chrony = door.local_addr().expect("an address");
            let answering = std::thread::spawn(move || answer_twice(&door, &chrony::tests::answer(behind_ms)));
            let said = (witness.is_synchronised(), witness.believes(NOW_US, NOW_US + 86_400 * SECOND_US));
            assert_eq!(said, (Some(expected), expected), "{behind_ms} ms behind");
            answering.join().expect("answered");
        }
        let silent = UdpSocket::bind("127.0.0.1:0").expect("bound");
        witness.chrony = silent.local_addr().expect("an address");
        assert_eq!(witness.is_synchronised(), None);
        assert!(witness.believes(NOW_US, known_us(None, NOW_US)), "as where nobody says anything");
    }

    fn answer_twice(door: &UdpSocket, answer: &[u8]) {
        for _ in 0..2 {
            let mut question = [0; 200];
            let (length, asker) = door.recv_from(&mut question).expect("asked");
            assert_eq!(length, answer.len(), "chrony drops a question that is shorter than its answer");
            door.send_to(answer, asker).expect("answered");
        }
    }

    #[test]
    fn an_estimate_begins_with_what_is_known() {
        let (_folder, witness) = machine(&[]);
        let clock = working(&Clock::manual(20), NOW_US, None, &witness);
        assert_eq!((clock.is_set(), clock.now_us()), (false, NOW_US));
        let later = working(&Clock::manual(20), NOW_US, Some(NOW_US + 7), &witness);
        assert_eq!(later.now_us(), NOW_US + 7, "and goes on from an estimate, so that no slot is told twice");
        assert!(working(&Clock::manual(NOW_US), NOW_US, None, &witness).is_set());
    }
}
