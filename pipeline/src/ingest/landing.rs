//! What lies in the landing zone, and how one looks at it without asking for what is known.
//!
//! Three ways, by what they cost a cloud:
//! - [`of_streams`]: of some streams what follows their watermarks, a request a stream;
//! - [`everywhere`]: the whole zone in the order of its keys, so that new sources and epochs are found. Where a
//!   page of the listing ends among what a stream has long given, it jumps to that stream's watermark: a zone
//!   costs as many requests as it has pages or streams, whichever is less, however much landing keeps;
//! - [`Sweep`]: everything, a portion at a time, for late fillings, foreign batches below a watermark, and what may
//!   be removed.
//!
//! A listing is in the order of its keys on every store (`readings::store`). A folder of one source that cannot be read
//! is noted ([`Seen::unreadable`]) and what lies behind it is listed; of what lies in it nothing is concluded.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};
use tjern_lake::{Lake, LakeError};
use tjern_readings::keys::{self, Bounds, LANDING, Landed};
use tjern_readings::sensor::{Epoch, SourceName};
use tjern_readings::store::counted::LISTING_PAGE;

use super::configurations::Configurations;
use super::held::unreadable_of;
use super::progress;
use super::sequence::{Item, Progress};
use super::unchecked::{self, All, Name};
use crate::register::Unheld;

/// How many listings are under way at once.
const AT_ONCE: usize = 16;

/// So many requests of a look are made one after the other before the zone is divided.
const IN_A_ROW: u64 = 8;

/// One ordered stream.
pub(crate) type Stream = (SourceName, Epoch);

/// What was seen, by stream.
pub(super) type Zone = BTreeMap<Stream, LandedEpoch>;

/// What was seen, and what was not.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) zone: Zone,
    /// Folders and objects of sources that could not be read, and why.
    pub(super) unreadable: BTreeMap<String, String>,
    /// Configurations that lie there.
    pub(super) configurations: BTreeSet<Name>,
    /// What lies there and is no batch by its key, by whose folder it is.
    pub(super) strays: Strays,
}

/// Objects that will never be taken, since their keys are none: by source, empty where they lie beside the folders.
pub(super) type Strays = BTreeMap<String, Stray>;

/// Those of one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stray {
    pub(super) objects: usize,
    /// The key of the first one.
    pub(super) first: String,
}

/// Adds what another part of the zone has.
pub(super) fn add_strays(all: &mut Strays, more: Strays) {
    for (source, Stray { objects, first }) in more {
        let there = all.entry(source).or_insert_with(|| Stray { objects: 0, first: first.clone() });
        there.objects += objects;
        there.first = there.first.clone().min(first);
    }
}

/// What was seen of one stream.
#[derive(Debug, Clone, Default)]
pub(super) struct LandedEpoch {
    pub(super) items: Vec<Item>,
    /// When `closed` landed.
    pub(super) closed_us: Option<i64>,
    /// The numbers that runs of a gateway claimed, and when.
    pub(super) claims: BTreeMap<i64, i64>,
    /// Whether something of it may not have been seen.
    pub(super) partial: bool,
}

/// What need not be looked at again.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) progress: HashMap<Stream, Progress>,
    /// Closed, and taken to the last number.
    pub(super) finished: HashSet<Stream>,
    /// What was taken without its configuration, which is looked for.
    pub(super) unchecked: All,
    /// First lines of sensors that readings from before are to be held against.
    pub(super) unheld: Option<Unheld>,
    /// Under which configuration numbers were measured.
    pub(super) configurations: Configurations,
}

impl Known {
    /// All that a table says.
    pub(super) fn of(transactions: &HashMap<String, i64>) -> Self {
        let mut known =
            Self { unchecked: unchecked::read(transactions), unheld: Unheld::of(transactions), ..Self::default() };
        for (app_id, number) in transactions {
            known.note_of_stream(app_id, *number);
        }
        known
    }

