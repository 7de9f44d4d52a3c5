//! How often a line does what, as people write it: `delay=0.1,drop=0.05,longest=300ms`.

use std::str::FromStr;
use std::time::Duration;

use tjern_readings::configuration::Period;

/// The probability of each fault, from 0 to 1, per answer; a line without any is a good one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LineFaults {
    /// It comes later, by anything up to `longest`.
    pub delay: f64,
    /// It comes in pieces with pauses between them.
    pub split: f64,
    /// It is held back, and comes in one lump with the next, before it.
    pub merge: f64,
    /// It comes twice.
    pub duplicate: f64,
    /// RTU: the answer before comes once more, in one lump with it, in front of it or behind.
    pub repeat: f64,
    /// Its end does not come.
    pub truncate: f64,
    /// It is held back, and comes after the next.
    pub swap: f64,
    /// Some of its bytes are others.
    pub corrupt: f64,
    /// It does not come.
    pub drop: f64,
    /// The connection or the port goes while it comes.
    pub disconnect: f64,
    /// The connection goes once the request is passed on; the answer comes a little later, over the next one.
    pub hang_up: f64,
    /// The longest that an answer is late.
    pub longest: Duration,
}

const LONGEST: Duration = Duration::from_millis(300);
const KNOWN: &str =
    "delay, split, merge, duplicate, repeat, truncate, swap, corrupt, drop, disconnect, hang_up, longest";

impl Default for LineFaults {
    fn default() -> Self {
        Self {
            delay: 0.0,
            split: 0.0,
            merge: 0.0,
            duplicate: 0.0,
            repeat: 0.0,
            truncate: 0.0,
            swap: 0.0,
            corrupt: 0.0,
            drop: 0.0,
            disconnect: 0.0,
            hang_up: 0.0,
            longest: LONGEST,
        }
    }
}

/// Faults that make no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadFaults {
    /// Neither a fault nor `longest`.
    #[error("`{0}` is no fault; hint: write fault=probability, with commas between them; there are {KNOWN}")]
    Unknown(String),
    /// Not a number from 0 to 1.
    #[error("`{0}` is no probability; hint: it is a number from 0 to 1, like `drop=0.05`")]
    Probability(String),
    /// Not a time.
    #[error("`{0}` is no time; hint: write it like `longest=300ms`")]
    Time(String),
}

impl FromStr for LineFaults {
    type Err = BadFaults;

    fn from_str(text: &str) -> Result<Self, BadFaults> {
        let mut faults = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').ok_or_else(|| BadFaults::Unknown(part.to_owned()))?;
            if name == "longest" {
                let period: Period = value.parse().map_err(|_| BadFaults::Time(part.to_owned()))?;
                faults.longest = period.duration();
                continue;
            }
            let place = faults.place(name).ok_or_else(|| BadFaults::Unknown(name.to_owned()))?;
            let number: f64 = value.parse().map_err(|_| BadFaults::Probability(part.to_owned()))?;
            if !(0.0..=1.0).contains(&number) {
                return Err(BadFaults::Probability(part.to_owned()));
            }
            *place = number;
        }
        Ok(faults)
    }
}

impl LineFaults {
    fn place(&mut self, name: &str) -> Option<&mut f64> {
        Some(match name {
            "delay" => &mut self.delay,
            "split" => &mut self.split,
            "merge" => &mut self.merge,
            "duplicate" => &mut self.duplicate,
            "repeat" => &mut self.repeat,
            "truncate" => &mut self.truncate,
            "swap" => &mut self.swap,
            "corrupt" => &mut self.corrupt,
            "drop" => &mut self.drop,
            "disconnect" => &mut self.disconnect,
            "hang_up" => &mut self.hang_up,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_as_they_are_written() {
        let faults: LineFaults = "delay=0.1, drop=0.05,longest=2s".parse().expect("faults");
        let expected = LineFaults { delay: 0.1, drop: 0.05, longest: Duration::from_secs(2), ..LineFaults::default() };
        assert_eq!(faults, expected);
        assert_eq!("".parse(), Ok(LineFaults::default()));
        for wrong in ["delay", "dorp=0.1", "drop=2", "drop=NaN", "drop=", "longest=soon"] {
            assert!(wrong.parse::<LineFaults>().is_err(), "{wrong}");
        }
    }
}
