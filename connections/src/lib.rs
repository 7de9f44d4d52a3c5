//! The connections of every HTTP listener, within bounds: so many at once, so many of one peer, none that
//! stands still, none for ever.
//!
//! [`serve`] answers on a listener until it is told to end. The HTTP library has no clock of its own here, so
//! the bounds are kept below it: a connection that moves no byte in either direction for [`limits::CONNECTION_IDLE_MAX`], is older than
//! [`limits::CONNECTION_AGE_MAX`], or has not sent the head of its request within
//! [`limits::HEAD_TIME_MAX`], fails with `TimedOut`.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;

use self::head::Heads;
use self::peers::{PeerPlace, Peers};

mod head;
pub mod limits;
mod peers;

/// A pause after the system refused a connection: it has no more files for us.
const REFUSED_PAUSE: Duration = Duration::from_millis(200);

/// Answers until `stop`; then open connections have [`limits::GOODBYE_MAX`] to end.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let served =
        axum::serve(BoundedListener::new(listener), router).with_graceful_shutdown(stop.clone().cancelled_owned());
    let patience = async {
        stop.cancelled().await;
        tokio::time::sleep(limits::GOODBYE_MAX).await;
    };
    // The library's own end waits for whoever has sent half a head.
    tokio::select! {
        ended = served.into_future() => if let Err(error) = ended {
            tracing::error!(%error, "the listener has ended");
        },
        () = patience => tracing::info!("connections were still open when the listener ended"),
    }
}

/// Accepts connections up to a bound.
struct BoundedListener {
    listener: TcpListener,
    places: Arc<Semaphore>,
    peers: Arc<Peers>,
}

impl BoundedListener {
    fn new(listener: TcpListener) -> Self {
        Self { listener, places: Arc::new(Semaphore::new(limits::CONNECTIONS_MAX)), peers: Arc::default() }
    }
}

impl Listener for BoundedListener {
    type Io = Connection<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let place = match Arc::clone(&self.places).acquire_owned().await {
                Ok(place) => place,
                // Nobody closes the semaphore; if it were closed, no connection would be accepted again.
                Err(_) => std::future::pending().await,
            };
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    let Some(peer_place) = self.peers.admit(peer.ip()) else {
                        tracing::debug!(%peer, "the peer holds too many connections already");
                        continue;
                    };
                    // A page is one answer: waiting to fill a packet only makes it later.
                    let _ = stream.set_nodelay(true);
                    return (Connection::new(stream, Patience::LISTENER, Some((place, peer_place))), peer);
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(REFUSED_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// How long a connection is waited for.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// For a byte.
    idle_max: Duration,
    /// For the head of a request.
    head_max: Duration,
    /// For everything.
    age_max: Duration,
}

impl Patience {
    const LISTENER: Self = Self {
        idle_max: limits::CONNECTION_IDLE_MAX,
        head_max: limits::HEAD_TIME_MAX,
        age_max: limits::CONNECTION_AGE_MAX,
    };
}

/// A connection's place among all, and among its peer's.
type Place = (OwnedSemaphorePermit, PeerPlace);

/// A connection with its place, and its time.
struct Connection<S> {
    stream: S,
    patience: Patience,
    heads: Heads,
    /// When the head that is owed is late.
    head_ends: Instant,
    ends: Instant,
    alarm: Pin<Box<Sleep>>,
    _place: Option<Place>,
}

impl<S> Connection<S> {
    fn new(stream: S, patience: Patience, place: Option<Place>) -> Self {
        let now = Instant::now();
        let head_ends = now + patience.head_max;
        let alarm = Box::pin(tokio::time::sleep_until(head_ends.min(now + patience.idle_max)));
        Self { stream, patience, heads: Heads::new(), head_ends, ends: now + patience.age_max, alarm, _place: place }
    }

    /// What moved moves the alarm; what stands still waits for it.
    fn watch<T>(&mut self, context: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            let next = Instant::now() + self.patience.idle_max;
            let ends = self.ends();
            self.alarm.as_mut().reset(next.min(ends));
            return polled;
        }
        match self.alarm.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }

    fn ends(&self) -> Instant {
        if self.heads.is_owed() { self.head_ends.min(self.ends) } else { self.ends }
    }

    fn expired(&self) -> bool {
        Instant::now() >= self.ends()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.expired() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = into.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(context, into);
        if this.heads.came(&into.filled()[before..]) {
            this.head_ends = Instant::now() + this.patience.head_max;
        }
        this.watch(context, polled)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write(context, bytes);
        if matches!(polled, Poll::Ready(Ok(1..))) {
            this.heads.answered();
        }
        this.watch(context, polled)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(50);
    const PATIENT: Patience = Patience { idle_max: LONG, head_max: LONG, age_max: LONG };

    #[tokio::test]
    async fn a_connection_that_stands_still_is_ended() {
        let (_client, server) = tokio::io::duplex(64);
        let patience = Patience { idle_max: SHORT, ..PATIENT };
        let began = Instant::now();
        let error = Connection::new(server, patience, None).read_u8().await.expect_err("nothing came");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() >= SHORT);
    }

    #[tokio::test]
    async fn one_byte_now_and_then_does_not_hold_a_place_for_ever() {
        let (mut client, server) = tokio::io::duplex(64);
        let began = Instant::now();
        let mut connection = Connection::new(server, Patience { age_max: SHORT, ..PATIENT }, None);
        loop {
            client.write_u8(b'x').await.expect("the other end is open");
            if let Err(error) = connection.read_u8().await {
                assert_eq!(error.kind(), io::ErrorKind::TimedOut);
                break;
            }
            assert!(began.elapsed() < LONG, "it was never ended");
        }
    }

    /// Half requests, a letter now and then, must not take all places.
    #[tokio::test]
    async fn the_head_of_a_request_comes_in_time() {
        let (mut client, server) = tokio::io::duplex(64);
        let began = Instant::now();
        let mut connection = Connection::new(server, Patience { head_max: SHORT, ..PATIENT }, None);
        let error = loop {
            client.write_u8(b'x').await.expect("the other end is open");
            if let Err(error) = connection.read_u8().await {
                break error;
            }
            assert!(began.elapsed() < LONG, "it was never ended");
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() >= SHORT);
    }

    /// Whoever has asked waits for the answer as long as before; then the next head is to come in time.
    #[tokio::test]
    async fn a_whole_head_is_waited_for_no_more() {
        let (mut client, server) = tokio::io::duplex(64);
        let patience = Patience { idle_max: SHORT * 4, head_max: SHORT, ..PATIENT };
        let mut connection = Connection::new(server, patience, None);
        let head = b"GET / HTTP/1.1\r\n\r\n";
        let mut read = [0; 18];
        let asked = Instant::now();
        client.write_all(head).await.expect("the other end is open");
        connection.read_exact(&mut read).await.expect("a head");
        connection.read_u8().await.expect_err("nothing comes");
        assert!(asked.elapsed() >= patience.idle_max, "it was waited for a head that was there");

        connection.patience.idle_max = LONG;
        connection.write_all(b"answer").await.expect("it took its time");
        client.write_all(b"GET").await.expect("the other end is open");
        connection.read_exact(&mut read[..3]).await.expect("half a head");
        let half = Instant::now();
        let error = connection.read_u8().await.expect_err("nothing more comes");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(half.elapsed() < LONG / 2, "half a head held the place");
    }
}
