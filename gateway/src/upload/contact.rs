//! Whether the landing zone knows this spool's numbers better than the spool does.
//!
//! Two copies of a spool that begin at about the same time both find nothing past their numbers, and cut what they read into
//! other batches, whose keys never meet. So a run **claims** the first number that it gives out itself, in an object that is
//! created once and holds what only this run knows; what lies before that number is in the lake by then, and is the same
//! in all copies. A copy of a spool that is at work claims a number that its original does not: that is found by looking
//! again, soon after the first contact and once an hour later on, where anything is to be sent.

use std::collections::HashMap;
use std::time::Duration;

use object_store::path::Path;
use tokio::time::Instant;

use tjern_readings::batch;
use tjern_readings::keys::{Bounds, Landed, claimed_number, epoch_claim, epoch_folder};
use tjern_readings::reading::Reading;
use tjern_readings::sensor::{Epoch, SourceName};
use tjern_readings::store::is_refusal;

use super::UploadError;
use super::landing::{self, Outcome};
use super::line::{self, Line};
use crate::spool::{Claim, SealedKind, SealedObject, Spool};

/// No sealed object has more numbers than this, so that a listing need not begin further back.
const REACH: i64 = 1 << 20;

/// The same for batches, which a look during a run is about.
const BATCH_REACH: i64 = 20_000;

/// When the landing zone is looked at again: soon after the first contact, and then less and less often.
#[derive(Debug)]
pub(super) struct Looks {
    next_at: Option<Instant>,
    pause: Duration,
}

impl Looks {
    /// What lies between the first contact and the next look, and between later ones at most.
    const PAUSES: [Duration; 2] = [Duration::from_secs(300), Duration::from_secs(3_600)];

    pub(super) const fn new() -> Self {
        Self { next_at: None, pause: Self::PAUSES[0] }
    }

    /// Whether a look is due. The first one is the first contact's.
    pub(super) fn is_due(&self) -> bool {
        self.next_at.is_none_or(|next_at| Instant::now() >= next_at)
    }

    pub(super) const fn is_first(&self) -> bool {
        self.next_at.is_none()
    }

    pub(super) fn looked(&mut self) {
        self.next_at = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(Self::PAUSES[1]);
    }
}

/// Whether another one has written under this epoch: numbers that were never sealed here, other bounds over what waits
/// here or over one another, or a claim that this run did not make.
pub(super) async fn is_contested(
    spool: &Spool,
    source: &SourceName,
    line: &Line<'_>,
    is_first: bool,
) -> Result<bool, UploadError> {
    let status = spool.status();
    let waiting = waiting(spool, status.epoch).await;
    let from = waiting.first().map_or(status.sealed_seq + 1, |object| object.bounds.first);
    let reach = if is_first { REACH } else { BATCH_REACH };
    let landed = list(source, status.epoch, from - reach, line).await?;
    let overlaps =
        |there: &Bounds| waiting.iter().any(|object| object.bounds.overlaps(*there) && object.bounds != *there);
    // One of an earlier run is of a number that was on disk before this one began; this run's own is of the next one.
    let own = status.claim.filter(|claim| claim.epoch == status.epoch).map_or(0, |claim| claim.first_seq);
    let is_another = landed.claims.iter().any(|number| *number > own);
    let is_past = landed.all().any(|there| there.last > status.sealed_seq || overlaps(&there));
    Ok(is_another || is_past || landed.overlaps_itself())
}

/// Claims the numbers of a run; [`Outcome::Foreign`] where another one has.
pub(super) async fn claim(claim: Claim, source: &SourceName, line: &Line<'_>) -> Result<Outcome, UploadError> {
    let key = epoch_claim(source, claim.epoch, claim.first_seq);
    let text = format!("{}\n", claim.run);
    landing::put_once(line, &key, None, &text.into()).await.map_err(|source| UploadError::Put { key, source })
}

/// The waiting objects of this epoch that the landing zone has, in the same bytes or rows.
pub(super) async fn landed_objects(
    spool: &Spool,
    source: &SourceName,
    line: &Line<'_>,
) -> Result<Vec<SealedObject>, UploadError> {
    let epoch = spool.epoch();
    let mut known = Vec::new();
    for object in waiting(spool, epoch).await {
        let landed = object.landed();
        let key = landed.key(source);
        let bytes = spool.bytes(&object).await?;
        match landing::compare(line, &key, Some(&landed), &bytes).await {
            Ok(Some(Outcome::Landed)) => known.push(object),
            Ok(_) => {}
            // Some stores refuse to say of a key that it is not there. The listing that follows finds what is.
            Err(error) if is_refusal(&error) => {}
            Err(source) => return Err(UploadError::Get { key, source }),
        }
    }
    Ok(known)
}

