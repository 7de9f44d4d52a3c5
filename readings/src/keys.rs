//! Where things lie in a lake: every key is made and read here, and nowhere else.
//!
//! ```text
//! landing/<source>/<epoch>/<first_seq>-<last_seq>.arrow   a sealed batch
//! landing/<source>/<epoch>/<first_seq>-<last_seq>.gap     numbers that the gateway had to drop
//! landing/<source>/<epoch>/<first_seq>.claim              what a run creates before its first own number, see `epoch_claim`
//! landing/<source>/<epoch>/closed                         the epoch's last number
//! landing/<source>/config/<sha256>.toml                   the configuration that a batch names
//! landing/<source>/create-only                            what the source creates twice, see `store::proof`
//! quarantine/<landing key without its first part>         what could not be read; the reason beside it
//! tables/<table>/                                         Delta tables
//! open/<dataset>/<version>/…, open/<dataset>/latest.json  releases
//! jobs/<job>.json                                         the lease of a job
//! jobs/create-only                                        what the pipeline creates twice
//! jobs/runs/<job>.json                                    how a job ran last
//! corrections/<id>.json                                   who corrected or validated what, when and why
//! jobs/restore.json                                       there while a backup is being brought back
//! jobs/watch/state.json                                   what the watch found wrong, and has to tell
//! erasures/<id>.json                                      which readings were erased, and may never come back
//! erasures/<id>.done.json                                 that nothing of them is left
//! erasures/landed/<id>.json                               landed batches that hold such readings
//! open/<dataset>/<version>/withdrawn.json                 that a release was withdrawn
//! ```
//!
//! Numbers are padded to 20 digits, so that keys sort as numbers do.

use std::fmt;

use object_store::path::Path;

use crate::sensor::{Epoch, SourceName};

/// The folder of sealed batches.
pub const LANDING: &str = "landing";
/// The folder of what could not be read.
pub const QUARANTINE: &str = "quarantine";
/// The folder of the Delta tables.
pub const TABLES: &str = "tables";
/// The folder of published datasets.
pub const OPEN: &str = "open";
/// The folder of the jobs' leases, and of what is known of their runs.
pub const JOBS: &str = "jobs";

/// The name of the object that says that a release was withdrawn.
pub const WITHDRAWN: &str = "withdrawn.json";

/// What a claim's name ends with.
const CLAIM: &str = "claim";

/// The name of what is created twice.
const PROOF: &str = "create-only";
/// The folder of the records of what people changed.
pub const CORRECTIONS: &str = "corrections";
/// The folder of what was erased: for as long as the lake, and kept apart from what a backup brings back.
pub const ERASURES: &str = "erasures";

/// The folder, below [`ERASURES`], of landed batches that hold erased readings.
const ERASED_BATCHES: &str = "landed";

/// The folder of what erasures could not look at, under [`ERASURES`].
const ERASED_UNSEEN: &str = "unseen";

/// A run of numbers of one epoch, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bounds {
    /// The first number.
    pub first: i64,
    /// The last number.
    pub last: i64,
}

impl Bounds {
    /// Bounds, if they are a run of numbers from 1 on, with a number left to come after them.
    #[must_use]
    pub const fn new(first: i64, last: i64) -> Option<Self> {
        if first >= 1 && last >= first && last < i64::MAX { Some(Self { first, last }) } else { None }
    }

    /// How many numbers lie within.
    #[must_use]
    pub const fn count(self) -> i64 {
        self.last - self.first + 1
    }

    /// Whether `other` lies within.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    /// Whether the two share a number.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl fmt::Display for Bounds {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:020}-{:020}", self.first, self.last)
    }
}

/// A text that names no run of numbers: two numbers of 20 digits with `-` between them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no run of numbers")]
pub struct UnknownBounds(pub String);

impl std::str::FromStr for Bounds {
    type Err = UnknownBounds;

    fn from_str(text: &str) -> Result<Self, UnknownBounds> {
        parse_bounds(text).ok_or_else(|| UnknownBounds(text.to_owned()))
    }
}

/// What an object in a source's landing folder is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Landed {
    /// A sealed batch with these numbers.
    Batch(Epoch, Bounds),
    /// These numbers were dropped by the gateway.
    Gap(Epoch, Bounds),
    /// The epoch is finished.
    Closed(Epoch),
    /// A configuration with this SHA-256 (hex).
    Configuration(String),
}

