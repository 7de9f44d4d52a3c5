//! A table's Delta log, read in one pass: the active files and the application transactions of a
//! version, kept in memory and carried forward commit by commit.
//!
//! Reading follows the Delta protocol, "Action Reconciliation": for a path the newest of add and
//! remove counts, for an application the newest transaction. It starts at the newest checkpoint
//! (classic, of one or several parts) and goes on through the JSON commits. Only what reader version
//! 1 may contain is understood; anything else is an error and never skipped.
//!
//! A refresh costs one listing and one get per new commit, however long the history. The listing begins
//! with the commit that is known: where that is another one by now, the table was made anew, and is read
//! from the beginning. A probe costs a get, and one per new commit; it sees neither that a table was made anew nor
//! that commits were cleaned away, so it is for who lists from time to time too (`states`).

mod checkpoint;
pub(crate) mod expired;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::file::{AddEntry, DataFile, decode_path};
use crate::{Lake, LakeError, TableName};

/// How many commits are read at once.
const READ_AT_ONCE: usize = 16;

/// So many commits are asked for one after the other before a listing is the better way.
const PROBES_MAX: i64 = 16;

/// The state of a table at one version.
#[derive(Debug, Clone)]
pub struct LogState {
    table: TableName,
    version: i64,
    /// The object of the newest commit, where it was seen.
    tip: Option<Tip>,
    files: BTreeMap<String, DataFile>,
    transactions: HashMap<String, i64>,
    /// The digest of the newest commit, where it was read.
    digest: Option<u64>,
    /// What stands for the table, whatever its version.
    id: Option<u64>,
}

/// What tells a commit from another one of the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tip {
    bytes: u64,
    modified_us: i64,
}

impl From<&ObjectMeta> for Tip {
    fn from(meta: &ObjectMeta) -> Self {
        Self { bytes: meta.size, modified_us: meta.last_modified.timestamp_micros() }
    }
}

/// What came after a known state.
#[derive(Debug)]
enum News {
    Nothing,
    /// Commits, oldest first, the last of them with its object.
    Commits(Vec<CommitEntries>, Tip),
    /// Everything is another.
    Anew(LogState),
}

/// One commit, as far as it concerns us.
#[derive(Debug, Default)]
pub(crate) struct CommitEntries {
    pub(crate) operation: Option<String>,
    pub(crate) added: Vec<DataFile>,
    pub(crate) removed: Vec<Removed>,
    /// What it says of the rows that it changed.
    pub(crate) touched: Option<Value>,
    transactions: Vec<(String, i64)>,
    /// Of its bytes.
    digest: u64,
    /// Of the table's id, where it says that.
    id: Option<u64>,
}

/// A file that a commit removed.
#[derive(Debug, Clone)]
pub(crate) struct Removed {
    pub(crate) path: String,
    /// When, by its remover's clock; not everybody says it.
    pub(crate) at_ms: Option<i64>,
    /// How big it was; not everybody says it.
    pub(crate) size: Option<i64>,
}

impl LogState {
    /// Reads the newest version; `None` where there is no table.
    ///
    /// # Errors
    /// [`LakeError::Store`], [`LakeError::Log`], [`LakeError::Protocol`].
    pub async fn read(lake: &Lake, table: TableName) -> Result<Option<Self>, LakeError> {
        let listing = Listing::of(lake, table, None).await?;
        let mut state = Self::empty(table);
        if let Some((version, parts)) = listing.newest_checkpoint() {
            for part in parts {
                checkpoint::apply(&mut state, lake, part).await?;
            }
            state.version = version;
        }
        if let Some(meta) = listing.commits.get(&state.version) {
            state.tip = Some(meta.into());
        }
        if let Some((commits, tip)) = state.commits_of(lake, &listing).await? {
            state.follow(commits, tip);
        }
        Ok((state.version >= 0).then_some(state))
    }

