//! A place's page: each sensor's number, its chart, and the same numbers as a table.

use maud::{Markup, html};
use tjern_readings::clock::SECOND_US;

use super::curve::{Curves, Point, extremes};
use super::front::{Place, View, hole_us, reading, sensor_name};
use super::texts::Summary;
use super::{chart, format};
use crate::latest::SensorNow;

const DAY_US: i64 = 24 * 3600 * SECOND_US;

/// How far back a page looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Days {
    One,
    Seven,
    Thirty,
}

impl Days {
    const ALL: [Self; 3] = [Self::One, Self::Seven, Self::Thirty];

    /// What `?dager=` may say; without it, seven.
    pub(crate) fn parse(text: Option<&str>) -> Option<Self> {
        match text {
            None => Some(Self::Seven),
            Some(text) => Self::ALL.into_iter().find(|days| days.count().to_string() == text),
        }
    }

    pub(crate) const fn count(self) -> u32 {
        match self {
            Self::One => 1,
            Self::Seven => 7,
            Self::Thirty => 30,
        }
    }

    /// The window of a number: the fewer days, the finer.
    pub(crate) const fn every(self) -> (&'static str, i64) {
        match self {
            Self::One => ("10min", 600 * SECOND_US),
            Self::Seven | Self::Thirty => ("1h", 3600 * SECOND_US),
        }
    }

    /// The first moment that is shown.
    pub(crate) fn since_us(self, now_us: i64) -> i64 {
        now_us - i64::from(self.count()) * DAY_US
    }
}

/// The page.
pub(crate) fn site(view: View<'_>, place: &Place<'_>, days: Days, curves: &Curves) -> Markup {
    html! {
        header .top {
            p .back { a href="/" { "← " (view.texts.home) } }
            h1 { (place.name()) }
        }
        nav .spans aria-label=(view.texts.choose_span) {
            @for choice in Days::ALL {
                @let current = (choice == days).then_some("page");
                a href={ "?dager=" (choice.count()) } aria-current=[current] { ((view.texts.span)(choice.count())) }
            }
        }
        @for sensor in &place.sensors { (section(view, sensor, days, curves)) }
    }
}

fn section(view: View<'_>, sensor: &SensorNow, days: Days, curves: &Curves) -> Markup {
    let points = curves.get(&sensor.sensor).map_or(&[][..], Vec::as_slice);
    let name = sensor_name(view.texts, sensor);
    html! {
        section .sensor .is-late[sensor.fresh(view.now_us).is_none()] {
            h2 { (name) }
            (reading(view, sensor))
            @match extremes(points).zip(points.last()) {
                None => p .empty { (view.texts.no_curve) },
                Some(((low, high), last)) => (figure(view, sensor, days, points, &[low, high, last.value])),
            }
        }
    }
}

fn figure(view: View<'_>, sensor: &SensorNow, days: Days, points: &[Point], said: &[f64; 3]) -> Markup {
    let what = sensor_name(view.texts, sensor);
    let span = (view.texts.span)(days.count());
    let [low, high, last] = said.map(|value| format::quantity(view.texts, value, sensor.unit.as_deref()));
    let summary = (view.texts.summary)(Summary { what, span, low: &low, high: &high, last: &last });
    let chart = chart::Chart {
        texts: view.texts,
        timezone: view.timezone,
        points,
        unit: format::unit(sensor.unit.as_deref()),
        from_us: days.since_us(view.now_us),
        to_us: view.now_us,
        days: days.count(),
        hole_us: hole_us(sensor, days.every().1),
        summary: &summary,
    };
    html! {
        figure {
            (chart.draw())
            figcaption { (summary) }
        }
        details {
            summary { (view.texts.as_table) }
            (table(view, sensor, days, points))
        }
    }
}

fn table(view: View<'_>, sensor: &SensorNow, days: Days, points: &[Point]) -> Markup {
    let name = sensor_name(view.texts, sensor);
    let heading = match format::unit(sensor.unit.as_deref()) {
        "" => name.to_owned(),
        unit => format!("{name} ({unit})"),
    };
    html! {
        table {
            caption { ((view.texts.caption)(name, days.count())) }
            thead { tr { th scope="col" { (view.texts.time) } th scope="col" { (heading) } } }
            tbody {
                @for point in points.iter().rev() {
                    @let time = format::local(point.time_us, view.timezone);
                    tr {
                        th scope="row" { (format::numeric_day(&time)) " " (format::clock(&time)) }
                        td { (format::number(view.texts, point.value, 1)) }
                    }
                }
            }
        }
    }
}
