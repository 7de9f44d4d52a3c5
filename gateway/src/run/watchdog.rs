//! The watchdog is fed by progress: only while every bus comes round within its bound, the spool's task
//! answers, and the uploader does not wait for what must long have ended. A timer would feed it for a gateway that reads
//! nothing.
//!
//! A lake that is away is no reason: a new start would not bring it back. The uploader gives up on a request to a cloud after
//! what its bytes take, says so and tries again; whatever else still waits after
//! `UPLOAD_BOUND` waits for nothing. A lake in a folder has no such limit (its disk, or the server behind it, may
//! hang for a day): that is told in `/health`, and the watchdog is fed.
//!
//! What it finds is in `/health` too, with or without a service manager.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tracing::{error, info};

use crate::notify::Notifier;
use crate::status::{BusTurns, StatusSource};

/// How often it looks, where nobody needs it more often.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Of the time that the service manager allows: it looks so many times in it.
const LOOKS: u32 = 4;

/// How long the spool may take to answer: it may be at work on a slow disk.
const SPOOL_PATIENCE: Duration = Duration::from_secs(10);

/// Looks, and feeds, for ever.
pub(super) async fn run(status: StatusSource, notifier: Notifier) {
    let every = notifier.watchdog().map_or(LOOK_EVERY, |watchdog| (watchdog / LOOKS).min(LOOK_EVERY));
    let mut looks = interval(every.max(Duration::from_millis(1)));
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut progress = Progress::default();
    let mut known = Vec::new();
    loop {
        looks.tick().await;
        let mut stuck: Vec<String> = progress.look(Instant::now(), &status.turns());
        stuck.iter_mut().for_each(|bus| *bus = format!("bus `{bus}` makes no progress"));
        if timeout(SPOOL_PATIENCE, status.spool_answers()).await != Ok(true) {
            stuck.push("the spool does not answer".to_owned());
        }
        if status.upload_hangs() {
            stuck.push("the uploader hangs".to_owned());
        }
        if stuck != known {
            match stuck.as_slice() {
                [] => info!("everything makes progress again"),
                stuck => error!("{}: the watchdog is not fed", stuck.join(", ")),
            }
            known.clone_from(&stuck);
        }
        let fed = stuck.is_empty();
        status.set_stuck(stuck);
        if fed {
            notifier.feed();
        }
    }
}

/// When each bus was last seen to have come round.
#[derive(Debug, Default)]
struct Progress(HashMap<u64, (u64, Instant)>);

impl Progress {
    /// The buses that have not come round within their bound.
    fn look(&mut self, now: Instant, buses: &[BusTurns]) -> Vec<String> {
        self.0.retain(|incarnation, _| buses.iter().any(|bus| bus.incarnation == *incarnation));
        let mut stuck = Vec::new();
        for bus in buses {
            let (turns, seen) = self.0.entry(bus.incarnation).or_insert((bus.turns, now));
            if *turns != bus.turns {
                (*turns, *seen) = (bus.turns, now);
            }
            if now.duration_since(*seen) > bus.bound {
                stuck.push(bus.name.clone());
            }
        }
        stuck
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::state::BusStates;
    use crate::config::Config;
    use crate::notify::tests::Manager;
    use crate::spool::{Spool, SpoolSettings};
    use crate::status::{BusPlace, UPLOAD_BOUND};
    use crate::upload::UploadState;
    use tjern_readings::clock::Clock;
    use tjern_readings::configuration::ConfigText;
    use tokio::time::sleep;

    const BOUND: Duration = Duration::from_secs(10);

    fn bus(name: &str, incarnation: u64, turns: u64) -> BusTurns {
        BusTurns { name: name.to_owned(), incarnation, turns, bound: BOUND }
    }

    #[tokio::test(start_paused = true)]
    async fn a_bus_that_stands_still_is_found_and_one_that_comes_round_is_not() {
        let (mut progress, start) = (Progress::default(), Instant::now());
        for second in 0..60 {
            let stuck =
                progress.look(start + Duration::from_secs(second), &[bus("good", 1, second), bus("hung", 2, 7)]);
            let expected: &[&str] = if second > BOUND.as_secs() { &["hung"] } else { &[] };
            assert_eq!(stuck, expected, "after {second} s");
        }
        let later = start + Duration::from_secs(60);
        assert_eq!(progress.look(later, &[bus("good", 1, 90), bus("hung", 2, 8)]), [""; 0], "it came round at last");
        let reload = progress.look(later + BOUND, &[bus("good", 1, 91), bus("hung", 3, 0)]);
        assert_eq!(reload, [""; 0], "one that was begun anew has its time");
    }

    const TWO_BUSES: &str = "version = 1\ngateway = \"one\"\nlake = \"memory:///\"\n[spool]\ndir = \"unused\"\n\
        [[bus]]\nname = \"good\"\nkind = \"modbus-tcp\"\naddress = \"h:1\"\n[[bus.device]]\nname = \"d\"\nunit_id = 1\n\
        [[bus.device.point]]\nsensor = \"good/level\"\nregister = \"input:0\"\ntype = \"u16\"\nevery = \"1s\"\n\
        [[bus]]\nname = \"hung\"\nkind = \"modbus-tcp\"\naddress = \"h:2\"\n[[bus.device]]\nname = \"d\"\nunit_id = 1\n\
        [[bus.device.point]]\nsensor = \"hung/level\"\nregister = \"input:0\"\ntype = \"u16\"\nevery = \"1s\"\n";

    fn spool(folder: &std::path::Path) -> Spool {
        let settings = SpoolSettings {
            dir: folder.to_owned(),
            max_bytes: 1 << 20,
            sync_every: Duration::from_secs(5),
            source: "one".parse().expect("valid"),
            configuration: None,
        };
        Spool::open(settings, Clock::manual(0)).expect("it opens")
    }

    /// A spool in a folder, two buses, and a watchdog over them that is listened to.
    async fn watched(
        folder: &std::path::Path,
        lake: &str,
        upload: UploadState,
    ) -> (Spool, BusStates, StatusSource, Manager, tokio_util::task::AbortOnDropHandle<()>) {
        let (spool, states) = (spool(folder), BusStates::new());
        let text = TWO_BUSES.replace("memory:///", lake);
        let config = Config::parse(&ConfigText::new("test.toml", text)).expect("good");
        let places = config.buses().iter().zip(1..).map(|(bus, life)| BusPlace::new(bus, life)).collect();
        let sources = (spool.probe(), states.clone(), upload);
        let status = StatusSource::new(Clock::system(), sources, &config, places);
        let (manager, notifier) = Manager::new(Some(Duration::from_secs(20)));
        let task = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(run(status.clone(), notifier)));
        (spool, states, status, manager, task)
    }

