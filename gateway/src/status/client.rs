//! Asks a gateway that runs how it is. It believes no more than [`ANSWER_MAX`] bytes.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::report::GatewayStatus;
use crate::config::StatusListen;

/// A gateway of ten thousand points says less.
const ANSWER_MAX: u64 = 64 << 20;

/// A gateway that runs answers well within this, and somebody waits before a terminal.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where a gateway is asked: `http://host:port`, or `unix:/path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StatusAddress {
    /// `host:port`.
    Http(String),
    /// A socket's path.
    Unix(PathBuf),
}

/// Why it did not say how it is.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No such address can be.
    #[error(
        "`{0}` is no address of a gateway; hint: write \"http://127.0.0.1:9469\", or \"unix:/run/tjern-gateway/status.sock\""
    )]
    Address(String),
    /// Nobody is there.
    #[error(
        "no gateway answers at {place}: {source}; hint: is it running? `systemctl status tjern-gateway`, or `tjern-gateway run`, says why not"
    )]
    Silent {
        /// Where it was asked.
        place: String,
        /// Why.
        source: io::Error,
    },
    /// Somebody else is there.
    #[error(
        "what answers at {place} is no gateway's status: {reason}; hint: is this the address of `[status] listen`?"
    )]
    Strange {
        /// Where it was asked.
        place: String,
        /// What is strange.
        reason: String,
    },
}

impl From<&StatusListen> for StatusAddress {
    /// Who listens on all addresses is asked on the machine's own.
    fn from(listen: &StatusListen) -> Self {
        match listen {
            StatusListen::Unix(path) => Self::Unix(path.clone()),
            StatusListen::Tcp(address) => {
                let mut address = *address;
                if address.ip().is_unspecified() {
                    let own: std::net::IpAddr = if address.is_ipv4() {
                        std::net::Ipv4Addr::LOCALHOST.into()
                    } else {
                        std::net::Ipv6Addr::LOCALHOST.into()
                    };
                    address.set_ip(own);
                }
                Self::Http(address.to_string())
            }
        }
    }
}

impl std::str::FromStr for StatusAddress {
    type Err = ClientError;

    fn from_str(text: &str) -> Result<Self, ClientError> {
        if let Some(path) = text.strip_prefix("unix:").filter(|path| path.starts_with('/')) {
            return Ok(Self::Unix(path.into()));
        }
        let plain = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/').trim_end_matches("/status");
        let is_address =
            plain.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        if is_address && !plain.contains(|character: char| character == '/' || character.is_whitespace()) {
            return Ok(Self::Http(plain.to_owned()));
        }
        Err(ClientError::Address(text.to_owned()))
    }
}

impl std::fmt::Display for StatusAddress {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Http(address) => write!(formatter, "http://{address}"),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

/// How the gateway there is.
///
/// # Errors
/// [`ClientError`] where nobody answers in time, or somebody else.
pub async fn status(address: &StatusAddress) -> Result<GatewayStatus, ClientError> {
    let body = get(address, "/status").await?;
    serde_json::from_slice(&body)
        .map_err(|error| ClientError::Strange { place: address.to_string(), reason: error.to_string() })
}

/// The body of a page, whatever its status says.
///
/// # Errors
/// [`ClientError`] where nobody answers in time, or in something else than HTTP.
pub async fn get(address: &StatusAddress, path: &str) -> Result<Vec<u8>, ClientError> {
    get_within(PATIENCE, address, path).await
}

/// The same for who has another time to wait.
///
/// # Errors
/// As [`get`].
pub async fn get_within(patience: Duration, address: &StatusAddress, path: &str) -> Result<Vec<u8>, ClientError> {
    let exchange = async {
        match address {
            StatusAddress::Http(address) => ask(TcpStream::connect(address).await?, path).await,
            StatusAddress::Unix(socket) => ask(UnixStream::connect(socket).await?, path).await,
        }
    };
    let late = || io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
    let answer = timeout(patience, exchange).await.unwrap_or_else(|_| Err(late()));
    let answer = answer.map_err(|source| ClientError::Silent { place: address.to_string(), source })?;
    let strange = |reason: &str| ClientError::Strange { place: address.to_string(), reason: reason.to_owned() };
    if !answer.starts_with(b"HTTP/1.") {
        return Err(strange("it does not speak HTTP"));
    }
    let end = answer.windows(4).position(|end| end == b"\r\n\r\n").ok_or_else(|| strange("it broke off"))?;
    Ok(answer[end + 4..].to_vec())
}

async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, path: &str) -> io::Result<Vec<u8>> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut answer).await?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_people_write_it() {
        for (text, shown) in [
            ("http://127.0.0.1:9469", "http://127.0.0.1:9469"),
            ("http://box:9469/status", "http://box:9469"),
            ("box:9469", "http://box:9469"),
            ("unix:/run/status.sock", "unix:/run/status.sock"),
        ] {
            assert_eq!(text.parse::<StatusAddress>().map(|address| address.to_string()).ok().as_deref(), Some(shown));
        }
        for text in ["", "box", "https://box:1", "unix:status.sock", "http://a b:1"] {
            assert!(text.parse::<StatusAddress>().is_err(), "{text}");
        }
        let everywhere = "0.0.0.0:9469".parse::<StatusListen>().expect("an address");
        assert_eq!(StatusAddress::from(&everywhere).to_string(), "http://127.0.0.1:9469");
    }
}