    /// Takes what a transaction says now; `all` are those of the table.
    pub(super) fn note(&mut self, app_id: &str, number: i64, all: &HashMap<String, i64>) {
        self.note_of_stream(app_id, number);
        if Unheld::is_of(app_id) {
            self.unheld = Unheld::of(all);
        }
        if let Some(name) = unchecked::named(app_id) {
            match unchecked::of(all, &name) {
                Some(one) => self.unchecked.insert(name, one),
                None => self.unchecked.remove(&name),
            };
        }
    }

    fn note_of_stream(&mut self, app_id: &str, number: i64) {
        progress::note(&mut self.progress, app_id, number);
        self.finished.extend(progress::finished(app_id));
        self.configurations.note(app_id, number);
    }

    fn watermark(&self, stream: &Stream) -> i64 {
        self.progress.get(stream).map_or(0, |progress| progress.watermark)
    }

    /// The key before what may be new of a stream.
    fn known_up_to(&self, stream: &Stream) -> Path {
        let (source, epoch) = stream;
        if self.finished.contains(stream) {
            return keys::epoch_end(source, *epoch);
        }
        keys::epoch_from(source, *epoch, self.watermark(stream) + 1)
    }

    /// Where a listing that has come to `key` may go on, if something lies between that need not be seen; and the stream
    /// of which that is left out.
    fn jump(&self, key: &Path) -> Option<(Option<Stream>, Path)> {
        let (source, landed) = Landed::parse(key)?;
        let (stream, target) = match landed {
            Landed::Batch(epoch, _) | Landed::Gap(epoch, _) => {
                let stream = (source, epoch);
                let target = self.known_up_to(&stream);
                (Some(stream), target)
            }
            // One of them is looked for.
            Landed::Configuration(_) if self.unchecked.keys().any(|(of, _)| *of == source) => return None,
            Landed::Configuration(_) => (None, keys::configurations_end(&source)),
            Landed::Closed(_) => return None,
        };
        (target > *key).then_some((stream, target))
    }
}

fn failed(source: object_store::Error) -> LakeError {
    LakeError::store(LANDING, source)
}

impl Seen {
    /// Notes an object, or that one source's cannot be read. Returns the object's key and, where it is ours, whose it is.
    fn note(&mut self, listed: object_store::Result<ObjectMeta>) -> Result<Option<(Path, Option<Stream>)>, LakeError> {
        match listed {
            Ok(meta) => {
                let stream = self.note_object(&meta);
                Ok(Some((meta.location, stream)))
            }
            Err(error) => match unreadable_of(LANDING, &error) {
                Some(key) => {
                    self.unreadable.insert(key.to_owned(), error.to_string());
                    Ok(None)
                }
                None => Err(failed(error)),
            },
        }
    }

    /// Notes an object. What is not ours is left alone, and told where it may have been meant to be.
    fn note_object(&mut self, meta: &ObjectMeta) -> Option<Stream> {
        if let Some((source, epoch, number)) = keys::parse_claim(&meta.location) {
            let stream = (source, epoch);
            let claimed_us = meta.last_modified.timestamp_micros();
            self.zone.entry(stream.clone()).or_default().claims.insert(number, claimed_us);
            return Some(stream);
        }
        let Some((source, landed)) = Landed::parse(&meta.location) else {
            if let Some(source) = keys::stray(&meta.location) {
                let stray = Stray { objects: 1, first: meta.location.to_string() };
                add_strays(&mut self.strays, [(source.to_owned(), stray)].into());
            }
            return None;
        };
        let landed_us = meta.last_modified.timestamp_micros();
        let zone = &mut self.zone;
        let mut add = |epoch: Epoch, bounds: Bounds, gap: bool| {
            let stream = (source.clone(), epoch);
            zone.entry(stream.clone()).or_default().items.push(Item { bounds, gap, landed_us, bytes: meta.size });
            Some(stream)
        };
        match landed {
            Landed::Batch(epoch, bounds) => add(epoch, bounds, false),
            Landed::Gap(epoch, bounds) => add(epoch, bounds, true),
            Landed::Closed(epoch) => {
                let stream = (source, epoch);
                self.zone.entry(stream.clone()).or_default().closed_us = Some(landed_us);
                Some(stream)
            }
            Landed::Configuration(sha256) => {
                self.configurations.insert((source, sha256));
                None
            }
        }
    }
}

