//! `/versions`: at which version each table is, for a server in another process, which need not ask the store then.
//!
//! Names of tables and numbers, no data. Whoever knows a state (`after`) may wait for another one (`wait`, in seconds): the answer
//! comes as soon as there is one, and at the latest when the time is over. A state is compared, never ordered, and is
//! made of the versions alone, so a daemon that was started again hides no commit. Told is what this process has committed
//! or seen, of the tables whose commits its own jobs make or see.
//!
//! Limit: [`WAIT_MAX`]. Whoever waits holds a connection, and those are bounded.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tjern_lake::{Lake, TableName, Versions};
use tokio_util::sync::CancellationToken;

/// The longest that somebody may wait.
pub const WAIT_MAX: Duration = Duration::from_secs(30);

/// The tables whose commits are known to a daemon that leaves these jobs to others.
#[must_use]
pub fn told_tables(off: &BTreeSet<String>) -> Vec<TableName> {
    TableName::ALL.into_iter().filter(|table| known_by(*table).iter().all(|job| !off.contains(*job))).collect()
}

/// The jobs by which a daemon knows of a table's commits: the one that fills it. Who may see a sensor is in the register, and
/// may be changed by a command on another machine: there the watch looks too, every ten minutes and whatever else is at work.
const fn known_by(table: TableName) -> &'static [&'static str] {
    match table {
        TableName::Readings => &["ingest"],
        TableName::Hourly | TableName::Daily => &["rollup"],
        TableName::Sites | TableName::Sensors => &["register", "watch"],
        TableName::Installations | TableName::Events | TableName::QualityRules => &["register"],
    }
}

/// What was asked.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    /// The state that is known.
    after: Option<String>,
    /// For how many seconds another one is waited for.
    wait: Option<u64>,
}

/// Tells of versions.
#[derive(Debug)]
pub(super) struct Teller {
    lake: Lake,
    tables: Vec<TableName>,
    stop: CancellationToken,
}

impl Teller {
    pub(super) fn new(lake: Lake, tables: Vec<TableName>, stop: CancellationToken) -> Self {
        Self { lake, tables, stop }
    }

    pub(super) async fn answer(&self, asked: Result<Query<Asked>, QueryRejection>) -> Response {
        let Ok(Query(Asked { after, wait })) = asked else {
            return refused(StatusCode::BAD_REQUEST, "/versions takes after=<state> and wait=<whole seconds>\n");
        };
        let wait = Duration::from_secs(wait.unwrap_or(0));
        if wait > WAIT_MAX {
            return refused(StatusCode::BAD_REQUEST, "wait is at most 30 (seconds)\n");
        }
        let mut known = self.lake.versions();
        if let Some(after) = after.filter(|_| !wait.is_zero()) {
            let changed = known.wait_for(|versions| self.told(versions).state() != after);
            // Whoever waits does not keep the daemon from ending.
            tokio::select! {
                _ = changed => {}
                () = tokio::time::sleep(wait) => {}
                () = self.stop.cancelled() => {}
            }
        }
        let told = self.told(&known.borrow()).tell();
        let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
        (headers, told + "\n").into_response()
    }

    fn told(&self, versions: &Versions) -> Versions {
        versions.only(&self.tables)
    }
}

fn refused(status: StatusCode, text: &'static str) -> Response {
    (status, text).into_response()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::body::to_bytes;
    use tjern_lake::Table;
    use tjern_lake::versions::Telling;
    use tjern_readings::store::Store;

    use super::*;

    fn teller() -> Teller {
        let lake = Lake::over(Store::open(&"memory:///".parse().expect("a lake")).expect("opened"));
        Teller::new(lake, TableName::ALL.to_vec(), CancellationToken::new())
    }

    async fn ask(teller: &Teller, after: Option<&str>, wait: u64) -> (StatusCode, Telling) {
        let asked = Asked { after: after.map(str::to_owned), wait: Some(wait) };
        let response = teller.answer(Ok(Query(asked))).await;
        let status = response.status();
        let body = to_bytes(response.into_body(), 1 << 16).await.expect("a body");
        (status, Versions::hear(&body).unwrap_or(Telling { state: String::new(), versions: Versions::default() }))
    }

    /// In simulated time: the long wait costs none.
    #[tokio::test(start_paused = true)]
    async fn who_waits_hears_of_a_change_at_once_and_of_none_when_the_time_is_over() {
        let teller = Arc::new(teller());
        let nothing = ask(&teller, None, 0).await.1.state;
        let waiting = tokio::spawn({
            let (teller, nothing) = (Arc::clone(&teller), nothing.clone());
            async move { ask(&teller, Some(&nothing), 30).await.1 }
        });
        let began = tokio::time::Instant::now();
        Table::open_or_create(&teller.lake, TableName::Sites).await.expect("created");
        let told = waiting.await.expect("told");
        assert!(began.elapsed() < Duration::from_secs(1), "it waited on");
        assert_eq!(told.versions.get(TableName::Sites).map(|version| version.version), Some(0));
        assert_eq!(ask(&teller, Some(&nothing), 30).await.1, told, "who was away while it changed does not wait");
        assert_eq!(ask(&teller, Some(&told.state), 30).await.1, told);
        assert!(began.elapsed() >= Duration::from_secs(30), "it did not wait");
        teller.stop.cancel();
        let before = tokio::time::Instant::now();
        ask(&teller, Some(&told.state), 30).await;
        assert!(before.elapsed() < Duration::from_secs(1), "it kept the daemon from ending");
    }

    /// Who ingests from cron commits without this daemon's knowledge: to tell of that table would be to tell of old news.
    #[test]
    fn a_table_that_others_fill_is_not_told_of() {
        let off = |jobs: &[&str]| told_tables(&jobs.iter().map(|job| (*job).to_owned()).collect());
        assert_eq!(off(&["vacuum", "compact"]), TableName::ALL.to_vec());
        assert!(!off(&["ingest"]).contains(&TableName::Readings) && off(&["ingest"]).contains(&TableName::Daily));
        assert_eq!(off(&["rollup", "register"]), [TableName::Readings]);
        assert!(!off(&["watch"]).contains(&TableName::Sensors), "who may see what is looked at by nobody else");
    }

    #[tokio::test]
    async fn waiting_is_bounded() {
        let limit = WAIT_MAX.as_secs();
        assert_eq!(ask(&teller(), Some(""), limit + 1).await.0, StatusCode::BAD_REQUEST);
        assert!(WAIT_MAX < tjern_connections::limits::CONNECTION_IDLE_MAX, "who waits is cut off before the answer");
    }
}
