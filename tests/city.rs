//! The city end to end, as its users see it: the real binary, its pages, its tables, its ends.

mod support;

use std::time::Instant;

use support::{City, get, json_array, run, status, stdout};

/// What a place's card must not be older than.
const FRESH_S: i64 = 10;

/// The six bathing places of the demo.
const PLACES: [&str; 6] = ["Landfalltjern", "Klopptjern", "Damtjern", "Rundtjern", "Blektjern", "Drammenselva"];

/// Whether `/api/latest` has six bathing temperatures, each fresh.
fn six_fresh_temperatures(address: &str) -> bool {
    let Ok(body) = get(address, "/api/latest") else { return false };
    let fresh = json_array(&body).into_iter().filter(|sensor| {
        let quantity = sensor["sensor"].as_str().is_some_and(|id| id.ends_with("/water_temperature"));
        quantity && sensor["value"].is_number() && sensor["age_s"].as_i64().is_some_and(|age_s| age_s < FRESH_S)
    });
    fresh.count() == PLACES.len()
}

/// A newcomer types one command and looks at a page.
#[test]
fn the_demo_shows_six_fresh_temperatures_within_a_minute() {
    let folder = tempfile::tempdir().expect("a folder");
    let began = Instant::now();
    let city = City::up(folder.path());
    city.wait_until("six fresh temperatures", || six_fresh_temperatures(city.page()));
    let page = get(city.page(), "/").expect("the page");
    let took = began.elapsed();
    println!("from the start of `up` to the first page with six fresh temperatures: {:.1} s", took.as_secs_f64());
    for place in PLACES {
        assert!(page.contains(place), "{place} is not on the page");
    }
    assert!(page.contains("simulert"), "the page does not say that the values are simulated");
    let public = get(city.page(), "/api/latest").expect("the list");
    assert!(!public.contains("vaermast"), "an internal sensor is public");
    let (code, _) = status(city.page(), "/metrics");
    assert_eq!(code, 404, "the staff's metrics are on the public listener");
    let (code, _) = status(city.staff(), "/metrics");
    assert_eq!(code, 200);
    city.interrupt_and_expect_success();
}

fn count(folder: &std::path::Path, sql: &str) -> i64 {
    let output = run(&["query", sql, "--format", "csv", "--data"], folder);
    let text = stdout(&output);
    let value = text.lines().nth(1).unwrap_or_else(|| panic!("no answer to {sql}: {output:?}"));
    value.parse().unwrap_or_else(|error| panic!("{value}: {error}"))
}

/// Ended, killed, started again: no number twice, no history twice, no reading of a slot twice.
#[test]
fn a_restart_in_the_middle_of_everything_doubles_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut readings = 0;
    for round in 0..4 {
        let city = City::up(folder.path());
        let ours = || count(folder.path(), "SELECT count(*) FROM readings WHERE source = 'demo-01'");
        city.wait_until("new readings", || six_fresh_temperatures(city.page()) && ours() > readings);
        if round == 1 || round == 2 {
            city.kill()
        } else {
            city.interrupt_and_expect_success()
        }
        readings = ours();
    }
    assert_eq!(count(folder.path(), "SELECT count(*) FROM readings WHERE source = 'import:history'"), 30 * 24 * 9);
    let twice = |key: &str| format!("SELECT count(*) FROM (SELECT 1 FROM readings GROUP BY {key} HAVING count(*) > 1)");
    assert_eq!(count(folder.path(), &twice("source, epoch, seq")), 0, "a number came twice");
    assert_eq!(count(folder.path(), &twice("sensor, time")), 0, "a slot came twice");
    let epochs = "SELECT count(DISTINCT epoch) FROM readings WHERE source = 'demo-01'";
    assert_eq!(count(folder.path(), epochs), 1, "a restart began a new epoch");
    let holes = "SELECT max(seq) - count(*) FROM readings WHERE source = 'demo-01'";
    assert_eq!(count(folder.path(), holes), 0, "a number was lost");
}

