//! A lost table `readings` made anew as it was: readings, corrections and people's words in the order in which they came.
//!
//! Before a correction is made again, what had landed by its time is taken, and nothing later; before a validation
//! is, quality control looks at what is there. So nobody is made to answer for readings that came after their word, and flags
//! that a person saw stand again: what failed is not validated as if nobody had tested it. At the end all the rest is
//! taken and judged.
//!
//! Limits: of when a reading came nothing is left but when its batch landed, as the store tells it. A reading that had landed
//! and was not ingested yet when somebody validated its period counts as seen. Where landed batches were copied back, all
//! of them landed after everything: no validation is made again then, each is told, and recomputations are made of all
//! readings. A validation after a revision of the same readings is not made again either: the value that it was of is
//! not there. Rules and register are those of today.

use tjern_lake::{Lake, LakeError};
use tokio_util::sync::CancellationToken;

use crate::bounds::Bounds;
use crate::correct::CorrectError;
use crate::correct::again::{MadeAgain, Pending, pending};
use crate::correct::recompute::Formulas;
use crate::ingest::replay::{ReplayError, Replaying, finish, made_until_us, note_made};
use crate::ingest::{IngestOutcome, IngestSettings};
use crate::quality::{ControlError, control_within};

/// What was done.
#[derive(Debug, Clone, Default)]
pub struct Replayed {
    /// What was taken.
    pub ingested: IngestOutcome,
    /// What became of each correction.
    pub corrections: Vec<(Pending, MadeAgain)>,
}

/// Why not everything was replayed. What was done stays so, and the next run goes on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayInOrderError {
    /// Readings were not taken.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The lake failed.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// A correction was not made again.
    #[error(transparent)]
    Correct(#[from] CorrectError),
    /// Readings were not tested.
    #[error(transparent)]
    Quality(#[from] ControlError),
    /// Another process is at it.
    #[error("another process makes quality control in this lake; hint: stop `tjern pipeline run`, then run it again")]
    Busy,
}

/// Makes the formulas of a recomputation's record; none where it cannot be read.
pub type FormulasOf<'a> = &'a (dyn Fn(&Pending) -> Option<Box<dyn Formulas>> + Send + Sync);

/// Who is told of each correction as soon as something became of it.
pub type ToldOf<'a> = &'a (dyn Fn(&Pending, &MadeAgain) + Send + Sync);

/// Builds `readings` anew, to the end.
///
/// # Errors
/// [`ReplayInOrderError`].
pub async fn replay_in_order(
    lake: &Lake,
    settings: &IngestSettings,
    bounds: &Bounds,
    formulas: FormulasOf<'_>,
    made: ToldOf<'_>,
    told: impl FnMut(&IngestOutcome) + Send + Sync + 'static,
) -> Result<Replayed, ReplayInOrderError> {
    let Some(replaying) = Replaying::begin(lake, settings, bounds, told).await? else { return Ok(Replayed::default()) };
    let made_us = made_until_us(lake).await?;
    let all = pending(lake).await?;
    // One that went on where it broke off may have rows that nobody has looked at.
    let (is_unjudged, older, revisions, acceptances) = (true, Vec::new(), Vec::new(), Vec::new());
    let work = Work { lake, bounds, formulas, made, replaying, made_us, is_unjudged, older, revisions, acceptances };
    let replayed = Box::pin(work.all(all)).await?;
    finish(lake).await?;
    Ok(replayed)
}

/// What becomes of a revision, with the recomputations of its readings that came after it: made again before it, they are under it once
/// somebody revises by its file.
fn with_what_follows(one: &Pending, became: MadeAgain, later: &[Pending]) -> MadeAgain {
    let MadeAgain::Not(why) = &became else { return became };
    let again = later.iter().filter(|other| one.is_revision() && other.is_recomputation() && one.may_revise(other));
    let again: Vec<String> = again.map(|other| format!("{} of {}", other.id, other.at)).collect();
    if again.is_empty() {
        return became;
    }
    let again = again.join(", ");
    MadeAgain::Not(format!(
        "{why}, and then recompute again what was recomputed after it ({again}): the revision stands over that else"
    ))
}

struct Work<'a> {
    lake: &'a Lake,
    bounds: &'a Bounds,
    formulas: FormulasOf<'a>,
    made: ToldOf<'a>,
    replaying: Replaying,
    /// Corrections of up to then were made by a run that broke off.
    made_us: i64,
    /// Whether rows came that quality control has not looked at.
    is_unjudged: bool,
    /// Recomputations from before everything that lies in the landing zone.
    older: Vec<Pending>,
    /// Revisions that were not made.
    revisions: Vec<Pending>,
    /// What people said of configurations that never come. It holds for good and of whatever comes, so it is said of all that
    /// lies there, and not of what had landed by then: that may have left.
    acceptances: Vec<Pending>,
}

