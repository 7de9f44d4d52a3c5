//! The front page: a card for each place, with the number that people come for.

use jiff::tz::TimeZone;
use maud::{Markup, html};
use tjern_readings::clock::SECOND_US;

use super::curve::{Curves, Trend, extremes, trend};
use super::texts::Texts;
use super::{chart, format};
use crate::latest::{Condition, Observation, SensorNow, age_s};

/// The quantity that a bathing place is known by.
pub(crate) const BATHING: &str = "water_temperature";
/// How far back the curve of a card reaches.
pub(crate) const CURVE_SPAN_US: i64 = 24 * 3600 * SECOND_US;
/// The window of a point of that curve; the named query `curves` has it as its default.
const CURVE_EVERY_US: i64 = 30 * 60 * SECOND_US;

/// What every page knows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) texts: &'a Texts,
    pub(crate) timezone: &'a TimeZone,
    pub(crate) now_us: i64,
    pub(crate) simulated: bool,
}

/// The sensors of one place, the one that it is known by first.
pub(crate) struct Place<'a> {
    pub(crate) site: &'a str,
    pub(crate) sensors: Vec<&'a SensorNow>,
}

impl<'a> Place<'a> {
    /// The places of some sensors, in the order of their names.
    pub(crate) fn all(sensors: &'a [SensorNow]) -> Vec<Self> {
        let mut places: Vec<Self> = Vec::new();
        for sensor in sensors {
            match places.iter_mut().find(|place| place.site == sensor.site) {
                Some(place) => place.sensors.push(sensor),
                None => places.push(Self { site: &sensor.site, sensors: vec![sensor] }),
            }
        }
        for place in &mut places {
            // At the surface before at a depth: the id with fewer parts.
            let rank = |sensor: &&SensorNow| (sensor.quantity != BATHING, sensor.sensor.matches('/').count());
            place.sensors.sort_by(|one, other| rank(one).cmp(&rank(other)).then(one.sensor.cmp(&other.sensor)));
        }
        places.sort_by_cached_key(|place| place.name().to_lowercase());
        places
    }

    /// The place's name, or its id where the register has none.
    pub(crate) fn name(&self) -> &'a str {
        self.sensors.iter().find_map(|sensor| sensor.site_name.as_deref()).unwrap_or(self.site)
    }

    fn bathing(&self) -> Option<&'a SensorNow> {
        self.sensors.first().copied().filter(|sensor| sensor.quantity == BATHING)
    }
}

/// What a sensor is called.
pub(crate) fn sensor_name<'a>(texts: &Texts, sensor: &'a SensorNow) -> &'a str {
    let known = || (texts.quantity)(&sensor.quantity);
    sensor.sensor_name.as_deref().or_else(known).unwrap_or(&sensor.sensor)
}

/// The page.
pub(crate) fn front(view: View<'_>, sensors: &[SensorNow], curves: &Curves) -> Markup {
    let places = Place::all(sensors);
    let (bathing, others): (Vec<_>, Vec<_>) = places.iter().partition(|place| place.bathing().is_some());
    html! {
        header .top {
            h1 { (view.texts.title) }
            p .lead { (view.texts.lead) }
        }
        @if places.is_empty() { p .empty { (view.texts.no_places) } }
        @if !bathing.is_empty() {
            section .cards aria-label=(view.texts.bathing_places) {
                @for place in bathing { (bathing_card(view, place, curves)) }
            }
        }
        @if !others.is_empty() {
            h2 { (view.texts.other_places) }
            section .cards aria-label=(view.texts.other_places) {
                @for place in others { (simple_card(view, place)) }
            }
        }
    }
}

fn link(place: &Place<'_>) -> Markup {
    html! { a href={ "/sted/" (place.site) } { (place.name()) } }
}

