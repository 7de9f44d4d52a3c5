//! Backups: a lake copied object by object to another store while everything runs, and brought back.
//!
//! A backup is a manifest that names, for each table at one pinned version, the log and the files of that version, and
//! all else that lies in the lake (landing zone, quarantine, records of corrections, releases, …), but for `jobs/`. It is
//! written last: what broke off has no manifest, and what it copied is there for the next one. Objects are never changed,
//! so each is copied once, however many manifests name it.
//!
//! ```text
//! <target>/objects/<lake>/<key>@<when it was written, in microseconds>   an object of a lake (`manifest`)
//! <target>/manifests/<id>.jsonl                                          a backup: a line that says what it is, then a line an object
//! ```
//!
//! What no manifest of this lake names may be removed while it is counted on ([`prune`](mod@prune), by a backup of this lake or of
//! another one): it counts as there for half as long as that leaves it alone. Before the manifest is written it is looked once more
//! whether all is there.
//!
//! Order is what makes it consistent ([`pin`](mod@pin)): `hourly` and `daily` are pinned before `readings`, since they say
//! of which version of it they are; the landing zone is listed after it, so that what is not in the pinned version is
//! in the listing. Files that a pinned version names stay for vacuum's retention (a day); where one is gone all the same, everything is pinned anew.
//!
//! Restoring ([`restore`]) puts a table's files before its log, and a mark in the lake until it is done: nothing else
//! works on a lake that has it.

mod copy;
pub mod manifest;
mod pin;
mod prune;
pub mod restore;
mod whose;

use std::collections::HashMap;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};
use tjern_lake::{Lake, LakeError};
use tjern_readings::store::{LakeUrl, Store};

use copy::Copied;
use manifest::{Entry, Header, Manifest, OBJECTS};
use pin::{Pinned, Wanted};

/// How many objects are copied at once. Each takes up to [`copy::WHOLE_BYTES_MAX`] of memory.
const COPIES_AT_ONCE: usize = 8;

/// How often everything is pinned anew because something of it went.
const PINS_MAX: usize = 3;

/// For so long what a backup copied that broke off is as good as copied.
const THERE_US: i64 = prune::UNDER_WAY_US / 2;

/// Why a lake was not backed up or restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The lake failed.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// The store of the backups failed.
    #[error("the store of the backups failed at `{key}`: {source}")]
    Target {
        /// Which object.
        key: String,
        /// Why.
        source: Box<object_store::Error>,
    },
    /// One lies within the other.
    #[error(
        "the backups cannot lie in {target}, which is in the lake {lake} or has it in it; hint: name another folder or bucket"
    )]
    Within {
        /// Where the backups were to lie.
        target: Box<LakeUrl>,
        /// The lake.
        lake: Box<LakeUrl>,
    },
    /// An object is not what it was said to be.
    #[error("`{key}` is not what the {what} says: {found}; hint: {hint}")]
    Other {
        /// Which object.
        key: String,
        /// Who says it.
        what: &'static str,
        /// What was found.
        found: String,
        /// What to do.
        hint: &'static str,
    },
    /// Files of a pinned version went while they were copied.
    #[error(
        "`{key}` went while the lake was copied, {PINS_MAX} times in a row; hint: `[vacuum] retention` has to be longer than a backup takes; what was copied is not copied again"
    )]
    Gone {
        /// The last of them.
        key: String,
    },
    /// What was erased came back, and is there still.
    #[error(
        "what was brought back has readings that were erased, and they are not out of it yet: {what}; hint: run `tjern pipeline restore` again, it goes on where it was"
    )]
    Erased {
        /// Why.
        what: String,
    },
    /// What was copied went from the backups.
    #[error(
        "`{name}` went from the backups while this one was made, {PINS_MAX} times in a row; hint: does somebody else remove objects there? What was copied is not copied again"
    )]
    Removed {
        /// The first of them, of the last time.
        name: String,
    },
    /// There is no such backup.
    #[error("there is no backup {id} in {target}; hint: `tjern pipeline restore --list` names those there are")]
    Unknown {
        /// Which one.
        id: String,
        /// Where.
        target: Box<LakeUrl>,
    },
    /// A manifest cannot be read.
    #[error("the manifest `{key}` cannot be read: {what}; hint: `--at` names another one")]
    Manifest {
        /// Which one.
        key: String,
        /// Why.
        what: String,
    },
    /// Backups of a lake of the other kind lie there.
    #[error(
        "{target} has backups of {kind} ({lake}), and {this} must not lie among them nor be brought back from them; hint: {hint}"
    )]
    Kind {
        /// Where they lie.
        target: Box<LakeUrl>,
        /// Which kind that lake is of.
        kind: &'static str,
        /// Which lake it is.
        lake: String,
        /// The kind of the lake that was meant.
        this: &'static str,
        /// What to do.
        hint: &'static str,
    },
    /// Backups of several lakes lie there, and none is of this one.
    #[error(
        "{target} has backups of several lakes ({lakes}) and none of {lake}; hint: `--list` names them, and `--at` says which one is meant"
    )]
    Several {
        /// Where they lie.
        target: Box<LakeUrl>,
        /// The lakes.
        lakes: String,
        /// The lake that was meant.
        lake: Box<LakeUrl>,
    },
    /// The lake has tables.
    #[error(
        "the lake has a table `{table}` already; hint: a restore never replaces one: move `tables/` away first, or restore into another lake; `--only landing` brings back landed batches and leaves tables alone"
    )]
    Taken {
        /// Which one.
        table: String,
    },
    /// Another restore was begun.
    #[error(
        "a restore of backup {begun} was begun in this lake and is not finished; hint: finish it with `--at {begun}`"
    )]
    Another {
        /// Of which backup.
        begun: String,
    },
}

