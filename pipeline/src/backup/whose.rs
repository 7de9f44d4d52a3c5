//! Which lake a backup is of, where several have their backups in one place.
//!
//! A lake is known by its address and by whether it is one of personal readings. Backups of lakes of both kinds never lie in
//! one place, and none is brought back into a lake of the other kind. Lakes of one kind may share a place: each is restored,
//! listed and pruned by itself. After a disaster a lake often has another address: where no backup is of this one, the newest
//! is taken if all are of one lake. What an earlier version made does not say of which kind its lake is: it goes by the address.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};
use tjern_lake::Lake;
use tjern_readings::store::Store;

use super::BackupError;
use super::manifest::{self, Header, Manifest};

/// Whether a backup is of this lake.
pub(super) fn is_of(header: &Header, lake: &Lake) -> bool {
    header.lake == lake.store().url().url().as_str() && is_of_kind(header, lake)
}

/// By what the names of a lake's objects begin: no other one's do.
pub(super) fn mark(lake: &Lake) -> String {
    let digest = Sha256::digest(lake.store().url().url().as_str());
    let mark = digest.iter().take(6).fold(String::new(), |mark, byte| format!("{mark}{byte:02x}"));
    format!("lake-{mark}")
}

fn is_of_kind(header: &Header, lake: &Lake) -> bool {
    header.personal.is_none_or(|personal| personal == lake.is_personal())
}

const fn kind(is_personal: bool) -> &'static str {
    if is_personal { "a lake of personal readings" } else { "a common lake" }
}

/// Refuses a backup of a lake of the other kind.
pub(super) fn refuse_other_kind(header: &Header, lake: &Lake, target: &Store) -> Result<(), BackupError> {
    if is_of_kind(header, lake) {
        return Ok(());
    }
    Err(BackupError::Kind {
        target: Box::new(target.url().clone()),
        kind: kind(!lake.is_personal()),
        lake: header.lake.clone(),
        this: kind(lake.is_personal()),
        hint: if lake.is_personal() {
            "give the backups of the lake of personal readings a place of their own; without `--personal` the common lake is meant"
        } else {
            "give the common lake's backups a place of their own; with `--personal` the lake of personal readings is meant"
        },
    })
}

/// The newest backup of this lake, where one is to be added; none where there is none.
pub(super) async fn newest_to_add_to(lake: &Lake, target: &Store) -> Result<Option<Manifest>, BackupError> {
    for id in manifest::list(target).await?.into_iter().rev() {
        let manifest = Manifest::read(target, &id).await?;
        refuse_other_kind(&manifest.header, lake, target)?;
        if is_of(&manifest.header, lake) {
            return Ok(Some(manifest));
        }
    }
    Ok(None)
}

/// The backup that is meant where nobody says which one.
pub(super) async fn newest_to_restore(lake: &Lake, target: &Store) -> Result<Manifest, BackupError> {
    let (mut newest, mut of_other_kind, mut lakes) = (None, None, BTreeSet::new());
    for id in manifest::list(target).await?.into_iter().rev() {
        let manifest = Manifest::read(target, &id).await?;
        if is_of(&manifest.header, lake) {
            return Ok(manifest);
        }
        // Of all that were read only two are held.
        if is_of_kind(&manifest.header, lake) {
            lakes.insert(manifest.header.lake.clone());
            newest.get_or_insert(manifest);
        } else {
            of_other_kind.get_or_insert(manifest);
        }
    }
    let target_url = || Box::new(target.url().clone());
    if lakes.len() > 1 {
        let lakes = lakes.into_iter().collect::<Vec<_>>().join(", ");
        return Err(BackupError::Several { target: target_url(), lakes, lake: Box::new(lake.store().url().clone()) });
    }
    // One of the other kind is refused by who asked, with its name.
    newest.or(of_other_kind).ok_or_else(|| BackupError::Unknown { id: "at all".to_owned(), target: target_url() })
}
