//! What is inside the spool: how much waits and for how long, what is damaged, how full it is.
//!
//! The log is read, as a start would read it; sealed files are counted and not opened (`spool verify` does that).

use std::fs;

use crate::config::SpoolConfig;
use crate::spool::{SealedKind, SpoolLook, bounded};

use super::Finding;

/// What waits for longer than this waits for a person.
const WAITS_MAX_US: i64 = 86_400_000_000;

/// From this share of its bound on a spool is nearly full.
const FULL_SHARE: f64 = 0.8;

/// The folder of copies of what was damaged, or what the lake has no place for.
pub(super) const KEPT: &str = "kept";

/// Nothing where there is no spool yet.
pub(super) fn examine(spool: &SpoolConfig, now_us: i64) -> Option<Finding> {
    if !spool.dir.is_dir() {
        return None;
    }
    let what = format!("inside of {}", spool.dir.display());
    let look = match SpoolLook::at(&spool.dir) {
        Ok(look) => look,
        Err(error) => {
            let hint = "run this as the gateway's user, or root";
            return Some(Finding::warn(what, format!("it cannot be looked into: {error}"), hint));
        }
    };
    let sealed = look.sealed();
    let batches = || sealed.iter().filter(|(object, _)| object.kind == SealedKind::Batch);
    let bytes: u64 = batches().map(|(object, _)| object.length).sum();
    let oldest_us = batches().filter_map(|(_, made_us)| *made_us).min();
    let says = format!(
        "{} batches ({bytes} bytes) wait for the lake, {} readings for a seal",
        batches().count(),
        look.unsealed().0
    );
    if let Some(damage) = damage(&look) {
        let hint = "the next start steps over it and says so; `tjern-gateway spool verify` shows the places. Is the disk failing?";
        return Some(Finding::warn(what, format!("{says}; {damage}"), hint));
    }
    let segments: u64 = look.segments().iter().map(|segment| segment.length).sum();
    let bound = bounded(&spool.dir, spool.max_bytes, spool.max_disk_share);
    let share = (segments + sealed.iter().map(|(object, _)| object.length).sum::<u64>()) as f64 / bound as f64;
    if share > FULL_SHARE {
        let says = format!("{says}; it is {:.0} % full", share * 100.0);
        return Some(Finding::warn(
            what,
            says,
            "past that the oldest batches go: look at the lake's line, or raise `max_bytes`",
        ));
    }
    if let Some(waited_us) = oldest_us.map(|oldest_us| now_us - oldest_us).filter(|waited_us| *waited_us > WAITS_MAX_US)
    {
        let says = format!("{says}, the oldest for {} h", waited_us / 3_600_000_000);
        return Some(Finding::warn(
            what,
            says,
            "nothing is uploaded: see the lake's line, and whether the gateway runs",
        ));
    }
    let kept = fs::read_dir(spool.dir.join(KEPT)).map_or(0, Iterator::count);
    if kept > 0 {
        let says = format!("{says}; {kept} files are kept aside");
        let hint = "copies of what was damaged or has no place in the lake: look at them, and empty `kept`";
        return Some(Finding::warn(what, says, hint));
    }
    Some(Finding::ok(what, says))
}

/// A torn tail is no damage: it is what a power cut leaves, and holds nothing that was acknowledged.
fn damage(look: &SpoolLook) -> Option<String> {
    let bad: u64 = look.segments().iter().map(|segment| segment.bad_records).sum();
    let headless = look.segments().iter().filter(|segment| segment.epoch.is_none()).count();
    let lost: i64 = look.lost().iter().map(|bounds| bounds.count()).sum();
    (bad > 0 || headless > 0).then(|| {
        format!("{bad} records and {headless} headers of its log are damaged, with {lost} readings that are not sealed")
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use tjern_readings::clock::Clock;
    use tjern_readings::configuration::Period;
    use tjern_readings::reading::Reading;

    use super::super::State;
    use super::*;
    use crate::spool::{Spool, SpoolSettings};

    fn config(dir: &Path) -> SpoolConfig {
        let sync_every = Period::from_seconds(5);
        SpoolConfig { dir: dir.to_owned(), max_bytes: 1 << 24, max_disk_share: 1.0, sync_every }
    }

    async fn fill(dir: &Path) {
        let settings = SpoolSettings {
            dir: dir.to_owned(),
            max_bytes: 1 << 24,
            sync_every: Duration::from_secs(5),
            source: "landfall-01".parse().expect("valid"),
            configuration: None,
        };
        let spool = Spool::open(settings, Clock::manual(0)).expect("opened");
        let reading =
            |value: i32| Reading::of("tarn/depth".parse().expect("valid"), i64::from(value), f64::from(value));
        spool.append(vec![reading(1), reading(2)]).await;
        assert!(spool.seal().await);
        spool.append(vec![reading(3)]).await;
        assert!(spool.sync().await);
        spool.close().await;
    }

    /// The line on the spool said "it is free", and a week's batches lay in it.
    #[tokio::test]
    async fn what_waits_and_what_is_damaged_is_told() {
        let place = tempfile::tempdir().expect("a folder");
        let dir = place.path().join("spool");
        assert_eq!(examine(&config(&dir), 0), None);
        fill(&dir).await;
        let now_us = Clock::system().now_us();
        let found = examine(&config(&dir), now_us).expect("a finding");
        assert_eq!(found.state, State::Ok, "{found:?}");
        assert!(found.says.starts_with("1 batches (") && found.says.ends_with("1 readings for a seal"), "{found:?}");
        let late = examine(&config(&dir), now_us + 3 * WAITS_MAX_US).expect("a finding");
        assert!(late.state == State::Warn && late.says.ends_with("the oldest for 72 h"), "{late:?}");
        let full = examine(&SpoolConfig { max_bytes: 1 << 20, ..config(&dir) }, now_us).expect("a finding");
        assert!(full.state == State::Warn && full.says.contains("% full"), "{full:?}");
        fs::create_dir(dir.join(KEPT)).expect("created");
        fs::write(dir.join(KEPT).join("copy"), "").expect("written");
        let kept = examine(&config(&dir), now_us).expect("a finding");
        assert!(kept.state == State::Warn && kept.says.ends_with("1 files are kept aside"), "{kept:?}");
        let segment = fs::read_dir(&dir).expect("listed").flatten().map(|entry| entry.path());
        let segment = segment.into_iter().find(|path| path.extension().is_some_and(|kind| kind == "segment"));
        let segment = segment.expect("a segment");
        let mut bytes = fs::read(&segment).expect("read");
        bytes[40] ^= 1;
        fs::write(&segment, bytes).expect("written");
        let damaged = examine(&config(&dir), now_us).expect("a finding");
        assert!(damaged.state == State::Warn && damaged.says.contains("1 headers"), "{damaged:?}");
    }
}
