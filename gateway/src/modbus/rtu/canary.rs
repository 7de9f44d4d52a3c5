//! What a canary of the tests leaves out, so that they show that they would notice. Outside of tests no wall is down.

use super::RtuMaster;

/// The walls that are down.
#[cfg(test)]
#[derive(Debug, Default)]
pub(in crate::modbus) struct Careless {
    pub(in crate::modbus) no_drain: bool,
    pub(in crate::modbus) forgets_sent: bool,
    pub(in crate::modbus) hasty: bool,
    pub(in crate::modbus) believes_any: bool,
}

impl RtuMaster {
    /// Whether the line is listened to before a request and after a failure.
    #[cfg(test)]
    pub(super) const fn drains(&self) -> bool {
        !self.careless.no_drain
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "a canary does not")]
    pub(super) const fn drains(&self) -> bool {
        true
    }

    #[cfg(test)]
    pub(super) const fn is_hasty(&self) -> bool {
        self.careless.hasty
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "a canary is hasty")]
    pub(super) const fn is_hasty(&self) -> bool {
        false
    }

    #[cfg(test)]
    pub(super) const fn believes_any(&self) -> bool {
        self.careless.believes_any
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "a canary believes any")]
    pub(super) const fn believes_any(&self) -> bool {
        false
    }

    #[cfg(test)]
    pub(super) const fn forgets_sent(&self) -> bool {
        self.careless.forgets_sent
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "a canary forgets")]
    pub(super) const fn forgets_sent(&self) -> bool {
        false
    }
}
