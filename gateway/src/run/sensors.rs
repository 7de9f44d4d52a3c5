//! Which sensors a reload took away, and which came: their buses say nothing of it, and a file that was half written may be a whole one.

use std::collections::HashSet;
use std::fmt;

use tjern_readings::sensor::SensorId;

/// So many are named.
const NAMED_MAX: usize = 10;

/// What of a configuration's sensors a new one changes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SensorChanges {
    before: usize,
    after: usize,
    pub(super) gone: Vec<String>,
    pub(super) came: Vec<String>,
}

impl SensorChanges {
    pub(super) fn between<'config>(
        before: impl Iterator<Item = &'config SensorId>,
        after: impl Iterator<Item = &'config SensorId>,
    ) -> Self {
        let (before, after): (Vec<&SensorId>, Vec<&SensorId>) = (before.collect(), after.collect());
        let missing = |from: &[&SensorId], others: &[&SensorId]| {
            let others: HashSet<&SensorId> = others.iter().copied().collect();
            let missing = from.iter().filter(|sensor| !others.contains(**sensor));
            missing.map(|sensor| sensor.as_str().to_owned()).collect()
        };
        let (gone, came) = (missing(&before, &after), missing(&after, &before));
        Self { before: before.len(), after: after.len(), gone, came }
    }
}

impl fmt::Display for SensorChanges {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "sensors {} → {}", self.before, self.after)?;
        for (word, sensors) in [("gone", &self.gone), ("new", &self.came)] {
            if !sensors.is_empty() {
                write!(formatter, ", {word}: {}", Named(sensors))?;
            }
        }
        Ok(())
    }
}

struct Named<'sensors>(&'sensors [String]);

impl fmt::Display for Named<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = &self.0[..self.0.len().min(NAMED_MAX)];
        formatter.write_str(&named.join(", "))?;
        match self.0.len() - named.len() {
            0 => Ok(()),
            more => write!(formatter, " and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sensors(numbers: impl Iterator<Item = u32>) -> Vec<SensorId> {
        numbers.map(|number| format!("tarn/number-{number}").parse().expect("valid")).collect()
    }

    /// Half a file took three of six sensors away, and the log said that a bus had begun anew.
    #[test]
    fn what_went_is_named() {
        let said =
            |before: &[SensorId], after: &[SensorId]| SensorChanges::between(before.iter(), after.iter()).to_string();
        let (six, three) = (sensors(1..7), sensors(1..4));
        assert_eq!(said(&six, &three), "sensors 6 → 3, gone: tarn/number-4, tarn/number-5, tarn/number-6");
        assert_eq!(
            said(&three, &sensors(3..5)),
            "sensors 3 → 2, gone: tarn/number-1, tarn/number-2, new: tarn/number-4"
        );
        assert_eq!(said(&six, &six), "sensors 6 → 6");
        let many = said(&[], &sensors(0..12));
        assert!(
            many.starts_with("sensors 0 → 12, new: tarn/number-0, ") && many.ends_with("tarn/number-9 and 2 more"),
            "{many}"
        );
    }
}