impl Landed {
    /// The key, given whose it is.
    #[must_use]
    pub fn key(&self, source: &SourceName) -> Path {
        let tail = match self {
            Self::Batch(epoch, bounds) => format!("{epoch}/{bounds}.arrow"),
            Self::Gap(epoch, bounds) => format!("{epoch}/{bounds}.gap"),
            Self::Closed(epoch) => format!("{epoch}/closed"),
            Self::Configuration(sha256) => format!("config/{sha256}.toml"),
        };
        Path::from(format!("{LANDING}/{source}/{tail}"))
    }

    /// Reads a key; `None` where it is not one of ours.
    #[must_use]
    pub fn parse(key: &Path) -> Option<(SourceName, Self)> {
        let text = key.as_ref().strip_prefix(LANDING)?.strip_prefix('/')?;
        let mut parts = text.split('/');
        let (source, folder, name) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let source = source.parse().ok()?;
        if folder == "config" {
            let sha256 = name.strip_suffix(".toml").filter(|hex| is_sha256(hex))?;
            return Some((source, Self::Configuration(sha256.to_owned())));
        }
        Self::parse_in_epoch(folder.parse().ok()?, name).map(|landed| (source, landed))
    }

    fn parse_in_epoch(epoch: Epoch, name: &str) -> Option<Self> {
        if name == "closed" {
            return Some(Self::Closed(epoch));
        }
        let (bounds, kind) = name.split_once('.')?;
        let bounds = parse_bounds(bounds)?;
        match kind {
            "arrow" => Some(Self::Batch(epoch, bounds)),
            "gap" => Some(Self::Gap(epoch, bounds)),
            _ => None,
        }
    }
}

/// Whose folder of the landing zone an object lies in, of which nothing will ever be taken: its key is none of ours, though
/// somebody may have meant it to be (numbers without padding, an epoch or a source that is none). Empty where it lies
/// beside the folders. None for what is ours, for names that are hidden, and for what programs leave behind by habit.
#[must_use]
pub fn stray(key: &Path) -> Option<&str> {
    let text = key.as_ref().strip_prefix(LANDING)?.strip_prefix('/')?;
    if Landed::parse(key).is_some() || claimed_number(key).is_some() || text.split('/').any(is_of_habit) {
        return None;
    }
    match text.split_once('/') {
        Some((_, PROOF)) => None,
        Some((source, _)) => Some(source),
        // An object that stands for a folder has no bytes and no ending.
        None => text.contains('.').then_some(""),
    }
}

/// Whether an object is there to be there: what a source creates twice ([`source_proof`]), or what a run claims
/// ([`epoch_claim`]). It says nothing of readings.
#[must_use]
pub fn says_nothing(key: &Path) -> bool {
    key.filename() == Some(PROOF) || claimed_number(key).is_some()
}

/// Whether a name is what no program takes for data: hidden, a marker, a file that is being written, or what desktops and
/// file systems keep for themselves.
fn is_of_habit(name: &str) -> bool {
    const ENDINGS: [&str; 7] = ["~", "%7E", ".tmp", ".part", ".partial", ".crc", ".swp"];
    const NAMES: [&str; 4] = ["lost+found", "Thumbs.db", "desktop.ini", "README.txt"];
    // A store writes `~` as `%7E`.
    name.starts_with(['.', '_', '~', '$'])
        || name.starts_with("%7E")
        || NAMES.contains(&name)
        || ENDINGS.iter().any(|end| name.ends_with(end))
}

/// The folder of a source's epoch.
#[must_use]
pub fn epoch_folder(source: &SourceName, epoch: Epoch) -> Path {
    Path::from(format!("{LANDING}/{source}/{epoch}"))
}

/// A key after those of an epoch's objects that begin before `number`, and before all others of it.
#[must_use]
pub fn epoch_from(source: &SourceName, epoch: Epoch, number: i64) -> Path {
    Path::from(format!("{LANDING}/{source}/{epoch}/{number:020}"))
}

/// What a run of a gateway creates before it sends the first number that it gave out itself: `number`, in an epoch that an
/// earlier run began. Two copies of a spool that begin anew want the same one. It is none of [`Landed`], and lies among
/// what lands by its number.
#[must_use]
pub fn epoch_claim(source: &SourceName, epoch: Epoch, number: i64) -> Path {
    Path::from(format!("{LANDING}/{source}/{epoch}/{number:020}.{CLAIM}"))
}

/// The number that a claim's key names; `None` for all other keys.
#[must_use]
pub fn claimed_number(key: &Path) -> Option<i64> {
    let (number, kind) = key.filename()?.split_once('.')?;
    let is_number = number.len() == 20 && number.bytes().all(|digit| digit.is_ascii_digit());
    (kind == CLAIM && is_number).then(|| number.parse().ok()).flatten()
}

