//! The uploader, and its successor after a reload: never two at once, or both would send the same.

use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Task, watched};
use crate::spool::Spool;
use crate::upload::{self, UploadSettings};

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
        let task = watched(upload::run(spool.clone(), settings, stop.clone()));
        Self { spool, stop, task }
    }

    /// Tells the one at work to end, and lets another take its place once it has.
    pub(super) fn replace(self, settings: UploadSettings) -> Self {
        let Self { spool, stop: before_stop, task: (before, _) } = self;
        before_stop.cancel();
        let (stop, source) = (CancellationToken::new(), spool.clone());
        let successor_stop = stop.clone();
        let task = watched(async move {
            // One that failed has told so; its successor does its work.
            let _ = timeout(UPLOAD_GRACE, before).await;
            upload::run(source, settings, successor_stop).await;
        });
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
