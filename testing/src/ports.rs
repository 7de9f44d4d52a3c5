//! A port at which nobody is, and nobody will be.
//!
//! One that was bound and let go is not that: another test may be given it at once, and a process that was forked meanwhile
//! holds it a little longer.

use std::net::SocketAddr;

use tokio::net::TcpSocket;

/// Taken on loopback, and not listened at, as long as this lives: whoever connects is refused.
#[derive(Debug)]
pub struct SilentPort {
    address: SocketAddr,
    _socket: TcpSocket,
}

impl SilentPort {
    /// Takes one.
    ///
    /// # Panics
    /// Where no port can be had.
    #[must_use]
    pub fn take() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
        Self { address: socket.local_addr().expect("bound"), _socket: socket }
    }

    /// Its address.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its number.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.address.port()
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn nobody_is_there_and_nobody_comes() {
        let port = SilentPort::take();
        for _ in 0..100 {
            let refused = TcpStream::connect(port.address()).expect_err("nobody listens");
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        }
        assert_eq!(TcpListener::bind(port.address()).expect_err("taken").kind(), ErrorKind::AddrInUse);
    }
}