/// Whose claim a key is, of which epoch and number; `None` for all other keys.
#[must_use]
pub fn parse_claim(key: &Path) -> Option<(SourceName, Epoch, i64)> {
    let number = claimed_number(key)?;
    let mut parts = key.as_ref().strip_prefix(LANDING)?.strip_prefix('/')?.split('/');
    let (source, epoch, _, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next()) else { return None };
    Some((source.parse().ok()?, epoch.parse().ok()?, number))
}

/// A key after all objects of an epoch, `closed` included.
#[must_use]
pub fn epoch_end(source: &SourceName, epoch: Epoch) -> Path {
    Path::from(format!("{LANDING}/{source}/{epoch}/z"))
}

/// A key after all configurations of a source.
#[must_use]
pub fn configurations_end(source: &SourceName) -> Path {
    Path::from(format!("{LANDING}/{source}/config/z"))
}

/// The folder of a source.
#[must_use]
pub fn source_folder(source: &SourceName) -> Path {
    Path::from(format!("{LANDING}/{source}"))
}

/// Where a landed object goes that could not be read. The reason lies beside it, see
/// [`quarantine_reason`].
#[must_use]
pub fn quarantine(landed: &Path) -> Path {
    let tail = landed.as_ref().strip_prefix(LANDING).unwrap_or(landed.as_ref());
    Path::from(format!("{QUARANTINE}/{}", tail.trim_start_matches('/')))
}

/// Where the reason for a quarantined object lies.
#[must_use]
pub fn quarantine_reason(landed: &Path) -> Path {
    Path::from(format!("{}.reason.json", quarantine(landed)))
}

/// A table's folder.
#[must_use]
pub fn table(name: &str) -> Path {
    Path::from(format!("{TABLES}/{name}"))
}

/// A file of a release.
#[must_use]
pub fn release_file(dataset: &str, version: &str, file: &str) -> Path {
    Path::from(format!("{OPEN}/{dataset}/{version}/{file}"))
}

/// The one object that names a dataset's newest release.
#[must_use]
pub fn latest_release(dataset: &str) -> Path {
    Path::from(format!("{OPEN}/{dataset}/latest.json"))
}

/// The lease of a job.
#[must_use]
pub fn lease(job: &str) -> Path {
    Path::from(format!("{JOBS}/{job}.json"))
}

/// What a source creates twice to find out that the store refuses it. Its credentials reach its own
/// folder only.
#[must_use]
pub fn source_proof(source: &SourceName) -> Path {
    Path::from(format!("{LANDING}/{source}/{PROOF}"))
}

/// The same for the jobs.
#[must_use]
pub fn jobs_proof() -> Path {
    Path::from(format!("{JOBS}/{PROOF}"))
}

/// The folder of how each job ran last.
#[must_use]
pub fn job_runs() -> Path {
    Path::from(format!("{JOBS}/runs"))
}

/// How a job ran last.
#[must_use]
pub fn job_run(job: &str) -> Path {
    Path::from(format!("{JOBS}/runs/{job}.json"))
}

/// The record of a correction.
#[must_use]
pub fn correction(id: &str) -> Path {
    Path::from(format!("{CORRECTIONS}/{id}.json"))
}

/// What stands in the place of a release that was withdrawn.
#[must_use]
pub fn withdrawn_release(dataset: &str, version: &str) -> Path {
    release_file(dataset, version, WITHDRAWN)
}

/// What an object in the folder of erasures is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ErasureKey {
    /// Which readings are erased.
    Record(String),
    /// That nothing of them is left.
    Done(String),
    /// Landed batches that hold such readings.
    Landed(String),
    /// What could not be looked at.
    Unseen(String),
}

impl ErasureKey {
    /// The key.
    #[must_use]
    pub fn key(&self) -> Path {
        Path::from(match self {
            Self::Record(id) => format!("{ERASURES}/{id}.json"),
            Self::Done(id) => format!("{ERASURES}/{id}.done.json"),
            Self::Landed(id) => format!("{ERASURES}/{ERASED_BATCHES}/{id}.json"),
            Self::Unseen(id) => format!("{ERASURES}/{ERASED_UNSEEN}/{id}.json"),
        })
    }

