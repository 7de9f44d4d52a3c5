//! Charts as SVG, drawn on the server: a small one without axes for a card, a large one with them.
//!
//! Colours, widths and letter sizes are the style sheet's. The same numbers always stand beside a chart
//! as text: nobody needs to see it.

use std::fmt::Write;

use jiff::tz::TimeZone;
use jiff::{ToSpan, Zoned};
use maud::{Markup, html};

use super::curve::{Point, extremes, runs};
use super::format;
use super::texts::Texts;

/// Up to so many steps between the labels of the values.
const STEPS_MAX: f64 = 5.0;
/// Values that differ by less fill the chart with noise: it shows at least so much.
const SPREAD_MIN: f64 = 1.0;

/// Where things lie in a drawing, in its own units.
struct Frame {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
    from_us: i64,
    to_us: i64,
    low: f64,
    high: f64,
}

#[expect(clippy::cast_precision_loss, reason = "a pixel is enough")]
impl Frame {
    fn x(&self, time_us: i64) -> f64 {
        let part = (time_us - self.from_us) as f64 / (self.to_us - self.from_us).max(1) as f64;
        self.left + (self.right - self.left) * part
    }

    fn y(&self, value: f64) -> f64 {
        self.bottom - (self.bottom - self.top) * (value - self.low) / (self.high - self.low)
    }

    /// The line of some curve, lifted from the pen at every hole.
    fn line(&self, points: &[Point], hole_us: i64) -> String {
        let mut path = String::new();
        for run in runs(points, hole_us) {
            for (index, point) in run.iter().enumerate() {
                self.go(&mut path, if index == 0 { 'M' } else { 'L' }, point);
            }
            if run.len() == 1 {
                path.push_str("h0");
            }
        }
        path
    }

    /// The same, closed along a floor.
    fn area(&self, points: &[Point], hole_us: i64, floor: f64) -> String {
        let mut path = String::new();
        for run in runs(points, hole_us) {
            let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
            let _ = write!(path, "M{:.1} {floor:.1}", self.x(first.time_us));
            run.iter().for_each(|point| self.go(&mut path, 'L', point));
            let _ = write!(path, "L{:.1} {floor:.1}Z", self.x(last.time_us));
        }
        path
    }

    fn go(&self, path: &mut String, command: char, point: &Point) {
        let _ = write!(path, "{command}{:.1} {:.1}", self.x(point.time_us), self.y(point.value));
    }
}

/// The lowest and highest value that a drawing shows.
fn spread(points: &[Point]) -> Option<(f64, f64)> {
    let (low, high) = extremes(points)?;
    let lacking = (SPREAD_MIN - (high - low)).max(0.0) / 2.0;
    Some((low - lacking, high + lacking))
}

/// The curve of a card.
pub(crate) fn sparkline(points: &[Point], from_us: i64, to_us: i64, hole_us: i64, label: &str) -> Markup {
    let Some((low, high)) = spread(points) else { return html! {} };
    let frame = Frame { left: 2.0, right: 294.0, top: 6.0, bottom: 58.0, from_us, to_us, low, high };
    html! {
        svg .sparkline viewBox="0 0 300 64" preserveAspectRatio="none" role="img" aria-label=(label) {
            path .area d=(frame.area(points, hole_us, 64.0)) {}
            path .line d=(frame.line(points, hole_us)) {}
            @if let Some(last) = points.last() {
                path .dot d={ "M" (format!("{:.1} {:.1}", frame.x(last.time_us), frame.y(last.value))) "h0" } {}
            }
        }
    }
}

/// What a large chart shows.
pub(crate) struct Chart<'a> {
    pub(crate) texts: &'a Texts,
    pub(crate) timezone: &'a TimeZone,
    pub(crate) points: &'a [Point],
    pub(crate) unit: &'a str,
    pub(crate) from_us: i64,
    pub(crate) to_us: i64,
    pub(crate) days: u32,
    pub(crate) hole_us: i64,
    /// One sentence that says what is to be seen.
    pub(crate) summary: &'a str,
}