/// A wrong configuration starts nothing and says where and what.
#[test]
fn a_wrong_configuration_is_told_with_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
    let lake = format!("file://{}/lake", folder.path().display());
    for (text, expected) in [
        (format!("version = 1\nlaek = \"{lake}\"\n"), ["tjern.toml:2:1", "did you mean `lake`?"]),
        (format!("version = 2\nlake = \"{lake}\"\n"), ["tjern.toml:1:11", "version = 1"]),
        ("version = 1\nlake = \"lake\"\n".to_owned(), ["tjern.toml:2:8", "file:///absolute/folder"]),
        (format!("version = 1\nlake = \"{lake}\"\ntimezone = \"Oslo\"\n"), ["tjern.toml:3:12", "Europe/Oslo"]),
        (format!("version = 1\nlake = \"{lake}\"\n[ingest]\nevery = \"0s\"\n"), ["tjern.toml:4:9", "positive"]),
        (
            format!("version = 1\nlake = \"{lake}\"\n[[gateway]]\nconfig = \"no.toml\"\n"),
            ["tjern.toml:4:10", "no.toml"],
        ),
    ] {
        write("tjern.toml", &text);
        for command in [&["serve", "--config"][..], &["pipeline", "ingest", "--config"], &["up", "--config"]] {
            let output = run(command, &folder.path().join("tjern.toml"));
            let told = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{command:?}: {told}");
            for part in expected {
                assert!(told.contains(part), "{command:?} does not say {part:?}:\n{told}");
            }
        }
        assert!(!folder.path().join("lake").exists(), "something was started");
    }
}

/// What the server's side cannot have is one clear line.
#[test]
fn what_cannot_be_had_is_one_clear_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let missing = run(&["serve", "--config"], &folder.path().join("missing.toml"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let config = folder.path().join("tjern.toml");
    let address = taken.local_addr().expect("bound");
    let lake = folder.path().join("lake");
    let text = format!("version = 1\nlake = \"file://{}\"\n[serve]\npublic = \"{address}\"\n", lake.display());
    std::fs::write(&config, text).expect("written");
    let in_use = run(&["serve", "--config"], &config);
    let file = folder.path().join("a-file");
    std::fs::write(&file, "x").expect("written");
    let text = format!("version = 1\nlake = \"file://{}/lake\"\n", file.display());
    std::fs::write(&config, text).expect("written");
    let no_lake = run(&["pipeline", "ingest", "--config"], &config);
    for (output, code, part) in
        [(missing, 2, "missing.toml"), (in_use, 1, "another program"), (no_lake, 1, "a-file/lake")]
    {
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{told}");
        assert_eq!(told.trim().lines().count(), 1, "{told}");
        assert!(told.starts_with("error: ") && told.contains(part), "{told}");
    }
    assert_eq!(run(&["pipeline", "dance", "--config"], &config).status.code(), Some(2));
}

/// Each job works once, to the end, also where there is nothing at all.
#[test]
fn every_job_ends_well_on_an_empty_lake() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("tjern.toml");
    let lake = folder.path().join("lake");
    std::fs::write(&config, format!("version = 1\nlake = \"file://{}\"\n", lake.display())).expect("written");
    for round in 0..2 {
        for job in ["compact", "rollup", "publish", "register", "vacuum", "ingest"] {
            let output = run(&["pipeline", job, "--config"], &config);
            let told = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(0), "round {round}, {job}: {told}");
        }
    }
    assert!(lake.join("tables/readings/_delta_log").is_dir(), "missing tables are created");
    let output = run(&["query", "SELECT count(*) AS n FROM observations", "--format", "csv", "--config"], &config);
    assert_eq!(stdout(&output), "n\n0\n");
}

