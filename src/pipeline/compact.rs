//! `tjern pipeline compact`: the job, with a bar in a terminal.

use std::io::IsTerminal;

use tjern_pipeline::jobs::list::Compact;

use super::job::{self, JobArguments};
use crate::failure::Failure;
use crate::progress::Bar;

/// In a terminal how far it is is drawn; elsewhere the job says it in the log.
pub(crate) async fn execute(arguments: &JobArguments) -> Result<(), Failure> {
    let place = job::open_for("compact", arguments).await?;
    let mut chosen = job::named(&place, "compact");
    if std::io::stderr().is_terminal() {
        for entry in &mut chosen {
            let mut bar = Bar::new();
            entry.job = Box::new(Compact::watched(place.city.jobs.compact.clone(), move |now| {
                bar.show(now.done, now.total, &format!("merge {} of {}", now.merge, now.merges));
            }));
        }
    }
    job::run_all(chosen, &place, arguments.json).await
}
