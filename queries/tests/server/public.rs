//! What everybody sees, and what nobody but the staff may.

use tjern_lake::TableName;

use crate::city::{City, before, reading, sensor};
use crate::client::{get, request};

/// Numbers and names that must not leave by the public door.
const SECRETS: [&str; 8] = ["327", "4711", "77.125", "77,1", "88.375", "88,4", "depot", "battery"];

fn assert_no_secret(what: &str, text: &str) {
    for secret in SECRETS {
        assert!(!text.contains(secret), "{secret:?} in {what}: {text}");
    }
    assert!(!text.contains("unlisted"), "{what}: {text}");
}

#[tokio::test]
async fn the_front_page_shows_what_is_fresh_and_says_what_is_not() {
    let city = City::drammen().await;
    let served = city.serve_with(|settings| settings.simulated = true).await;
    let page = get(served.public, "/").await;
    assert_eq!(page.status, 200, "{page:?}");
    for part in [
        "20,0<span",
        "for 4 sekunder siden",
        "<strong>stiger</strong>",
        "LANDFALLTJERN &lt;b&gt;&amp;",
        "Ingen fersk måling",
        "Sist: 17,5\u{a0}°C, <time",
        "Måleren svarer ikke",
        "Sist: 16,5\u{a0}°C",
        "Måleren gir ugyldige verdier",
        "Sist: 15,5\u{a0}°C",
        "Ingen måling ennå",
        "Verdiene er simulert",
        "<path class=\"line\"",
    ] {
        assert!(page.body.contains(part), "no {part:?} in {}", page.body);
    }
    for old in ["17,5<span", "16,5<span", "15,5<span", "<b>"] {
        assert!(!page.body.contains(old), "{old:?} in {}", page.body);
    }
    assert_no_secret("/", &page.body);
}

#[tokio::test]
async fn every_answer_of_the_public_listener_is_guarded() {
    let city = City::drammen().await;
    let served = city.serve().await;
    let page = get(served.public, "/").await;
    assert!(!page.body.contains("simulert"));
    let style = page.body.split("href=\"/static/").nth(1).and_then(|rest| rest.split('"').next()).expect("a style");
    let style = format!("/static/{style}");
    for path in ["/", "/sted/landfalltjern", "/sted/nowhere", &style, "/api/latest", "/api/sql", "/health", "/x"] {
        let reply = get(served.public, path).await;
        assert!(
            reply.header("content-security-policy").is_some_and(|csp| csp.starts_with("default-src 'none'")),
            "{path}"
        );
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(reply.header("referrer-policy"), Some("same-origin"), "{path}");
        assert!(reply.header("cache-control").is_some(), "{path}");
        assert_eq!(reply.header("server"), None, "{path}");
    }
    let style = get(served.public, &style).await;
    assert_eq!(style.header("content-type"), Some("text/css; charset=utf-8"));
    assert!(style.header("cache-control").is_some_and(|cache| cache.contains("immutable")));
    assert_eq!(get(served.public, "/api/latest").await.header("access-control-allow-origin"), Some("*"));
}

#[tokio::test]
async fn a_place_has_a_chart_and_the_same_numbers_as_a_table() {
    let city = City::drammen().await;
    let served = city.serve().await;
    let page = get(served.public, "/sted/landfalltjern").await;
    assert_eq!(page.status, 200, "{page:?}");
    // The first reading was thirty hours ago, at eight in the city.
    for part in ["<svg class=\"chart\"", "<table>", "30.6. 08.00</th><td>12,5</td>", "1.7. 12.00</th><td>19,5</td>"] {
        assert!(page.body.contains(part), "no {part:?} in {}", page.body);
    }
    let day = get(served.public, "/sted/landfalltjern?dager=1").await;
    assert!(day.body.contains("1.7. 13.00</th>") && !day.body.contains("30.6. 08.00</th>"), "{}", day.body);
    let silent = get(served.public, "/sted/svarttjern?dager=30").await;
    assert!(silent.body.contains("Måleren gir ugyldige verdier"), "{}", silent.body);
    assert_no_secret("/sted/svarttjern", &silent.body);
}

