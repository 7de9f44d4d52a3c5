//! What the server is told: the `[serve]` section of `tjern.toml`, and the settings made of it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use jiff::tz::TimeZone;
use prometheus_client::registry::Registry;
use serde::Deserialize;
use tjern_lake::Lake;
use tjern_readings::store::LakeUrl;

use crate::tokens::Tokens;
use crate::told::address::PipelineAddress;

/// The section `[serve]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServeConfig {
    /// Where residents' pages and open data are.
    pub public: SocketAddr,
    /// Where the staff's SQL and metrics are.
    pub staff: SocketAddr,
    /// The file with the staff's tokens.
    pub tokens: Option<PathBuf>,
    /// Where the pipeline of another process tells of its commits; nobody is asked where it is left out.
    pub pipeline: Option<PipelineAddress>,
    /// The lake of personal readings. Its place is kept; nothing is served from it yet (docs/personal.md).
    pub personal_lake: Option<LakeUrl>,
}

impl Default for ServeConfig {
    fn default() -> Self {
        let here = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self { public: here(8080), staff: here(8081), tokens: None, pipeline: None, personal_lake: None }
    }
}

/// Metrics of the whole process: whoever has some adds them before the server runs, or at any time.
pub type SharedRegistry = Arc<Mutex<Registry>>;

/// What other parts of the process say of themselves in the staff's `/health`.
pub type StatusHook = Arc<dyn Fn() -> serde_json::Value + Send + Sync>;

/// Everything that a server needs.
#[derive(Clone)]
pub struct ServerSettings {
    /// The lake whose tables are shown.
    pub lake: Lake,
    /// The city's time zone.
    pub timezone: TimeZone,
    /// Where residents' pages and open data are; port 0 takes a free one.
    pub public: SocketAddr,
    /// Where the staff's SQL and metrics are; port 0 takes a free one.
    pub staff: SocketAddr,
    /// Who may ask SQL.
    pub tokens: Tokens,
    /// Whether the values are simulated: the pages say so.
    pub simulated: bool,
    /// The process's metrics, which `/metrics` shows together with the server's own.
    pub metrics: SharedRegistry,
    /// Whether the pipeline works in this process, on a clone of this lake: then what it commits is known without a look.
    pub shares_pipeline: bool,
    /// Where the pipeline tells of its commits; not asked where it works in this process.
    pub pipeline: Option<PipelineAddress>,
    /// What else `/health` on the staff listener says, under `parts`.
    pub status: Option<StatusHook>,
}

impl ServerSettings {
    /// The settings of a configuration; nothing is simulated, nobody adds metrics or a status.
    #[must_use]
    pub fn new(lake: Lake, timezone: TimeZone, serve: &ServeConfig, tokens: Tokens) -> Self {
        Self {
            lake,
            timezone,
            public: serve.public,
            staff: serve.staff,
            tokens,
            simulated: false,
            metrics: SharedRegistry::default(),
            shares_pipeline: false,
            pipeline: serve.pipeline.clone(),
            status: None,
        }
    }
}

impl std::fmt::Debug for ServerSettings {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("ServerSettings")
            .field("public", &self.public)
            .field("staff", &self.staff)
            .field("tokens", &self.tokens)
            .field("pipeline", &self.pipeline)
            .field("simulated", &self.simulated)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_on_loopback_and_closed() {
        let said = |text| serde_json::from_str::<ServeConfig>(text);
        let serve = said("{}").expect("all of it has defaults");
        assert_eq!(
            (serve.public.to_string(), serve.staff.to_string()),
            ("127.0.0.1:8080".into(), "127.0.0.1:8081".into())
        );
        assert_eq!(serve.tokens, None);
        assert!(said(r#"{"pubic": "127.0.0.1:1"}"#).expect_err("unknown").to_string().contains("`public`"));
        assert!(said(r#"{"public": "8080"}"#).is_err() && said(r#"{"pipeline": "127.0.0.1:8082"}"#).is_err());
    }
}
