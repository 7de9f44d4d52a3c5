//! How a lease gets another record: only where the one that was read is still there.
//!
//! Two that find the same lease run out must not both have it. Reading it, removing it and creating one's own were three calls:
//! the second to remove it removed what the first had just created. So the store compares: the record is put on the version that
//! was read, and the second put is refused.
//!
//! A store that cannot compare (a folder) can still refuse a second create. There whoever takes a lease over first creates a
//! claim, `jobs/claims/<job>-<holder>-<until>.json`, that is named after the record that has run out; looks whether that
//! record is still there; puts its own; and removes the claim. Who is killed in between leaves a claim. It
//! runs out as a lease does, and is then itself claimed in the same way; whoever has taken the lease over removes all that are left.
//!
//! Limits: a folder's claim that is held for longer than a lease lasts, by a process that stands still, keeps nobody out.

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use tjern_readings::keys;

use super::{Found, Lease, Record};
use crate::LakeError;

/// The folder of claims, beside the leases.
const CLAIMS: &str = "claims";

/// What a store says to a put on a version.
enum Compared {
    /// The record is there.
    Put,
    /// Another record was there.
    Refused,
    /// It cannot compare.
    Cannot,
}

impl Lease {
    /// Puts a record in the place of one that has run out. Returns whether nobody else did so first.
    pub(super) async fn take_over(&self, found: &Found, record: &Record) -> Result<bool, LakeError> {
        match self.put_on(found, record).await? {
            Compared::Put => Ok(true),
            Compared::Refused => Ok(false),
            Compared::Cannot => self.take_over_by_claim(found, record).await,
        }
    }

    /// Puts a record in the place of our own while that lasts: nobody takes it over.
    pub(super) async fn prolong(&self, found: &Found, record: &Record) -> Result<bool, LakeError> {
        match self.put_on(found, record).await? {
            Compared::Put => Ok(true),
            Compared::Refused => Ok(false),
            Compared::Cannot => self.put(record).await,
        }
    }

    async fn put_on(&self, found: &Found, record: &Record) -> Result<Compared, LakeError> {
        if found.version.e_tag.is_none() && found.version.version.is_none() {
            return Ok(Compared::Cannot);
        }
        let mode = PutMode::Update(found.version.clone());
        match self.lake.objects().put_opts(&self.key, payload(record), mode.into()).await {
            Ok(_) => Ok(Compared::Put),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => {
                // The store's own retry may have met what its first try had put.
                let is_ours = self.held().await?.is_some_and(|now| now.record == *record);
                Ok(if is_ours { Compared::Put } else { Compared::Refused })
            }
            Err(Error::NotFound { .. }) => Ok(Compared::Refused),
            // A server that knows no `If-Match` says so by 501 or 400, which is a failure like others here. Where it was none of these the
            // claim fails too, or finds that the record is there.
            Err(Error::NotImplemented { .. } | Error::NotSupported { .. } | Error::Generic { .. }) => {
                Ok(Compared::Cannot)
            }
            Err(source) => Err(self.failed(source)),
        }
    }

    async fn take_over_by_claim(&self, found: &Found, record: &Record) -> Result<bool, LakeError> {
        let mut claims = Vec::new();
        if !self.claim(&found.record, record, &mut claims).await? {
            return Ok(false);
        }
        // Who came first may have removed its claim by now: then its record is there.
        let is_there = self.held().await?.is_some_and(|now| now.record == found.record);
        let is_ours = is_there && self.put(record).await?;
        if is_ours {
            // Whoever holds one of them claims what is there no more.
            claims.extend(self.claims_left().await?);
        }
        for claim in claims {
            self.delete_at(&claim).await?;
        }
        Ok(is_ours)
    }

    /// Claims a record that has run out. Claims of those who were killed with them are claimed in their turn; the keys of all are
    /// added to `claims`, to be removed.
    async fn claim(&self, lapsed: &Record, record: &Record, claims: &mut Vec<Path>) -> Result<bool, LakeError> {
        let mut lapsed = lapsed.clone();
        loop {
            let key = self.claim_on(&lapsed);
            match self.lake.objects().put_opts(&key, payload(record), PutMode::Create.into()).await {
                Ok(_) => {
                    claims.push(key);
                    return Ok(true);
                }
                Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => {}
                Err(source) => return Err(self.failed(source)),
            }
            // One that was removed just now was of somebody who has the lease.
            let Some(Found { record: claimed, .. }) = self.found_at(&key).await? else { return Ok(false) };
            let is_ours = claimed == *record;
            if !is_ours && self.is_held_by(&claimed, self.lake.clock().now_us()) {
                return Ok(false);
            }
            claims.push(key);
            if is_ours {
                return Ok(true);
            }
            lapsed = claimed;
        }
    }

    /// The keys of all claims on this lease.
    async fn claims_left(&self) -> Result<Vec<Path>, LakeError> {
        let folder = Path::from(format!("{}/{CLAIMS}", keys::JOBS));
        let objects = self.lake.objects();
        let listed = objects.list(Some(&folder)).try_collect::<Vec<_>>().await;
        let listed = listed.map_err(|source| LakeError::store(&folder, source))?;
        let begins = format!("{}-", self.job());
        let is_own = |key: &Path| key.filename().is_some_and(|name| name.starts_with(&begins));
        Ok(listed.into_iter().map(|meta| meta.location).filter(is_own).collect())
    }

    /// The key of a claim on a record that has run out.
    fn claim_on(&self, lapsed: &Record) -> Path {
        let Record { holder, until_us, .. } = lapsed;
        keys::lease(&format!("{CLAIMS}/{}-{holder}-{until_us}", self.job()))
    }

    fn job(&self) -> &str {
        self.key.filename().and_then(|name| name.strip_suffix(".json")).unwrap_or_default()
    }

    async fn put(&self, record: &Record) -> Result<bool, LakeError> {
        match self.lake.objects().put(&self.key, payload(record)).await {
            Ok(_) => Ok(true),
            // Somebody took it away at once.
            Err(Error::NotFound { .. }) => Ok(false),
            Err(source) => Err(self.failed(source)),
        }
    }
}

fn payload(record: &Record) -> PutPayload {
    PutPayload::from(serde_json::to_vec(record).unwrap_or_default())
}

#[cfg(test)]
mod tests;