impl Chart<'_> {
    /// The chart with its axes; nothing where there is nothing to draw.
    pub(crate) fn draw(&self) -> Markup {
        let Some((low, high)) = spread(self.points) else { return html! {} };
        let step = nice_step(high - low);
        let (low, high) = ((low / step).floor() * step, (high / step).ceil() * step);
        let frame = Frame {
            left: 42.0,
            right: 394.0,
            top: 26.0,
            bottom: 204.0,
            from_us: self.from_us,
            to_us: self.to_us,
            low,
            high,
        };
        html! {
            svg .chart viewBox="0 0 400 232" role="img" aria-label=(self.summary) {
                text .unit x="4" y="13" { (self.unit) }
                (self.values(&frame, step))
                (self.times(&frame))
                path .area d=(frame.area(self.points, self.hole_us, frame.bottom)) {}
                path .line d=(frame.line(self.points, self.hole_us)) {}
            }
        }
    }

    fn values(&self, frame: &Frame, step: f64) -> Markup {
        let decimals = usize::from(step < 1.0);
        let count = ((frame.high - frame.low) / step).round();
        let ticks = (0..=100).map(f64::from).take_while(|index| *index <= count);
        html! {
            @for value in ticks.map(|index| frame.low + index * step) {
                @let y = format!("{:.1}", frame.y(value));
                path .grid d={ "M" (format!("{:.0}", frame.left)) " " (y) "H" (format!("{:.0}", frame.right)) } {}
                text .value x="36" y=(y) dy="4" { (format::number(self.texts, value, decimals)) }
            }
        }
    }

    fn times(&self, frame: &Frame) -> Markup {
        html! {
            @for time in ticks(self.from_us, self.to_us, self.days, self.timezone) {
                @let x = format!("{:.1}", frame.x(time.timestamp().as_microsecond()));
                path .grid d={ "M" (x) " 26V209" } {}
                text .time x=(x) y="224" { (self.label(&time)) }
            }
        }
    }

    fn label(&self, time: &Zoned) -> String {
        match self.days {
            1 => format::clock(time),
            7 => format::short_day(self.texts, time).trim_end_matches('.').replace(". ", " "),
            _ => format::numeric_day(time),
        }
    }
}

/// One, two or five times a power of ten.
fn nice_step(spread: f64) -> f64 {
    let raw = (spread / STEPS_MAX).max(0.1);
    let power = 10_f64.powf(raw.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= raw * 0.999).unwrap_or(10.0);
    factor * power
}

/// The moments with a label: civil hours and midnights of the city, so that days of 23 and 25 hours
/// are drawn as long as they are.
fn ticks(from_us: i64, to_us: i64, days: u32, timezone: &TimeZone) -> Vec<Zoned> {
    let hours: &[i8] = if days == 1 { &[0, 6, 12, 18] } else { &[0] };
    let stride = if days > 7 { 5 } else { 1 };
    let (from, to) = (format::local(from_us, timezone), format::local(to_us, timezone));
    let mut date = to.date();
    let mut ticks = Vec::new();
    while date >= from.date() {
        for hour in hours.iter().rev() {
            let Ok(time) = date.at(*hour, 0, 0, 0).to_zoned(timezone.clone()) else { continue };
            if time >= from && time <= to {
                ticks.push(time);
            }
        }
        match date.checked_sub(stride.days()) {
            Ok(earlier) => date = earlier,
            Err(_) => break,
        }
    }
    ticks.reverse();
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tjern_readings::clock::SECOND_US;

    const HOUR_US: i64 = 3600 * SECOND_US;

    fn oslo() -> TimeZone {
        TimeZone::get("Europe/Oslo").expect("it is built in")
    }

    #[test]
    fn midnights_are_those_of_the_city_also_when_clocks_change() {
        // From Friday the 23rd to Wednesday the 28th of October 2026; Sunday has 25 hours.
        let from_us = 1_792_706_400_000_000;
        let ticks = ticks(from_us, from_us + 5 * 24 * HOUR_US, 7, &oslo());
        let hours: Vec<_> = ticks.windows(2).map(|pair| pair[0].duration_until(&pair[1]).as_hours()).collect();
        assert_eq!(hours, [24, 24, 25, 24], "{ticks:?}");
        assert!(ticks.iter().all(|tick| tick.hour() == 0));
    }

    #[test]
    fn steps_are_ones_people_count_in() {
        for (spread, step) in [(1.0, 0.2), (2.0, 0.5), (4.0, 1.0), (8.0, 2.0), (20.0, 5.0), (400.0, 100.0)] {
            assert!((nice_step(spread) - step).abs() < 1e-9, "{spread}: {}", nice_step(spread));
        }
    }

    proptest! {
        #[test]
        fn whatever_the_values_are_the_drawing_is_finite(
            values in prop::collection::vec(-1e12..1e12_f64, 0..50),
            every in 1..100_i64,
        ) {
            let points: Vec<_> = (0..).zip(&values).map(|(index, value)| Point { time_us: index * every * HOUR_US, value: *value }).collect();
            let chart = Chart {
                texts: &super::super::texts::NB, timezone: &oslo(), points: &points, unit: "°C",
                from_us: 0, to_us: 50 * every * HOUR_US, days: 7, hole_us: 2 * HOUR_US, summary: "x",
            };
            let drawn = chart.draw().into_string() + &sparkline(&points, 0, 50 * every * HOUR_US, HOUR_US, "x").into_string();
            prop_assert!(!drawn.contains("NaN") && !drawn.contains("inf"), "{drawn}");
        }
    }
}
