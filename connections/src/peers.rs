//! How many connections each peer holds.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use crate::limits;

/// Counts the connections of each peer. At most [`limits::CONNECTIONS_MAX`] peers are in it.
#[derive(Debug, Default)]
pub(super) struct Peers(Mutex<HashMap<IpAddr, usize>>);

/// One connection of a peer, counted until this is dropped.
#[derive(Debug)]
pub(super) struct PeerPlace {
    peers: Arc<Peers>,
    peer: IpAddr,
}

impl Peers {
    /// A place for one more connection of this peer, unless it holds too many.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<PeerPlace> {
        let address = address.to_canonical();
        let max = match address.is_loopback() {
            true => limits::CONNECTIONS_OF_LOOPBACK_MAX,
            false => limits::CONNECTIONS_PER_PEER_MAX,
        };
        let peer = network(address);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(peer).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        drop(counts);
        Some(PeerPlace { peers: Arc::clone(self), peer })
    }
}

impl Drop for PeerPlace {
    fn drop(&mut self) {
        let mut counts = self.peers.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.peer);
            }
        }
    }
}

/// Who has one address of IPv6 has the 64 bits behind it, too.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn one_peer_does_not_take_the_places_of_the_others() {
        let peers = Arc::new(Peers::default());
        for (one, same, other) in
            [("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::ffff:1", "2001:db8:0:1::1")]
        {
            let one = (0..limits::CONNECTIONS_PER_PEER_MAX).map(|_| peers.admit(address(one)).expect("a place"));
            let mut held: Vec<_> = one.collect();
            assert!(peers.admit(address(same)).is_none(), "{same}");
            assert!(peers.admit(address(other)).is_some(), "{other}");
            held.pop();
            assert!(peers.admit(address(same)).is_some(), "{same}: one was given back");
        }
        assert!(peers.0.lock().expect("not poisoned").is_empty(), "nobody is remembered who is gone");
    }

    #[test]
    fn a_proxy_on_this_machine_speaks_for_many() {
        let peers = Arc::new(Peers::default());
        let held: Vec<_> = (0..1000).map_while(|_| peers.admit(address("127.0.0.1"))).collect();
        assert_eq!(held.len(), limits::CONNECTIONS_OF_LOOPBACK_MAX);
    }
}