/// What follows the watermarks of these streams.
pub(super) async fn of_streams(lake: &Lake, known: &Known, streams: Vec<Stream>) -> Result<Seen, LakeError> {
    let looks = streams.into_iter().map(|stream| {
        let (objects, offset) = (lake.objects(), known.known_up_to(&stream));
        async move {
            let mut seen = Seen::default();
            let folder = keys::epoch_folder(&stream.0, stream.1);
            let mut metas = objects.list_with_offset(Some(&folder), &offset);
            while let Some(listed) = metas.next().await {
                seen.note(listed)?;
            }
            seen.zone.entry(stream).or_default().partial = true;
            Ok(seen)
        }
    });
    gathered(looks).await
}

async fn gathered(
    looks: impl Iterator<Item = impl Future<Output = Result<Seen, LakeError>>>,
) -> Result<Seen, LakeError> {
    let looked: Vec<Seen> = futures::stream::iter(looks).buffer_unordered(AT_ONCE).try_collect().await?;
    let mut all = Seen::default();
    // No two looks see the same object, but a stream may begin in one part and go on in another.
    for Seen { zone, unreadable, configurations, strays } in looked {
        add_strays(&mut all.strays, strays);
        all.unreadable.extend(unreadable);
        all.configurations.extend(configurations);
        for (stream, seen) in zone {
            let there = all.zone.entry(stream).or_default();
            there.items.extend(seen.items);
            there.claims.extend(seen.claims);
            there.partial |= seen.partial;
            there.closed_us = there.closed_us.or(seen.closed_us);
        }
    }
    Ok(all)
}

/// Everything that may be new. Also returns how many requests it took.
pub(super) async fn everywhere(lake: &Lake, known: &Known, last_requests: u64) -> Result<(Seen, u64), LakeError> {
    let ranges = divided(known, last_requests.div_ceil(IN_A_ROW));
    let requests = std::sync::atomic::AtomicU64::new(0);
    let looks = ranges.into_iter().map(|range| async {
        let (seen, spent) = walk(lake, known, range).await?;
        requests.fetch_add(spent, std::sync::atomic::Ordering::Relaxed);
        Ok(seen)
    });
    let seen = gathered(looks).await?;
    Ok((seen, requests.into_inner()))
}

/// A part of the zone: after the first key, before the second.
#[derive(Debug, Default)]
struct Range {
    after: Option<(Option<Stream>, Path)>,
    until: Option<Path>,
}

/// The zone in so many parts, each but the first beginning where a stream has something new.
fn divided(known: &Known, parts: u64) -> Vec<Range> {
    let parts = usize::try_from(parts).unwrap_or(AT_ONCE).clamp(1, AT_ONCE);
    let mut streams: Vec<&Stream> = known.progress.keys().collect();
    streams.sort_by_cached_key(|(source, epoch)| keys::epoch_folder(source, *epoch));
    let size = streams.len().div_ceil(parts).max(1);
    let mut ranges = vec![Range::default()];
    for stream in streams.into_iter().step_by(size).skip(1) {
        if let Some(last) = ranges.last_mut() {
            last.until = Some(keys::epoch_folder(&stream.0, stream.1));
        }
        ranges.push(Range { after: Some((Some(stream.clone()), known.known_up_to(stream))), until: None });
    }
    ranges
}

fn listing(lake: &Lake, after: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
    let (objects, folder) = (lake.objects(), Path::from(LANDING));
    match after {
        Some(after) => objects.list_with_offset(Some(&folder), after),
        None => objects.list(Some(&folder)),
    }
}

async fn walk(lake: &Lake, known: &Known, range: Range) -> Result<(Seen, u64), LakeError> {
    let (mut seen, mut requests) = (Seen::default(), 1);
    let mut after = range.after;
    'pages: loop {
        if let Some((Some(stream), _)) = &after {
            seen.zone.entry(stream.clone()).or_default().partial = true;
        }
        let mut metas = listing(lake, after.as_ref().map(|(_, key)| key));
        let mut keys_of_page = 0;
        while let Some(listed) = metas.next().await {
            if let (Ok(meta), Some(until)) = (&listed, &range.until)
                && meta.location >= *until
            {
                return Ok((seen, requests));
            }
            let Some((key, _)) = seen.note(listed)? else { continue };
            keys_of_page += 1;
            if keys_of_page == LISTING_PAGE {
                // The next page is a request in any case, so it may as well begin further on.
                (keys_of_page, requests) = (0, requests + 1);
                if let Some(jump) = known.jump(&key) {
                    after = Some(jump);
                    continue 'pages;
                }
            }
        }
        return Ok((seen, requests));
    }
}

