//! Objects in the landing zone that belong to nobody: by their keys they are no batches, so they are never ingested.
//!
//! The whole zone is listed for it, once an hour at most: a listing of ingest goes past what is in the table, and sees some of
//! them in one look and others in the next. No key is told, since it may name a sensor that is erased one day.
//!
//! Bounded: at most [`TOLD_MAX`] sources are told apart, and the others together.

use tjern_lake::{Lake, LakeError};

use super::super::alert::{Condition, Kind};
use crate::ingest::{StrayObjects, strays};

/// How often they are looked for.
const LOOK_US: i64 = 60 * 60 * 1_000_000;

/// So many sources are told apart.
const TOLD_MAX: usize = 20;

/// The subject of what lies beside the sources' folders. No folder has such a name.
const BESIDE: &str = "landing/";

/// The subject of all others.
const OTHERS: &str = "others/";

/// What was found when it was looked for last.
#[derive(Debug, Clone, Default)]
pub struct Strays {
    looked_us: Option<i64>,
    found: Vec<Condition>,
}

impl Strays {
    /// What is wrong now. Of what cannot be read nothing is concluded: what was `told` of it before stays.
    ///
    /// # Errors
    /// [`LakeError`].
    pub async fn look(&mut self, lake: &Lake, told: impl Fn() -> Vec<Condition>) -> Result<Vec<Condition>, LakeError> {
        let now_us = lake.clock().now_us();
        if self.looked_us.is_some_and(|looked_us| (0..LOOK_US).contains(&(now_us - looked_us))) {
            return Ok(self.found.clone());
        }
        let (found, is_whole) = strays(lake).await?;
        let mut found = conditions(&found);
        if !is_whole {
            let is_new = |one: &Condition| !found.iter().any(|known| known.subject == one.subject);
            let before: Vec<_> = told().into_iter().filter(|one| one.kind == Kind::Stray && is_new(one)).collect();
            found.extend(before);
        }
        (self.looked_us, self.found) = (Some(now_us), found.clone());
        Ok(found)
    }
}

fn conditions(all: &[StrayObjects]) -> Vec<Condition> {
    let hint = "hint: `tjern pipeline status` names the first of them; a batch is `landing/<source>/<epoch>/<first>-<last>.arrow`, \
                both numbers with 20 digits and from 1 on (docs/batch-format.md): give them such keys, or remove them";
    let condition = |subject: &str, objects: usize, place: &str| {
        let text = format!(
            "{objects} objects {place} of the landing zone belong to nobody: their keys are no batches', so they are never ingested; {hint}"
        );
        Condition { kind: Kind::Stray, subject: subject.to_owned(), text }
    };
    let of_source = |StrayObjects { source, objects, .. }: &StrayObjects| match source.as_str() {
        "" => condition(BESIDE, *objects, "beside the folders"),
        source => condition(source, *objects, &format!("in the folder `{source}`")),
    };
    let mut told: Vec<_> = all.iter().take(TOLD_MAX).map(of_source).collect();
    if let Some(others) = all.get(TOLD_MAX..).filter(|others| !others.is_empty()) {
        let objects = others.iter().map(|one| one.objects).sum();
        told.push(condition(OTHERS, objects, &format!("in {} more folders", others.len())));
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Somebody copied a whole disk into the landing zone: a mail for each of its folders.
    #[test]
    fn what_is_told_apart_is_bounded() {
        let stray = |number: usize| StrayObjects {
            source: if number == 0 { String::new() } else { format!("folder {number:04}") },
            objects: 2,
            first: format!("landing/folder {number:04}/x"),
        };
        let told = conditions(&(0..1_000).map(stray).collect::<Vec<_>>());
        assert_eq!(told.len(), TOLD_MAX + 1);
        assert!(told[0].text.starts_with("2 objects beside the folders of the landing zone"), "{:?}", told[0]);
        assert!(told[1].subject == "folder 0001" && !told[1].text.contains("/x"), "{:?}", told[1]);
        assert!(told[TOLD_MAX].text.starts_with("1960 objects in 980 more folders"), "{:?}", told[TOLD_MAX]);
    }
}
