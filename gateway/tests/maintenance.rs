//! Maintenance on a running gateway: what is marked, from when, until when.

mod common;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use common::{device, point, simulator, soon, unit, word};
use tjern_gateway::simulate::Simulation;
use tjern_readings::batch;
use tjern_readings::clock::Clock;
use tjern_readings::reading::{Cause, Quality, Reading};
use tokio::process::Command;

/// Every reading of the point that has landed, by time.
fn landed(folder: &Path) -> Vec<Reading> {
    let mut files = Vec::new();
    collect(folder, &mut files);
    files.retain(|file| file.extension().is_some_and(|extension| extension == "arrow"));
    let read = |file: &PathBuf| batch::decode(&std::fs::read(file).ok()?).ok()?.readings().ok();
    let mut readings: Vec<Reading> = files.iter().filter_map(read).flatten().collect();
    readings.retain(|reading| reading.sensor.as_str() == "tarn/water_temperature");
    readings.sort_by_key(|reading| reading.time_us);
    readings
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() { collect(&entry.path(), files) } else { files.push(entry.path()) }
    }
}

async fn maintenance(folder: &Path, words: &[&str]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tjern-gateway"));
    command.arg("maintenance").args(words).arg("--config").arg(folder.join("gateway.toml"));
    let output = command.output().await.expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Waits until the newest reading that landed is like this.
async fn newest(lake: &Path, what: &str, is: impl Fn(&Reading) -> bool) -> Reading {
    soon(what, async {
        let mut looks = tokio::time::interval(Duration::from_millis(50));
        loop {
            looks.tick().await;
            if let Some(reading) = landed(lake).pop().filter(&is) {
                return reading;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_running_gateway_marks_what_is_measured_during_maintenance() {
    let folder = tempfile::tempdir().expect("a folder");
    let (unit, _) = unit(1, vec![word(0, 36)]);
    let simulator = simulator(Simulation::ModbusTcp(vec![unit])).await;
    let address = simulator.address().expect("it listens");
    let root = folder.path().display();
    let own = point("tarn/water_temperature", "register = \"input:0\"\ntype = \"u16\"\nevery = \"100ms\"");
    let text = format!(
        "version = 1\ngateway = \"site-01\"\nlake = \"file://{root}/lake\"\n[spool]\ndir = \"{root}/spool\"\nsync_every = \"100ms\"\n[upload]\nevery = \"200ms\"\n[[bus]]\nname = \"b\"\nkind = \"modbus-tcp\"\naddress = \"{address}\"\n{}{own}",
        device(1)
    );
    std::fs::write(folder.path().join("gateway.toml"), text).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tjern-gateway"));
    command.arg("run").arg("--config").arg(folder.path().join("gateway.toml"));
    let _gateway = command.stderr(Stdio::null()).kill_on_drop(true).spawn().expect("it starts");
    let lake = folder.path().join("lake");
    let is_plain = |reading: &Reading| (reading.quality, reading.cause) == (Quality::NotEvaluated, None);
    let before = newest(&lake, "a reading", is_plain).await;
    maintenance(folder.path(), &["on", "--sensor", "tarn/*", "--for", "1h"]).await;
    let on_us = Clock::system().now_us();
    let during = newest(&lake, "a marked reading", |reading| reading.quality == Quality::Fail).await;
    assert_eq!((during.value, during.cause), (Some(36.0), Some(Cause::Maintenance)), "the value stays");
    let off_us = Clock::system().now_us();
    maintenance(folder.path(), &["off"]).await;
    let after =
        newest(&lake, "a reading after it", |reading| reading.time_us > during.time_us && is_plain(reading)).await;
    assert!(before.time_us < during.time_us && during.time_us < after.time_us);
    // What was measured in the second after the command passed for weather.
    let landed = landed(&lake);
    let meanwhile: Vec<&Reading> = landed.iter().filter(|reading| (on_us..off_us).contains(&reading.time_us)).collect();
    assert!(!meanwhile.is_empty());
    assert!(meanwhile.iter().all(|reading| reading.quality == Quality::Fail), "{meanwhile:?}");
}