    /// Reads a key; `None` where it is not one of ours.
    #[must_use]
    pub fn parse(key: &Path) -> Option<Self> {
        let name = key.as_ref().strip_prefix(ERASURES)?.strip_prefix('/')?.strip_suffix(".json")?;
        match name.split_once('/') {
            Some((ERASED_BATCHES, id)) if !id.contains('/') => Some(Self::Landed(id.to_owned())),
            Some((ERASED_UNSEEN, id)) if !id.contains('/') => Some(Self::Unseen(id.to_owned())),
            Some(_) => None,
            None => Some(match name.strip_suffix(".done") {
                Some(id) => Self::Done(id.to_owned()),
                None => Self::Record(name.to_owned()),
            }),
        }
    }
}

/// What a lake has while a backup is being brought back into it.
#[must_use]
pub fn restore_mark() -> Path {
    Path::from(format!("{JOBS}/restore.json"))
}

/// The sensors of which no release is left, since they are public no more.
#[must_use]
pub fn recalled() -> Path {
    Path::from(format!("{JOBS}/recalled.json"))
}

/// What the watch found wrong, and has to tell.
#[must_use]
pub fn watch_state() -> Path {
    Path::from(format!("{JOBS}/watch/state.json"))
}

fn parse_bounds(text: &str) -> Option<Bounds> {
    let (first, last) = text.split_once('-')?;
    let number = |digits: &str| {
        let plain = digits.len() == 20 && digits.bytes().all(|digit| digit.is_ascii_digit());
        plain.then(|| digits.parse().ok()).flatten()
    };
    Bounds::new(number(first)?, number(last)?)
}