/// A query is a query, and nothing else.
#[test]
fn a_query_cannot_write() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("tjern.toml");
    let lake = folder.path().join("lake");
    std::fs::write(&config, format!("version = 1\nlake = \"file://{}\"\n", lake.display())).expect("written");
    for sql in
        ["DROP TABLE readings", "COPY (SELECT 1) TO '/tmp/x.csv'", "CREATE TABLE x AS SELECT 1", "SELECT 1; SELECT 2"]
    {
        let output = run(&["query", sql, "--config"], &config);
        assert_eq!(output.status.code(), Some(1), "{sql}: {output:?}");
    }
    let output = run(&["query", "SELECT 1 AS one", "--format", "json", "--config"], &config);
    assert_eq!(stdout(&output).trim(), "[{\"one\":1}]");
}

/// A city of its own, with a logger that is not there: the place says so instead of a number, and
/// what the logger did not say is in the table with its cause.
#[test]
fn a_configured_city_says_that_a_logger_does_not_answer() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).expect("written");
    let lake = format!("file://{}/lake", folder.path().display());
    let nobody = tjern_testing::ports::SilentPort::take();
    let closed = nobody.address();
    write("sites.csv", "site,name_nb,kind\nvann,Øvre Vann,tarn\n".to_owned());
    write(
        "sensors.csv",
        "id,site,quantity,unit,kind,class,interval,low,high\n\
         vann/water_temperature,vann,water_temperature,Cel,sample,public,1s,-1,35\n"
            .to_owned(),
    );
    write(
        "gateway.toml",
        format!(
            "version = 1\ngateway = \"vann-01\"\nlake = \"{lake}\"\n[spool]\ndir = \"{}/spool\"\nsync_every = \"1s\"\n\
             [upload]\nevery = \"1s\"\n[[bus]]\nname = \"hytta\"\nkind = \"modbus-tcp\"\naddress = \"{closed}\"\n\
             [[bus.device]]\nname = \"logger\"\nunit_id = 1\n[[bus.device.point]]\n\
             sensor = \"vann/water_temperature\"\nregister = \"input:0\"\ntype = \"f32\"\nevery = \"1s\"\nunit = \"Cel\"\n",
            folder.path().display()
        ),
    );
    write(
        "city.toml",
        format!(
            "version = 1\nlake = \"{lake}\"\n[register]\nsites = \"sites.csv\"\nsensors = \"sensors.csv\"\n\
             [ingest]\nevery = \"1s\"\n[[gateway]]\nconfig = \"gateway.toml\"\n"
        ),
    );
    let city = City::up_with(&["--config"], &folder.path().join("city.toml"));
    let heard = || json_array(&get(city.page(), "/api/latest").unwrap_or_else(|_| "[]".to_owned()));
    city.wait_until("word of the logger", || heard().iter().any(|sensor| sensor["value"].is_null()));
    let page = get(city.page(), "/").expect("the page");
    assert!(page.contains("Øvre Vann") && page.contains("svarer ikke"), "{page}");
    assert!(!page.contains("simulert"), "a real city's values are called simulated");
    city.interrupt_and_expect_success();
    let config = folder.path().join("city.toml");
    let causes = run(&["query", "SELECT DISTINCT cause FROM readings", "--format", "csv", "--config"], &config);
    assert_eq!(stdout(&causes), "cause\nunreachable\n");
}

const SENSORS: &str = "id,site,quantity,unit,kind,class,interval\n\
    vann/water_temperature,vann,water_temperature,Cel,sample,public,1s\n";

