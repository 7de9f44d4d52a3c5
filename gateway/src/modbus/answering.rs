//! Who behind a server is answered: whether one that hangs up does so because of a unit, or serves nobody.
//!
//! Some converters close the connection where a unit does not answer. That is the unit's failure, as silence would be, and no
//! reason to leave the server alone, as long as another unit is answered. A server that accepts and closes whoever is asked
//! for is not there: each unit that it hangs up on counts as answered no longer, until none is left. No I/O, no clock.

use std::collections::HashSet;

/// The units whose last request was answered: at most as many as there are unit ids.
#[derive(Debug, Default)]
pub(super) struct Answering(HashSet<u8>);

impl Answering {
    /// A unit was answered, if only with an exception.
    pub(super) fn answered(&mut self, unit: u8) {
        self.0.insert(unit);
    }

    /// A unit was not.
    pub(super) fn was_silent(&mut self, unit: u8) {
        self.0.remove(&unit);
    }

    /// The server cannot be connected to.
    pub(super) fn is_gone(&mut self) {
        self.0.clear();
    }

    /// A new connection was closed on requests to these; whether that says something about them, and not about the server.
    /// Of several it is not known on whose.
    pub(super) fn hung_up(&mut self, units: &[u8]) -> bool {
        if let [unit] = units {
            self.0.remove(unit);
        }
        !self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_hangs_up_on_everybody_is_found_out_after_one_request_each() {
        let mut answering = Answering::default();
        assert!(!answering.hung_up(&[5]), "nobody was answered yet");
        for unit in [1, 2, 3] {
            answering.answered(unit);
        }
        assert!(answering.hung_up(&[5]) && answering.hung_up(&[5]), "the others are answered");
        assert!(answering.hung_up(&[1, 2, 3]), "of three one may be the reason");
        assert_eq!([1, 2, 3].map(|unit| answering.hung_up(&[unit])), [true, true, false]);
        answering.answered(2);
        answering.was_silent(2);
        assert!(!answering.hung_up(&[5]));
    }
}
