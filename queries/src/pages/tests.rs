//! Pages as text: what they must say, and what they must never say.

use jiff::tz::TimeZone;
use tjern_readings::clock::SECOND_US;

use super::curve::{Curves, Point};
use super::front::{Place, View, front};
use super::site::{Days, site};
use super::texts::NB;
use super::{message, page};
use crate::latest::tests::{NOW_US, observed, sensor};
use crate::latest::{Heard, SensorNow};

const HOUR_US: i64 = 3600 * SECOND_US;

fn named(id: &str, name: &str, interval: &str) -> SensorNow {
    SensorNow { site_name: Some(name.to_owned()), ..sensor(id, Some(interval)) }
}

fn curve(hours: i64, value: impl Fn(f64) -> f64) -> Vec<Point> {
    let point = |half: i64| {
        #[expect(clippy::cast_precision_loss, reason = "small")]
        let x = half as f64 / 2.0;
        Point { time_us: NOW_US - half * HOUR_US / 2, value: value(x) }
    };
    (0..hours * 2).rev().map(point).collect()
}

fn city() -> (Vec<SensorNow>, Curves) {
    let mut sensors = vec![
        named("landfalltjern/water_temperature", "Landfalltjern", "5s"),
        named("goliaten/water_temperature", "Goliaten", "5s"),
        named("blektjern/water_temperature", "Blektjern", "1h"),
        named("svarttjern/water_temperature", "Svarttjern", "1h"),
        named("drammenselva/water_temperature", "Drammenselva", "5s"),
        named("spiralen/air_temperature", "Spiralen værmast", "5s"),
        named("spiralen/wind_speed", "Spiralen værmast", "5s"),
    ];
    for (index, value) in [13.42, 17.9, 11.3, 12.0, -0.04, 4.26, 3.1].into_iter().enumerate() {
        sensors[index].observation = observed(4, value);
    }
    sensors[6].unit = Some("m/s".to_owned());
    sensors[2].observation = observed(9 * 3600, 11.3);
    sensors[3].observation = observed(30 * 3600, 12.0);
    sensors[3].heard = Some(Heard { time_us: NOW_US, quality: 9, cause: Some("timeout".to_owned()) });
    let mut curves = Curves::new();
    curves.insert(sensors[0].sensor.clone(), curve(168, |x| 13.4 - x * 0.02 + (x / 3.8).cos() - 1.0));
    curves.insert(sensors[1].sensor.clone(), curve(168, |x| 17.9 + x * 0.08));
    curves.insert(sensors[4].sensor.clone(), curve(168, |_| 0.0));
    (sensors, curves)
}

fn view(timezone: &TimeZone) -> View<'_> {
    View { texts: &NB, timezone, now_us: NOW_US, simulated: true }
}

fn oslo() -> TimeZone {
    TimeZone::get("Europe/Oslo").expect("it is built in")
}

fn front_page(sensors: &[SensorNow], curves: &Curves) -> String {
    let timezone = oslo();
    page(view(&timezone), NB.title, true, &front(view(&timezone), sensors, curves))
}

fn site_page(id: &str, sensors: &[SensorNow], curves: &Curves, days: Days) -> String {
    let timezone = oslo();
    let places = Place::all(sensors);
    let place = places.iter().find(|place| place.site == id).expect("the place");
    page(view(&timezone), place.name(), false, &site(view(&timezone), place, days, curves))
}

#[test]
fn a_card_says_how_warm_it_is_and_how_old_that_is() {
    let (sensors, curves) = city();
    let html = front_page(&sensors, &curves);
    for part in [
        "<html lang=\"nb\">",
        "13,4<span class=\"unit\">\u{a0}°C</span>",
        "for 4 sekunder siden",
        "datetime=\"2026-09-21T14:13:16Z\"",
        "title=\"21. september kl.\u{a0}16.13\"",
        "<strong>stiger</strong>",
        "<strong>synker</strong>",
        "<strong>stabil</strong>",
        "Verdiene er simulert",
        "href=\"/sted/landfalltjern\"",
        "4,3\u{a0}°C",
        "3,1\u{a0}m/s",
    ] {
        assert!(html.contains(part), "no {part:?} in {html}");
    }
    assert!(!html.contains("\u{2212}0,0"));
}

#[test]
fn an_old_number_is_never_shown_as_now() {
    let (sensors, curves) = city();
    let html = front_page(&sensors, &curves);
    assert!(html.contains("Ingen fersk måling</p><p class=\"age\">Sist: 11,3\u{a0}°C"));
    assert!(html.contains("Måleren svarer ikke</p><p class=\"age\">Sist: 12,0\u{a0}°C"));
    assert!(!html.contains("11,3<span") && !html.contains("12,0<span"));
}

#[test]
fn a_page_asks_nobody_else_and_runs_nothing() {
    let (sensors, curves) = city();
    for html in [
        front_page(&sensors, &curves),
        site_page("landfalltjern", &sensors, &curves, Days::Seven),
        message(view(&oslo()), NB.not_found, NB.not_found_lead),
    ] {
        for part in ["http://", "https://", "//", "url(", "<script", "javascript:", "style=", "onload", "@import"] {
            let html = html.replace("<!DOCTYPE html>", "");
            assert!(!html.contains(part), "{part:?} in {html}");
        }
        assert!(html.contains("name=\"viewport\""));
    }
    assert!(!include_str!("style.css").contains("url("));
}

#[test]
fn names_are_text_and_not_markup() {
    let evil = "<script>alert('\"&')</script>";
    let mut sensor = named("evil/water_temperature", evil, "5s");
    sensor.sensor_name = Some(evil.to_owned());
    sensor.unit = Some(evil.to_owned());
    sensor.observation = observed(4, 1.0);
    let mut curves = Curves::new();
    curves.insert(sensor.sensor.clone(), curve(20, |x| x));
    let sensors = vec![sensor];
    for html in [front_page(&sensors, &curves), site_page("evil", &sensors, &curves, Days::One)] {
        assert!(!html.contains("<script") && html.contains("&lt;script&gt;"), "{html}");
    }
}

#[test]
fn a_chart_has_its_numbers_as_a_table() {
    let (sensors, curves) = city();
    let html = site_page("landfalltjern", &sensors, &curves, Days::Seven);
    for part in
        ["role=\"img\"", "<details>", "<caption>", "scope=\"row\"", "aria-current=\"page\"", "lavest", "°C</text>"]
    {
        assert!(html.contains(part), "no {part:?} in {html}");
    }
    assert_eq!(html.matches("<tr>").count(), 1 + 336);
    assert!(html.len() < 150_000, "{} bytes", html.len());
}

#[test]
fn a_place_is_known_by_its_surface() {
    let sensors = vec![
        named("a/depth-2m/water_temperature", "A", "5s"),
        sensor("a/air_temperature", None),
        named("a/water_temperature", "A", "5s"),
    ];
    let places = Place::all(&sensors);
    let order: Vec<_> = places[0].sensors.iter().map(|sensor| sensor.sensor.as_str()).collect();
    assert_eq!(order, ["a/water_temperature", "a/depth-2m/water_temperature", "a/air_temperature"]);
}

#[test]
fn only_spans_that_are_offered_are_answered() {
    assert_eq!(Days::parse(None), Some(Days::Seven));
    assert_eq!(Days::parse(Some("30")), Some(Days::Thirty));
    assert_eq!(Days::parse(Some("31")), None);
    assert_eq!(Days::parse(Some("")), None);
}