impl Work<'_> {
    async fn all(mut self, all: Vec<Pending>) -> Result<Replayed, ReplayInOrderError> {
        let mut corrections = Vec::new();
        for (place, one) in all.iter().enumerate() {
            let became = match self.not_made(one) {
                Some(why) => Some(MadeAgain::Not(why.to_owned())),
                None => self.one(one, &mut corrections).await?,
            };
            if let Some(became) = became {
                let became = with_what_follows(one, became, &all[place + 1..]);
                (self.made)(one, &became);
                corrections.push((one.clone(), became));
            }
        }
        self.replaying.take_all().await?;
        self.is_unjudged = true;
        self.older.append(&mut self.acceptances);
        self.older(&mut corrections).await?;
        self.judge().await?;
        Ok(Replayed { ingested: self.replaying.outcome, corrections })
    }

    /// Why a validation cannot be made again; nothing of the others.
    fn not_made(&self, one: &Pending) -> Option<&'static str> {
        if !one.is_validation() {
            return None;
        }
        if self.revisions.iter().any(|revision| revision.may_revise(one)) {
            return Some(
                "readings of it had been revised before, and those values are not there; hint: revise by that file again, then validate again",
            );
        }
        self.is_older(one).then_some(
            "all that lies in landing/ landed after it (or was copied back since), so it is of none of these readings; hint: look at them, then validate again",
        )
    }

    /// Whether everything that lies in the landing zone came after it.
    fn is_older(&self, one: &Pending) -> bool {
        one.at_us().zip(self.replaying.oldest_us()).is_none_or(|(at_us, oldest_us)| at_us < oldest_us)
    }

    /// Makes one of what had landed by its time; none where that is done later, or was done.
    async fn one(
        &mut self,
        one: &Pending,
        corrections: &mut Vec<(Pending, MadeAgain)>,
    ) -> Result<Option<MadeAgain>, ReplayInOrderError> {
        if one.is_acceptance() {
            self.acceptances.push(one.clone());
            return Ok(None);
        }
        if one.is_revision() {
            self.revisions.push(one.clone());
        } else if self.is_older(one) {
            if one.is_recomputation() {
                self.older.push(one.clone());
                return Ok(None);
            }
        } else if let Some(at_us) = one.at_us() {
            if at_us <= self.made_us {
                return Ok(None);
            }
            self.is_unjudged |= self.replaying.take_until(at_us).await?;
            self.older(corrections).await?;
            if one.is_validation() {
                self.judge().await?;
            }
        }
        let became = self.make(one).await?;
        if let (MadeAgain::Rows(0), Some(at_us), false) = (&became, one.at_us(), self.is_older(one)) {
            note_made(self.lake, at_us).await?;
        }
        Ok(Some(became))
    }

    /// Makes what was put off, of what is there by now.
    async fn older(&mut self, corrections: &mut Vec<(Pending, MadeAgain)>) -> Result<(), ReplayInOrderError> {
        for one in std::mem::take(&mut self.older) {
            let became = self.make(&one).await?;
            (self.made)(&one, &became);
            corrections.push((one, became));
        }
        Ok(())
    }

    async fn make(&mut self, one: &Pending) -> Result<MadeAgain, ReplayInOrderError> {
        let formulas = if one.is_recomputation() { (self.formulas)(one) } else { None };
        let became = one.make(self.lake, formulas.as_deref(), self.bounds).await?;
        self.is_unjudged |= became != MadeAgain::Rows(0);
        Ok(became)
    }

    /// Brings all flags to what the tests say of the readings that are there.
    async fn judge(&mut self) -> Result<(), ReplayInOrderError> {
        while std::mem::take(&mut self.is_unjudged) {
            let outcome = control_within(self.lake, self.bounds, &CancellationToken::new()).await?;
            if outcome.held_elsewhere {
                return Err(ReplayInOrderError::Busy);
            }
            self.is_unjudged = outcome.unfinished;
        }
        Ok(())
    }
}
