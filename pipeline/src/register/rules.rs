//! Rules of quality control: which test, for which sensors, in which months, with which parameters.
//!
//! A rule is a line of `quality.csv`, or one of those that are built in. The closed list of tests and
//! of their parameters stands here and in `docs/quality.md`. What is read is believed by nobody later:
//! a parameter that a test does not know is an error, or a misspelt `fial=4` would be a limit that is
//! never checked. No I/O.

use std::collections::BTreeMap;
use std::path::Path;

use tjern_readings::configuration::Period;
use tjern_readings::sensor::{SensorId, is_part};

use super::file::{Columns, Fields, Lined, RegisterProblem, as_text, read_rows, refuse_twice};
use super::rows::words;

words! {
    /// A test of quality control that a rule can set. Its bits in `tests` are `quality::flags`'.
    Test,
    /// Between a low and a high end, beside the register's `low` and `high`.
    Range = "range",
    /// Between the ends that hold in a season.
    Climatology = "climatology",
    /// Out and back again: further than its neighbours on both sides.
    Spike = "spike",
    /// Too far from the reading before it.
    RateOfChange = "rate_of_change",
    /// The same value for too long.
    FlatLine = "flat_line",
    /// Hardly any movement where there ought to be some.
    AttenuatedSignal = "attenuated_signal",
    /// Too long after the value before it.
    Gap = "gap",
    /// A counter that goes backward.
    Backward = "backward",
    /// More movement than the medium allows: a probe that hangs in the air.
    Exposure = "exposure",
}

/// Sensors that a rule is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Every sensor: `*`.
    All,
    /// Sensors of a quantity: `*/water_temperature`.
    Quantity(String),
    /// One sensor.
    Sensor(String),
}

/// Months of the year, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Months(u16);

/// Two ends; either may be open.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Ends {
    /// The lower end; it belongs to the span.
    pub low: Option<f64>,
    /// The upper end; it belongs to the span.
    pub high: Option<f64>,
}

/// Two limits, in the sensor's unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// What is suspect.
    pub suspect: Option<f64>,
    /// What fails.
    pub fail: Option<f64>,
}

/// What a test is made with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Parameters {
    /// The test is not made.
    Off,
    /// The test is made; it needs nothing.
    On,
    /// `range`, `climatology`: outside of these.
    Span {
        /// Suspect outside of it.
        suspect: Ends,
        /// Failed outside of it.
        fail: Ends,
    },
    /// `spike`: further than this from both neighbours.
    Spike(Limits),
    /// `rate_of_change`: more than the limits in a period.
    Rate {
        /// How far.
        limits: Limits,
        /// In what time; a shorter step may go as far.
        per_us: i64,
    },
    /// `flat_line`: within the tolerance for so long.
    Flat {
        /// Suspect after.
        suspect_us: Option<i64>,
        /// Failed after.
        fail_us: Option<i64>,
        /// How much a stuck value may tremble; the range has to be below it.
        tolerance: f64,
        /// Only values above this are tested: ice keeps a tarn honestly flat.
        above: Option<f64>,
    },
    /// `attenuated_signal`: the range in a period is below the limits.
    Attenuated {
        /// How small.
        limits: Limits,
        /// In what time.
        period_us: i64,
        /// How many readings there have to be in it; none: it has to be covered.
        count: Option<u32>,
    },
    /// `gap`: no value for longer than this.
    Gap {
        /// How long.
        longer_us: i64,
    },
    /// `exposure`: the range in a period is above the limits.
    Exposure {
        /// How big.
        limits: Limits,
        /// In what time.
        period_us: i64,
    },
}

/// A line of `quality.csv` as text, as the table `quality_rules` keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as the columns of the file")]
pub struct RuleRow {
    pub sensors: String,
    pub unit: Option<String>,
    pub test: Test,
    pub months: Option<String>,
    pub parameters: String,
    /// All but the parameters: what a line is about.
    key: String,
}

/// A rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// For which sensors.
    pub target: Target,
    /// For which unit; none: any.
    pub unit: Option<String>,
    /// Which test.
    pub test: Test,
    /// In which months.
    pub months: Months,
    /// With what.
    pub parameters: Parameters,
}

