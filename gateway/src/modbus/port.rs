//! A serial port that outlives the clients attached to it.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::{Instant, timeout};
use tokio_serial::{ClearBuffer, DataBits, SerialPort, SerialStream, StopBits};

use crate::config::{Parity, Serial};

/// A handle on an open port; clones share it. It counts what is received, so that silence can be
/// told from an answer that was damaged.
#[derive(Debug, Clone)]
pub(crate) struct SharedPort(Arc<Mutex<Open>>);

#[derive(Debug)]
struct Open {
    stream: Box<dyn Wire>,
    received: usize,
}

/// A serial port, or what stands in for one.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Unpin + Send + std::fmt::Debug {}

impl<W: AsyncRead + AsyncWrite + Unpin + Send + std::fmt::Debug> Wire for W {}

/// Where pseudo terminals are.
const PSEUDO_TERMINALS: &str = "/dev/pts";

/// Opens a port for this process alone, and forgets what had been received on it.
pub(crate) fn open_serial(serial: &Serial) -> io::Result<SerialStream> {
    let settings =
        tokio_serial::new(&serial.port, serial.baud).data_bits(data_bits(serial)).stop_bits(stop_bits(serial));
    let stream = SerialStream::open(&settings.clone().parity(parity(serial))).or_else(|error| {
        // A pseudo terminal has no wire: it refuses what only a wire has, and 8N1 is as good there.
        let plain = settings.data_bits(DataBits::Eight).parity(tokio_serial::Parity::None);
        if is_pseudo_terminal(&serial.port) { SerialStream::open(&plain) } else { Err(error) }
    });
    let stream = stream.map_err(io::Error::from)?;
    stream.clear(ClearBuffer::Input).map_err(io::Error::from)?;
    Ok(stream)
}

fn is_pseudo_terminal(port: &str) -> bool {
    std::fs::canonicalize(port).is_ok_and(|path| path.starts_with(PSEUDO_TERMINALS))
}

fn data_bits(serial: &Serial) -> DataBits {
    if serial.data_bits == 7 { DataBits::Seven } else { DataBits::Eight }
}

fn stop_bits(serial: &Serial) -> StopBits {
    if serial.stop_bits == 2 { StopBits::Two } else { StopBits::One }
}

fn parity(serial: &Serial) -> tokio_serial::Parity {
    match serial.parity {
        Parity::None => tokio_serial::Parity::None,
        Parity::Even => tokio_serial::Parity::Even,
        Parity::Odd => tokio_serial::Parity::Odd,
    }
}

impl SharedPort {
    pub(crate) fn open(serial: &Serial) -> io::Result<Self> {
        Ok(Self::over(Box::new(open_serial(serial)?)))
    }

    pub(crate) fn over(stream: Box<dyn Wire>) -> Self {
        Self(Arc::new(Mutex::new(Open { stream, received: 0 })))
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many bytes came since the last time this was asked.
    pub(crate) fn take_received(&self) -> usize {
        std::mem::take(&mut self.lock().received)
    }

    /// Reads and forgets until the line has been silent for `silence`, and at least until `until`;
    /// a line that never falls silent is given up on after `patience` more. How much was forgotten.
    pub(crate) async fn discard(&mut self, until: Instant, silence: Duration, patience: Duration) -> io::Result<usize> {
        let mut discarded = 0;
        let mut buffer = [0_u8; 256];
        let latest = until.max(Instant::now()) + patience;
        loop {
            let wait = silence.max(until.saturating_duration_since(Instant::now()));
            match timeout(wait, self.read(&mut buffer)).await {
                Err(_) => return Ok(discarded),
                Ok(Ok(0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(Ok(count)) => discarded += count,
                Ok(Err(error)) => return Err(error),
            }
            if Instant::now() > latest {
                return Err(io::Error::other("the line never falls silent"));
            }
        }
    }
}

impl AsyncRead for SharedPort {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut open = self.lock();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut open.stream).poll_read(context, buffer);
        open.received += buffer.filled().len() - before;
        polled
    }
}

impl AsyncWrite for SharedPort {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.lock().stream).poll_write(context, bytes)
    }

    /// The library's flush waits in the kernel until the last bit is sent, and blocks a thread
    /// meanwhile. Nobody needs that: the answer's time limit counts the request's own time in.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
