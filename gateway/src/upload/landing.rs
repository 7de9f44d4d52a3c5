//! Putting an object into the landing zone once, whatever became of the replies.
//!
//! A put that failed may have been applied, and a store's own retries turn a lost reply into "already
//! exists". So that word is never believed: the object is read back and compared. Nor is a success believed that came over a
//! way on which somebody else could answer ([`Line::confirm`]).

use bytes::Bytes;
use object_store::Error;
use object_store::path::Path;

use tjern_readings::batch;
use tjern_readings::keys::Landed;

use super::line::Line;

/// How often a put is repeated whose key exists and then does not.
const ATTEMPTS_MAX: u32 = 3;

/// What stands under the key now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Ours.
    Landed,
    /// Something else: another one writes under our name.
    Foreign,
    /// Nothing was put: the spool's file cannot be read, and a gap takes its place.
    GivenUp,
}

/// Puts an object where nothing is, or finds it there. What is none of [`Landed`] is the same in the same bytes only.
pub(super) async fn put_once(
    line: &Line<'_>,
    key: &Path,
    landed: Option<&Landed>,
    bytes: &Bytes,
) -> Result<Outcome, Error> {
    let mut attempt = 1;
    loop {
        let existing = match line.create(key, bytes).await {
            Ok(_) => return line.confirm(key, bytes.len() as u64).await.map(|()| Outcome::Landed),
            Err(error @ (Error::AlreadyExists { .. } | Error::Precondition { .. })) => error,
            Err(error) => return Err(error),
        };
        match compare(line, key, landed, bytes).await? {
            Some(outcome) => return Ok(outcome),
            None if attempt < ATTEMPTS_MAX => attempt += 1,
            None => return Err(existing),
        }
    }
}

/// Compares an object with what stands under its key, if anything does.
pub(super) async fn compare(
    line: &Line<'_>,
    key: &Path,
    landed: Option<&Landed>,
    bytes: &[u8],
) -> Result<Option<Outcome>, Error> {
    let there = match line.read(key).await {
        Ok(there) => there,
        Err(Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(Some(if is_same(landed, bytes, &there) { Outcome::Landed } else { Outcome::Foreign }))
}

/// Whether two objects say the same: for batches the bounds and the checksum of the rows, which a later
/// version of the software may have compressed in another way; for the word that an epoch is finished a number that is
/// not lower, since after a power cut a file that had left may come back, and is closed behind itself; for all others
/// the bytes.
fn is_same(landed: Option<&Landed>, ours: &[u8], there: &[u8]) -> bool {
    if ours == there {
        return true;
    }
    if matches!(landed, Some(Landed::Closed(_))) {
        return last_number(ours).is_some_and(|ours| last_number(there).is_some_and(|there| there >= ours));
    }
    let Some(Landed::Batch(..)) = landed else { return false };
    match (batch::decode(ours), batch::decode(there)) {
        (Ok(ours), Ok(there)) => {
            let identity = |batch: &batch::Batch| {
                let header = &batch.header;
                (header.source.clone(), header.epoch, header.bounds, header.checksum.clone())
            };
            identity(&ours) == identity(&there)
        }
        _ => false,
    }
}

fn last_number(bytes: &[u8]) -> Option<i64> {
    std::str::from_utf8(bytes).ok()?.trim_end().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lake's word of an epoch's end was true, and the spool's was made after a cut, of a file that came back.
    #[test]
    fn a_lower_last_number_is_no_other_spools_word() {
        let landed = Landed::Closed("0".repeat(32).parse().expect("an epoch"));
        let is_same = |ours: &[u8], there: &[u8]| is_same(Some(&landed), ours, there);
        assert!(is_same(b"10\n", b"10\n") && is_same(b"10\n", b"20\n"));
        assert!(!is_same(b"20\n", b"10\n") && !is_same(b"20\n", b"?"));
        assert!(!super::is_same(Some(&Landed::Configuration("a".into())), b"10\n", b"20\n"));
        assert!(!super::is_same(None, b"10\n", b"20\n"));
    }
}
