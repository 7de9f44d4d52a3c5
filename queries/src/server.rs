//! Both listeners, bound before anything else starts, and ended together.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use tjern_connections::serve;
use tjern_lake::Versions;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::http::metrics::{Metrics, count};
use crate::http::staff::Office;
use crate::http::{Commits, Face, public, reply, staff};
use crate::looks::Looks;
use crate::settings::ServerSettings;
use crate::told::Told;
use crate::told::listener::{Listener, Patience};
use crate::workshop::Workshop;

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The port cannot be had.
    #[error("cannot listen on {address} (`[serve] {which}`): {source}; hint: {}", bind_hint(source))]
    Bind {
        /// Which address.
        address: SocketAddr,
        /// Which of the two it is: `public` or `staff`.
        which: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The system gives no threads.
    #[error("cannot start the threads that answer SQL: {0}; hint: allow the process more threads (`ulimit -u`)")]
    Threads(#[source] io::Error),
    /// The pipeline cannot be asked.
    #[error("cannot make a client that asks `[serve] pipeline`: {0}; hint: can the system's certificates be read?")]
    Client(#[source] reqwest::Error),
}

fn bind_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "another program uses the port: end it, or choose another port",
        io::ErrorKind::PermissionDenied => "ports below 1024 need a privilege: choose a higher one",
        io::ErrorKind::AddrNotAvailable => "this machine does not have the address: choose one that it has",
        _ => "choose another address",
    }
}

/// A server whose ports are taken, and which answers once it runs.
#[derive(Debug)]
pub struct Server {
    public: TcpListener,
    staff: TcpListener,
    public_address: SocketAddr,
    staff_address: SocketAddr,
    settings: ServerSettings,
    workshop: Workshop,
    told: Option<Told>,
    listener: Option<Listener>,
}

impl Server {
    /// Takes both ports. Nothing is answered yet.
    ///
    /// # Errors
    /// [`ServeError`].
    pub async fn bind(settings: ServerSettings) -> Result<Self, ServeError> {
        let (public, public_address) = listen(settings.public, "public").await?;
        let (staff, staff_address) = listen(settings.staff, "staff").await?;
        let workshop = Workshop::start().map_err(ServeError::Threads)?;
        // Of a pipeline in this process all is known.
        let told = settings.pipeline.clone().filter(|_| !settings.shares_pipeline).map(Told::by);
        let listener = told.clone().map(Listener::new).transpose().map_err(ServeError::Client)?;
        Ok(Self { public, staff, public_address, staff_address, settings, workshop, told, listener })
    }

    /// Where residents' pages and open data are.
    #[must_use]
    pub const fn public_address(&self) -> SocketAddr {
        self.public_address
    }

    /// Where the staff's SQL and metrics are.
    #[must_use]
    pub const fn staff_address(&self) -> SocketAddr {
        self.staff_address
    }

    /// What the pipeline has told last, empty while it tells nothing; `None` where it is not asked.
    #[must_use]
    pub fn told(&self) -> Option<watch::Receiver<Versions>> {
        self.told.as_ref().map(Told::versions)
    }

    /// Answers until `stop`; then open connections have [`GOODBYE_MAX`](tjern_connections::limits::GOODBYE_MAX) to end.
    pub async fn run(self, stop: CancellationToken) {
        let is_cloud = self.settings.lake.store().url().local_folder().is_none();
        if is_cloud && !self.settings.shares_pipeline && self.told.is_none() {
            tracing::info!(
                "the store is asked for commits; hint: `[serve] pipeline` makes that cheaper, and answers newer"
            );
        }
        let (public, staff) = routers(&self.settings, self.workshop, self.told.as_ref());
        let listening = async {
            if let Some(listener) = self.listener {
                listener.listen(Patience::SERVER, stop.clone()).await;
            }
        };
        tokio::join!(serve(self.public, public, stop.clone()), serve(self.staff, staff, stop.clone()), listening);
    }
}

async fn listen(address: SocketAddr, which: &'static str) -> Result<(TcpListener, SocketAddr), ServeError> {
    let refused = |source| ServeError::Bind { address, which, source };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let bound = listener.local_addr().map_err(refused)?;
    Ok((listener, bound))
}

fn routers(settings: &ServerSettings, workshop: Workshop, told: Option<&Told>) -> (Router, Router) {
    let (lake, timezone) = (&settings.lake, &settings.timezone);
    let metrics = Metrics::new(Arc::clone(&settings.metrics));
    let commits = Commits { told: told.cloned(), are_shared: settings.shares_pipeline };
    let looks = match (lake.store().url().local_folder(), settings.shares_pipeline) {
        (Some(_), _) => Looks::Free,
        (None, true) => Looks::Shared,
        (None, false) => Looks::Billed,
    };
    let face = Face {
        engine: Arc::new(Engine::public(lake.clone(), looks, timezone.clone()).with_told(told)),
        timezone: settings.timezone.clone(),
        simulated: settings.simulated,
    };
    let office = Office {
        engine: Arc::new(Engine::staff(lake.clone(), looks, timezone.clone(), workshop).with_told(told)),
        tokens: settings.tokens.clone(),
        metrics: metrics.clone(),
        commits,
        status: settings.status.clone(),
    };
    let dressed = |router: Router, listener: &'static str| {
        router.layer(from_fn(reply::guard)).layer(from_fn_with_state((metrics.clone(), listener), count))
    };
    (dressed(public::router(face), "public"), dressed(staff::router(office), "staff"))
}