/// A city with a logger that does not answer, and with these sensors in its register's file.
fn city_with(folder: &std::path::Path, sensors: &str, nobody: std::net::SocketAddr) -> std::path::PathBuf {
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).expect("written");
    let lake = format!("file://{}/lake", folder.display());
    write("sites.csv", "site,name_nb\nvann,Øvre Vann\n");
    write("sensors.csv", sensors);
    let points = ["water_temperature", "battery"].map(|quantity| {
        format!("[[bus.device.point]]\nsensor = \"vann/{quantity}\"\nregister = \"input:0\"\ntype = \"u16\"\nevery = \"1s\"\n")
    });
    let gateway = format!(
        "version = 1\ngateway = \"vann-01\"\nlake = \"{lake}\"\n[spool]\ndir = \"{}/spool\"\nsync_every = \"1s\"\n[upload]\n\
         every = \"1s\"\n[[bus]]\nname = \"hytta\"\nkind = \"modbus-tcp\"\naddress = \"{nobody}\"\n[[bus.device]]\n\
         name = \"logger\"\nunit_id = 1\n{}",
        folder.display(),
        points.concat()
    );
    write("gateway.toml", &gateway);
    let city =
        format!("version = 1\nlake = \"{lake}\"\n[ingest]\nevery = \"1s\"\n[[gateway]]\nconfig = \"gateway.toml\"\n");
    write("city.toml", &city);
    folder.join("city.toml")
}

/// A power cut came while `sensors.csv` was saved. With half of the file the city did not start any more, and nobody saw a reading
/// until somebody came who could mend it.
#[test]
fn half_a_register_file_after_a_power_cut_keeps_no_city_from_its_readings() {
    let folder = tempfile::tempdir().expect("a folder");
    let nobody = tjern_testing::ports::SilentPort::take();
    let internal = format!("{SENSORS}vann/battery,vann,battery,V,sample,internal,1s\n");
    let config = city_with(folder.path(), &internal, nobody.address());
    let city = City::up_with(&["--config"], &config);
    let shown = |city: &City| get(city.page(), "/api/latest").unwrap_or_default();
    city.wait_until("the public sensor", || shown(&city).contains("vann/water_temperature"));
    city.kill();
    let readings = || {
        let sql = "SELECT count(*) FROM readings WHERE sensor = 'vann/battery'";
        let count = stdout(&run(&["query", sql, "--format", "csv", "--config"], &config));
        count.lines().nth(1).and_then(|count| count.parse::<u64>().ok()).expect("a number")
    };
    let before = readings();
    // What was being saved would have published the battery.
    let half = format!("{SENSORS}vann/battery,vann,battery,V,sample,public,1s\nvann/ph,va");
    std::fs::write(folder.path().join("sensors.csv"), half).expect("written");
    let command = run(&["pipeline", "register", "--config"], &config);
    assert_eq!(command.status.code(), Some(2), "a command refuses it: {command:?}");
    let city = City::up_with(&["--config"], &config);
    let job = |city: &City| {
        let health: serde_json::Value = serde_json::from_str(&status(city.staff(), "/health").1).expect("JSON");
        health["parts"]["jobs"]["jobs"]["register"].clone()
    };
    city.wait_until("the job that failed", || job(&city)["failures"].as_u64() > Some(0));
    let told = job(&city)["last"]["error"].to_string();
    assert!(told.contains("sensors.csv:4"), "{told}");
    city.wait_until("new readings", || readings() > before);
    assert!(shown(&city).contains("vann/water_temperature") && !shown(&city).contains("battery"), "{}", shown(&city));
    std::fs::write(folder.path().join("sensors.csv"), internal + "vann/ph,vann,ph,1,sample,public,\n")
        .expect("written");
    city.wait_until("the file that is right again", || job(&city)["last"]["did"]["sensors"]["added"] == 1);
    assert_eq!(job(&city)["failures"], 0);
    city.interrupt_and_expect_success();
}

/// The same on a city's first day: nothing says what its files forbid, so it does not start.
#[test]
fn half_a_register_file_on_the_first_day_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let nobody = tjern_testing::ports::SilentPort::take();
    let config = city_with(folder.path(), &format!("{SENSORS}vann/ph,va"), nobody.address());
    let refused = run(&["up", "--http", "127.0.0.1:0", "--staff", "127.0.0.1:0", "--config"], &config);
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(2) && told.contains("sensors.csv:3"), "{told}");
    assert!(!folder.path().join("lake/landing").exists(), "a gateway was started");
}
