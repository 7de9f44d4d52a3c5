//! A master's end of a line in memory.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::sync::mpsc;

use crate::modbus::pacer::{Order, Pacer, Sent};
use crate::modbus::wire::now;

/// What the masters read and write, and how much of it waits to be read: as a kernel knows it of a port.
#[derive(Debug, Clone)]
pub(crate) struct Pipe {
    stream: Arc<Mutex<DuplexStream>>,
    unread: Arc<AtomicUsize>,
}

impl Pipe {
    pub(super) fn new(stream: DuplexStream, unread: Arc<AtomicUsize>) -> Self {
        Self { stream: Arc::new(Mutex::new(stream)), unread }
    }

    fn with<T>(&self, act: impl FnOnce(Pin<&mut DuplexStream>) -> T) -> T {
        act(Pin::new(&mut self.stream.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// What the line's thread does, by a task that sleeps on the runtime's clock.
    pub(in crate::modbus) fn pacer(&self) -> Pacer {
        let (pacer, orders) = Pacer::in_memory();
        tokio::spawn(self.clone().serve(orders));
        pacer
    }

    async fn serve(self, mut orders: mpsc::Receiver<Order>) {
        while let Some(Order { frame, at, reply }) = orders.recv().await {
            tokio::time::sleep_until(at.into()).await;
            let sent = if reply.is_closed() || self.unread.load(Ordering::Relaxed) > 0 {
                Ok(Sent::NotSilent)
            } else {
                let written = self.with(|mut stream| stream.write_all(&frame).now_or_never());
                written.unwrap_or_else(|| Err(io::ErrorKind::WouldBlock.into())).map(|()| Sent::At(now()))
            };
            let _ = reply.send(sent);
        }
    }
}

impl AsyncRead for Pipe {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = self.with(|stream| stream.poll_read(context, buffer));
        self.unread.fetch_sub(buffer.filled().len() - before, Ordering::Relaxed);
        polled
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.with(|stream| stream.poll_write(context, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|stream| stream.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|stream| stream.poll_shutdown(context))
    }
}