/// Looks at everything, a portion at a time.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    cursor: Option<Path>,
    /// The stream that the cursor is in.
    pending: Option<(Stream, LandedEpoch)>,
    pages: u64,
    /// How many pages the last whole sweep had.
    pub(super) size: u64,
}

impl Sweep {
    /// The next portion: the streams that were seen to their end, and whether the end of the zone was reached.
    pub(super) async fn portion(&mut self, lake: &Lake, pages: u64) -> Result<(Seen, bool), LakeError> {
        let mut seen = Seen::default();
        seen.zone.extend(self.pending.take());
        let mut metas = listing(lake, self.cursor.as_ref());
        let (mut keys, mut last) = (0_u64, None);
        while keys < pages * LISTING_PAGE
            && let Some(listed) = metas.next().await
        {
            let Some((key, stream)) = seen.note(listed)? else { continue };
            last = stream.or(last);
            self.cursor = Some(key);
            keys += 1;
        }
        self.pages += keys.div_ceil(LISTING_PAGE).max(1);
        if keys < pages * LISTING_PAGE {
            *self = Self { size: self.pages, ..Self::default() };
            return Ok((seen, true));
        }
        // The stream that the cursor is in may go on.
        self.pending = last.and_then(|stream| seen.zone.remove_entry(&stream));
        Ok((seen, false))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tjern_readings::sensor::Epoch;

    use super::*;

    /// Something that a commit of ingest may say of one of two streams.
    fn transaction() -> impl Strategy<Value = (String, i64)> {
        let stream = (0..2_u8).prop_map(|number| format!("elva-01/{}", Epoch::from_bytes([number; 16])));
        let bounds = (1..4_i64, 4..6_i64).prop_map(|(first, last)| Bounds::new(first, last).expect("in order"));
        let sha256 = (0..2_u8).prop_map(|number| format!("{number:02x}").repeat(32));
        let field = prop::sample::select(vec!["until", "since", "at", "former-until", "from", "accepted"]);
        let parts = (stream, bounds, sha256, field);
        let name = parts.prop_flat_map(|(stream, bounds, sha256, field)| {
            prop::sample::select(vec![
                stream.clone(),
                format!("{stream}/{bounds}"),
                format!(":open/{stream}/{bounds}"),
                format!(":closed/{stream}"),
                format!(":late/{stream}/{field}"),
                format!(":unchecked/elva-01/{sha256}/{field}"),
                // A number was measured under one configuration.
                format!(":configuration/{stream}/{:020}/{}", bounds.first, format!("{:02x}", bounds.first).repeat(32)),
                format!(":dropped/{stream}"),
                "ingest".to_owned(),
            ])
        });
        (name, 0..5_i64)
    }

    proptest! {
        /// An ingester that has been at work for months knows what one that begins now reads.
        #[test]
        fn what_is_followed_is_what_is_read_anew(commits in prop::collection::vec(prop::collection::vec(transaction(), 0..6), 0..12)) {
            let (mut all, mut followed) = (HashMap::new(), Known::default());
            for (number, mut moved) in commits.into_iter().enumerate() {
                // A step of configurations that is set anew has a higher number.
                for (app_id, version) in &mut moved {
                    if app_id.starts_with(":configuration/") {
                        *version += i64::try_from(number).expect("few") * 10;
                    }
                }
                // A commit moves each transaction once.
                let moved: BTreeMap<String, i64> = moved.into_iter().collect();
                all.extend(moved.clone());
                for (app_id, number) in &moved {
                    followed.note(app_id, *number, &all);
                }
            }
            let read = if all.is_empty() { Known::default() } else { Known::of(&all) };
            prop_assert_eq!(followed, read);
        }
    }
}
