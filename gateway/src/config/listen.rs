//! `[status] listen`: where a gateway tells how it is.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// Before the path of a socket of this machine.
const UNIX: &str = "unix:";

/// Where a gateway tells how it is: an address of this machine, or a socket in its file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StatusListen {
    /// An address and a port.
    Tcp(SocketAddr),
    /// A socket's path.
    Unix(PathBuf),
}

/// What is no such place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no place to listen at; hint: write \"127.0.0.1:9469\", or \"unix:/run/tjern-gateway/status.sock\"")]
pub struct ListenError(String);

impl FromStr for StatusListen {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Self, ListenError> {
        if let Some(path) = text.strip_prefix(UNIX) {
            return if path.starts_with('/') { Ok(Self::Unix(path.into())) } else { Err(ListenError(text.to_owned())) };
        }
        text.parse().map(Self::Tcp).map_err(|_| ListenError(text.to_owned()))
    }
}

impl fmt::Display for StatusListen {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(formatter, "http://{address}"),
            Self::Unix(path) => write!(formatter, "{UNIX}{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_or_a_socket() {
        for (text, shown) in [
            ("127.0.0.1:9469", "http://127.0.0.1:9469"),
            ("[::1]:9469", "http://[::1]:9469"),
            ("unix:/run/tjern-gateway/status.sock", "unix:/run/tjern-gateway/status.sock"),
        ] {
            assert_eq!(text.parse::<StatusListen>().map(|place| place.to_string()), Ok(shown.to_owned()));
        }
        for text in ["", "9469", "localhost", "localhost:9469", "unix:", "unix:status.sock"] {
            assert!(text.parse::<StatusListen>().is_err(), "{text}");
        }
    }
}