    /// Before the first version.
    fn empty(table: TableName) -> Self {
        let (files, transactions) = (BTreeMap::new(), HashMap::new());
        Self { table, version: -1, tip: None, files, transactions, digest: None, id: None }
    }

    /// Carries the state forward to the newest version. Returns whether it moved. A state that others
    /// hold too is copied first, where something changed.
    ///
    /// # Errors
    /// As [`LogState::read`]; the state is then as it was.
    pub async fn refresh(state: &mut Arc<Self>, lake: &Lake) -> Result<bool, LakeError> {
        match state.news(lake).await? {
            News::Nothing => return Ok(false),
            News::Commits(commits, tip) => Arc::make_mut(state).follow(commits, tip),
            News::Anew(other) => *state = Arc::new(other),
        }
        Ok(true)
    }

    /// Carries the state forward by asking for the next commit, and the one after it, until there is none, or
    /// until a version that somebody told of. Returns whether that end was reached; where it was not, the state is as it was.
    ///
    /// # Errors
    /// As [`LogState::read`]; the state is then as it was.
    pub(crate) async fn probe(state: &mut Arc<Self>, lake: &Lake, until: Option<i64>) -> Result<bool, LakeError> {
        let (table, first) = (state.table, state.version + 1);
        let (mut commits, mut tip) = (Vec::new(), None);
        let last = first + PROBES_MAX - 1;
        if until.is_some_and(|until| until > last) {
            return Ok(false);
        }
        for version in first..=until.unwrap_or(last) {
            let key = log_folder(table).join(format!("{version:020}.json"));
            let found = match lake.objects().get(&key).await {
                Ok(found) => found,
                Err(object_store::Error::NotFound { .. }) => {
                    Self::follow_to(state, commits, tip);
                    return Ok(true);
                }
                // Some stores say so of what is not there, where rights to list are bound to a prefix.
                Err(source) if tjern_readings::store::is_refusal(&source) => return Ok(false),
                Err(source) => return Err(LakeError::store(&key, source)),
            };
            tip = Some(Tip::from(&found.meta));
            let bytes = found.bytes().await.map_err(|source| LakeError::store(&key, source))?;
            commits.push(entries_of(&bytes, table, &key)?);
        }
        // Without a word of how many there are, there may be more.
        if until.is_some() {
            Self::follow_to(state, commits, tip);
        }
        Ok(until.is_some())
    }

    async fn news(&self, lake: &Lake) -> Result<News, LakeError> {
        let listing = Listing::of(lake, self.table, Some(self.version - 1)).await?;
        let known = listing.commits.get(&self.version).map(Tip::from);
        let is_ours = self.tip.is_none() || known.is_none() || known == self.tip;
        let newest = listing.newest_version().filter(|newest| *newest > self.version);
        if is_ours && newest.is_none() && (known.is_some() || self.tip.is_none()) {
            return Ok(News::Nothing);
        }
        if is_ours
            && listing.commits.contains_key(&(self.version + 1))
            && let Some((commits, tip)) = self.commits_of(lake, &listing).await?
        {
            return Ok(News::Commits(commits, tip));
        }
        // Commits that we have not seen were cleaned away, or the table was made anew: begin at a checkpoint.
        let other = Self::read(lake, self.table).await?;
        let other = other.ok_or_else(|| self.damaged("_delta_log", "the table is gone"))?;
        if newest.is_some_and(|newest| other.version < newest) {
            return Err(self.damaged("_delta_log", "a commit is missing"));
        }
        Ok(News::Anew(other))
    }

    /// The version.
    #[must_use]
    pub const fn version(&self) -> i64 {
        self.version
    }

    /// When the newest commit was made, by the store's clock, in microseconds since 1970; `None` where it was not seen.
    #[must_use]
    pub fn moved_us(&self) -> Option<i64> {
        self.tip.map(|tip| tip.modified_us)
    }

    /// A digest of the newest commit, 48 bits; `None` where it was not read, since a checkpoint has all of it.
    #[must_use]
    pub const fn digest(&self) -> Option<u64> {
        self.digest
    }