impl RuleRow {
    /// A row with its key.
    pub(crate) fn new(
        sensors: String,
        unit: Option<String>,
        test: Test,
        months: Option<String>,
        parameters: String,
    ) -> Self {
        let part = |text: &Option<String>| text.clone().unwrap_or_default();
        let key = format!("{sensors},{},{test},{}", part(&unit), part(&months));
        Self { sensors, unit, test, months, parameters, key }
    }

    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// The rule that the row says.
    ///
    /// # Errors
    /// What is wrong, and the column.
    pub(crate) fn rule(&self) -> Result<Rule, (&'static str, String)> {
        Ok(Rule {
            target: self.sensors.parse().map_err(|error| ("sensors", error))?,
            unit: self.unit.clone(),
            test: self.test,
            months: self.months.as_deref().map_or(Ok(Months::ALL), str::parse).map_err(|error| ("months", error))?,
            parameters: Parameters::read(self.test, &self.parameters).map_err(|error| ("parameters", error))?,
        })
    }
}

impl std::str::FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix('*') {
            Some("") => Ok(Self::All),
            Some(rest) => match rest.strip_prefix('/').filter(|quantity| is_part(quantity)) {
                Some(quantity) => Ok(Self::Quantity(quantity.to_owned())),
                None => Err(format!("`{text}` is neither a sensor nor `*/quantity` nor `*`")),
            },
            None => as_text(text.parse::<SensorId>()).map(|id| Self::Sensor(id.as_str().to_owned())),
        }
    }
}

impl Months {
    /// All twelve.
    pub const ALL: Self = Self(0x0fff);

    /// Whether a month, 1 to 12, is one of them.
    #[must_use]
    pub const fn contains(self, month: u8) -> bool {
        matches!(month, 1..=12) && self.0 & (1 << (month - 1)) != 0
    }

    /// Whether they have a month in common.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl std::str::FromStr for Months {
    type Err = String;

    /// `6-8`, `11-3` (over the new year), `1,6-8`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no months");
        let month =
            |text: &str| text.trim().parse::<u8>().ok().filter(|month| (1..=12).contains(month)).ok_or_else(wrong);
        let mut bits = 0;
        for part in text.split(',') {
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            let (mut at, to) = (month(from)?, month(to)?);
            loop {
                bits |= 1_u16 << (at - 1);
                if at == to {
                    break;
                }
                at = at % 12 + 1;
            }
        }
        Ok(Self(bits))
    }
}

impl Parameters {
    /// Reads `key=value key=value`, `on` or `off`.
    ///
    /// # Errors
    /// What is wrong.
    pub(crate) fn read(test: Test, text: &str) -> Result<Self, String> {
        if text.trim() == "off" {
            return Ok(Self::Off);
        }
        if test == Test::Backward {
            return if text.trim() == "on" { Ok(Self::On) } else { Err(format!("`{text}` is neither `on` nor `off`")) };
        }
        let mut given = Given::read(text)?;
        let read = given.take_for(test)?;
        given.nothing_left(test)?;
        Ok(read)
    }
}

