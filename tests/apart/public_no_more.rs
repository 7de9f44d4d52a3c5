//! Nothing is public by accident: a class that narrows takes back what was released.

use serde_json::Value;

use crate::place::{Place, said};

const FOLDER: &str = "lake/open/badetemperatur";

fn sensors(tarn: &str, depth: &str) -> String {
    format!(
        "tarn/water_temperature,tarn,water_temperature,Cel,sample,{tarn},\n\
         tarn/depth-2m/water_temperature,tarn,water_temperature,Cel,sample,{depth},\n"
    )
}

impl Place {
    fn newest(&self) -> Option<String> {
        let text = std::fs::read(self.path(&format!("{FOLDER}/latest.json"))).ok()?;
        let latest: Value = serde_json::from_slice(&text).expect("JSON");
        Some(latest["version"].as_str().expect("a version").to_owned())
    }

    fn csv(&self, version: &str) -> String {
        std::fs::read_to_string(self.path(&format!("{FOLDER}/{version}/badetemperatur.csv"))).expect("read")
    }

    fn is_withdrawn(&self, version: &str) -> bool {
        self.names(&format!("{FOLDER}/{version}")) == ["withdrawn.json"]
    }
}

/// Its owner asked that a sensor be shown no more: `register` and `publish` said that all was well, and its readings could be
/// fetched for good.
#[test]
fn a_sensor_that_is_public_no_more_leaves_the_releases() {
    let place = Place::new(&sensors("public", "public"));
    place.land("tarn-01", 1, &["tarn/water_temperature", "tarn/depth-2m/water_temperature"]);
    place.done(&[&["ingest"], &["publish"]]);
    let first = place.newest().expect("released");
    assert!(place.csv(&first).contains("tarn/water_temperature,"));
    // Another one stays public: what was released goes all the same, at once.
    place.sensors(&sensors("internal", "public"));
    let output = place.run(&["register"]);
    assert!(output.status.success() && said(&output).contains("releases withdrawn"), "{}", said(&output));
    let second = place.newest().expect("released anew");
    assert!(place.is_withdrawn(&first) && second > first);
    let csv = place.csv(&second);
    assert!(csv.contains("tarn/depth-2m/") && !csv.contains("tarn/water_temperature,"), "{csv}");
    let note = std::fs::read_to_string(place.path(&format!("{FOLDER}/{first}/withdrawn.json"))).expect("read");
    assert!(note.contains("public no more") && !note.contains("tarn/"), "{note}");
    // The last one: nothing is left to be published.
    place.sensors(&sensors("internal", "internal"));
    place.done(&[&["register"], &["publish"]]);
    assert_eq!(place.newest(), None, "`latest.json` names nothing that is public no more");
    assert!(place.is_withdrawn(&first) && place.is_withdrawn(&second));
    // What was public before and after is released again, and goes again.
    place.sensors(&sensors("internal", "public"));
    place.done(&[&["register"], &["publish"]]);
    let third = place.newest().expect("released");
    place.sensors(&sensors("internal", "internal"));
    place.done(&[&["register"]]);
    assert!(place.newest().is_none() && place.is_withdrawn(&third));
}

/// What ended was public to its end: a line that is left out takes back nothing.
#[test]
fn a_sensor_that_is_taken_down_stays_in_what_was_released() {
    let place = Place::new(&sensors("public", "public"));
    place.land("tarn-01", 1, &["tarn/water_temperature", "tarn/depth-2m/water_temperature"]);
    place.done(&[&["ingest"], &["publish"]]);
    let first = place.newest().expect("released");
    let rest = sensors("public", "public").lines().next().expect("a line").to_owned() + "\n";
    place.sensors(&rest);
    place.done(&[&["register"], &["publish"]]);
    assert!(place.csv(&first).contains("tarn/depth-2m/"));
    let second = place.newest().expect("released");
    assert!(second != first && !place.csv(&second).contains("tarn/depth-2m/"), "a new one has none of it");
}