    /// A digest of the id that the table was given when it was made, 48 bits: one that was made anew has another one.
    #[must_use]
    pub const fn id(&self) -> Option<u64> {
        self.id
    }

    /// The active files.
    pub fn files(&self) -> impl Iterator<Item = &DataFile> {
        self.files.values()
    }

    /// Whether a file is active.
    #[must_use]
    pub fn is_active(&self, path: &str) -> bool {
        self.files.contains_key(path)
    }

    /// The application transactions.
    #[must_use]
    pub const fn transactions(&self) -> &HashMap<String, i64> {
        &self.transactions
    }

    /// The commits after this state, oldest first; `None` where there is none.
    async fn commits_of(&self, lake: &Lake, listing: &Listing) -> Result<Option<(Vec<CommitEntries>, Tip)>, LakeError> {
        let metas: Vec<(&i64, &ObjectMeta)> = listing.commits.range(self.version + 1..).collect();
        let mut expected = self.version;
        for (version, meta) in &metas {
            expected += 1;
            if **version != expected {
                return Err(self.damaged(meta.location.as_ref(), "the commit before it is missing"));
            }
        }
        let Some((_, newest)) = metas.last() else { return Ok(None) };
        let tip = Tip::from(*newest);
        let keys: Vec<Path> = metas.iter().map(|(_, meta)| meta.location.clone()).collect();
        Ok(Some((read_commits(lake, self.table, keys).await?, tip)))
    }

    /// Carries a state forward that others may hold too.
    fn follow_to(state: &mut Arc<Self>, commits: Vec<CommitEntries>, tip: Option<Tip>) {
        if let Some(tip) = tip {
            Arc::make_mut(state).follow(commits, tip);
        }
    }

    fn follow(&mut self, commits: Vec<CommitEntries>, tip: Tip) {
        for entries in commits {
            self.digest = Some(entries.digest);
            self.apply(entries);
            self.version += 1;
        }
        self.tip = Some(tip);
    }

    fn apply(&mut self, entries: CommitEntries) {
        for removed in entries.removed {
            self.files.remove(&removed.path);
        }
        for file in entries.added {
            self.files.insert(file.path.clone(), file);
        }
        self.transactions.extend(entries.transactions);
        self.id = entries.id.or(self.id);
    }

    fn damaged(&self, place: &str, what: &str) -> LakeError {
        LakeError::Log { table: self.table, place: place.to_owned(), what: what.to_owned() }
    }
}

/// Reads what the commits after `version` did, oldest first.
pub(crate) async fn commits_after(
    lake: &Lake,
    table: TableName,
    after: i64,
    until: i64,
) -> Result<Option<Vec<CommitEntries>>, LakeError> {
    let Some(commits) = commits_listed(lake, table, after, until).await? else { return Ok(None) };
    let keys = commits.into_iter().map(|(_, _, key)| key).collect();
    read_commits(lake, table, keys).await.map(Some)
}

/// The commits after `after` up to `until`, oldest first: version, what tells it from another one, and key. None
/// where one of them is not there any more.
pub(crate) async fn commits_listed(
    lake: &Lake,
    table: TableName,
    after: i64,
    until: i64,
) -> Result<Option<Vec<(i64, Tip, Path)>>, LakeError> {
    let listing = Listing::of(lake, table, Some(after)).await?;
    let commit =
        |version: i64| listing.commits.get(&version).map(|meta| (version, Tip::from(meta), meta.location.clone()));
    Ok((after + 1..=until).map(commit).collect())
}

/// Reads commits, several at once, in the order of `keys`.
async fn read_commits(lake: &Lake, table: TableName, keys: Vec<Path>) -> Result<Vec<CommitEntries>, LakeError> {
    let reading = futures::stream::iter(keys).map(|key| async move { read_commit(lake, table, &key).await });
    reading.buffered(READ_AT_ONCE).try_collect().await
}

