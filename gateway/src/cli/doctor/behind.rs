//! Whether the clock lies before what the gateway dated by one that it believed: then the next start does not believe it.
//!
//! It is behind now, or it was ahead then. Wall clock, monotonic clock and spool look alike in both, so that a time service has to
//! say which, or a person.

use std::path::Path;

use tjern_readings::clock::SECOND_US;

use super::super::utc;
use super::Finding;
use crate::clock::{BEHIND_MAX_US, Witness, known_us};
use crate::config::Config;
use crate::dating::Sensors;
use crate::spool::SpoolLook;

/// Nothing where the next start believes the clock, or nobody may look into the spool, which has a line of its own.
pub(super) fn examine(root: &Path, config: &Config, now_us: i64) -> Option<Finding> {
    if config.clock().trusted || !config.spool().dir.is_dir() {
        return None;
    }
    let sensors = Sensors::of(config);
    let sure_us = SpoolLook::at(&config.spool().dir).ok()?.newest_sure_us(|sensor| sensors.are_ours(sensor))?;
    let known_us = known_us(Some(sure_us), now_us);
    let is_before = now_us < known_us.saturating_sub(BEHIND_MAX_US) && known_us == sure_us;
    // Before what is known only a time service is believed, and only if its word is not of a time to come.
    if !is_before || Witness::at(root).believes(now_us, known_us) {
        return None;
    }
    let behind_min = (known_us - now_us) / (60 * SECOND_US);
    Some(Finding::warn(
        "clock and spool",
        format!(
            "the clock lies {behind_min} min before the newest reading that was dated by one that was believed, of {}: the next start does not believe it, and readings wait, or have an estimated time",
            utc(known_us)
        ),
        "compare it with a watch; where it is wrong, set it right; where it is right and was ahead before, start the gateway with `trusted = true` in `[clock]` until that time is over",
    ))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use tjern_readings::clock::Clock;
    use tjern_readings::configuration::ConfigText;
    use tjern_readings::reading::Reading;

    use super::super::State;
    use super::*;
    use crate::spool::{Spool, SpoolSettings};

    const NOW_US: i64 = 1_800_000_000 * SECOND_US;
    const HOUR_US: i64 = 3_600 * SECOND_US;

    fn config(dir: &Path, rest: &str) -> Config {
        let head =
            format!("version = 1\ngateway = \"g\"\nlake = \"memory:///\"\n[spool]\ndir = \"{}\"\n", dir.display());
        Config::parse(&ConfigText::new("g.toml", format!("{head}{rest}"))).expect("good")
    }

    /// The clock was two hours ahead and was set right by hand: each start held the readings of two hours back, and whoever asked was told
    /// that it is not known whether the clock is synchronised.
    #[tokio::test]
    async fn a_clock_before_what_it_dated_is_told_with_what_to_do() {
        let (place, root) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let dir = place.path().join("spool");
        let settings = SpoolSettings {
            dir: dir.clone(),
            max_bytes: 1 << 24,
            sync_every: Duration::from_secs(5),
            source: "g".parse().expect("valid"),
            configuration: None,
        };
        assert_eq!(examine(root.path(), &config(&dir, ""), NOW_US), None, "there is no spool");
        let spool = Spool::open(settings, Clock::manual(0)).expect("opened");
        spool.append(vec![Reading::of("tarn/depth".parse().expect("valid"), NOW_US, 1.0)]).await;
        assert!(spool.sync().await);
        spool.close().await;
        let asked = |rest: &str, now_us| examine(root.path(), &config(&dir, rest), now_us);
        let told = asked("", NOW_US - 2 * HOUR_US).expect("a finding");
        assert_eq!(told.state, State::Warn);
        assert!(told.says.contains("120 min before") && told.says.contains("2027-01-15 08:00:00 UTC"), "{told:?}");
        assert!(told.hint.as_ref().is_some_and(|hint| hint.contains("`trusted = true`")), "{told:?}");
        assert_eq!(asked("[clock]\ntrusted = true\n", NOW_US - 2 * HOUR_US), None, "a person has said which");
        assert_eq!((asked("", NOW_US), asked("", NOW_US - HOUR_US / 5)), (None, None), "a start believes it");
        std::fs::create_dir_all(root.path().join("run/systemd/timesync")).expect("created");
        let mark = root.path().join("run/systemd/timesync/synchronized");
        std::fs::write(&mark, "").expect("written");
        let touched_at = |time_us: i64| {
            let at = UNIX_EPOCH + Duration::from_micros(time_us.unsigned_abs());
            std::fs::File::options().write(true).open(&mark)?.set_modified(at)
        };
        touched_at(NOW_US - 3 * HOUR_US).expect("touched");
        assert_eq!(asked("", NOW_US - 2 * HOUR_US), None, "a time service has said which");
        touched_at(NOW_US).expect("touched");
        assert!(asked("", NOW_US - 2 * HOUR_US).is_some(), "somebody has set the clock back since");
    }
}