impl BackupError {
    fn target(key: impl ToString, source: object_store::Error) -> Self {
        Self::Target { key: key.to_string(), source: Box::new(source) }
    }
}

/// What a backup did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupOutcome {
    /// Which backup it is.
    pub id: String,
    /// Objects that it names.
    pub objects: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Objects that were copied now; the others were there.
    pub copied: usize,
    /// Their bytes.
    pub copied_bytes: u64,
    /// Old backups that were removed.
    pub removed_backups: usize,
    /// Objects that no backup named any more.
    pub removed_objects: usize,
}

/// Hears how many bytes of how many are done.
pub type Watcher<'a> = &'a mut (dyn FnMut(u64, u64) + Send);

/// Makes a backup of `lake` in `target`; with `keep`, backups that are older are removed after it.
///
/// # Errors
/// [`BackupError`]. There is no backup then, but what was copied is not copied again by the next run.
pub async fn backup(
    lake: &Lake,
    target: &Store,
    keep: Option<Duration>,
    watcher: Watcher<'_>,
) -> Result<BackupOutcome, BackupError> {
    refuse_within(lake, target.url())?;
    let began_us = lake.clock().now_us();
    let mut known = named(lake, target).await?;
    let mut copied = (0, 0);
    let mut failure = BackupError::Gone { key: String::new() };
    for _ in 0..PINS_MAX {
        let mut pinned = pin::pin(lake).await?;
        name_for_lake(&mut pinned, lake, &known);
        let there = there(lake, target, &known).await?;
        match copy_all(lake, target, &pinned, &there, &mut known, &mut copied, watcher).await? {
            Err(gone) => failure = BackupError::Gone { key: gone.to_string() },
            Ok(entries) => {
                if let Some(name) = first_missing(target, &entries).await? {
                    failure = BackupError::Removed { name };
                    continue;
                }
                let header = Header::new(lake, began_us, &pinned.versions, &entries);
                let manifest = Manifest { header, entries };
                manifest.write(target).await?;
                let removed = match keep {
                    Some(keep) => prune::prune(lake, target, keep).await?,
                    None => prune::Pruned::default(),
                };
                return Ok(BackupOutcome {
                    id: manifest.header.id,
                    objects: manifest.entries.len(),
                    bytes: manifest.header.bytes,
                    copied: copied.0,
                    copied_bytes: copied.1,
                    removed_backups: removed.manifests,
                    removed_objects: removed.objects,
                });
            }
        }
    }
    Err(failure)
}

/// A backup in its own lake would be backed up by the next one.
///
/// # Errors
/// [`BackupError::Within`].
pub fn refuse_within(lake: &Lake, target: &LakeUrl) -> Result<(), BackupError> {
    let lake = lake.store().url();
    if lake.overlaps(target) {
        return Err(BackupError::Within { target: Box::new(target.clone()), lake: Box::new(lake.clone()) });
    }
    Ok(())
}