/// Whether a configuration can have this name: a SHA-256, as 64 lower-case hex digits.
#[must_use]
pub fn is_sha256(hex: &str) -> bool {
    hex.len() == 64 && hex.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn source() -> SourceName {
        "landfall-01".parse().expect("valid")
    }

    #[test]
    fn keys_are_as_the_design_draws_them() {
        let epoch = Epoch::from_bytes([0xab; 16]);
        let bounds = Bounds::new(1, 360).expect("in order");
        let key = Landed::Batch(epoch, bounds).key(&source());
        assert_eq!(
            key.as_ref(),
            "landing/landfall-01/abababababababababababababababab/00000000000000000001-00000000000000000360.arrow"
        );
        assert_eq!(
            quarantine_reason(&key).as_ref(),
            "quarantine/landfall-01/abababababababababababababababab/00000000000000000001-00000000000000000360.arrow.reason.json"
        );
        let configuration = Landed::Configuration("0".repeat(64));
        assert!(
            configuration
                .key(&source())
                .as_ref()
                .ends_with("/config/0000000000000000000000000000000000000000000000000000000000000000.toml")
        );
    }

    #[test]
    fn a_claim_names_its_number_and_lies_among_what_lands() {
        let epoch = Epoch::from_bytes([1; 16]);
        let claim = epoch_claim(&source(), epoch, 361);
        assert_eq!(claimed_number(&claim), Some(361));
        assert_eq!(parse_claim(&claim), Some((source(), epoch, 361)));
        assert_eq!(parse_claim(&Path::from(format!("landing/bridge/no-epoch/{:020}.claim", 361))), None);
        assert!(epoch_from(&source(), epoch, 361) < claim && claim < epoch_from(&source(), epoch, 362));
        let batch = Landed::Batch(epoch, Bounds { first: 361, last: 400 }).key(&source());
        assert_eq!((claimed_number(&batch), claimed_number(&source_proof(&source()))), (None, None));
    }

    #[test]
    fn configurations_lie_before_their_end_and_epochs_do_not_lie_between() {
        let end = configurations_end(&source());
        assert!(Landed::Configuration("f".repeat(64)).key(&source()) < end);
        let epochs = [0, 0xcf, 0xd0, 0xff].map(|byte| epoch_folder(&source(), Epoch::from_bytes([byte; 16])));
        let first = Landed::Configuration("0".repeat(64)).key(&source());
        assert!(epochs.iter().all(|epoch| *epoch < first || *epoch > end));
    }

    #[test]
    fn foreign_objects_are_not_ours() {
        let epoch = "ab".repeat(16);
        for key in [
            "tables/readings/x".to_owned(),
            "landing/landfall-01".to_owned(),
            source_proof(&source()).to_string(),
            epoch_claim(&source(), Epoch::from_bytes([0xab; 16]), 7).to_string(),
            format!("landing/landfall-01/{epoch}"),
            format!("landing/landfall-01/{epoch}/1-2.arrow"),
            format!("landing/landfall-01/{epoch}/00000000000000000002-00000000000000000001.arrow"),
            format!("landing/landfall-01/{epoch}/00000000000000000001-00000000000000000002.parquet"),
            format!("landing/landfall-01/{epoch}/+0000000000000000001-00000000000000000002.arrow"),
            format!("landing/landfall-01/{epoch}/x/closed"),
            "landing/landfall-01/config/abc.toml".to_owned(),
            "landing/Landfall/config/x".to_owned(),
        ] {
            assert_eq!(Landed::parse(&Path::from(key.as_str())), None, "{key}");
        }
    }

    /// An integrator's bridge forgot the padding, and nobody was ever told that none of its readings came.
    #[test]
    fn what_was_meant_to_be_a_batch_is_told_by_its_source() {
        let epoch = "09".repeat(16);
        let numbers = "00000000000000000001-00000000000000000002";
        for (key, source) in [
            (format!("landing/bridge/{epoch}/1-3.arrow"), Some("bridge")),
            (format!("landing/bridge/{epoch}/{numbers}.ARROW"), Some("bridge")),
            (format!("landing/bridge/{epoch}/00000000000000000000-00000000000000000002.arrow"), Some("bridge")),
            (format!("landing/bridge/notepoch/{numbers}.arrow"), Some("bridge")),
            (format!("landing/Bad Source/{epoch}/{numbers}.arrow"), Some("Bad Source")),
            (format!("landing/{numbers}.arrow"), Some("")),
            ("landing/bridge/config/mine.toml".to_owned(), Some("bridge")),
            (format!("landing/bridge/{epoch}/{numbers}.arrow"), None),
            (format!("landing/bridge/{epoch}/closed"), None),
            (format!("landing/bridge/{epoch}/.staged/{numbers}.arrow"), None),
            (format!("landing/bridge/{epoch}/{numbers}.arrow.tmp~"), None),
            (format!("landing/bridge/{epoch}/_SUCCESS"), None),
            ("landing/bridge/create-only".to_owned(), None),
            (format!("landing/bridge/{epoch}/00000000000000000003.claim"), None),
            ("landing/bridge".to_owned(), None),
            ("landing/.DS_Store".to_owned(), None),
            ("quarantine/bridge/1-3.arrow".to_owned(), None),
        ] {
            assert_eq!(stray(&Path::from(key.as_str())), source, "{key}");
        }
    }

    #[test]
    fn a_key_of_an_erasure_names_what_it_was_made_of() {
        let id = || "ab".repeat(16);
        for key in
            [ErasureKey::Record(id()), ErasureKey::Done(id()), ErasureKey::Landed(id()), ErasureKey::Unseen(id())]
        {
            assert_eq!(ErasureKey::parse(&key.key()), Some(key));
        }
        for key in ["erasures/x", "erasures/other/x.json", "erasures/landed/x/y.json", "corrections/x.json"] {
            assert_eq!(ErasureKey::parse(&Path::from(key)), None, "{key}");
        }
    }

    proptest! {
        #[test]
        fn a_key_names_what_it_was_made_of(bytes: [u8; 16], first in 1..i64::MAX / 2, more in 0..1_000_000_i64) {
            let epoch = Epoch::from_bytes(bytes);
            let bounds = Bounds { first, last: first.saturating_add(more) };
            for landed in [Landed::Batch(epoch, bounds), Landed::Gap(epoch, bounds), Landed::Closed(epoch)] {
                prop_assert_eq!(Landed::parse(&landed.key(&source())), Some((source(), landed)));
            }
        }

        /// A listing that begins there must see what is new, and nothing of what is known.
        #[test]
        fn an_epoch_is_cut_at_a_number(first in 1..i64::MAX - 1, number in 1..i64::MAX - 1) {
            let epoch = Epoch::from_bytes([1; 16]);
            let cut = epoch_from(&source(), epoch, number);
            for landed in [Landed::Batch(epoch, Bounds { first, last: i64::MAX - 1 }), Landed::Gap(epoch, Bounds { first, last: first })] {
                let key = landed.key(&source());
                prop_assert_eq!(key > cut, first >= number);
                prop_assert!(key < epoch_end(&source(), epoch));
            }
            let closed = Landed::Closed(epoch).key(&source());
            prop_assert!(cut < closed && closed < epoch_end(&source(), epoch));
        }

        #[test]
        fn keys_sort_as_numbers(one in 1..i64::MAX - 1, other in 1..i64::MAX - 1) {
            let key = |first| Landed::Batch(Epoch::from_bytes([1; 16]), Bounds { first, last: i64::MAX - 1 }).key(&source());
            prop_assert_eq!(key(one).cmp(&key(other)), one.cmp(&other));
        }
    }
}