/// The parameters of one rule that were not taken yet.
struct Given<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Given<'a> {
    fn read(text: &'a str) -> Result<Self, String> {
        let mut given = BTreeMap::new();
        for word in text.split_whitespace() {
            let (key, value) = word.split_once('=').ok_or_else(|| format!("`{word}` is not `key=value`"))?;
            if given.insert(key, value).is_some() {
                return Err(format!("`{key}` stands there twice"));
            }
        }
        Ok(Self(given))
    }

    fn take_for(&mut self, test: Test) -> Result<Parameters, String> {
        Ok(match test {
            Test::Range | Test::Climatology => {
                let (suspect, fail) = (self.ends("suspect")?, self.ends("fail")?);
                if suspect == Ends::default() && fail == Ends::default() {
                    return Err("neither `suspect` nor `fail` is given".to_owned());
                }
                Parameters::Span { suspect, fail }
            }
            Test::Spike => Parameters::Spike(self.limits()?),
            Test::RateOfChange => {
                Parameters::Rate { limits: self.limits()?, per_us: self.duration("per")?.unwrap_or(HOUR_US) }
            }
            Test::FlatLine => {
                let (suspect_us, fail_us) = (self.duration("suspect")?, self.duration("fail")?);
                if suspect_us.is_none() && fail_us.is_none() {
                    return Err("neither `suspect` nor `fail` is given".to_owned());
                }
                let tolerance = self.number("tolerance")?.filter(|tolerance| *tolerance > 0.0);
                let tolerance = tolerance.ok_or("`tolerance` is missing, or not above 0")?;
                Parameters::Flat { suspect_us, fail_us, tolerance, above: self.number("above")? }
            }
            Test::AttenuatedSignal => Parameters::Attenuated {
                limits: self.limits()?,
                period_us: self.duration("period")?.unwrap_or(24 * HOUR_US),
                count: self.count()?,
            },
            Test::Gap => Parameters::Gap { longer_us: self.duration("longer")?.ok_or("`longer` is missing")? },
            Test::Exposure => Parameters::Exposure {
                limits: self.limits()?,
                period_us: self.duration("period")?.unwrap_or(24 * HOUR_US),
            },
            Test::Backward => Parameters::On,
        })
    }

    fn limits(&mut self) -> Result<Limits, String> {
        let limits = Limits { suspect: self.number("suspect")?, fail: self.number("fail")? };
        match limits {
            Limits { suspect: None, fail: None } => Err("neither `suspect` nor `fail` is given".to_owned()),
            _ => Ok(limits),
        }
    }

    fn number(&mut self, key: &str) -> Result<Option<f64>, String> {
        self.0.remove(key).map(|text| number(key, text)).transpose()
    }

    fn ends(&mut self, key: &str) -> Result<Ends, String> {
        let Some(text) = self.0.remove(key) else { return Ok(Ends::default()) };
        let (low, high) = text.split_once("..").ok_or_else(|| format!("`{key}={text}` is not `low..high`"))?;
        let end = |text: &str| if text.is_empty() { Ok(None) } else { number(key, text).map(Some) };
        let ends = Ends { low: end(low)?, high: end(high)? };
        match ends {
            Ends { low: Some(low), high: Some(high) } if low > high => Err(format!("`{key}={text}`: {low} > {high}")),
            _ => Ok(ends),
        }
    }

    fn duration(&mut self, key: &str) -> Result<Option<i64>, String> {
        let period = self.0.remove(key).map(|text| as_text(text.parse::<Period>()));
        let micros = period.transpose().map_err(|error| format!("`{key}`: {error}"))?.map(Period::micros);
        match micros {
            Some(micros) if micros > PERIOD_US_MAX => Err(format!("`{key}` is longer than 31 days")),
            _ => Ok(micros),
        }
    }

    fn count(&mut self) -> Result<Option<u32>, String> {
        let read = |text: &str| text.parse().map_err(|_| format!("`count={text}` is no count"));
        self.0.remove("count").map(read).transpose()
    }

    fn nothing_left(&self, test: Test) -> Result<(), String> {
        match self.0.keys().next() {
            Some(key) => Err(format!("`{test}` has no parameter `{key}`")),
            None => Ok(()),
        }
    }
}

const HOUR_US: i64 = 3_600_000_000;

/// What a test may look back over: every reading that comes late costs as much again.
const PERIOD_US_MAX: i64 = 31 * 24 * HOUR_US;

fn number(key: &str, text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite());
    number.ok_or_else(|| format!("`{key}={text}` is no number"))
}

const COLUMNS: Columns = Columns { required: &["sensors", "test", "parameters"], optional: &["unit", "months"] };

/// Reads the text of `quality.csv`.
pub(crate) fn read_rules(path: &Path, text: &str) -> Result<Vec<Lined<RuleRow>>, Vec<RegisterProblem>> {
    let rows = read_rows(path, text, COLUMNS, read_rule)?;
    let mut problems = refuse_twice(path, "test", &rows, RuleRow::key);
    problems.extend(refuse_overlaps(path, &rows));
    if problems.is_empty() { Ok(rows) } else { Err(problems) }
}

/// The rules of the text of a `quality.csv`; `path` is what problems name.
///
/// # Errors
/// Everything that is wrong with it.
pub fn rules_of_text(path: &Path, text: &str) -> Result<Vec<Rule>, Vec<RegisterProblem>> {
    let lines = read_rules(path, text)?;
    Ok(lines.into_iter().filter_map(|line| line.row.rule().ok()).collect())
}

fn read_rule(fields: &mut Fields<'_>) -> Option<RuleRow> {
    let sensors = fields.required("sensors", "a sensor, `*/quantity`, or `*`")?;
    fields.required("test", "the tests are in docs/quality.md")?;
    let test = fields.parsed("test", "the tests are in docs/quality.md", str::parse::<Test>)??;
    let parameters = fields.required("parameters", "`key=value key=value`, or `off`")?;
    let row = RuleRow::new(sensors, fields.text("unit"), test, fields.text("months"), parameters);
    match row.rule() {
        Ok(_) => Some(row),
        Err((column, message)) => {
            fields.problem(Some(column), message, hint(column, test));
            None
        }
    }
}