/// The objects that the newest backup of this lake names, with their SHA-256 as far as it says it. It is never removed, nor
/// are they.
async fn named(lake: &Lake, target: &Store) -> Result<HashMap<String, Option<String>>, BackupError> {
    let entries = whose::newest_to_add_to(lake, target).await?.map_or_else(Vec::new, |newest| newest.entries);
    Ok(entries.into_iter().map(|entry| (entry.name, entry.sha256)).collect())
}

/// Names what is wanted as this lake's; but for what an earlier version copied, whose names were the same for all lakes.
fn name_for_lake(pinned: &mut Pinned, lake: &Lake, known: &HashMap<String, Option<String>>) {
    let mark = whose::mark(lake);
    for wanted in pinned.wanted.iter_mut().filter(|wanted| !known.contains_key(wanted.name.as_ref())) {
        wanted.name = manifest::name_in_lake(&mark, &wanted.name);
    }
}

/// What was copied before and will still be there when this backup is done, with its bytes.
async fn there(
    lake: &Lake,
    target: &Store,
    known: &HashMap<String, Option<String>>,
) -> Result<HashMap<Path, u64>, BackupError> {
    let since_us = lake.clock().now_us().saturating_sub(THERE_US);
    let mut metas = listed(target).await?;
    metas
        .retain(|meta| known.contains_key(meta.location.as_ref()) || meta.last_modified.timestamp_micros() >= since_us);
    Ok(metas.into_iter().map(|meta| (meta.location, meta.size)).collect())
}

/// An entry whose object is not there, or is not whole.
async fn first_missing(target: &Store, entries: &[Entry]) -> Result<Option<String>, BackupError> {
    let there: HashMap<String, u64> =
        listed(target).await?.into_iter().map(|meta| (meta.location.to_string(), meta.size)).collect();
    let missing = entries.iter().find(|entry| there.get(&entry.name) != Some(&entry.bytes));
    Ok(missing.map(|entry| entry.name.clone()))
}

/// All objects of all backups.
async fn listed(target: &Store) -> Result<Vec<ObjectMeta>, BackupError> {
    let metas = target.objects().list(Some(&Path::from(OBJECTS)));
    metas.try_collect().await.map_err(|error| BackupError::target(OBJECTS, error))
}

/// Copies what is not there. Returns the entries of the manifest; or what of the tables went meanwhile.
async fn copy_all(
    lake: &Lake,
    target: &Store,
    pinned: &Pinned,
    there: &HashMap<Path, u64>,
    known: &mut HashMap<String, Option<String>>,
    copied: &mut (usize, u64),
    watcher: Watcher<'_>,
) -> Result<Result<Vec<Entry>, Path>, BackupError> {
    let total = pinned.wanted.iter().map(|wanted| wanted.bytes).sum();
    let (mut entries, mut done) = (Vec::new(), 0);
    let copying: Vec<BoxFuture<'_, _>> =
        pinned.wanted.iter().map(|wanted| copied_or_there(lake, target, wanted, there).boxed()).collect();
    // In the order in which they were listed: the tables first, whose files vacuum will take.
    let mut copying = futures::stream::iter(copying).buffered(COPIES_AT_ONCE);
    while let Some((wanted, made)) = copying.try_next().await? {
        done += wanted.bytes;
        watcher(done, total);
        match made {
            Some(Copied::Gone) if wanted.is_of_a_table => return Ok(Err(wanted.key.clone())),
            // It was cleaned away, or went to quarantine, which is listed after the landing zone.
            Some(Copied::Gone) => continue,
            Some(Copied::Whole { sha256 }) => {
                *copied = (copied.0 + 1, copied.1 + wanted.bytes);
                known.insert(wanted.name.to_string(), Some(sha256));
            }
            None => {}
        }
        entries.push(entry(wanted, known));
    }
    Ok(Ok(entries))
}

/// Copies an object unless it was copied before.
async fn copied_or_there<'a>(
    lake: &Lake,
    target: &Store,
    wanted: &'a Wanted,
    there: &HashMap<Path, u64>,
) -> Result<(&'a Wanted, Option<Copied>), BackupError> {
    let is_there = there.get(&wanted.name) == Some(&wanted.bytes);
    let made = if is_there { None } else { Some(copy::to_target(lake, target, wanted).await?) };
    Ok((wanted, made))
}

fn entry(wanted: &Wanted, known: &HashMap<String, Option<String>>) -> Entry {
    let name = wanted.name.to_string();
    let sha256 = known.get(&name).cloned().flatten();
    Entry { key: wanted.key.to_string(), name, bytes: wanted.bytes, sha256 }
}
