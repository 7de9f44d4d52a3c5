//! Which rules hold for a sensor, and how far a reading can be from another whose flags it changes.
//!
//! For each test the most specific lines count and no others: those that name the sensor, else those
//! for its quantity, else those for all; the city's before the built-in ones (`defaults.csv`, whose
//! numbers `docs/quality.md` explains). The register's `low` and `high` hold beside all of them.
//!
//! Tests look at neighbours, but never further than this module says ([`SensorRules::margins`]), so
//! that a window with margins gives its inner readings the flags that the whole series would. No I/O.

use std::collections::HashMap;
use std::path::Path;
use std::sync::LazyLock;

use tjern_lake::rollup::Instruments;
use tjern_readings::configuration::Period;

use crate::register::{
    Ends, Events, Kind, Months, NotGood, Parameters, Register, Rule, SensorRow, Target, Test, read_rules,
};

/// The version of the tests and of the built-in rules. What was evaluated by another is evaluated
/// again. To be raised with every change that can change a flag while the register's words stay the same; these are followed by
/// numbers of their own.
pub const RULES_VERSION: i64 = 1;

/// Readings further apart are no neighbours, unless the sensor is slow.
const REACH_US: i64 = 24 * 3_600_000_000;

/// So many intervals of a slow sensor are still a neighbourhood.
const REACH_INTERVALS: i64 = 3;

/// A value is expected after this many intervals at the latest.
const GAP_INTERVALS: i64 = 2;

static BUILT_IN: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    let lines =
        read_rules(Path::new("defaults.csv"), include_str!("defaults.csv")).expect("the built-in rules are right");
    lines.into_iter().map(|line| line.row.rule().expect("read once already")).collect()
});

/// The register as quality control needs it.
#[derive(Debug, Clone, Default)]
pub struct Rulebook {
    register: Register,
    rules: Vec<Rule>,
    events: Events,
    instruments: HashMap<String, Instruments>,
}

/// The rules of one sensor.
#[derive(Debug, Clone, Default)]
pub(crate) struct SensorRules {
    pub(crate) plausible: Ends,
    pub(crate) tests: HashMap<Test, Vec<(Months, Parameters)>>,
    pub(crate) interval_us: Option<i64>,
    pub(crate) counter: bool,
    /// At what it begins again.
    pub(crate) wraps_at: Option<f64>,
    pub(crate) reach_us: i64,
    pub(crate) not_good: Vec<NotGood>,
    /// Of a counter: one that is exchanged does not go backward.
    pub(crate) instruments: Instruments,
}

/// How far the flags of a reading depend on others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Margins {
    /// On readings so much before it.
    pub(crate) before_us: i64,
    /// On readings so much after it.
    pub(crate) after_us: i64,
}

impl Rulebook {
    /// The rules of a city.
    #[must_use]
    pub fn new(register: Register, rules: Vec<Rule>) -> Self {
        Self { register, rules, events: Events::default(), instruments: HashMap::new() }
    }

    /// The same, with events in which sensors' readings are not good.
    #[must_use]
    pub fn with_events(mut self, events: Events) -> Self {
        self.events = events;
        self
    }

    /// The same, with the instruments that hung at sensors.
    #[must_use]
    pub fn with_instruments(mut self, instruments: HashMap<String, Instruments>) -> Self {
        self.instruments = instruments;
        self
    }

    /// The register that it stands on.
    #[must_use]
    pub const fn register(&self) -> &Register {
        &self.register
    }

    /// A sensor's rules; `None` for one that is not registered: nothing is known of it.
    pub(crate) fn of(&self, sensor: &str) -> Option<SensorRules> {
        let row = self.register.get(sensor)?;
        let tests = Test::ALL.iter().filter(|test| applies(**test, row.kind));
        let tests = tests.filter_map(|test| Some((*test, self.lines(*test, row)?)));
        let interval_us = row.interval.as_deref().and_then(|text| text.parse::<Period>().ok()).map(Period::micros);
        let mut rules = SensorRules {
            plausible: Ends { low: row.low, high: row.high },
            tests: tests.collect(),
            interval_us,
            counter: row.kind == Kind::Counter,
            wraps_at: row.wraps_at,
            reach_us: REACH_US.max(interval_us.unwrap_or(0).saturating_mul(REACH_INTERVALS)),
            not_good: self.events.of_sensor(sensor),
            instruments: self
                .instruments
                .get(sensor)
                .filter(|_| row.kind == Kind::Counter)
                .cloned()
                .unwrap_or_default(),
        };
        if let Some(interval_us) = interval_us {
            let longer_us = interval_us.saturating_mul(GAP_INTERVALS);
            rules.tests.entry(Test::Gap).or_insert_with(|| vec![(Months::ALL, Parameters::Gap { longer_us })]);
        }
        Some(rules)
    }

