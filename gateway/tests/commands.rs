//! The technician's commands as they are typed: what they print, how they end.
//!
//! What `check` says is held against `tests/golden/check`: a configuration and, beside it, its exit status,
//! stdout and stderr. `TJERN_UPDATE_GOLDEN=1` writes them anew, for a person to read.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const BUSES: &str = "[[bus]]\nname = \"b\"\nkind = \"modbus-tcp\"\naddress = \"127.0.0.1:1\"\n[[bus.device]]\nname = \"d\"\nunit_id = 1\n[[bus.device.point]]\nsensor = \"tarn/water_temperature\"\nregister = \"input:0\"\ntype = \"u16\"\nevery = \"1h\"\n";

fn gateway(folder: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tjern-gateway"));
    command.current_dir(folder).args(words).env_remove("RUST_LOG").env_remove("CREDENTIALS_DIRECTORY");
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
        command.env_remove(name);
    }
    command.output().expect("it runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

fn site(lake: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let lake = lake.replace("ROOT", &folder.path().display().to_string());
    let head = format!(
        "version = 1\ngateway = \"site-01\"\nlake = \"{lake}\"\n[spool]\ndir = \"spool\"\nmax_bytes = \"1MiB\"\n"
    );
    std::fs::write(folder.path().join("gateway.toml"), format!("{head}{BUSES}")).expect("written");
    folder
}

/// Whoever does not run `check` never heard of them.
#[test]
fn run_tells_the_configurations_warnings() {
    let folder = site("file://ROOT/lake");
    let file = folder.path().join("gateway.toml");
    let text = std::fs::read_to_string(&file).expect("read");
    std::fs::write(&file, text + "[[profile]]\nname = \"sdm630\"\n[[profile.point]]\nquantity = \"voltage\"\nregister = \"input:0\"\ntype = \"u16\"\nevery = \"1h\"\n").expect("written");
    let mut child = Command::new(env!("CARGO_BIN_EXE_tjern-gateway"))
        .args(["run", "--config", "gateway.toml"])
        .current_dir(folder.path())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines().map_while(Result::ok);
    let told = lines.find(|line| line.contains("no device uses") || line.contains("gateway started"));
    child.kill().expect("it ran");
    child.wait().expect("it ended");
    assert!(told.as_ref().is_some_and(|told| told.starts_with("warning: ")), "{told:?}");
}

#[test]
fn check_says_what_a_technician_can_act_on() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/check");
    let mut differing = Vec::new();
    let mut configurations: Vec<PathBuf> =
        std::fs::read_dir(&folder).expect("a folder").flatten().map(|entry| entry.path()).collect();
    configurations.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    configurations.sort();
    assert!(configurations.len() >= 7, "{configurations:?}");
    for path in configurations {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        let output = gateway(&folder, &["check", "--config", name]);
        let status = output.status.code().expect("it ended by itself");
        let said = format!("status: {status}\nstdout:\n{}stderr:\n{}", text(&output.stdout), text(&output.stderr));
        let golden = path.with_extension("txt");
        if std::env::var_os("TJERN_UPDATE_GOLDEN").is_some() {
            std::fs::write(&golden, &said).expect("written");
        }
        let expected = std::fs::read_to_string(&golden).unwrap_or_default();
        if said != expected {
            differing.push(format!("{name} says:\n{said}\nexpected:\n{expected}"));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n\n"));
}

/// A gap of 200 ms, and a point each 100 ms: the plan said that the load was not known, until the bus had run.
#[test]
fn plan_tells_of_pauses_that_leave_no_room() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/check");
    let output = gateway(&folder, &["plan", "--config", "pauses.toml"]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("load at least 200.0 %, shortest period at least 200.0 ms"), "{said}");
    assert!(said.contains("takes not known"), "{said}");
}

#[test]
fn every_command_that_reads_a_configuration_shows_what_is_wrong_with_it_alike() {
    let folder = site("memory:///");
    let path = folder.path().join("gateway.toml");
    let wrong = std::fs::read_to_string(&path).expect("read").replace("unit_id", "unit_idd");
    std::fs::write(&path, wrong).expect("written");
    let commands: [&[&str]; 4] = [&["run"], &["check"], &["doctor"], &["maintenance", "list"]];
    for command in commands {
        let output = gateway(folder.path(), &[command, &["--config", "gateway.toml"]].concat());
        assert_eq!(output.status.code(), Some(2), "{command:?}");
        let said = text(&output.stderr);
        assert!(said.contains("--> gateway.toml:") && said.contains("did you mean `unit_id`?"), "{command:?}: {said}");
        assert_eq!(text(&output.stdout), "", "{command:?}");
    }
    let missing = gateway(folder.path(), &["check", "--config", "missing.toml"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(text(&missing.stderr).starts_with("error: cannot read the configuration `missing.toml`"));
}

#[test]
fn the_doctor_of_a_healthy_site_changes_nothing_and_has_nothing_to_say() {
    let folder = site("file://ROOT/lake");
    let output = gateway(folder.path(), &["doctor", "--config", "gateway.toml"]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    for what in ["clock: ", "disk of spool: ", "ok   spool spool: it is not there yet", "ok   lake file://"] {
        assert!(said.contains(what), "no {what:?} in {said}");
    }
    let left: Vec<_> =
        std::fs::read_dir(folder.path()).expect("a folder").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["gateway.toml"], "nothing was created");
}

#[test]
fn the_doctor_says_what_to_do_and_tells_programs_too() {
    let folder = site("s3://bucket/lake");
    let path = folder.path().join("gateway.toml");
    let text_of = std::fs::read_to_string(&path).expect("read");
    let serial = text_of
        .replace("modbus-tcp", "modbus-rtu")
        .replace("address = \"127.0.0.1:1\"", "port = \"/dev/no-such-port\"");
    let secret = "[upload]\ncredentials_file = \"lake.env\"\n[[bus]]";
    std::fs::write(&path, serial.replacen("[[bus]]", secret, 1)).expect("written");
    std::fs::write(folder.path().join("lake.env"), "AWS_SECRET_ACCESS_KEY=canary-of-the-doctor\nnonsense\n")
        .expect("written");
    let output = gateway(folder.path(), &["doctor", "--config", "gateway.toml", "--format", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stdout);
    assert!(!said.contains("canary") && !text(&output.stderr).contains("canary"), "{said}");
    let findings: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    let of = |what: &str| {
        let all = findings.as_array().expect("a list").iter();
        all.into_iter().find(|one| one["what"].as_str().is_some_and(|is| is.starts_with(what))).expect(what).clone()
    };
    assert_eq!((of("port")["state"].as_str(), of("port")["says"].as_str()), (Some("fail"), Some("it does not exist")));
    assert!(of("port")["hint"].as_str().is_some_and(|hint| hint.contains("adapter")));
    assert_eq!(of("lake")["state"].as_str(), Some("fail"));
    assert!(of("lake")["says"].as_str().is_some_and(|says| says.starts_with("line 2 of `lake.env`")), "{said}");
    assert!(of("certificates")["says"].is_string());
}

/// Readings went over the city's network in clear, and a page of a captive portal answered as well as the store: `run` said so in
/// its log, and whoever had asked before had heard that all was well.
#[test]
fn a_lake_on_another_machine_without_tls_is_told_before_it_is_used() {
    let folder = site("s3://bucket/lake");
    let path = folder.path().join("gateway.toml");
    let plain = std::fs::read_to_string(&path).expect("read");
    let named = plain.replacen("[[bus]]", "[upload]\ncredentials_file = \"lake.env\"\n[[bus]]", 1);
    std::fs::write(&path, named).expect("written");
    let said = |command: &str, endpoint: &str| {
        // Nothing is asked of a machine: what it would be asked with is no secret that a header can carry.
        let file =
            format!("AWS_ENDPOINT={endpoint}\nAWS_ACCESS_KEY_ID=canary of the doctor\u{e9}\nAWS_SECRET_ACCESS_KEY=x\n");
        std::fs::write(folder.path().join("lake.env"), file).expect("written");
        let output = gateway(folder.path(), &[command, "--config", "gateway.toml"]);
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    };
    let (status, checked) = said("check", "http://minio.invalid:9000");
    let words = "the lake is asked without TLS at `minio.invalid`";
    assert_eq!(status, Some(0), "a warning fails nothing: {checked}");
    assert!(checked.contains(&format!("warning: {words}")) && checked.contains("gateway.toml:3:8"), "{checked}");
    assert!(checked.contains("hint: give the store a certificate") && checked.contains("1 warning"), "{checked}");
    let (_, looked) = said("doctor", "http://minio.invalid:9000");
    assert!(looked.contains(&format!("warn tls: {words}")) && !looked.contains("canary"), "{looked}");
    for endpoint in ["http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1", "https://minio.invalid:9000"] {
        for command in ["check", "doctor"] {
            let (_, silent) = said(command, endpoint);
            assert!(!silent.contains("without TLS"), "{command} over {endpoint}: {silent}");
        }
    }
}

#[test]
fn maintenance_is_written_down_with_or_without_a_gateway() {
    let folder = site("memory:///");
    let run =
        |words: &[&str]| gateway(folder.path(), &[&["maintenance"], words, &["--config", "gateway.toml"]].concat());
    assert_eq!(text(&run(&["list"]).stdout), "nothing is under maintenance\n");
    let on = run(&["on", "--sensor", "tarn/*", "--for", "1h"]);
    assert_eq!(on.status.code(), Some(0), "{}", text(&on.stderr));
    assert!(text(&on.stdout).starts_with("tarn/*: under maintenance until 2"), "{}", text(&on.stdout));
    let windows = tjern_gateway::maintenance::read(&folder.path().join("spool")).expect("read");
    assert_eq!(windows[0].until_us - windows[0].from_us, 3_600_000_000);
    assert!(
        text(&run(&["list"]).stdout).ends_with("(59 min left)\n")
            || text(&run(&["list"]).stdout).ends_with("(60 min left)\n")
    );
    let off = run(&["off", "--sensor", "tarn/water_temperature"]);
    assert_eq!(off.status.code(), Some(1));
    assert_eq!(
        text(&off.stderr),
        "error: `tarn/water_temperature` is still under maintenance by `tarn/*`; hint: `maintenance off --sensor 'tarn/*'`\n"
    );
    assert_eq!(text(&run(&["off"]).stdout), "1 ended\n");
    assert_eq!(text(&run(&["off"]).stdout), "nothing was under maintenance\n");
    let unknown = run(&["on", "--sensor", "tarn/watertemperature", "--for", "1h"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(text(&unknown.stderr).contains("did you mean `tarn/water_temperature`?"), "{}", text(&unknown.stderr));
    assert_eq!(run(&["on", "--sensor", "Tarn", "--for", "1h"]).status.code(), Some(2));
}

/// The root of the card was named, and its spool was thought to be sound.
#[test]
fn a_folder_that_is_no_spool_is_not_sound() {
    let folder = site("memory:///");
    std::fs::create_dir(folder.path().join("other")).expect("made");
    for command in [&["verify"][..], &["ls"], &["cat"], &["export", "rescued"]] {
        let output = gateway(folder.path(), &[&["spool"], command, &["--spool", "other"]].concat());
        assert_eq!(output.status.code(), Some(1), "{command:?}");
        assert!(text(&output.stderr).contains("`other` is no spool"), "{}", text(&output.stderr));
    }
    let output = gateway(folder.path(), &["spool", "export", "rescued", "--spool", "other", "--seal"]);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(2), ""), "{}", text(&output.stderr));
}

/// A disk of logs that was full ended the gateway; `eprintln!` panics there.
#[test]
fn what_stderr_does_not_take_changes_no_exit_status() {
    let folder = site("memory:///");
    std::fs::write(folder.path().join("wrong.toml"), "nonsense").expect("written");
    for (command, expected) in [
        (&["check", "--config", "nowhere.toml"][..], 2),
        (&["check", "--config", "wrong.toml"], 2),
        (&["plan", "--config", "nowhere.toml"], 2),
        (&["maintenance", "on", "--sensor", "tarn/no", "--for", "1h", "--config", "gateway.toml"], 2),
        (&["spool", "ls", "--spool", "nowhere"], 1),
        (&["run", "--config", "wrong.toml"], 2),
        (&["simulate", "--config", "wrong.toml"], 2),
    ] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("a full disk");
        let mut asked = Command::new(env!("CARGO_BIN_EXE_tjern-gateway"));
        asked.current_dir(folder.path()).args(command).env_remove("RUST_LOG").stdout(Stdio::null()).stderr(full);
        assert_eq!(asked.status().expect("it runs").code(), Some(expected), "{command:?}");
    }
}

/// `print!` panics there, which looks like a bug of the gateway and ends with a status that nobody knows.
#[test]
fn a_full_disk_below_stdout_is_a_failure_and_no_panic() {
    let folder = site("memory:///");
    for command in [&["check"][..], &["plan"], &["maintenance", "list"], &["simulate"], &["doctor"]] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("it is there");
        let output = Command::new(env!("CARGO_BIN_EXE_tjern-gateway"))
            .current_dir(folder.path())
            .args(command)
            .args(["--config", "gateway.toml"])
            .stdout(full)
            .output()
            .expect("it runs");
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{command:?}: {said}");
        assert!(said.contains("error: cannot ") && !said.contains("panicked"), "{command:?}: {said}");
    }
}

/// `plan | head -1` failed where the plan was long enough: whoever reads has seen enough.
#[test]
fn a_reader_that_leaves_is_no_failure() {
    let folder = site("memory:///");
    for command in [&["check"][..], &["plan"], &["maintenance", "list"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut asked = Command::new(env!("CARGO_BIN_EXE_tjern-gateway"));
        asked.current_dir(folder.path()).args(command).args(["--config", "gateway.toml"]).env_remove("RUST_LOG");
        let output = asked.stdout(writer).output().expect("it runs");
        let said = text(&output.stderr);
        assert_eq!((output.status.code(), said.contains("stdout")), (Some(0), false), "{command:?}: {said}");
    }
}

/// `watch` and `spool` said what is wrong without the word that a script looks for.
#[test]
fn a_configuration_that_is_not_there_is_an_error() {
    let folder = site("memory:///");
    for command in [&["watch"][..], &["check"], &["spool", "ls"], &["read", "--bus", "b", "--unit-id", "1", "input:0"]]
    {
        let output = gateway(folder.path(), &[command, &["--config", "nowhere.toml"]].concat());
        let said = text(&output.stderr);
        assert_eq!(
            (output.status.code(), said.starts_with("error: cannot read")),
            (Some(2), true),
            "{command:?}: {said}"
        );
    }
}

/// "0 files were copied", and all seemed well: the target was a file.
#[test]
fn a_spool_is_exported_into_a_folder_only() {
    let folder = site("memory:///");
    for name in ["gateway.toml", "missing.toml/in"] {
        std::fs::create_dir_all(folder.path().join("spool/sealed")).expect("made");
        std::fs::write(folder.path().join("spool/lock"), "").expect("written");
        let output = gateway(folder.path(), &["spool", "export", name, "--spool", "spool"]);
        let said = text(&output.stderr);
        let is_refused = name == "gateway.toml";
        assert_eq!(
            (output.status.code() == Some(1), said.contains("is no folder")),
            (is_refused, is_refused),
            "{said}"
        );
    }
}

/// What is always refused is not offered.
#[test]
fn only_a_port_can_be_listened_to() {
    let folder = site("memory:///");
    let help = text(&gateway(folder.path(), &["sniff", "--help"]).stdout);
    assert!(help.contains("--port") && help.contains("--bus") && !help.contains("tcp"), "{help}");
    assert_eq!(gateway(folder.path(), &["sniff", "--tcp", "127.0.0.1:1"]).status.code(), Some(2));
    assert_eq!(gateway(folder.path(), &["sniff"]).status.code(), Some(2));
}

/// Each of these was once read for ever.
#[test]
fn a_configuration_is_a_file_with_an_end() {
    let folder = site("memory:///");
    std::os::unix::fs::symlink("/dev/zero", folder.path().join("zero.toml")).expect("linked");
    let long = std::fs::File::create(folder.path().join("long.toml")).expect("created");
    long.set_len((16 << 20) + 1).expect("made long");
    for name in ["zero.toml", "long.toml"] {
        let output = gateway(folder.path(), &["check", "--config", name]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{name}: {said}");
        assert!(said.starts_with("error: cannot read the configuration") && said.contains("16 MiB"), "{name}: {said}");
    }
}