/// The readings under numbers that wait here, as the landing zone has them: what another copy of this
/// spool has sent, perhaps cut into other batches.
pub(super) async fn landed_readings(
    spool: &Spool,
    source: &SourceName,
    line: &Line<'_>,
) -> Result<HashMap<i64, Reading>, UploadError> {
    let epoch = spool.epoch();
    let waiting = waiting(spool, epoch).await;
    let mut readings = HashMap::new();
    let Some(first) = waiting.first() else { return Ok(readings) };
    let waits = |bounds: Bounds| waiting.iter().any(|object| object.bounds.overlaps(bounds));
    let landed = list(source, epoch, first.bounds.first - REACH, line).await?;
    for bounds in landed.batches.into_iter().filter(|bounds| waits(*bounds)) {
        let key = Landed::Batch(epoch, bounds).key(source);
        let bytes = match line.read(&key).await {
            Ok(bytes) => bytes,
            // It has left the landing zone since.
            Err(object_store::Error::NotFound { .. }) => continue,
            Err(source) => return Err(UploadError::Get { key, source }),
        };
        let Ok(rows) = batch::decode(&bytes).and_then(|batch| batch.readings()) else {
            if line.is_forgeable {
                return Err(UploadError::Get { key, source: line::no_object(bytes.len()) });
            }
            // What cannot be read proves nothing: ours is sent.
            continue;
        };
        let numbered = (bounds.first..).zip(rows);
        readings.extend(numbered.filter(|(seq, _)| waits(Bounds { first: *seq, last: *seq })));
    }
    Ok(readings)
}

async fn waiting(spool: &Spool, epoch: Epoch) -> Vec<SealedObject> {
    let mut objects = spool.sealed().await;
    objects.retain(|object| object.epoch == epoch && object.kind != SealedKind::Closed);
    objects
}

/// What landed under an epoch, in the order of its keys.
#[derive(Debug, Default)]
struct Found {
    batches: Vec<Bounds>,
    gaps: Vec<Bounds>,
    claims: Vec<i64>,
}

impl Found {
    fn all(&self) -> impl Iterator<Item = Bounds> + '_ {
        self.batches.iter().chain(&self.gaps).copied()
    }

    /// One spool gives each number to one batch. (A gap may tell numbers of a batch whose reply was lost.)
    fn overlaps_itself(&self) -> bool {
        let mut batches = self.batches.clone();
        batches.sort_unstable();
        batches.windows(2).any(|pair| pair[0].overlaps(pair[1]))
    }
}

/// What landed under an epoch, from a number on.
async fn list(source: &SourceName, epoch: Epoch, from: i64, line: &Line<'_>) -> Result<Found, UploadError> {
    let folder = epoch_folder(source, epoch);
    let offset = Path::from(format!("{folder}/{:020}", from.max(0)));
    let objects = line.list(&folder, &offset).await.map_err(|source| UploadError::List { key: folder, source })?;
    let mut found = Found::default();
    for object in objects {
        match Landed::parse(&object.location) {
            Some((_, Landed::Batch(_, bounds))) => found.batches.push(bounds),
            Some((_, Landed::Gap(_, bounds))) => found.gaps.push(bounds),
            _ => found.claims.extend(claimed_number(&object.location)),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_of_two_cuts_over_the_same_numbers_are_seen() {
        let found = |batches: &[(i64, i64)]| Found {
            batches: batches.iter().map(|(first, last)| Bounds { first: *first, last: *last }).collect(),
            ..Found::default()
        };
        assert!(!found(&[(1, 6), (13, 20), (7, 12)]).overlaps_itself());
        assert!(found(&[(1, 6), (7, 12), (5, 8)]).overlaps_itself());
        assert!(found(&[(1, 6), (1, 8)]).overlaps_itself());
    }

    #[tokio::test(start_paused = true)]
    async fn looks_become_rare_and_never_end() {
        let (mut looks, began) = (Looks::new(), Instant::now());
        assert!(looks.is_due() && looks.is_first());
        looks.looked();
        let mut count = 0;
        while began.elapsed() < Duration::from_secs(86_400) {
            assert!(!looks.is_due());
            tokio::time::sleep_until(looks.next_at.expect("it looked")).await;
            assert!(looks.is_due());
            looks.looked();
            count += 1;
        }
        assert!((24..=28).contains(&count), "{count} looks in a day");
    }
}
