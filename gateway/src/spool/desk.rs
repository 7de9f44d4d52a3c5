//! Where the spool's disk is waited for: on a thread that is the spool's alone.
//!
//! The runtime's threads for what blocks are shared: with a lake's folder on a server that is gone, with files that do not
//! answer. Those may hang as long as they like. The thread ends with the last work that it was given.
//!
//! Limit: a spool whose clock is simulated has its work done by the runtime's threads. Simulated time has to stand still
//! meanwhile, and the runtime lets it for its own threads only.

use std::sync::mpsc;

use tjern_readings::clock::Clock;
use tokio::sync::oneshot;
use tracing::warn;

/// Something to be done.
type Work = Box<dyn FnOnce() + Send>;

/// Whoever does it.
#[derive(Debug)]
pub(super) enum Desk {
    /// A thread of its own.
    Own(mpsc::Sender<Work>),
    /// The runtime's threads.
    Shared,
}

impl Desk {
    /// For the spool of somebody who has this clock.
    pub(super) fn of(clock: &Clock) -> Self {
        if clock.is_of_the_machine() { Self::own() } else { Self::Shared }
    }

    fn own() -> Self {
        let (sender, works) = mpsc::channel::<Work>();
        let thread = std::thread::Builder::new().name("spool".into());
        match thread.spawn(move || works.into_iter().for_each(|work| work())) {
            Ok(_) => Self::Own(sender),
            Err(error) => {
                warn!("there is no thread for the spool's disk alone, it shares those of others: {error}");
                Self::Shared
            }
        }
    }

    /// What comes of some work; `None` where it panics, or the runtime ends.
    pub(super) async fn carry_out<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let Self::Own(sender) = self else { return tokio::task::spawn_blocking(work).await.ok() };
        let (reply, done) = oneshot::channel();
        let work = move || {
            // Whoever waited may have gone with the runtime.
            let _ = reply.send(work());
        };
        sender.send(Box::new(work)).ok()?;
        done.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::spool::{Spool, SpoolSettings};
    use tjern_readings::reading::Reading;

    /// Longer than anything here takes.
    const PATIENCE: Duration = Duration::from_secs(60);

    /// Names that nobody answered were waited for in all of the runtime's threads: nothing was synced, and what was read until
    /// the watchdog came was lost.
    #[test]
    fn a_spool_syncs_while_all_of_the_runtimes_threads_hang() {
        let folder = tempfile::tempdir().expect("a folder");
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let (hangs, release) = mpsc::channel::<()>();
        runtime.block_on(async {
            let settings = SpoolSettings {
                dir: folder.path().to_owned(),
                max_bytes: 1 << 20,
                sync_every: Duration::from_millis(10),
                source: "pump".parse().expect("valid"),
                configuration: None,
            };
            let spool = Spool::open(settings, Clock::system()).expect("it opens");
            let _hung = tokio::task::spawn_blocking(move || release.recv());
            spool.append(vec![Reading::of("tarn/level".parse().expect("a sensor"), 1, 4.0)]).await;
            assert!(timeout(PATIENCE, spool.sync()).await.expect("it is not waited for the others"), "it is on disk");
            drop(hangs);
            timeout(PATIENCE, spool.close()).await.expect("it ends");
        });
    }

    #[tokio::test]
    async fn work_that_panics_ends_the_spool_and_does_not_hang_it() {
        let desk = Desk::of(&Clock::system());
        assert!(matches!(desk, Desk::Own(_)));
        let panics = desk.carry_out(|| panic!("on purpose"));
        assert_eq!(timeout(PATIENCE, panics).await.expect("it is noticed"), None::<()>);
        assert_eq!(timeout(PATIENCE, desk.carry_out(|| 1)).await.expect("it is noticed"), None, "nobody is left");
        assert_eq!(Desk::of(&Clock::manual(0)).carry_out(|| 1).await, Some(1));
    }
}
