//! `tjern pipeline validate`: a person answers for a sensor's readings of a period.

use clap::Args;
use tjern_pipeline::bounds::Bounds;
use tjern_pipeline::validate::validate_within;

use super::change::{self, AuthorArguments, LakeArguments, PeriodArguments};
use super::job::Workplace;
use crate::failure::Failure;
use tjern_gateway::say;

/// What `validate` is told.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tjern pipeline validate --sensor landfalltjern/water_temperature --from 2026-06-01 --to 2026-07-01 \\\n      \
    --by \"the bathing water office\" --config tjern.toml\n\n\
    The readings' `level` becomes 2; values and flags stay. Who, when and why stands in the commit, and in `corrections/` of\n\
    the lake. A correction that comes later is raw again. What quality control has not looked at is refused: run\n\
    `tjern pipeline quality`, look at the flags, then validate. Where quality control, an erasure or another validation is\n\
    at work it waits for its turn, ten minutes at most.\n\n\
    Exit status: 0 done (also with nothing to do), 1 failed, or there is no reading, or one that is not tested, 2 wrong usage or configuration."
)]
pub(crate) struct ValidateArguments {
    #[command(flatten)]
    period: PeriodArguments,
    /// Take it back: the readings are provisional (level 1) again
    #[arg(long)]
    undo: bool,
    #[command(flatten)]
    author: AuthorArguments,
    #[command(flatten)]
    lake: LakeArguments,
}

/// Validates a sensor's readings.
pub(crate) async fn execute(arguments: &ValidateArguments) -> Result<(), Failure> {
    let author = arguments.author.author()?;
    let Workplace { city, lake, stop } = change::open(&arguments.lake).await?;
    let period = arguments.period.period(&city.timezone)?;
    let bounds = Bounds::from(&city.jobs.compact);
    let working = Box::pin(validate_within(&lake, &period, &author, arguments.undo, &bounds, &stop));
    let outcome = working.await.map_err(Failure::failed)?;
    if outcome.readings == 0 {
        return Err(Failure::failed(format!("validate: `{}` has no reading in this period", period.sensor)));
    }
    let level = if arguments.undo { "taken back" } else { "validated" };
    say!(
        "validate: of {} readings {} were {level}, the others were so before; {} of them have no good value",
        outcome.readings,
        outcome.changed,
        outcome.failed
    );
    Ok(())
}