#[tokio::test]
async fn what_is_not_public_does_not_exist() {
    let city = City::drammen().await;
    let served = city.serve().await;
    let nowhere = get(served.public, "/sted/nowhere").await;
    assert_eq!(nowhere.status, 404);
    for path in
        ["/sted/depot", "/sted/unlisted", "/sted/..%2F..%2Fetc", "/sted/%00", "/sted/Landfalltjern", "/sted/x/y"]
    {
        let reply = get(served.public, path).await;
        assert_eq!((reply.status, &reply.body), (404, &nowhere.body), "{path}");
    }
    for path in ["/api/latest", "/api/query/latest", "/api/query/sensors", "/api/query/sites", "/api/query/curves"] {
        let reply = get(served.public, path).await;
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        assert_no_secret(path, &reply.body);
    }
    for sensor in ["depot/energy", "unlisted/water_temperature", "nowhere/at_all"] {
        let reply = get(served.public, &format!("/api/query/observations?sensor={sensor}")).await;
        assert_eq!((reply.status, reply.body.as_str()), (200, "[]\n"), "{sensor}");
    }
    let reply = get(served.public, "/api/query/observations?sensor=svarttjern/water_temperature").await;
    assert_no_secret("observations", &reply.body);
    assert_eq!(reply.json().as_array().map(Vec::len), Some(1), "{reply:?}");
}

#[tokio::test]
async fn the_newest_values_are_data() {
    let city = City::drammen().await;
    let served = city.serve().await;
    let latest = get(served.public, "/api/latest").await;
    assert_eq!(latest.header("content-type"), Some("application/json"));
    let latest = latest.json();
    let of = |sensor: &str| {
        let rows = latest.as_array().expect("an array");
        rows.iter().find(|row| row["sensor"] == sensor).cloned().unwrap_or_default()
    };
    let fresh = of("landfalltjern/water_temperature");
    assert_eq!(fresh["time"], before(4).as_str());
    assert_eq!((&fresh["value"], &fresh["quality"], &fresh["age_s"]), (&20.0.into(), &2.into(), &4.into()));
    assert_eq!((&fresh["unit"], &fresh["condition"]), (&"Cel".into(), &"fresh".into()));
    let silent = of("blektjern/water_temperature");
    assert_eq!(
        (&silent["value"], &silent["age_s"], &silent["condition"]),
        (&16.5.into(), &4000.into(), &"silent".into())
    );
    assert_eq!(silent["heard_cause"], "timeout");
    assert!(of("elva/water_temperature").is_null(), "never heard of");
}

#[tokio::test]
async fn named_queries_take_typed_parameters_and_nothing_else() {
    let city = City::drammen().await;
    let served = city.serve().await;
    let sensor = "sensor=landfalltjern/water_temperature";
    let csv =
        get(served.public, &format!("/api/query/windows?{sensor}&every=1d&from=2026-06-30T00:00:00Z&format=csv")).await;
    assert_eq!(csv.status, 200, "{csv:?}");
    let mut lines = csv.body.lines();
    assert_eq!(lines.next(), Some("sensor,time,low,high,count,value"));
    assert!(
        lines.next().is_some_and(|line| line.starts_with("landfalltjern/water_temperature,2026-06-30T00:00:00Z,")),
        "{csv:?}"
    );
    let accepted = request(served.public, "GET", "/api/query/latest", &[("Accept", "text/csv")], "").await;
    assert!(accepted.body.starts_with("sensor,time,value,quality,heard_time"), "{accepted:?}");

    let newest = get(served.public, &format!("/api/query/observations?{sensor}&limit=1")).await.json();
    assert_eq!(newest[0]["time"], before(4).as_str());
    assert_eq!(newest[0]["local_time"], "2026-07-01T13:59:56");

    let long = format!("/api/query/observations?sensor={}", "x".repeat(5000));
    for (path, status, part) in [
        ("/api/query/nothing", 404, "/api/query"),
        ("/api/query/observations", 400, "`sensor` is missing"),
        ("/api/query/observations?sensor=x'%20OR%201=1", 400, "part"),
        ("/api/query/observations?sensor=a/b&limit=0", 400, "less than 1"),
        ("/api/query/observations?sensor=a/b&limit=1&limit=2", 400, "twice"),
        ("/api/query/observations?sensor=a/b&colour=red", 400, "sensor, from, to, limit"),
        ("/api/query/observations?sensor=a/b&from=yesterday", 400, "not a moment"),
        ("/api/query/windows?sensor=a/b&every=0s", 400, "positive"),
        ("/api/query/windows?sensor=a/b&every=1ms&from=now-30d", 400, "10000 windows"),
        ("/api/query/curves?every=1s", 400, "10000 windows"),
        ("/api/query/latest?format=xml", 400, "format"),
        (long.as_str(), 400, "longer"),
    ] {
        let reply = get(served.public, path).await;
        assert_eq!(reply.status, status, "{path}: {reply:?}");
        let json = reply.json();
        assert!(json["error"].is_string() && json["hint"].is_string(), "{path}: {reply:?}");
        assert!(reply.body.contains(part), "{path}: {reply:?}");
    }
    let list = get(served.public, "/api/query").await.json();
    let windows = list.as_array().expect("a list").iter().find(|query| query["name"] == "windows").expect("listed");
    assert_eq!(windows["parameters"][1]["type"], "duration");
    assert_eq!(windows["parameters"][1]["default"], "1h");
}

