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
pub(crate) mod damage;
mod entries;
pub(crate) mod expired;
mod listing;
mod moves;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};

use crate::file::DataFile;
use crate::{Lake, LakeError, TableName};
use entries::{check_protocol, digest_of, entries_of, read_commits};
use listing::{Listing, log_folder};
use moves::Moves;

pub(crate) use entries::{CommitEntries, Removed, commits_after, read_commit};
pub use moves::Followed;

pub(crate) use listing::{Tip, commits_listed, newest_checkpoint, objects_up_to};

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
    /// What of them the newest commits moved.
    moves: Moves,
    /// The digest of the newest commit, where it was read.
    digest: Option<u64>,
    /// What stands for the table, whatever its version.
    id: Option<u64>,
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
            state.moves = Moves::from(version);
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
        Self { table, version: -1, tip: None, files, transactions, moves: Moves::from(-1), digest: None, id: None }
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

    /// What of them the newest commits moved.
    pub(crate) const fn moves(&self) -> &Moves {
        &self.moves
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
            self.moves.add(&entries.transactions);
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