/// The version of the newest checkpoint of which every part is there.
pub(crate) async fn newest_checkpoint(lake: &Lake, table: TableName) -> Result<Option<i64>, LakeError> {
    let listing = Listing::of(lake, table, None).await?;
    Ok(listing.newest_checkpoint().map(|(version, _)| version))
}

/// Versions that are not there although one before and one after them are.
pub(crate) async fn missing_versions(lake: &Lake, table: TableName) -> Result<Vec<i64>, LakeError> {
    let commits = Listing::of(lake, table, None).await?.commits;
    let first = commits.keys().next().copied().unwrap_or(0);
    let last = commits.keys().next_back().copied().unwrap_or(first);
    Ok((first..=last).filter(|version| !commits.contains_key(version)).collect())
}

/// The objects of a log that are of some version up to this one: with them, and the files that it names, it can be read.
pub(crate) async fn objects_up_to(lake: &Lake, table: TableName, version: i64) -> Result<Vec<ObjectMeta>, LakeError> {
    let versioned = Listing::of(lake, table, None).await?.versioned;
    Ok(versioned.into_iter().filter(|(of, _)| *of <= version).map(|(_, meta)| meta).collect())
}

/// The folder of a table's log.
fn log_folder(table: TableName) -> Path {
    tjern_readings::keys::table(table.as_str()).join("_delta_log")
}

/// What a listing of a log shows.
#[derive(Debug, Default)]
struct Listing {
    commits: BTreeMap<i64, ObjectMeta>,
    checkpoints: BTreeMap<i64, Vec<(u32, u32, Path)>>,
    /// Everything that is of some version, as the store lists it.
    versioned: Vec<(i64, ObjectMeta)>,
}

impl Listing {
    async fn of(lake: &Lake, table: TableName, after: Option<i64>) -> Result<Self, LakeError> {
        let folder = log_folder(table);
        let objects = lake.objects();
        let mut metas = match after {
            // "_" sorts after the digits, so this leaves out nothing but what is old.
            Some(version) => {
                objects.list_with_offset(Some(&folder), &folder.clone().join(format!("{version:020}.json")))
            }
            None => objects.list(Some(&folder)),
        };
        let mut listing = Self::default();
        let failed = |source| LakeError::store(&folder, source);
        while let Some(meta) = metas.try_next().await.map_err(failed)? {
            listing.add(meta);
        }
        Ok(listing)
    }

    fn add(&mut self, meta: ObjectMeta) {
        let key = meta.location.clone();
        let Some(name) = key.filename() else { return };
        let Some((version, kind)) = name.split_once('.') else { return };
        let Some(version) = (version.len() == 20).then(|| version.parse().ok()).flatten() else { return };
        self.versioned.push((version, meta.clone()));
        match kind.split('.').collect::<Vec<_>>().as_slice() {
            ["json"] => drop(self.commits.insert(version, meta)),
            ["checkpoint", "parquet"] => self.checkpoints.entry(version).or_default().push((1, 1, key)),
            ["checkpoint", part, parts, "parquet"] => {
                if let (Ok(part), Ok(parts)) = (part.parse(), parts.parse()) {
                    self.checkpoints.entry(version).or_default().push((part, parts, key));
                }
            }
            _ => {}
        }
    }

    fn newest_version(&self) -> Option<i64> {
        self.commits.keys().next_back().copied()
    }

    /// The newest checkpoint of which every part is there.
    fn newest_checkpoint(&self) -> Option<(i64, Vec<&Path>)> {
        self.newest_checkpoint_where(|_| true)
    }

