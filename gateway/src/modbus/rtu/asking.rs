//! Which requests go out until one's answer can be to nothing else: the request itself, probes, and knocks (see `owed`).
//!
//! Each is one exchange of the master's, which notes what was lost. A read with a knock takes at most five timeouts and their time on
//! the wire: the silence before it, the knock, the silence after it, which counts twice, and the request.

use std::time::Instant;

use tjern_readings::reading::Cause;

use super::super::owed::Probe;
use super::super::transport::{Answer, Failure, ReadRequest};
use super::super::wire::now;
use super::{NOISE_MAX, RtuMaster};

impl RtuMaster {
    /// Asks until there is an answer that can be to nothing else.
    pub(super) async fn ask(&mut self, unit: u8, request: ReadRequest) -> Result<Answer, Failure> {
        let table = request.table();
        for _ in 0..self.owed.requests_max(unit, table) {
            let probe = self.probe(unit, request);
            self.was_probed |= probe != Probe::NotNeeded;
            match probe {
                Probe::Ask(probe) if !self.owed.is_deaf(unit, table) => self.sound(unit, probe).await?,
                Probe::Ask(_) | Probe::NoneFits => self.knock(unit, request).await?,
                Probe::NotNeeded => match self.exchange(unit, request).await {
                    Ok(answer) => {
                        self.owed.answered(unit, request);
                        return Ok(answer);
                    }
                    Err(failure) if failure.is_exception() => {
                        if self.owed.refused(unit, request, false) {
                            return Err(failure);
                        }
                        self.was_probed = true;
                    }
                    Err(failure) => return Err(failure),
                },
            }
        }
        Err(Failure::new(Cause::Malformed, "the device still sends answers to earlier requests"))
    }

    fn probe(&self, unit: u8, request: ReadRequest) -> Probe {
        self.owed.probe(unit, request, self.manners.maps.get(&unit))
    }

    /// Asks a probe.
    async fn sound(&mut self, unit: u8, probe: ReadRequest) -> Result<(), Failure> {
        match self.exchange(unit, probe).await {
            Ok(_) => self.owed.answered(unit, probe),
            Err(failure) if failure.is_exception() => {
                self.owed.refused(unit, probe, true);
            }
            Err(failure) => return Err(failure),
        }
        self.owed.hears(unit, probe.table());
        Ok(())
    }

    /// Asks a unit that answers no probe for what is wanted of it. Its answer may be one that was owed; but if nothing more
    /// comes after it, neither to a probe nor until an answer's longest time is over twice, nothing is owed any more. What was
    /// owed and came late would be followed by the answer to this.
    async fn knock(&mut self, unit: u8, request: ReadRequest) -> Result<(), Failure> {
        let table = request.table();
        if self.is_hasty() {
            self.owed.fell_silent(unit, table);
            return Ok(());
        }
        let longest = self.manners.timeout + self.drain(request);
        if let Some(lost_at) = self.owed.lost_at(unit, table) {
            self.quiet_until = self.quiet_until.max(lost_at + longest);
        }
        match self.exchange(unit, request).await {
            Ok(_) => self.owed.knocked(unit, request),
            Err(failure) if failure.is_exception() => {
                self.owed.refused(unit, request, true);
                return Ok(());
            }
            Err(failure) => return Err(failure),
        }
        let (answered_at, mut strange) = (now(), self.strange);
        if let Probe::Ask(probe) = self.probe(unit, request) {
            match self.sound(unit, probe).await {
                Err(failure) if failure.cause == Cause::Timeout => strange += self.strange,
                other => return other,
            }
        }
        strange += self.listen(answered_at + longest * 2).await?;
        if strange > NOISE_MAX {
            return Err(Failure::new(Cause::Timeout, "answers to earlier requests still come"));
        }
        self.owed.fell_silent(unit, table);
        Ok(())
    }

    /// Listens until then, and says how many bytes came.
    async fn listen(&mut self, until: Instant) -> Result<usize, Failure> {
        let line = match self.line.take() {
            Some(line) => line,
            None => self.open().await?,
        };
        match line.wire.forget_until(until).await {
            Ok(came) => {
                self.line.park(line);
                Ok(came)
            }
            Err(error) => Err(Failure::new(Cause::Unreachable, format!("{} is gone: {error}", self.place))),
        }
    }
}
