//! The uploader, and its successor after a reload: never two at once, or both would send the same.

use std::future::Future;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Task, watched};
use crate::spool::Spool;
use crate::upload::{self, FINAL_PATIENCE, UploadSettings};

/// The uploader's own limit is shorter; this one is for a store that does not let go.
const UPLOAD_GRACE: Duration = Duration::from_secs(15);

/// The uploader at work.
#[derive(Debug)]
pub(super) struct Uploads {
    spool: Spool,
    stop: CancellationToken,
    task: Task,
}

impl Uploads {
    pub(super) fn start(spool: Spool, settings: UploadSettings) -> Self {
        let stop = CancellationToken::new();
        let task = watched(until_late(stop.clone(), upload::run(spool.clone(), settings, stop.clone())));
        Self { spool, stop, task }
    }

    /// Tells the one at work to end, and lets another take its place once it has.
    pub(super) fn replace(self, settings: UploadSettings) -> Self {
        let Self { spool, stop: before_stop, task: (before, _) } = self;
        before_stop.cancel();
        let (stop, source) = (CancellationToken::new(), spool.clone());
        let successor_stop = stop.clone();
        let task = watched(until_late(stop.clone(), async move {
            // One that failed has told so; its successor does its work.
            let _ = timeout(UPLOAD_GRACE, before).await;
            upload::run(source, settings, successor_stop).await;
        }));
        Self { spool, stop, task }
    }

    pub(super) const fn ended(&self) -> &CancellationToken {
        &self.task.1
    }

    /// The last round.
    pub(super) async fn finish(self) {
        self.stop.cancel();
        if timeout(UPLOAD_GRACE, self.task.0).await.is_err() {
            warn!("the lake does not answer; what is in the spool goes there after the next start");
            return;
        }
        // Not asked of the spool's task: the disk may keep that from answering.
        let waiting = self.spool.status().sealed_count;
        if waiting > 0 {
            warn!(waiting, "not everything is uploaded; it stays in the spool for the next start");
        }
    }
}

/// Work that is over [`FINAL_PATIENCE`] after it is told to end, whatever it waits for: a predecessor that ends as well must
/// not have its time before it.
async fn until_late(stop: CancellationToken, work: impl Future<Output = ()>) {
    let late = async {
        stop.cancelled().await;
        sleep(FINAL_PATIENCE).await;
    };
    tokio::select! {
        () = work => {}
        () = late => {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;
    use object_store::throttle::{ThrottleConfig, ThrottledStore};
    use tjern_readings::clock::Clock;
    use tjern_readings::reading::Reading;
    use tjern_readings::sensor::SourceName;
    use tjern_readings::store::{LakeUrl, Store};
    use tokio::time::Instant;

    use super::*;
    use crate::spool::SpoolSettings;

    /// The successor waited for its predecessor, and then began ten seconds of its own: fifteen in all, where ten are
    /// promised to whoever stops the gateway.
    #[tokio::test(start_paused = true)]
    async fn a_stop_after_a_reload_takes_no_longer_than_another() {
        let place = tempfile::tempdir().expect("a folder");
        let source: SourceName = "landfall-01".parse().expect("valid");
        let spool_settings = SpoolSettings {
            dir: place.path().to_owned(),
            max_bytes: 1 << 20,
            sync_every: Duration::from_secs(5),
            source: source.clone(),
            configuration: None,
        };
        let spool = Spool::open(spool_settings, Clock::manual(0)).expect("opened");
        let sensor: tjern_readings::sensor::SensorId = "tarn/level".parse().expect("valid");
        spool.append(vec![Reading::of(sensor, 0, 1.0)]).await;
        assert!(spool.seal().await);
        let hour = Duration::from_secs(3_600);
        let slow = ThrottleConfig { wait_put_per_call: hour, wait_list_per_call: hour, ..ThrottleConfig::default() };
        let lake: LakeUrl = "memory:///".parse().expect("a lake");
        let store = Store::over(Arc::new(ThrottledStore::new(InMemory::new(), slow)), lake.clone());
        let settings =
            || UploadSettings { store: Some(store.clone()), ..UploadSettings::new(lake.clone(), source.clone()) };
        let uploads = Uploads::start(spool.clone(), settings());
        sleep(Duration::from_secs(5)).await;
        let uploads = uploads.replace(settings());
        let stopped = Instant::now();
        uploads.finish().await;
        assert!(stopped.elapsed() <= FINAL_PATIENCE + Duration::from_millis(100), "{:?}", stopped.elapsed());
    }
}
