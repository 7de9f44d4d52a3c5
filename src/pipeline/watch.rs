//! `tjern pipeline watch`: the job, also on a lake that cannot be written. That is what it has to tell then.

use tjern_gateway::cli::stop_on_signals;
use tjern_lake::{LakeError, Table};
use tjern_readings::store::Store;
use tjern_readings::store::proof::ProofError;
use tokio_util::sync::CancellationToken;

use super::job::{self, JobArguments, Workplace, lake_of, refuse_unfinished};
use crate::config::City;
use crate::failure::Failure;

/// Looks once, and tells.
pub(crate) async fn execute(arguments: &JobArguments) -> Result<(), Failure> {
    let place = job::or_line("watch", arguments, open(arguments)).await?;
    job::run_all(job::named(&place, "watch"), &place, arguments.json).await
}

async fn open(arguments: &JobArguments) -> Result<Workplace, Failure> {
    let (city, lake) = lake_of(City::load(&arguments.config)?, arguments.personal, Store::open_with)?;
    let stop = CancellationToken::new();
    stop_on_signals(&stop).map_err(Failure::failed)?;
    refuse_unfinished(&lake).await?;
    match Table::create_all(&lake).await {
        Ok(()) => {}
        Err(LakeError::Proof(proof)) if matches!(*proof, ProofError::NotCreateOnly { .. }) => {
            return Err(Failure::failed(proof));
        }
        Err(error) => tracing::warn!("the lake cannot be written, and is looked at all the same: {error}"),
    }
    Ok(Workplace { city, lake, stop })
}