    /// The lines that hold for a test of a sensor.
    fn lines(&self, test: Test, row: &SensorRow) -> Option<Vec<(Months, Parameters)>> {
        let (id, quantity) = (row.id.as_str(), row.id.quantity());
        let tiers = [
            (&self.rules, Target::Sensor(id.to_owned())),
            (&self.rules, Target::Quantity(quantity.to_owned())),
            (&self.rules, Target::All),
            (&BUILT_IN, Target::Quantity(quantity.to_owned())),
            (&BUILT_IN, Target::All),
        ];
        tiers.into_iter().find_map(|(rules, target)| {
            let of_unit = |rule: &&Rule| rule.unit.as_ref().is_none_or(|unit| *unit == row.unit);
            let found = rules.iter().filter(|rule| rule.test == test && rule.target == target).filter(of_unit);
            let found: Vec<_> = found.map(|rule| (rule.months, rule.parameters)).collect();
            (!found.is_empty()).then_some(found)
        })
    }
}

/// Whether a test means something for a kind of sensor. Rain is honestly flat, a counter honestly
/// grows, the difference of two directions or of two states is no distance.
const fn applies(test: Test, kind: Kind) -> bool {
    match test {
        Test::Range | Test::Climatology | Test::Gap => true,
        Test::Spike | Test::RateOfChange | Test::AttenuatedSignal | Test::Exposure => {
            matches!(kind, Kind::Sample | Kind::IntervalMean)
        }
        Test::FlatLine => matches!(kind, Kind::Sample | Kind::IntervalMean | Kind::Angle),
        Test::Backward => matches!(kind, Kind::Counter),
    }
}

impl SensorRules {
    /// Whether every formula is the same for both: of what somebody said of their readings, and of their instruments, no formula knows.
    pub(crate) fn are_alike(&self, others: &Self) -> bool {
        let Self { plausible, tests, interval_us, counter, wraps_at, reach_us, not_good: _, instruments: _ } = self;
        (*plausible, *interval_us, *counter, *wraps_at, *reach_us)
            == (others.plausible, others.interval_us, others.counter, others.wraps_at, others.reach_us)
            && *tests == others.tests
    }

    /// The lines of a test, those that switch it off left out.
    pub(crate) fn lines(&self, test: Test) -> impl Iterator<Item = (Months, Parameters)> + '_ {
        let lines = self.tests.get(&test).into_iter().flatten().copied();
        lines.filter(|(_, parameters)| *parameters != Parameters::Off)
    }

    /// How far flags depend on neighbours.
    ///
    /// Whether a value is a spike depends on one neighbour on each side, at most `reach` away. Rate,
    /// flat line and the like look at the values that are no spikes: at those of their period, or at
    /// the last one within reach, and through each of them at its neighbours.
    pub(crate) fn margins(&self) -> Margins {
        let mut margins = Margins::default();
        for test in Test::ALL {
            for (_, parameters) in self.lines(*test) {
                let (before_us, after_us) = match parameters {
                    Parameters::Off | Parameters::Span { .. } => (0, 0),
                    Parameters::Gap { longer_us } => (longer_us, 0),
                    Parameters::On | Parameters::Spike(_) | Parameters::Rate { .. } => {
                        (2 * self.reach_us, self.reach_us)
                    }
                    Parameters::Flat { suspect_us, fail_us, .. } => {
                        (suspect_us.max(fail_us).unwrap_or(0) + self.reach_us, self.reach_us)
                    }
                    Parameters::Attenuated { period_us, .. } | Parameters::Exposure { period_us, .. } => {
                        (period_us + self.reach_us, self.reach_us)
                    }
                };
                margins.before_us = margins.before_us.max(before_us);
                margins.after_us = margins.after_us.max(after_us);
            }
        }
        margins
    }
}
