//! Small records that tell of erased readings: who corrected what, how a job ran last, what the watch has to tell.
//!
//! A correction's record whose readings are all erased goes. Where some of them stay, or nothing says whose they are, it
//! stays without its free words (a reason may name a value) and without the file it was made of. How a job ran
//! last goes where it names the sensor, which costs that job a run; the watch forgets what it says of the sensor.

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutPayload};
use serde_json::{Map, Value};
use tjern_lake::{Lake, LakeError, Lease};
use tjern_readings::keys::{CORRECTIONS, job_runs, watch_state};

use super::known::Erasures;
use super::record::Erasure;
use super::{Found, Wait};

/// The free words of a record, and what it was made of.
const FREE_WORDS: [&str; 3] = ["reason", "file", "sha256"];

/// What stands in a record in the place of its free words.
const ERASED: &str = "erased";

/// What becomes of a record.
enum Fate {
    Stays,
    Goes,
    /// It stays as this.
    Plain(Vec<u8>),
}

/// A record that has to change.
pub(super) struct Record {
    key: Path,
    fate: Fate,
}

/// The records that have to go, or to lose words.
pub(super) async fn find(lake: &Lake, erasures: &Erasures) -> Result<Vec<Record>, LakeError> {
    let mut found = Vec::new();
    for key in keys(lake, &Path::from(CORRECTIONS)).await? {
        let Some(bytes) = read(lake, &key).await? else { continue };
        match of_correction(&bytes, erasures) {
            Fate::Stays => {}
            fate => found.push(Record { key, fate }),
        }
    }
    for key in keys(lake, &job_runs()).await? {
        if read(lake, &key).await?.is_some_and(|bytes| names(&bytes, erasures)) {
            found.push(Record { key, fate: Fate::Goes });
        }
    }
    Ok(found)
}

/// Changes them.
pub(super) async fn change(lake: &Lake, records: Vec<Record>) -> Result<usize, LakeError> {
    let count = records.len();
    for Record { key, fate } in records {
        match fate {
            Fate::Stays => {}
            Fate::Goes => crate::vacuum::remove(lake, vec![key]).await?,
            Fate::Plain(bytes) => {
                let put = lake.objects().put(&key, PutPayload::from(bytes)).await;
                put.map_err(|source| LakeError::store(&key, source))?;
            }
        }
    }
    Ok(count)
}

impl Record {
    /// What is told of it.
    pub(super) fn found(&self) -> Found {
        Found::new("record", self.key.clone(), None)
    }
}

fn of_correction(bytes: &[u8], erasures: &Erasures) -> Fate {
    let Ok(Value::Object(words)) = serde_json::from_slice::<Value>(bytes) else {
        return if names(bytes, erasures) { Fate::Goes } else { Fate::Stays };
    };
    let about = |erasure: &&Erasure| is_about(&words, erasure);
    let concerned: Vec<&Erasure> = erasures.all().iter().filter(about).collect();
    if concerned.is_empty() || words.contains_key(ERASED) {
        return Fate::Stays;
    }
    if concerned.iter().any(|erasure| is_within(&words, erasure)) {
        return Fate::Goes;
    }
    let mut plain = words.clone();
    plain.retain(|word, _| !FREE_WORDS.contains(&word.as_str()));
    plain.insert(ERASED.to_owned(), concerned.iter().map(|erasure| erasure.id.as_str()).collect());
    Fate::Plain(serde_json::to_vec_pretty(&plain).unwrap_or_default())
}

/// The time that a word says.
fn time(words: &Map<String, Value>, word: &str) -> Option<i64> {
    let time: jiff::Timestamp = words.get(word)?.as_str()?.parse().ok()?;
    Some(time.as_microsecond())
}

fn period(words: &Map<String, Value>) -> (i64, i64) {
    (time(words, "from").unwrap_or(i64::MIN), time(words, "to").unwrap_or(i64::MAX))
}

/// The sensors that a record names; none where it names none.
fn sensors(words: &Map<String, Value>) -> Option<Vec<&str>> {
    match (words.get("sensor"), words.get("sensors")) {
        (Some(sensor), _) => Some(vec![sensor.as_str()?]),
        (None, Some(sensors)) => sensors.as_array()?.iter().map(Value::as_str).collect(),
        (None, None) => None,
    }
}

fn is_about(words: &Map<String, Value>, erasure: &Erasure) -> bool {
    let (from_us, to_us) = period(words);
    let overlaps = from_us < erasure.to.0 && erasure.from.0 < to_us;
    overlaps && sensors(words).is_none_or(|sensors| sensors.contains(&erasure.sensor.as_str()))
}

fn is_within(words: &Map<String, Value>, erasure: &Erasure) -> bool {
    let (from_us, to_us) = period(words);
    let only = sensors(words).is_some_and(|sensors| sensors.iter().all(|sensor| *sensor == erasure.sensor.as_str()));
    only && erasure.from.0 <= from_us && to_us <= erasure.to.0
}

fn names(bytes: &[u8], erasures: &Erasures) -> bool {
    let text = String::from_utf8_lossy(bytes);
    erasures.all().iter().any(|erasure| text.contains(erasure.sensor.as_str()))
}