    /// A watchdog that a timer feeds would be fed here for ever.
    #[tokio::test(start_paused = true)]
    async fn a_gateway_with_a_stuck_bus_or_without_its_spool_is_not_fed() {
        let folder = tempfile::tempdir().expect("a folder");
        let (spool, states, status, manager, _task) =
            watched(folder.path(), "memory:///", UploadState::default()).await;
        let [good, hung] = ["good", "hung"].map(|name| states.begin(name, "modbus-tcp", Vec::new()));
        let mut fed = Vec::new();
        for minute in 0..4 {
            for _ in 0..60 {
                sleep(Duration::from_secs(1)).await;
                good.turn();
                if minute != 1 {
                    hung.turn();
                }
            }
            fed.push(manager.heard().len());
            if minute == 1 {
                assert_eq!(status.status().health.details, ["bus `hung` makes no progress"]);
            }
            if minute == 2 {
                assert_eq!(status.status().health.details, [""; 0]);
                spool.clone().close().await;
            }
        }
        // A look may have been under way when the spool was closed.
        let [well, stuck, again, without_spool] = fed[..] else { panic!("{fed:?}") };
        assert!(well >= 11 && stuck <= 4 && again >= 11 && without_spool <= 1, "{fed:?}");
    }

    /// What waits past every limit waits for nothing: only a new start ends that. A folder on a server that is gone is no such
    /// thing, and would have the gateway begin anew every ten minutes.
    #[tokio::test(start_paused = true)]
    async fn an_uploader_that_hangs_is_found_and_a_silent_folder_is_only_told() {
        for (lake, is_fed) in [("s3://bucket/prefix", false), ("file:///mnt/lake", true)] {
            let (folder, upload) = (tempfile::tempdir().expect("a folder"), UploadState::default());
            let (_spool, states, status, manager, _task) = watched(folder.path(), lake, upload.clone()).await;
            let buses = ["good", "hung"].map(|name| states.begin(name, "modbus-tcp", Vec::new()));
            let minute = async || {
                for _ in 0..60 {
                    sleep(Duration::from_secs(1)).await;
                    buses.iter().for_each(|bus| bus.turn());
                }
                manager.heard().len()
            };
            assert!(minute().await >= 11);
            let question = upload.ask();
            let bound = UPLOAD_BOUND.as_secs() / 60;
            for waited in 1..=bound {
                assert!(minute().await >= 11, "{lake}: fed for {waited} min, since an answer may come");
            }
            // A look may have been under way when the bound was over.
            let after = [minute().await, minute().await][1];
            assert_eq!((after > 0, after == 0), (is_fed, !is_fed), "{lake}");
            let details = status.status().health.details.join("\n");
            assert!(details.contains("the lake has not answered for"), "{lake}: {details}");
            assert_eq!(details.contains("the uploader hangs"), !is_fed, "{lake}: {details}");
            drop(question);
            minute().await;
            assert!(minute().await >= 11, "{lake}: it goes on");
            assert_eq!(status.status().health.details, [""; 0], "{lake}");
        }
    }
}
