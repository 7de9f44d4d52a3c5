//! Who asks on a far line, on this machine: one at a time.
//!
//! An RTU frame over TCP says neither whose answer it is nor to what, and many converters pass each answer on to all that are
//! connected. So two that ask there take each other's answers for their own, however carefully each of them listens. A port
//! is opened for one process; the like of it for an address is a name in the kernel's abstract namespace of sockets: it goes
//! with its process however that ends, and neither users nor a service's own view of the file system keep it apart.
//!
//! Invariants: the line is taken before it is connected to, by the addresses that its name stands for, and kept until its
//! master goes, also while it is not connected: what was asked last may still be answered. Limits: Linux only; of another
//! machine, or one that has a network of its own (a container), nobody knows.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use tokio::time::timeout;

use crate::names::look_up;

/// A line that may be asked on.
#[derive(Debug, Default)]
pub(super) struct FarLine(HashMap<SocketAddr, UnixDatagram>);

impl FarLine {
    /// Takes it, unless somebody has it. Whether there is such an address is found out by who connects.
    pub(super) async fn take(&mut self, address: &str, patience: Duration) -> io::Result<()> {
        let Ok(Ok(found)) = timeout(patience, look_up(address)).await else { return Ok(()) };
        let mut taken = Vec::new();
        for address in found.into_iter().filter(|address| !self.0.contains_key(address)) {
            taken.extend(named(address)?.map(|name| (address, name)));
        }
        // All or none, so that two that spell it differently do not keep each other out.
        self.0.extend(taken);
        Ok(())
    }
}

/// A name that one process of the machine has at a time. `None` where there are no such names.
#[cfg(target_os = "linux")]
fn named(address: SocketAddr) -> io::Result<Option<UnixDatagram>> {
    use std::os::linux::net::SocketAddrExt;

    let name = std::os::unix::net::SocketAddr::from_abstract_name(format!("tjern-gateway/far-line/{address}"))?;
    match UnixDatagram::bind_addr(&name) {
        Ok(socket) => Ok(Some(socket)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(io::ErrorKind::ResourceBusy.into()),
        Err(error) => {
            tracing::debug!(%address, "cannot see whether somebody else asks on this line: {error}");
            Ok(None)
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn named(_: SocketAddr) -> io::Result<Option<UnixDatagram>> {
    Ok(None)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// The address may be spelt in two ways, and be under a name.
    #[tokio::test]
    async fn a_far_line_is_taken_once_and_free_when_its_master_has_gone() {
        let (mut one, mut other) = (FarLine::default(), FarLine::default());
        one.take("127.0.0.1:47001", PATIENCE).await.expect("it is free");
        one.take("127.0.0.1:47001", PATIENCE).await.expect("it has it");
        let refused = other.take("localhost:47001", PATIENCE).await.expect_err("it is taken");
        assert_eq!(refused.kind(), io::ErrorKind::ResourceBusy);
        other.take("127.0.0.1:47002", PATIENCE).await.expect("another line");
        drop(one);
        other.take("127.0.0.1:47001", PATIENCE).await.expect("it is free again");
    }
}