/// The watch forgets what it says of these sensors: what is still wrong is told anew. Returns what has to wait.
pub(super) async fn forget_alerts(lake: &Lake, erasures: &Erasures) -> Result<Option<Wait>, LakeError> {
    let key = watch_state();
    if !read(lake, &key).await?.is_some_and(|bytes| names(&bytes, erasures)) {
        return Ok(None);
    }
    let Some(lease) = Lease::take(lake, crate::watch::JOB, crate::watch::LEASE).await? else {
        let why = "another process watches, or was killed at it";
        return Ok(Some(Wait { what: key.to_string(), why: why.to_owned(), erasures: None }));
    };
    let forgotten = async {
        let Some(bytes) = read(lake, &key).await? else { return Ok(()) };
        let Ok(mut state) = serde_json::from_slice::<Value>(&bytes) else { return Ok(()) };
        forget(&mut state, erasures);
        let put = lake.objects().put(&key, PutPayload::from(serde_json::to_vec(&state).unwrap_or_default())).await;
        put.map(drop).map_err(|source| LakeError::store(&key, source))
    };
    let result = forgotten.await;
    lease.give_back().await?;
    result.map(|()| None)
}

/// Takes what names a sensor out of the alerts, and out of what waits to be told.
fn forget(state: &mut Value, erasures: &Erasures) {
    let named = |value: &Value| names(value.to_string().as_bytes(), erasures);
    if let Some(alerts) = state.get_mut("alerts").and_then(Value::as_object_mut) {
        alerts.retain(|_, alert| !named(alert));
    }
    for queue in
        state.get_mut("queues").and_then(Value::as_object_mut).into_iter().flat_map(|queues| queues.values_mut())
    {
        if let Some(events) = queue.get_mut("events").and_then(Value::as_array_mut) {
            events.retain(|event| !named(event));
        }
    }
}

async fn keys(lake: &Lake, folder: &Path) -> Result<Vec<Path>, LakeError> {
    let listed = lake.objects().list(Some(folder)).try_collect::<Vec<_>>().await;
    let listed = listed.map_err(|source| LakeError::store(folder, source))?;
    Ok(listed.into_iter().map(|meta| meta.location).collect())
}

async fn read(lake: &Lake, key: &Path) -> Result<Option<Vec<u8>>, LakeError> {
    let failed = |source| LakeError::store(key, source);
    match lake.objects().get(key).await {
        Ok(found) => Ok(Some(found.bytes().await.map_err(failed)?.to_vec())),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(source) => Err(failed(source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::record::Moment;
    use serde_json::json;

    fn july() -> Erasures {
        let time = |text: &str| Moment(text.parse::<jiff::Timestamp>().expect("a time").as_microsecond());
        Erasures::of([Erasure {
            format: 1,
            id: "e".into(),
            sensor: "home-7/indoor_temperature".parse().expect("valid"),
            from: time("2026-07-01T00:00:00Z"),
            to: time("2026-08-01T00:00:00Z"),
            reason: String::new(),
            by: String::new(),
            at: Moment(0),
        }])
    }

    fn fate(record: &Value) -> Option<String> {
        match of_correction(record.to_string().as_bytes(), &july()) {
            Fate::Stays => None,
            Fate::Goes => Some("goes".to_owned()),
            Fate::Plain(bytes) => Some(String::from_utf8(bytes).expect("text")),
        }
    }

    #[test]
    fn a_record_goes_with_its_readings_and_loses_its_words_with_some_of_them() {
        let of = |sensor: &str, from: &str, to: &str| json!({"kind": "recompute", "sensor": sensor, "from": from, "to": to, "reason": "it said 21.75", "by": "a"});
        let (sensor, other) = ("home-7/indoor_temperature", "home-8/indoor_temperature");
        let (july, august) = ("2026-07-03T00:00:00Z", "2026-08-03T00:00:00Z");
        assert_eq!(fate(&of(sensor, july, "2026-07-04T00:00:00Z")).as_deref(), Some("goes"));
        assert_eq!(fate(&of(other, july, "2026-07-04T00:00:00Z")), None);
        assert_eq!(fate(&of(sensor, august, "2026-08-04T00:00:00Z")), None);
        let plain = fate(&of(sensor, july, august)).expect("it loses words");
        assert!(!plain.contains("21.75") && plain.contains("recompute"), "{plain}");
        assert_eq!(fate(&serde_json::from_str(&plain).expect("JSON")), None, "once is enough");
        let unknown = json!({"kind": "revise", "file": "july.csv", "sha256": "00", "by": "a"});
        let plain = fate(&unknown).expect("nothing says whose readings it is about");
        assert!(!plain.contains("july.csv"), "{plain}");
    }

    #[test]
    fn the_watch_forgets_one_sensor_only() {
        let alert = |sensor: &str| json!({"subject": sensor, "text": format!("{sensor} is 31.5")});
        let (sensor, other) = ("home-7/indoor_temperature", "home-8/indoor_temperature");
        let mut state = json!({
            "alerts": {"limit:a": alert(sensor), "limit:b": alert(other)},
            "queues": {"mail": {"events": [alert(sensor), alert(other)], "dropped": 0}},
        });
        forget(&mut state, &july());
        assert_eq!(state["alerts"], json!({"limit:b": alert(other)}));
        assert_eq!(state["queues"]["mail"]["events"], json!([alert(other)]));
    }
}
