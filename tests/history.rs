//! What a person does to readings by hand, by the real binary: history imported, a wrong scale put right, a word
//! from a file, a validation.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sha2::{Digest, Sha256};
use tjern_readings::batch::encode;
use tjern_readings::keys::Landed;
use tjern_readings::reading::Reading;
use tjern_readings::sensor::{Epoch, SourceName};

const SENSOR: &str = "landfalltjern/water_temperature";

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let place = Self { folder };
        let lake = place.path("lake");
        place.write("tjern.toml", format!("version = 1\nlake = \"file://{}\"\n", lake.display()));
        place.write("sites.csv", "site,name_nb\nlandfalltjern,Landfalltjern\ntiefenbrunnen,Tiefenbrunnen\n");
        place.write(
            "sensors.csv",
            "id,site,quantity,unit,kind,class,low,high\n\
             landfalltjern/water_temperature,landfalltjern,water_temperature,Cel,sample,public,-2,40\n\
             tiefenbrunnen/water_temperature,tiefenbrunnen,water_temperature,Cel,sample,public,-2,40\n",
        );
        assert_eq!(place.run(&["register"]).status.code(), Some(0));
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        fs::write(self.path(name), text).expect("written");
        self.path(name)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let config = self.path("tjern.toml");
        let mut command = Command::new(env!("CARGO_BIN_EXE_tjern"));
        command.arg("pipeline").args(arguments).arg("--config").arg(config);
        let output = command.env("NO_COLOR", "1").output().expect("the binary runs");
        eprintln!("{}", String::from_utf8_lossy(&output.stderr));
        output
    }

    /// The rows of an answer, without the line of names.
    fn ask(&self, sql: &str) -> Vec<String> {
        let config = self.path("tjern.toml");
        let output = Command::new(env!("CARGO_BIN_EXE_tjern"))
            .args(["query", sql, "--format", "csv", "--config"])
            .arg(config)
            .output()
            .expect("the binary runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text").lines().skip(1).map(str::to_owned).collect()
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

/// What a gateway with this point lands from these registers.
fn land(lake: &Path, words: &str, values: &[f64]) {
    let source: SourceName = "landfall-01".parse().expect("valid");
    let configuration = format!(
        "version = 1\ngateway = \"landfall-01\"\nlake = \"file:///lake\"\n[spool]\ndir = \"/spool\"\n[[bus]]\nname = \"b\"\n\
         kind = \"modbus-tcp\"\naddress = \"localhost:502\"\n[[bus.device]]\nname = \"d\"\nunit_id = 1\n\
         [[bus.device.point]]\nsensor = \"{SENSOR}\"\nregister = \"input:0\"\nevery = \"1h\"\n{words}\n"
    );
    let sha256: String = Sha256::digest(&configuration).iter().map(|byte| format!("{byte:02x}")).collect();
    let readings: Vec<_> = (0_i64..)
        .zip(values)
        .map(|(hour, value)| Reading::of(SENSOR.parse().expect("valid"), (495_000 + hour) * 3_600_000_000, *value))
        .collect();
    let (bytes, batch) = encode(&source, Epoch::from_bytes([3; 16]), 1, &readings, Some(&sha256)).expect("encoded");
    let batch = Landed::Batch(Epoch::from_bytes([3; 16]), batch.header.bounds).key(&source);
    for (key, bytes) in
        [(batch, bytes.to_vec()), (Landed::Configuration(sha256).key(&source), configuration.into_bytes())]
    {
        let path = lake.join(key.as_ref());
        fs::create_dir_all(path.parent().expect("a folder")).expect("created");
        fs::write(path, bytes).expect("written");
    }
}

const PERIOD: [&str; 6] = ["--sensor", SENSOR, "--from", "2026-01-01", "--to", "2027-01-01"];

/// The manual said tenths, the device sent hundredths: found out after three months.
#[test]
fn a_wrong_scale_is_put_right_and_validated() {
    let place = Place::new();
    land(&place.path("lake"), "type = \"i16\"\nscale = 0.1\nunit = \"Cel\"", &[185.3, 1.25, 190.0, -0.5]);
    assert_eq!(place.run(&["ingest"]).status.code(), Some(0));
    let recompute: Vec<&str> =
        ["recompute"].into_iter().chain(PERIOD).chain(["--scale", "0.01", "--by", "a technician"]).collect();
    let dry = place.run(&[recompute.clone(), vec!["--dry-run"]].concat());
    assert!(String::from_utf8_lossy(&dry.stdout).contains(",185.3,18.53,"), "{}", said(&dry));
    let output = place.run(&recompute);
    assert_eq!(output.status.code(), Some(1), "1.25 never came from tenths: {}", said(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains(",1.25,,no single raw number"), "{}", said(&output));
    let seen = format!("SELECT value FROM observations WHERE sensor = '{SENSOR}' ORDER BY time");
    assert_eq!(place.ask(&seen), ["18.53", "1.25", "19.0", "-0.05"]);
    assert_eq!(place.ask("SELECT count(*) FROM readings WHERE revision = 0 AND value = 185.3"), ["1"]);
    let validate: Vec<&str> =
        ["validate"].into_iter().chain(PERIOD).chain(["--by", "the bathing water office"]).collect();
    let refused = place.run(&validate);
    assert_eq!(refused.status.code(), Some(1), "no test has looked at them");
    assert!(said(&refused).contains("hint: `tjern pipeline quality`"), "{}", said(&refused));
    // Four values that far apart are no series: they are to pass.
    let off = |test: &str| format!("*/water_temperature,{test},,off\n");
    let rules: String = ["spike", "rate_of_change", "exposure"].into_iter().map(off).collect();
    place.write("quality.csv", format!("sensors,test,months,parameters\n{rules}"));
    assert_eq!(place.run(&["register"]).status.code(), Some(0));
    assert_eq!(place.run(&["quality"]).status.code(), Some(0));
    assert_eq!(place.run(&validate).status.code(), Some(0));
    assert_eq!(place.ask("SELECT count(*), max(revision) FROM readings WHERE level = 2"), ["4,1"]);
    let file = place.write("better.csv", format!("sensor;time;value\n{SENSOR};2026-06-25T00:00:00Z;18,6\n"));
    let revise =
        ["revise", file.to_str().expect("text"), "--separator", ";", "--decimal-comma", "--by", "a technician"];
    let refused = place.run(&revise);
    assert_eq!(refused.status.code(), Some(2), "there is no such reading: {}", said(&refused));
    let time = place.ask(&format!("SELECT time FROM readings WHERE sensor = '{SENSOR}' AND value = 18.53"));
    place.write("better.csv", format!("sensor;time;value\n{SENSOR};{};18,6\n", time[0]));
    let revised = place.run(&revise);
    assert_eq!(revised.status.code(), Some(0), "{}", said(&revised));
    assert_eq!(place.ask(&seen), ["18.6", "1.25", "19.0", "-0.05"]);
    assert_eq!(fs::read_dir(place.path("lake/corrections")).expect("records").count(), 3);
}

/// An offset that should not have been there, in a gateway's configuration; and one that was missing, of a file that was imported.
#[test]
fn a_wrong_offset_is_put_right_of_a_gateway_and_of_an_import() {
    let place = Place::new();
    land(&place.path("lake"), "type = \"i16\"\nscale = 0.1\noffset = -40\nunit = \"Cel\"", &[-21.5, -21.0, 0.05]);
    assert_eq!(place.run(&["ingest"]).status.code(), Some(0));
    let by = ["--by", "a technician"];
    let offset: Vec<&str> = ["recompute"].into_iter().chain(PERIOD).chain(["--offset", "0"]).chain(by).collect();
    let output = place.run(&offset);
    assert_eq!(output.status.code(), Some(1), "0.05 never came from tenths: {}", said(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains(",0.05,,no single raw number"), "{}", said(&output));
    let seen =
        |sensor: &str| place.ask(&format!("SELECT value FROM observations WHERE sensor = '{sensor}' ORDER BY time"));
    assert_eq!(seen(SENSOR), ["18.5", "19.0", "0.05"], "the scale is what it was");
    const IMPORTED: &str = "tiefenbrunnen/water_temperature";
    let lines =
        format!("time,sensor,value\n2026-07-01T08:00:00Z,{IMPORTED},18.5\n2026-07-01T09:00:00Z,{IMPORTED},18.75\n");
    let file = place.write("old.csv", lines);
    let import = ["import", file.to_str().expect("text"), "--source", "import:old"];
    assert_eq!(place.run(&import).status.code(), Some(0));
    let period = ["--sensor", IMPORTED, "--from", "2026-01-01", "--to", "2027-01-01"];
    // A second one takes the place of the first: an offset is what it should have been, and is not added to what is there.
    for (offset, wanted) in [("0.25", ["18.75", "19.0"]), ("-0.25", ["18.25", "18.5"])] {
        let recompute: Vec<&str> =
            ["recompute"].into_iter().chain(period).chain(["--offset", offset]).chain(by).collect();
        let output = place.run(&recompute);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        assert_eq!(seen(IMPORTED), wanted, "--offset {offset}");
    }
}

/// The words of a float lay the other way round.
#[test]
fn a_wrong_order_is_put_right() {
    let place = Place::new();
    let swapped = |value: f32| f64::from(f32::from_bits(value.to_bits().rotate_left(16)));
    let values: Vec<f64> = [18.5, 18.75, 19.0].map(swapped).to_vec();
    land(&place.path("lake"), "type = \"f32\"\norder = \"cdab\"", &values);
    assert_eq!(place.run(&["ingest"]).status.code(), Some(0));
    let order: Vec<&str> =
        ["recompute"].into_iter().chain(PERIOD).chain(["--order", "abcd", "--by", "a technician"]).collect();
    let output = place.run(&order);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(
        place.ask(&format!("SELECT value FROM observations WHERE sensor = '{SENSOR}' ORDER BY time")),
        ["18.5", "18.75", "19.0"]
    );
    let nonsense: Vec<&str> =
        ["recompute"].into_iter().chain(PERIOD).chain(["--order", "acbd", "--by", "a technician"]).collect();
    assert_eq!(place.run(&nonsense).status.code(), Some(2));
}

#[test]
fn a_file_is_imported_once_and_its_bad_lines_are_told() {
    let place = Place::new();
    let file = place.write(
        "export.csv",
        format!(
            "Tid;Temp\n01.07.2025 08:00;18,5\n01.07.2025 09:00;\n32.07.2025 09:00;1\n01.07.2025 10:00;19,25\n{}",
            ""
        ),
    );
    let file = file.to_str().expect("text").to_owned();
    let column = format!("Temp={SENSOR} Cel");
    let import = [
        "import",
        &file,
        "--source",
        "import:old-logger",
        "--time",
        "Tid",
        "--time-format",
        "%d.%m.%Y %H:%M",
        "--separator",
        ";",
        "--decimal-comma",
        "--column",
        &column,
    ];
    for _ in 0..2 {
        let output = place.run(&import);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(told.starts_with("file,line,reason\n") && told.contains("export.csv,4,"), "{told}");
    }
    assert_eq!(
        place.ask("SELECT time, value, source FROM readings ORDER BY time"),
        ["2025-07-01T06:00:00Z,18.5,import:old-logger", "2025-07-01T08:00:00Z,19.25,import:old-logger",]
    );
    let refused = place.run(&["import", &file, "--source", "landfall-01"]);
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
}

/// A file that was imported without a fault was said to have failed, since the batch of some gateway could not be read. One
/// that could not be taken itself has failed.
#[test]
fn an_import_fails_for_its_own_trouble_and_for_no_others() {
    let place = Place::new();
    let of = |name: &str, value: &str| {
        let file = place.write(name, format!("time,sensor,value\n2025-07-01T08:00:00Z,{SENSOR},{value}\n"));
        file.to_str().expect("text").to_owned()
    };
    let import =
        |file: &str, flags: &[&str]| place.run(&[&["import", file, "--source", "import:old"][..], flags].concat());
    let others = place.path("lake/landing/elva-01").join("07".repeat(16));
    fs::create_dir_all(&others).expect("created");
    // A name that leads to itself can be listed, and read by nobody.
    let link = others.join("00000000000000000001-00000000000000000002.arrow");
    std::os::unix::fs::symlink(&link, &link).expect("a link");
    let output = import(&of("june.csv", "18.5"), &[]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let told = said(&output);
    assert!(told.contains("warning: 1 source is held back") && told.contains("elva-01"), "{told}");
    assert!(told.contains("what was imported here is in the tables"), "{told}");
    assert_eq!(place.ask("SELECT value FROM readings"), ["18.5"]);
    // Now its own.
    let july = of("july.csv", "19.25");
    assert_eq!(import(&july, &["--land-only"]).status.code(), Some(0));
    let epochs = fs::read_dir(place.path("lake/landing")).expect("a folder").flatten();
    let own = epochs.map(|entry| entry.path()).find(|path| path.to_string_lossy().contains("import")).expect("landed");
    let epochs = fs::read_dir(&own).expect("a folder").flatten().map(|entry| entry.path());
    let newest = epochs.filter(|path| path.is_dir() && !path.ends_with("config"));
    let newest = newest.max_by_key(|path| fs::metadata(path).and_then(|found| found.modified()).expect("a time"));
    let link = newest.expect("an epoch").join("00000000000000000003-00000000000000000004.arrow");
    std::os::unix::fs::symlink(&link, &link).expect("a link");
    let output = import(&july, &[]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert_eq!(place.ask("SELECT value FROM readings"), ["18.5"], "it was not taken");
    fs::remove_file(&link).expect("removed");
    assert_eq!(import(&july, &[]).status.code(), Some(0));
    assert_eq!(place.ask("SELECT count(*) FROM readings"), ["2"], "each once");
    assert_eq!(place.ask("SELECT value FROM observations"), ["19.25"], "the later file's value counts");
}

/// Real measurements, held against the file as another reader has it: each value once, to the bit.
#[test]
fn a_year_of_real_measurements_comes_in_whole() {
    let Some(folder) = std::env::var_os("TJERN_MEASUREMENTS").filter(|folder| !folder.is_empty()) else {
        println!("skipped: TJERN_MEASUREMENTS names no folder with zurich_tiefenbrunnen_2020_10min.csv.gz");
        return;
    };
    let file = Path::new(&folder).join("zurich_tiefenbrunnen_2020_10min.csv.gz");
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(fs::File::open(&file).expect("a file")).read_to_string(&mut text).expect("text");
    let wanted: Vec<(String, f64)> = text
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<_> = line.split(',').collect();
            Some((fields[0].to_owned(), fields[8].parse().ok()?))
        })
        .collect();
    let place = Place::new();
    let import = [
        "import",
        file.to_str().expect("text"),
        "--source",
        "import:zurich",
        "--time",
        "timestamp_cet",
        "--timezone",
        "+01:00",
        "--column",
        "water_temperature=tiefenbrunnen/water_temperature Cel",
    ];
    let output = place.run(&import);
    println!("{}", said(&output));
    assert_eq!(output.status.code(), Some(0));
    let sum: f64 = wanted.iter().map(|(_, value)| value).sum();
    let found = place.ask("SELECT count(*), count(DISTINCT time), sum(value), min(time) FROM readings");
    let found: Vec<_> = found[0].split(',').collect();
    assert_eq!((found[0], found[1]), (wanted.len().to_string().as_str(), wanted.len().to_string().as_str()));
    let difference = found[2].parse::<f64>().expect("a number") - sum;
    assert!(difference.abs() < 1e-6, "{difference}");
    assert_eq!(found[3], "2019-12-31T23:10:00Z", "{}", wanted[0].0);
}

/// The first of two files had landed when the second was not there, and the status was that of wrong usage: nothing was done.
#[test]
fn a_wrong_name_among_files_imports_none_of_them() {
    let place = Place::new();
    let good = place.write("june.csv", format!("time,sensor,value\n2025-06-01T08:00:00Z,{SENSOR},18.5\n"));
    let good = good.to_str().expect("text");
    let missing = place.path("july.csv");
    let missing = missing.to_str().expect("text");
    let landed = || fs::read_dir(place.path("lake/landing")).map_or(0, Iterator::count);
    let import = |second: &str| place.run(&["import", good, second, "--source", "import:old"]);
    let output = import(missing);
    assert_eq!((output.status.code(), landed()), (Some(2), 0), "{}", said(&output));
    place.write("july.csv", "when,sensor,value\n");
    let output = import(missing);
    assert_eq!((output.status.code(), landed()), (Some(2), 0), "another column: {}", said(&output));
    // What shows only as it is read is no wrong usage: the first has landed.
    let mut packed = Vec::new();
    let lines: String = (0..20_000).map(|line| format!("2025-07-01T08:00:00.{line:05}Z,{SENSOR},{line}\n")).collect();
    let text = format!("time,sensor,value\n{lines}");
    std::io::Write::write_all(
        &mut flate2::write::GzEncoder::new(&mut packed, flate2::Compression::fast()),
        text.as_bytes(),
    )
    .expect("packed");
    packed.truncate(packed.len() / 2);
    place.write("july.csv", packed);
    let output = import(missing);
    assert_eq!((output.status.code(), landed()), (Some(1), 1), "{}", said(&output));
}

/// `recompute` of a sensor that is not there was done, said its status.
#[test]
fn a_recomputation_of_nothing_is_told() {
    let place = Place::new();
    land(&place.path("lake"), "type = \"i16\"\nscale = 0.1\nunit = \"Cel\"", &[185.3]);
    assert_eq!(place.run(&["ingest"]).status.code(), Some(0));
    for flags in [&[][..], &["--dry-run"]] {
        let asked =
            ["recompute", "--sensor", "nowhere/x", "--from", "2026-01-01", "--to", "2027-01-01", "--scale", "2"];
        let output = place.run(&[&asked[..], &["--by", "a technician"], flags].concat());
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains("`nowhere/x` has no reading in this period"), "{}", said(&output));
    }
}