fn hint(column: &str, test: Test) -> &'static str {
    match (column, test) {
        ("sensors", _) => "write a sensor like `landfalltjern/water_temperature`, or `*/water_temperature`",
        ("months", _) => "write numbers of months, like `6-8` or `11-3`",
        (_, Test::Range | Test::Climatology) => "like `suspect=-0.5..30 fail=-2..40`",
        (_, Test::Spike | Test::Exposure) => "like `suspect=1.5 fail=4`",
        (_, Test::RateOfChange) => "like `suspect=2 fail=5 per=1h`",
        (_, Test::FlatLine) => "like `suspect=24h fail=72h tolerance=0.05 above=4`",
        (_, Test::AttenuatedSignal) => "like `suspect=0.2 period=24h`",
        (_, Test::Gap) => "like `longer=2h`",
        (_, Test::Backward) => "write `on` or `off`",
    }
}

/// Two lines about the same test of the same sensors in the same month would say two things.
fn refuse_overlaps(path: &Path, rows: &[Lined<RuleRow>]) -> Vec<RegisterProblem> {
    let mut problems = Vec::new();
    for (index, line) in rows.iter().enumerate() {
        let months =
            |row: &RuleRow| row.months.as_deref().and_then(|months| months.parse().ok()).unwrap_or(Months::ALL);
        let same = |other: &RuleRow| {
            (&other.sensors, &other.unit, other.test) == (&line.row.sensors, &line.row.unit, line.row.test)
                && other.key() != line.row.key()
        };
        let other =
            rows[..index].iter().find(|other| same(&other.row) && months(&other.row).overlaps(months(&line.row)));
        if let Some(other) = other {
            problems.push(RegisterProblem {
                path: path.to_owned(),
                line: line.line,
                column: Some("months".to_owned()),
                message: format!("line {} has some of these months already", other.line),
                hint: "give each month of a test one line".to_owned(),
            });
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn problems(lines: &str) -> Vec<String> {
        let text = format!("sensors,test,months,parameters\n{lines}");
        let told = read_rules(Path::new("quality.csv"), &text).err().unwrap_or_default();
        told.iter().map(ToString::to_string).collect()
    }

    /// A misspelt limit would be one that is never checked.
    #[test]
    fn what_is_wrong_with_a_rule_is_told_with_its_place() {
        let told = |line: &str| problems(line).join("\n");
        assert_eq!(
            told("tjern/t,spike,,suspect=1 fial=4"),
            "quality.csv:2: column `parameters`: `spike` has no parameter `fial`; hint: like `suspect=1.5 fail=4`"
        );
        for (line, what) in [
            ("t,spike,,fail=4", "column `sensors`"),
            ("*/,spike,,fail=4", "neither a sensor nor"),
            ("tjern/t,spike,13,fail=4", "`13` is no months"),
            ("tjern/t,spike,,fail=NaN", "is no number"),
            ("tjern/t,spike,,fail", "is not `key=value`"),
            ("tjern/t,spike,,fail=1 fail=2", "stands there twice"),
            ("tjern/t,spike,,per=1h", "neither `suspect` nor `fail`"),
            ("tjern/t,spyke,,fail=1", "column `test`"),
            ("tjern/t,range,,fail=5..1", "5 > 1"),
            ("tjern/t,range,,fail=5", "is not `low..high`"),
            ("tjern/t,flat_line,,fail=5h", "`tolerance` is missing"),
            ("tjern/t,flat_line,,fail=5h tolerance=0", "not above 0"),
            ("tjern/t,flat_line,,fail=60d tolerance=1", "longer than 31 days"),
            ("tjern/t,backward,,yes", "neither `on` nor `off`"),
            ("tjern/t,spike,6-8,fail=1\ntjern/t,spike,8,fail=2", "line 2 has some of these months"),
            ("tjern/t,spike,,fail=1\ntjern/t,spike,,fail=2", "stands on line 2 already"),
        ] {
            assert!(told(line).contains(what), "{line}: {}", told(line));
        }
        assert_eq!(problems("tjern/t,spike,6-8,fail=1\ntjern/t,spike,11-3,fail=2\n*,spike,,off"), Vec::<String>::new());
    }

    #[test]
    fn months_go_over_the_new_year() {
        let months: Months = "11-2,6".parse().expect("months");
        let all: Vec<u8> = (0..14).filter(|month| months.contains(*month)).collect();
        assert_eq!(all, [1, 2, 6, 11, 12]);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "[ -~\n]{0,200}", test in 0..Test::ALL.len()) {
            let _ = read_rules(Path::new("quality.csv"), &text);
            let _ = Parameters::read(Test::ALL[test], &text);
            let _ = text.parse::<Months>();
        }
    }
}
