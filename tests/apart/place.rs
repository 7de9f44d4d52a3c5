//! A small city with a common lake and one of personal readings, and what lands in them.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use tjern_readings::batch::encode;
use tjern_readings::keys::Landed;
use tjern_readings::reading::Reading;
use tjern_readings::sensor::{Epoch, SourceName};

pub(crate) const EPOCH: Epoch = Epoch::from_bytes([5; 16]);

/// 2026-06-08T00:00:00Z, as an hour.
const HOUR: i64 = 494_688;

pub(crate) struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    /// With these lines of `sensors.csv`, of the sites `tarn` and `flat-k7`; nothing is registered.
    pub(crate) fn new(sensors: &str) -> Self {
        let place = Self { folder: tempfile::tempdir().expect("a folder") };
        place.configure("tjern.toml", "lake", "personal");
        place.write("sites.csv", "site,name_nb\ntarn,Tjernet\nflat-k7,\n");
        place.sensors(sensors);
        place
    }

    /// A configuration with its lakes in these folders.
    pub(crate) fn configure(&self, name: &str, lake: &str, personal: &str) {
        let url = |name: &str| format!("\"{}\"", self.url(name));
        let lakes = format!("lake = {}\npersonal_lake = {}\n", url(lake), url(personal));
        self.write(name, &format!("version = 1\ntimezone = \"UTC\"\n{lakes}"));
    }

    pub(crate) fn sensors(&self, lines: &str) {
        self.write("sensors.csv", &format!("id,site,quantity,unit,kind,class,sources\n{lines}"));
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn url(&self, name: &str) -> String {
        format!("file://{}", self.path(name).display())
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("written");
    }

    /// A command of the pipeline.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.run_by("tjern.toml", arguments)
    }

    /// The same with another configuration.
    pub(crate) fn run_by(&self, config: &str, arguments: &[&str]) -> Output {
        let output = self.command(config, arguments).output().expect("the binary runs");
        eprintln!("{arguments:?}: {}", said(&output));
        output
    }

    pub(crate) fn command(&self, config: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tjern"));
        command.arg("pipeline").args(arguments).arg("--config").arg(self.path(config)).env("NO_COLOR", "1");
        command
    }

    /// Runs commands that have to end well.
    pub(crate) fn done(&self, commands: &[&[&str]]) {
        for command in commands {
            assert_eq!(self.run(command).status.code(), Some(0), "{command:?}");
        }
    }

    /// What the common lake answers, a line a row.
    pub(crate) fn ask(&self, sql: &str) -> Vec<String> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tjern"));
        command.args(["query", sql, "--format", "csv", "--config"]).arg(self.path("tjern.toml"));
        let output = command.output().expect("the binary runs");
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8(output.stdout).expect("text").lines().skip(1).map(str::to_owned).collect()
    }

    /// Lands one reading of each of these sensors, numbered from `first`, of the hour `first`.
    pub(crate) fn land(&self, source: &str, first: i64, sensors: &[&str]) {
        let source: SourceName = source.parse().expect("valid");
        let time_us = (HOUR + first) * 3_600_000_000;
        let readings: Vec<_> =
            sensors.iter().map(|sensor| Reading::of(sensor.parse().expect("valid"), time_us, 18.25)).collect();
        let (bytes, batch) = encode(&source, EPOCH, first, &readings, None).expect("encoded");
        let path = self.path("lake").join(Landed::Batch(EPOCH, batch.header.bounds).key(&source).as_ref());
        fs::create_dir_all(path.parent().expect("a folder")).expect("created");
        fs::write(path, bytes).expect("written");
    }

    /// What lies in a folder, in order; nothing where there is none.
    pub(crate) fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(folder)).into_iter().flatten();
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect();
        names.sort();
        names
    }
}

/// All that a command said.
pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}
