//! Ports of loopback that nobody else is given: one at which nobody is, and one for a program under test.
//!
//! One that was bound and let go is neither: another test may be given it at once, and a process that was forked meanwhile
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

/// A port for a program under test, which listens there as servers do (`SO_REUSEADDR`): kept for it as long as this lives, and
/// given to nobody who asks for any port.
#[derive(Debug)]
pub struct KeptPort {
    address: SocketAddr,
    _socket: TcpSocket,
}

impl KeptPort {
    /// Takes one.
    ///
    /// # Panics
    /// Where no port can be had.
    #[must_use]
    pub fn take() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        // Linux lets two bind the same port where both say this and neither listens yet.
        socket.set_reuseaddr(true).expect("an option");
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
        Self { address: socket.local_addr().expect("bound"), _socket: socket }
    }

    /// Its address.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
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
    #[test]
    fn a_kept_port_is_for_whoever_names_it_and_for_nobody_else() {
        let kept: Vec<KeptPort> = (0..100).map(|_| KeptPort::take()).collect();
        let others: Vec<TcpListener> = (0..1_000).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
        for port in kept {
            assert!(others.iter().all(|other| other.local_addr().expect("bound") != port.address()));
            let server = TcpListener::bind(port.address()).expect("kept for it");
            TcpStream::connect(port.address()).expect("it listens");
            drop(server);
        }
    }
}
