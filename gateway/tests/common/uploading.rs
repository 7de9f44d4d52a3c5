//! What the tests of uploads share: a spool of a gateway, an uploader at work on it, and lakes in memory behind what comes between.

pub mod between;
pub mod lake;

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use tjern_gateway::spool::{Spool, SpoolSettings};
use tjern_gateway::upload::{self, UploadSettings};
use tjern_readings::clock::Clock;
use tjern_readings::reading::Reading;
use tjern_readings::sensor::{SensorId, SourceName};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub fn source() -> SourceName {
    "landfall-01".parse().expect("valid")
}

/// What a spool of this gateway in a folder is like.
pub fn spool_settings(dir: &Path) -> SpoolSettings {
    SpoolSettings {
        dir: dir.to_owned(),
        max_bytes: 1 << 28,
        sync_every: Duration::from_secs(5),
        source: source(),
        configuration: None,
    }
}

pub fn spool_in(dir: &Path) -> Spool {
    Spool::open(spool_settings(dir), Clock::manual(0)).expect("opened")
}

/// Readings whose values are these numbers.
pub fn readings(numbers: Range<u64>) -> Vec<Reading> {
    let sensor: SensorId = "landfalltjern/water_temperature".parse().expect("valid");
    numbers.map(|number| Reading::of(sensor.clone(), number as i64, number as f64)).collect()
}

/// An uploader at work, and what ends it.
pub fn uploading(spool: &Spool, settings: UploadSettings) -> (JoinHandle<()>, CancellationToken) {
    let stop = CancellationToken::new();
    (tokio::spawn(upload::run(spool.clone(), settings, stop.clone())), stop)
}

/// A folder as it is now, once more.
pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("created");
    for entry in std::fs::read_dir(from).expect("listed") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copied");
        }
    }
}
