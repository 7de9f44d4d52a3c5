//! Whether a store refuses to create an object where one is.
//!
//! On that word stands that no two commits of a Delta log have one number, and no two gateways one batch:
//! a store that overlooks `If-None-Match: *` loses rows as soon as two write at once, without an error. So
//! whoever writes to a lake puts one object twice before it does anything else, and the second put must
//! fail. The object stays: from then on the first put is the second one, and the proof costs one request.

use object_store::path::Path;
use object_store::{Error, ObjectStore, PutMode, PutPayload};

use super::{LakeUrl, Store, hint};

/// What stands in the object, for people who find it.
const TEXT: &[u8] = b"Tjern creates this object a second time at each start, which the store has to refuse.\n";

/// Why a lake is not written to.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// The second create was taken.
    #[error(
        "the store of the lake `{lake}` does not refuse to create `{key}` a second time: two who write at once would overwrite one another's batches and commits; hint: use a store that honours `If-None-Match: *` (and set no AWS_CONDITIONAL_PUT), or a folder on a disk"
    )]
    NotCreateOnly {
        /// Which lake.
        lake: LakeUrl,
        /// Which object.
        key: Path,
    },
    /// It is open, since the store failed.
    #[error("cannot find out whether the store of the lake `{lake}` refuses a second create of `{key}`: {source}{}", .hint.map_or_else(String::new, |hint| format!("; hint: {hint}")))]
    Open {
        /// Which lake.
        lake: LakeUrl,
        /// Which object.
        key: Path,
        /// What can be done, where that is known.
        hint: Option<&'static str>,
        /// Why.
        source: Box<Error>,
    },
}

impl Store {
    /// Finds out that the store refuses to create an object where one is. Costs two puts the first
    /// time, one put ever after; returns how many it were.
    ///
    /// # Errors
    /// [`ProofError::NotCreateOnly`] where it does not, [`ProofError::Open`] where that could not be
    /// found out.
    pub async fn prove_create_only(&self, key: &Path) -> Result<u64, ProofError> {
        for puts in 1..=2 {
            let put = self.objects().put_opts(key, PutPayload::from_static(TEXT), PutMode::Create.into()).await;
            match put {
                Ok(_) => {}
                Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => return Ok(puts),
                // The environment switched it off.
                Err(Error::NotImplemented { .. }) => break,
                Err(source) => {
                    let (lake, key, hint) = (self.url().clone(), key.clone(), hint(&source));
                    return Err(ProofError::Open { lake, key, hint, source: Box::new(source) });
                }
            }
        }
        Err(ProofError::NotCreateOnly { lake: self.url().clone(), key: key.clone() })
    }
}
