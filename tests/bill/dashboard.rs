//! The server that answers queries, and a dashboard that asks it over HTTP.

use std::net::SocketAddr;

use jiff::tz::TimeZone;
use tjern_lake::{Lake, TableName, Versions};
use tjern_pipeline::jobs::{Door, States};
use tjern_queries::{PipelineAddress, ServeConfig, Server, ServerSettings, Tokens};
use tjern_readings::store::RequestCounts;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::place::Place;

/// Where the server that answers queries runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Serving {
    /// In the process of the pipeline.
    Together,
    /// In a process of its own, which the pipeline tells of its commits.
    Told,
    /// In a process of its own, which asks the store.
    Apart,
}

/// The daemon's listener over a lake.
pub(crate) struct Daemon {
    pub(crate) address: SocketAddr,
    _telling: AbortOnDropHandle<()>,
}

impl Daemon {
    pub(crate) async fn of(pipeline: &Lake) -> Self {
        let door = Door::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a port");
        let address = door.address();
        let telling = door.run(States::default(), pipeline.clone(), TableName::ALL.to_vec(), CancellationToken::new());
        Self { address, _telling: AbortOnDropHandle::new(tokio::spawn(telling)) }
    }
}

/// A server, and a dashboard that asks it.
pub(crate) struct Dashboard {
    lake: Lake,
    address: SocketAddr,
    told: Option<watch::Receiver<Versions>>,
    _serving: AbortOnDropHandle<()>,
    _daemon: Option<Daemon>,
}

impl Dashboard {
    pub(crate) async fn open(place: &Place, pipeline: &Lake, serving: Serving) -> Self {
        match serving {
            Serving::Together => Self::serve(pipeline.clone(), true, None).await,
            Serving::Apart => Self::serve(place.lake(), false, None).await,
            Serving::Told => {
                let daemon = Daemon::of(pipeline).await;
                let dashboard = Self::told_by(place.lake(), daemon.address).await;
                Self { _daemon: Some(daemon), ..dashboard }
            }
        }
    }

    /// A server that is told by whoever is at this address.
    pub(crate) async fn told_by(lake: Lake, pipeline: SocketAddr) -> Self {
        Self::serve(lake, false, Some(format!("http://{pipeline}").parse().expect("an address"))).await
    }

    async fn serve(lake: Lake, shares_pipeline: bool, pipeline: Option<PipelineAddress>) -> Self {
        let here = SocketAddr::from(([127, 0, 0, 1], 0));
        let serve = ServeConfig { public: here, staff: here, pipeline, ..ServeConfig::default() };
        let mut settings = ServerSettings::new(lake.clone(), TimeZone::UTC, &serve, Tokens::default());
        settings.shares_pipeline = shares_pipeline;
        let server = Server::bind(settings).await.expect("bound");
        let (address, told) = (server.public_address(), server.told());
        let serving = tokio::spawn(server.run(CancellationToken::new()));
        Self { lake, address, told, _serving: AbortOnDropHandle::new(serving), _daemon: None }
    }

    /// Waits until the server was told these versions, where it is told at all: how long that takes is the machine's
    /// business, and no time passes meanwhile.
    pub(crate) async fn hears(&mut self, versions: &Versions) {
        if let Some(told) = &mut self.told {
            told.wait_for(|told| told == versions).await.expect("the server runs");
        }
    }

    /// What the dashboard shows, and what it cost.
    pub(crate) async fn ask(&self) -> (String, RequestCounts) {
        let before = self.lake.store().requests();
        let mut stream = TcpStream::connect(self.address).await.expect("somebody listens");
        let request = format!("GET /api/latest HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address);
        stream.write_all(request.as_bytes()).await.expect("asked");
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.expect("answered");
        assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
        (reply, self.lake.store().requests().since(&before))
    }

    /// Whether the dashboard shows a reading of this time.
    pub(crate) async fn shows(&self, time_us: i64) -> bool {
        let time = jiff::Timestamp::from_microsecond(time_us).expect("a time");
        self.ask().await.0.contains(&time.to_string())
    }
}
