//! The demo's past: 30 days of hourly readings, as one batch in the landing zone.

use std::time::Duration;

use object_store::{Error, ObjectStore, PutMode, PutPayload};
use tjern_lake::{Lake, Table, TableName};
use tjern_pipeline::ingest::watermark;
use tjern_readings::batch::encode;
use tjern_readings::keys::{Bounds, Landed};
use tjern_readings::reading::Reading;
use tjern_readings::sensor::{Epoch, SourceName};

use super::city::Place;
use crate::failure::Failure;
use crate::up::say;

/// How far back it goes.
const DAYS: i64 = 30;
const HOURS: i64 = 24 * DAYS;
const HOUR: Duration = Duration::from_secs(3_600);

/// Whose it is.
const SOURCE: &str = "import:history";

/// The one epoch of every demo's past: a second start meets the first one's batch.
const EPOCH: Epoch = Epoch::from_bytes(*b"tjern demo past.");

/// Values are those of loggers that keep two decimals.
const DECIMALS: f64 = 100.0;

/// Lands the history, unless it has landed or was ingested before.
pub(super) async fn land(lake: &Lake, places: &[Place]) -> Result<(), Failure> {
    let source: SourceName = SOURCE.parse().map_err(Failure::failed)?;
    let table = Table::open(lake, TableName::Readings).await.map_err(Failure::failed)?;
    if table.is_some_and(|table| watermark(&table, &source, EPOCH).is_some()) {
        say("the history of 30 days is there");
        return Ok(());
    }
    let readings = readings(lake.clock().now_us(), places)?;
    let (bytes, batch) = encode(&source, EPOCH, 1, &readings, None).map_err(Failure::failed)?;
    let Bounds { last, .. } = batch.header.bounds;
    let landed = Landed::Batch(EPOCH, batch.header.bounds);
    create(lake, &landed, &source, bytes.into()).await?;
    create(lake, &Landed::Closed(EPOCH), &source, format!("{last}\n").into_bytes().into()).await?;
    say(&format!("a history of 30 days has landed: {} readings", readings.len()));
    Ok(())
}

/// Whatever stands there already is an earlier start's, as good as this one's.
async fn create(lake: &Lake, landed: &Landed, source: &SourceName, payload: PutPayload) -> Result<(), Failure> {
    let key = landed.key(source);
    match lake.objects().put_opts(&key, payload, PutMode::Create.into()).await {
        Ok(_) | Err(Error::AlreadyExists { .. }) => Ok(()),
        Err(error) => Err(Failure::failed(format!("cannot write `{key}`: {error}"))),
    }
}

fn readings(now_us: i64, places: &[Place]) -> Result<Vec<Reading>, Failure> {
    let hour_us = i64::try_from(HOUR.as_micros()).map_err(Failure::failed)?;
    // The hour that is being lived belongs to the gateway.
    let last_us = now_us.div_euclid(hour_us) * hour_us - 1;
    let mut readings = Vec::new();
    for hour in (0..HOURS).rev() {
        let time_us = last_us + 1 - (hour + 1) * hour_us;
        for place in places {
            for sensor in place.sensors {
                let id = place.id(sensor).parse().map_err(Failure::failed)?;
                let value = (sensor.signal.at(time_us) * DECIMALS).round() / DECIMALS;
                readings.push(Reading::of(id, time_us, value));
            }
        }
    }
    Ok(readings)
}
