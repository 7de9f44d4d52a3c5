//! Numbers, units and moments as a language writes them.

use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use super::texts::Texts;

/// A number with so many decimals: `13,4`, `−0,5`.
pub(crate) fn number(texts: &Texts, value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    let (sign, digits) = text.strip_prefix('-').map_or(("", text.as_str()), |digits| ("\u{2212}", digits));
    // What rounds to zero is not below zero.
    let sign = if digits.bytes().any(|byte| matches!(byte, b'1'..=b'9')) { sign } else { "" };
    format!("{sign}{}", digits.replace('.', texts.decimal_point))
}

/// A UCUM unit as people write it.
pub(crate) fn unit(ucum: Option<&str>) -> &str {
    match ucum.unwrap_or_default() {
        "Cel" => "°C",
        "deg" => "°",
        "m3/s" => "m³/s",
        "W/m2" => "W/m²",
        "uS/cm" => "µS/cm",
        "1" | "{count}" => "",
        other => other,
    }
}

/// A number with its unit, kept on one line: `13,4 °C`.
pub(crate) fn quantity(texts: &Texts, value: f64, ucum: Option<&str>) -> String {
    match unit(ucum) {
        "" => number(texts, value, 1),
        unit => format!("{}\u{a0}{unit}", number(texts, value, 1)),
    }
}

/// A moment in a time zone.
pub(crate) fn local(time_us: i64, timezone: &TimeZone) -> Zoned {
    Timestamp::from_microsecond(time_us).unwrap_or_default().to_zoned(timezone.clone())
}

/// `22. november kl. 14.05`.
pub(crate) fn moment(texts: &Texts, time: &Zoned) -> String {
    format!("{} kl.\u{a0}{}", day(texts, time), clock(time))
}

/// `22. november`.
pub(crate) fn day(texts: &Texts, time: &Zoned) -> String {
    let month = usize::try_from(time.month()).ok().and_then(|month| texts.months.get(month.checked_sub(1)?));
    format!("{}. {}", time.day(), month.copied().unwrap_or_default())
}

/// `14.05`.
pub(crate) fn clock(time: &Zoned) -> String {
    format!("{:02}.{:02}", time.hour(), time.minute())
}

/// `søn. 22.`: short enough for an axis.
pub(crate) fn short_day(texts: &Texts, time: &Zoned) -> String {
    format!("{} {}.", short_weekday(texts, time.weekday()), time.day())
}

/// `22.11.`: shorter still.
pub(crate) fn numeric_day(time: &Zoned) -> String {
    format!("{}.{}.", time.day(), time.month())
}

fn short_weekday(texts: &Texts, weekday: Weekday) -> &'static str {
    let index = usize::try_from(weekday.to_monday_zero_offset()).unwrap_or_default();
    texts.short_weekdays.get(index).copied().unwrap_or_default()
}

/// A moment for machines: RFC 3339, UTC.
pub(crate) fn machine(time_us: i64) -> String {
    Timestamp::from_microsecond(time_us).unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    use super::super::texts::NB;
    use super::*;

    #[test]
    fn numbers_are_written_with_a_comma_and_a_true_minus() {
        for (value, text) in [(13.42, "13,4"), (-0.5, "\u{2212}0,5"), (-0.04, "0,0"), (0.0, "0,0"), (1e3, "1000,0")] {
            assert_eq!(number(&NB, value, 1), text);
        }
        assert_eq!(quantity(&NB, 13.42, Some("Cel")), "13,4\u{a0}°C");
        assert_eq!(quantity(&NB, 2.0, None), "2,0");
    }

    #[test]
    fn moments_are_local() {
        let oslo = TimeZone::get("Europe/Oslo").expect("it is built in");
        let summer = local(1_782_907_500_000_000, &oslo);
        assert_eq!(moment(&NB, &summer), "1. juli kl.\u{a0}14.05");
        assert_eq!(short_day(&NB, &summer), "on. 1.");
        assert_eq!(machine(1_782_907_500_000_000), "2026-07-01T12:05:00Z");
    }
}
