//! Putting an object into the landing zone once, whatever became of the replies.
//!
//! A put that failed may have been applied, and a store's own retries turn a lost reply into "already
//! exists". So that word is never believed: the object is read back and compared. Nor is a success believed that came over a
//! way on which somebody else could answer ([`Line::confirm`]), nor that what was read there is an object: a page in its place would
//! be another one's readings under our numbers.

use bytes::Bytes;
use object_store::Error;
use object_store::path::Path;

use tjern_readings::batch;
use tjern_readings::keys::Landed;
use tjern_readings::sensor::Epoch;

use super::line::{self, Line};
use crate::spool::is_gap_text;

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
    if is_same(landed, bytes, &there) {
        return Ok(Some(Outcome::Landed));
    }
    if line.is_forgeable && !is_object(landed, &there) {
        return Err(line::no_object(there.len()));
    }
    Ok(Some(Outcome::Foreign))
}

/// Whether bytes are what somebody may have put under such a key, rather than a page that was sent in its place.
fn is_object(landed: Option<&Landed>, bytes: &[u8]) -> bool {
    let text = std::str::from_utf8(bytes);
    match landed {
        Some(Landed::Batch(..)) => batch::decode(bytes).is_ok(),
        Some(Landed::Gap(_, bounds)) => is_gap_text(bytes, *bounds),
        Some(Landed::Closed(_)) => last_number(bytes).is_some(),
        Some(Landed::Configuration(_)) => {
            text.is_ok_and(|text| text.parse::<toml::Table>().is_ok_and(|table| !table.is_empty()))
        }
        // A claim.
        None => text.is_ok_and(|text| text.trim_end().parse::<Epoch>().is_ok()),
    }
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
    use tjern_readings::keys::Bounds;
    use tjern_readings::reading::Reading;

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

    /// Each kind of object is known as what it is, and a page never.
    #[test]
    fn a_page_is_no_object_of_a_lake() {
        let (source, epoch) = ("mast".parse().expect("valid"), Epoch::random());
        let bounds = Bounds { first: 3, last: 3 };
        let reading = Reading::of("mast/humidity".parse().expect("valid"), 1, 1.0);
        let batch = batch::encode(&source, epoch, 3, &[reading], None).expect("encoded").0;
        let gap = b"{\"format\":1,\"first_seq\":3,\"last_seq\":3,\"reason\":\"full\",\"time_us\":1}\n";
        let kinds: [(Option<Landed>, Vec<u8>); 5] = [
            (Some(Landed::Batch(epoch, bounds)), batch.to_vec()),
            (Some(Landed::Gap(epoch, bounds)), gap.to_vec()),
            (Some(Landed::Closed(epoch)), b"3\n".to_vec()),
            (Some(Landed::Configuration("ab".repeat(32))), b"version = 1\n".to_vec()),
            (None, format!("{epoch}\n").into_bytes()),
        ];
        for (landed, object) in &kinds {
            assert!(is_object(landed.as_ref(), object), "{landed:?}");
            for page in [b"<html>log in</html>".as_slice(), b"{\"error\":\"log in\"}", b""] {
                assert!(!is_object(landed.as_ref(), page), "{landed:?}");
            }
        }
    }
}
