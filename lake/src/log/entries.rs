//! What stands in the commits of a log, as far as it concerns us: files, transactions, what it was for.
//!
//! Only what reader version 1 may contain is understood; anything else is an error and never skipped. No writer makes a
//! commit without an action: one that has none was emptied, and what it brought would be gone unseen.

use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::listing::commits_listed;
use crate::file::{AddEntry, DataFile, decode_path};
use crate::{Lake, LakeError, TableName};

/// How many commits are read at once.
const READ_AT_ONCE: usize = 16;

/// One commit, as far as it concerns us.
#[derive(Debug, Default)]
pub(crate) struct CommitEntries {
    pub(crate) operation: Option<String>,
    pub(crate) added: Vec<DataFile>,
    pub(crate) removed: Vec<Removed>,
    /// What it says of the rows that it changed.
    pub(crate) touched: Option<Value>,
    pub(super) transactions: Vec<(String, i64)>,
    /// Of its bytes.
    pub(super) digest: u64,
    /// Of the table's id, where it says that.
    pub(super) id: Option<u64>,
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
    /// What does not concern us, and is an action all the same.
    cdc: Option<IgnoredAny>,
    domain_metadata: Option<IgnoredAny>,
}

impl ActionLine {
    fn is_empty(&self) -> bool {
        let ours = self.add.is_none() && self.remove.is_none() && self.txn.is_none() && self.commit_info.is_none();
        let of_table = self.meta_data.is_none() && self.protocol.is_none();
        ours && of_table && self.cdc.is_none() && self.domain_metadata.is_none()
    }
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

pub(super) fn entries_of(bytes: &[u8], table: TableName, key: &Path) -> Result<CommitEntries, LakeError> {
    let damaged = |what: String| LakeError::Log { table, place: key.to_string(), what };
    let mut entries = CommitEntries { digest: digest_of(bytes), ..CommitEntries::default() };
    let mut actions = 0;
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
        let action: ActionLine = serde_json::from_slice(line).map_err(|error| damaged(error.to_string()))?;
        actions += usize::from(!action.is_empty());
        entries
            .take(action, table)
            .map_err(|error| error.unwrap_or_else(|| damaged("a deletion vector".to_owned())))?;
    }
    if actions == 0 {
        return Err(damaged(format!("nothing was committed in its {} bytes: it was emptied", bytes.len())));
    }
    Ok(entries)
}

/// What tells a commit from all others: its bytes have names of files that are given once; or a table: its id is drawn. 48
/// bits, which every reader of JSON takes for a whole number.
pub(super) fn digest_of(bytes: &[u8]) -> u64 {
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

pub(super) fn check_protocol(table: TableName, reader: i64) -> Result<(), LakeError> {
    if reader > 1 { Err(LakeError::Protocol { table, reader }) } else { Ok(()) }
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

/// Reads commits, several at once, in the order of `keys`.
pub(super) async fn read_commits(
    lake: &Lake,
    table: TableName,
    keys: Vec<Path>,
) -> Result<Vec<CommitEntries>, LakeError> {
    let reading = futures::stream::iter(keys).map(|key| async move { read_commit(lake, table, &key).await });
    reading.buffered(READ_AT_ONCE).try_collect().await
}
