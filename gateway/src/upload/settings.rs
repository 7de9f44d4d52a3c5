//! Where readings go, how often, and what the link may be used for.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use tjern_readings::batch;
use tjern_readings::clock::Clock;
use tjern_readings::sensor::SourceName;
use tjern_readings::store::{LakeUrl, Store};

use super::line::duration_of;
use super::state::UploadState;
use super::unsent::Unsent;

/// The most objects that are under way at once, unless it is said otherwise.
pub const IN_FLIGHT_DEFAULT: usize = 4;

/// A batch for a slow link takes no longer than this, so that what is new need not wait long.
const BATCH_DURATION: Duration = Duration::from_secs(15);

/// However slow the link, a batch may have so many bytes: smaller ones cost more requests than they save.
pub(crate) const BATCH_BYTES_LEAST: u64 = 64 << 10;

/// The slowest link that a gateway without `max_rate` uses well, for all that is under way at once. What a request may take
/// is reckoned from it: a limit that leaves the bytes out is too short for some link, and then a backlog never drains.
pub(super) const SLOWEST_BYTES_PER_S: NonZeroU64 = NonZeroU64::new(2 << 10).expect("some");

/// How long a request may take beside what its bytes need.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Where readings go, and how often.
#[derive(Debug, Clone)]
pub struct UploadSettings {
    /// The lake.
    pub lake: LakeUrl,
    /// Who sends them: the same as the spool's.
    pub source: SourceName,
    /// How often batches are sealed and sent.
    pub every: Duration,
    /// SHA-256 (hex) and text, without secrets, of the configuration that the batches name.
    pub configuration: Option<(String, String)>,
    /// Configurations of former uploaders of this run, which batches in the spool may still name.
    pub unsent: Unsent,
    /// The lake's store where it is open already; otherwise it is opened when it is first needed.
    pub store: Option<Store>,
    /// Whether somebody on the way could answer in the lake's place, so that each put is looked at. Known of itself where the
    /// store is opened here.
    pub is_forgeable: bool,
    /// What the link may be used for.
    pub limits: UploadLimits,
    /// After an outage of this length what is new goes first, under a new epoch.
    pub live_first_after: Option<Duration>,
    /// The file of credentials that stands over the environment.
    pub credentials_file: Option<PathBuf>,
    /// The file that remembers which lake a folder's address means; without one whatever is there is taken for it.
    pub known_lake: Option<PathBuf>,
    /// What time it is.
    pub clock: Clock,
    /// Where the upload says how it stands.
    pub state: UploadState,
}

impl UploadSettings {
    /// Where readings go, with defaults for all that has one.
    #[must_use]
    pub fn new(lake: LakeUrl, source: SourceName) -> Self {
        Self {
            lake,
            source,
            every: Duration::from_secs(60),
            configuration: None,
            unsent: Unsent::default(),
            store: None,
            is_forgeable: false,
            limits: UploadLimits::default(),
            live_first_after: None,
            credentials_file: None,
            known_lake: None,
            clock: Clock::system(),
            state: UploadState::default(),
        }
    }
}

/// What the link may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UploadLimits {
    /// The most objects that are under way at once; none counts as one.
    pub in_flight: usize,
    /// The most bytes of a batch; what is more counts as [`batch::SIZE_MAX`].
    pub batch_bytes: u64,
    /// The most bytes a second, over any time and but for one object.
    pub bytes_per_s: Option<NonZeroU64>,
}

impl Default for UploadLimits {
    fn default() -> Self {
        Self { in_flight: IN_FLIGHT_DEFAULT, batch_bytes: batch::SIZE_MAX, bytes_per_s: None }
    }
}

impl UploadLimits {
    /// The largest batch: on a link with a limit not more than what passes in [`BATCH_DURATION`].
    pub(super) fn batch_bytes(&self) -> u64 {
        let passing = |rate: NonZeroU64| rate.get().saturating_mul(BATCH_DURATION.as_secs()).max(BATCH_BYTES_LEAST);
        self.batch_bytes.min(self.bytes_per_s.map_or(u64::MAX, passing)).min(batch::SIZE_MAX)
    }

    /// On a link with a limit one object at a time is all that it carries.
    pub(super) fn in_flight(&self) -> usize {
        if self.bytes_per_s.is_some() { 1 } else { self.in_flight.max(1) }
    }

    /// What the client below allows: the link may well be no faster than its limit, and the spool have larger batches
    /// from before. What a request of a known length may take is [`super::line::Pace`]'s to say.
    pub(super) fn request_timeout(&self) -> Duration {
        let in_flight = u32::try_from(self.in_flight()).unwrap_or(u32::MAX);
        let whole = duration_of(batch::SIZE_MAX, self.bytes_per_s.unwrap_or(SLOWEST_BYTES_PER_S));
        REQUEST_TIMEOUT.saturating_add(whole.saturating_mul(in_flight.max(2)))
    }
}