#[tokio::test]
async fn every_named_query_can_be_planned_and_run() {
    let city = City::drammen().await;
    let served = city.serve().await;
    for query in tjern_queries::named::all() {
        let mut path = format!("/api/query/{}?format=csv", query.name);
        for parameter in query.parameters.iter().filter(|parameter| parameter.default.is_none()) {
            let value = if parameter.name == "site" { "landfalltjern" } else { "landfalltjern/water_temperature" };
            path.push_str(&format!("&{}={value}", parameter.name));
        }
        let reply = get(served.public, &path).await;
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        assert!(reply.body.lines().count() > 1, "{path}: {reply:?}");
    }
}

#[tokio::test]
async fn the_mean_of_north_east_and_north_west_is_north() {
    let city = City::empty();
    let mut wind = sensor("mast/wind_direction", "public", "1h");
    (wind["kind"], wind["unit"], wind["high"]) = ("angle".into(), "deg".into(), 360.into());
    let mut rain = sensor("mast/rain", "public", "1h");
    (rain["kind"], rain["unit"]) = ("interval_sum".into(), "mm".into());
    city.add(TableName::Sensors, &[wind, rain]).await;
    let row = |sensor, ago, value, seq| reading(sensor, ago, Some(value), 1, seq);
    let rows = [
        row("mast/wind_direction", 600, 350.0, 1),
        row("mast/wind_direction", 900, 10.0, 2),
        row("mast/rain", 600, 2.0, 3),
        row("mast/rain", 900, 3.0, 4),
    ];
    city.add(TableName::Readings, &rows).await;
    let served = city.serve().await;
    let value = async |sensor: &str| {
        let rows = get(served.public, &format!("/api/query/windows?sensor={sensor}")).await.json();
        rows[0]["value"].as_f64().unwrap_or_else(|| panic!("{rows}"))
    };
    let north = value("mast/wind_direction").await;
    assert!(north.min(360.0 - north) < 1e-6, "{north}");
    assert!((value("mast/rain").await - 5.0).abs() < 1e-9);
}

#[tokio::test]
async fn a_city_without_tables_has_a_page_too() {
    let served = City::empty().serve().await;
    let page = get(served.public, "/").await;
    assert!(page.status == 200 && page.body.contains("Ingen åpne målinger ennå"), "{page:?}");
    assert_eq!(get(served.public, "/api/latest").await.body, "[]\n");
    let health = get(served.public, "/health").await;
    assert_eq!((health.status, &health.json()["newest_reading_age_s"]), (200, &serde_json::Value::Null));
}

#[tokio::test]
async fn what_is_committed_is_seen_within_a_moment() {
    let city = City::drammen().await;
    let served = city.serve().await;
    assert!(get(served.public, "/").await.body.contains("20,0<span"));
    city.add(TableName::Readings, &[reading("landfalltjern/water_temperature", 2, Some(21.5), 2, 1000)]).await;
    let patience = std::time::Duration::from_secs(30);
    let seen =
        tokio::time::timeout(patience, async { while !get(served.public, "/").await.body.contains("21,5<span") {} });
    seen.await.expect("the new value is shown");
}

#[tokio::test]
async fn the_public_door_only_reads() {
    let city = City::drammen().await;
    let served = city.serve().await;
    for (method, path) in [("POST", "/"), ("POST", "/api/latest"), ("DELETE", "/api/query/latest"), ("PUT", "/sted/x")]
    {
        let reply = request(served.public, method, path, &[], "x").await;
        assert_eq!(reply.status, 405, "{method} {path}: {reply:?}");
    }
    for path in ["/api/sql", "/metrics"] {
        assert_eq!(get(served.public, path).await.status, 404, "{path}");
        assert_eq!(request(served.public, "POST", path, &[], "SELECT 1").await.status, 404, "{path}");
    }
}
