//! Connections within bounds: so many at once, none that stands still, none for ever.
//!
//! The HTTP library has no clock of its own here, so the bounds are kept below it: a connection that
//! moves no byte in either direction for [`limits::CONNECTION_IDLE_MAX`], or is older than
//! [`limits::CONNECTION_AGE_MAX`], fails with `TimedOut`.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

use crate::limits;

/// A pause after the system refused a connection: it has no more files for us.
const REFUSED_PAUSE: Duration = Duration::from_millis(200);

/// Accepts connections up to a bound.
pub(crate) struct BoundedListener {
    listener: TcpListener,
    places: Arc<Semaphore>,
}

impl BoundedListener {
    pub(crate) fn new(listener: TcpListener) -> Self {
        Self { listener, places: Arc::new(Semaphore::new(limits::CONNECTIONS_MAX)) }
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
                    // A page is one answer: waiting to fill a packet only makes it later.
                    let _ = stream.set_nodelay(true);
                    let (idle_max, age_max) = (limits::CONNECTION_IDLE_MAX, limits::CONNECTION_AGE_MAX);
                    return (Connection::new(stream, idle_max, age_max, Some(place)), peer);
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

/// A connection with its place among the others, and its time.
pub(crate) struct Connection<S> {
    stream: S,
    idle_max: Duration,
    ends: Instant,
    alarm: Pin<Box<Sleep>>,
    _place: Option<OwnedSemaphorePermit>,
}

impl<S> Connection<S> {
    fn new(stream: S, idle_max: Duration, age_max: Duration, place: Option<OwnedSemaphorePermit>) -> Self {
        let now = Instant::now();
        let alarm = Box::pin(tokio::time::sleep_until(now + idle_max));
        Self { stream, idle_max, ends: now + age_max, alarm, _place: place }
    }

    /// What moved moves the alarm; what stands still waits for it.
    fn watch<T>(&mut self, context: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            let next = (Instant::now() + self.idle_max).min(self.ends);
            self.alarm.as_mut().reset(next);
            return polled;
        }
        match self.alarm.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }

    fn expired(&self) -> bool {
        Instant::now() >= self.ends
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.expired() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let polled = Pin::new(&mut this.stream).poll_read(context, into);
        this.watch(context, polled)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write(context, bytes);
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

    #[tokio::test]
    async fn a_connection_that_stands_still_is_ended() {
        let (_client, server) = tokio::io::duplex(64);
        let idle_max = Duration::from_millis(50);
        let began = Instant::now();
        let error = Connection::new(server, idle_max, LONG, None).read_u8().await.expect_err("nothing came");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() >= idle_max);
    }

    #[tokio::test]
    async fn one_byte_now_and_then_does_not_hold_a_place_for_ever() {
        let (mut client, server) = tokio::io::duplex(64);
        let mut connection = Connection::new(server, LONG, Duration::from_millis(50), None);
        let began = Instant::now();
        loop {
            client.write_u8(b'x').await.expect("the other end is open");
            if let Err(error) = connection.read_u8().await {
                assert_eq!(error.kind(), io::ErrorKind::TimedOut);
                break;
            }
            assert!(began.elapsed() < LONG, "it was never ended");
        }
    }
}