fn bathing_card(view: View<'_>, place: &Place<'_>, curves: &Curves) -> Markup {
    let Some(sensor) = place.bathing() else { return html! {} };
    let points = curves.get(&sensor.sensor).map_or(&[][..], Vec::as_slice);
    let from_us = view.now_us - CURVE_SPAN_US;
    let points = &points[points.partition_point(|point| point.time_us < from_us)..];
    let trend = sensor.fresh(view.now_us).and_then(|observation| trend(observation, points));
    html! {
        article .card .is-late[sensor.fresh(view.now_us).is_none()] {
            h2 { (link(place)) }
            (reading(view, sensor))
            @if let Some((trend, difference)) = trend { (trend_line(view.texts, trend, difference)) }
            (day(view, sensor, points, from_us))
        }
    }
}

/// The number with its age, or why there is none.
pub(crate) fn reading(view: View<'_>, sensor: &SensorNow) -> Markup {
    match (sensor.condition(view.now_us), sensor.observation) {
        (Condition::Fresh, Some(observation)) => html! {
            p .number {
                (format::number(view.texts, observation.value, 1))
                @let unit = format::unit(sensor.unit.as_deref());
                @if !unit.is_empty() { span .unit { "\u{a0}" (unit) } }
            }
            p .age { (age(view, observation)) }
        },
        (condition, last) => html! {
            p .state { ((view.texts.condition)(condition)) }
            p .age {
                (view.texts.last_value) ": "
                @match last {
                    Some(last) => {
                        (format::quantity(view.texts, last.value, sensor.unit.as_deref())) ", " (age(view, last))
                    }
                    None => (view.texts.never),
                }
            }
        },
    }
}

/// How long ago, with the moment itself for those who ask.
fn age(view: View<'_>, observation: Observation) -> Markup {
    let moment = format::moment(view.texts, &format::local(observation.time_us, view.timezone));
    html! {
        time datetime=(format::machine(observation.time_us)) title=(moment) {
            ((view.texts.age)(age_s(view.now_us, observation.time_us)))
        }
    }
}

fn trend_line(texts: &Texts, trend: Trend, difference: f64) -> Markup {
    let (arrow, word, class) = match trend {
        Trend::Rising => ("↗", texts.rising, "rising"),
        Trend::Falling => ("↘", texts.falling, "falling"),
        Trend::Steady => ("→", texts.steady, "steady"),
    };
    let sign = if difference > 0.0 { "+" } else { "" };
    html! {
        p class={ "trend " (class) } {
            span .arrow aria-hidden="true" { (arrow) } " " strong { (word) }
            span .difference {
                @if trend != Trend::Steady { " " (sign) (format::number(texts, difference, 1)) "°" }
                " " (texts.last_hours)
            }
        }
    }
}

fn day(view: View<'_>, sensor: &SensorNow, points: &[super::curve::Point], from_us: i64) -> Markup {
    let Some((low, high)) = extremes(points) else { return html! {} };
    let said = |value| format::quantity(view.texts, value, sensor.unit.as_deref());
    let texts = view.texts;
    let (low, high) = (format!("{} {}", texts.lowest, said(low)), format!("{} {}", texts.highest, said(high)));
    let label = format!("{}: {low}, {high}", texts.last_day);
    html! {
        figure {
            (chart::sparkline(points, from_us, view.now_us, hole_us(sensor, CURVE_EVERY_US), &label))
            figcaption { span { (texts.last_day) } span { (low) } span { (high) } }
        }
    }
}

/// How long a silence breaks a curve.
pub(crate) fn hole_us(sensor: &SensorNow, every_us: i64) -> i64 {
    let interval_us = sensor.interval.map_or(0, |interval| i64::try_from(interval.as_micros()).unwrap_or(i64::MAX));
    every_us.max(interval_us).saturating_mul(5) / 2
}

fn simple_card(view: View<'_>, place: &Place<'_>) -> Markup {
    html! {
        article .card .simple {
            h2 { (link(place)) }
            dl {
                @for sensor in &place.sensors {
                    dt { (sensor_name(view.texts, sensor)) }
                    @match sensor.fresh(view.now_us) {
                        Some(observation) => dd {
                            strong { (format::quantity(view.texts, observation.value, sensor.unit.as_deref())) } " "
                            span .age { (age(view, observation)) }
                        },
                        None => dd .state { ((view.texts.condition)(sensor.condition(view.now_us))) },
                    }
                }
            }
        }
    }
}
