//! Every bound of a listener, by name.

use std::time::Duration;

/// Connections that one listener holds open; further ones wait in the system's own queue.
pub const CONNECTIONS_MAX: usize = 512;
/// Connections that one address of another machine holds open; a network (/64) of IPv6 is one address.
pub const CONNECTIONS_PER_PEER_MAX: usize = 32;
/// Connections that this machine's own programs hold open: a proxy speaks for many.
pub const CONNECTIONS_OF_LOOPBACK_MAX: usize = 256;
/// How long a connection may stand without a byte in either direction. Longer than any answer takes, because nothing moves
/// while one is computed or waited for.
pub const CONNECTION_IDLE_MAX: Duration = Duration::from_secs(75);
/// How long a connection may live in all: it ends those that send one byte a minute.
pub const CONNECTION_AGE_MAX: Duration = Duration::from_secs(600);
/// How long the head of a request may take, from its first byte; the first head from the connection's
/// beginning.
pub const HEAD_TIME_MAX: Duration = Duration::from_secs(10);
/// How long open connections are waited for when a listener ends.
pub const GOODBYE_MAX: Duration = Duration::from_secs(3);