    /// The newest of those of which every part is there whose version is one of these.
    fn newest_checkpoint_where(&self, fits: impl Fn(i64) -> bool) -> Option<(i64, Vec<&Path>)> {
        let whole = |parts: &[(u32, u32, Path)]| -> Option<Vec<Path>> {
            let count = parts.iter().map(|(_, count, _)| *count).max()?;
            let chosen = (1..=count).map(|part| parts.iter().find(|(one, all, _)| *one == part && *all == count));
            chosen.map(|found| found.map(|(_, _, key)| key.clone())).collect()
        };
        let (version, parts) =
            self.checkpoints.iter().rev().find(|(version, parts)| fits(**version) && whole(parts).is_some())?;
        let count = parts.iter().map(|(_, count, _)| *count).max()?;
        let mut chosen: Vec<_> = parts.iter().filter(|(_, all, _)| *all == count).collect();
        chosen.sort_by_key(|(part, _, _)| *part);
        Some((*version, chosen.into_iter().map(|(_, _, key)| key).collect()))
    }
}

/// A line of a commit.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ActionLine {
    add: Option<AddEntry>,
    remove: Option<RemoveEntry>,
    txn: Option<TransactionEntry>,
    meta_data: Option<MetadataEntry>,
    protocol: Option<ProtocolEntry>,
    commit_info: Option<CommitInfoEntry>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RemoveEntry {
    path: String,
    deletion_timestamp: Option<i64>,
    size: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TransactionEntry {
    app_id: String,
    version: i64,
}

#[derive(Debug, Deserialize)]
struct MetadataEntry {
    id: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ProtocolEntry {
    min_reader_version: i64,
}

#[derive(Debug, Deserialize)]
struct CommitInfoEntry {
    operation: Option<String>,
    #[serde(rename = "tjern.operation")]
    ours: Option<String>,
    #[serde(rename = "tjern.touched")]
    touched: Option<Value>,
}

/// Reads one commit.
pub(crate) async fn read_commit(lake: &Lake, table: TableName, key: &Path) -> Result<CommitEntries, LakeError> {
    let failed = |source| LakeError::store(key, source);
    let bytes = lake.objects().get(key).await.map_err(failed)?.bytes().await.map_err(failed)?;
    entries_of(&bytes, table, key)
}

fn entries_of(bytes: &[u8], table: TableName, key: &Path) -> Result<CommitEntries, LakeError> {
    let damaged = |what: String| LakeError::Log { table, place: key.to_string(), what };
    let mut entries = CommitEntries { digest: digest_of(bytes), ..CommitEntries::default() };
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
        let action: ActionLine = serde_json::from_slice(line).map_err(|error| damaged(error.to_string()))?;
        entries
            .take(action, table)
            .map_err(|error| error.unwrap_or_else(|| damaged("a deletion vector".to_owned())))?;
    }
    Ok(entries)
}

/// What tells a commit from all others: its bytes have names of files that are given once; or a table: its id is drawn. 48
/// bits, which every reader of JSON takes for a whole number.
fn digest_of(bytes: &[u8]) -> u64 {
    let digest = Sha256::digest(bytes);
    digest.iter().take(6).fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

impl CommitEntries {
    fn take(&mut self, action: ActionLine, table: TableName) -> Result<(), Option<LakeError>> {
        if let Some(protocol) = action.protocol {
            check_protocol(table, protocol.min_reader_version).map_err(Some)?;
        }
        if let Some(add) = action.add {
            if add.deletion_vector.is_some() {
                return Err(None);
            }
            self.added.push(DataFile::from_entry(add, table.sort_columns()));
        }
        self.removed.extend(action.remove.map(|one| Removed {
            path: decode_path(&one.path),
            at_ms: one.deletion_timestamp,
            size: one.size,
        }));
        self.transactions.extend(action.txn.map(|txn| (txn.app_id, txn.version)));
        self.id = action.meta_data.map(|metadata| digest_of(metadata.id.as_bytes())).or(self.id);
        if let Some(info) = action.commit_info {
            self.operation = info.ours.or(info.operation);
            self.touched = info.touched;
        }
        Ok(())
    }
}

fn check_protocol(table: TableName, reader: i64) -> Result<(), LakeError> {
    if reader > 1 { Err(LakeError::Protocol { table, reader }) } else { Ok(()) }
}
