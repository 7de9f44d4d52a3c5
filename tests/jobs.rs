//! The jobs as an operator meets them: commands with statuses and one line of JSON, a daemon that tells how it
//! is, is killed and started again, and a configuration that names what there is not.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;
use tjern_readings::clock::Clock;

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(120);

fn pipeline(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tjern"));
    command.arg("pipeline").args(arguments).arg("--config").arg(folder.join("tjern.toml"));
    command.output().expect("the binary starts")
}

fn configure(folder: &Path, more: &str) {
    let text = format!("version = 1\nlake = \"file://{}/lake\"\n{more}", folder.display());
    std::fs::write(folder.join("tjern.toml"), text).expect("written");
}

/// A daemon, and the lines of its log. Dropped, it is killed.
struct Daemon {
    process: Child,
    log: Receiver<String>,
}

impl Daemon {
    fn start(folder: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tjern"));
        command.args(["pipeline", "run", "--config"]).arg(folder.join("tjern.toml"));
        let mut process = command.stderr(Stdio::piped()).spawn().expect("the binary starts");
        let stderr = process.stderr.take().expect("piped");
        let (sender, log) = channel();
        std::thread::spawn(move || {
            // Ends with the process, or with the test that listens.
            BufReader::new(stderr).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { process, log }
    }

    /// Waits for a line of the log, and gives what stands behind these words in it.
    fn after(&self, words: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let line = self.log.recv_timeout(left).unwrap_or_else(|_| panic!("it did not say {words:?}"));
            if let Some((_, rest)) = line.split_once(words) {
                return rest.to_owned();
            }
        }
    }

    /// Tells it to end, as systemd does, and gives the status with which it does.
    fn terminate(&mut self) -> Option<i32> {
        let sent = Command::new("sh").args(["-c", "kill -TERM \"$0\"", &self.process.id().to_string()]).status();
        assert!(sent.expect("a shell").success());
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(ended) = self.process.try_wait().expect("its state") {
                return ended.code();
            }
            assert!(Instant::now() < until, "it was told to end, and has not");
            std::thread::park_timeout(Duration::from_millis(100));
        }
    }

    fn address(&self) -> String {
        self.after("the jobs: http://").split('/').next().unwrap_or_default().to_owned()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Status and body of a page.
fn get(address: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("somebody listens");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").expect("asked");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("answered");
    let (head, body) = reply.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, body.to_owned())
}

/// All of `/health`, once these jobs have run.
fn health_after(address: &str, jobs: &[&str]) -> Value {
    let until = Instant::now() + PATIENCE;
    loop {
        let (status, body) = get(address, "/health");
        let health: Value = serde_json::from_str(&body).expect("JSON");
        if jobs.iter().all(|job| health["jobs"][job]["last"].is_object()) {
            assert_eq!((status, &health["status"]), (200, &Value::from("ok")), "{body}");
            return health;
        }
        assert!(Instant::now() < until, "waited in vain for {jobs:?}: {body}");
        std::thread::park_timeout(Duration::from_millis(100));
    }
}

/// Every job as a command.
const COMMANDS: [&[&str]; 11] = [
    &["ingest"],
    &["register"],
    &["quality"],
    &["rollup"],
    &["compact"],
    &["erase", "--continue"],
    &["vacuum"],
    &["checkpoint"],
    &["retention"],
    &["publish"],
    &["watch"],
];

/// Runs a job's command with `--json`. Its status, its line, and what it said on stderr.
fn line_of(folder: &Path, command: &[&str]) -> (Option<i32>, Value, String) {
    let output = pipeline(folder, &[command, &["--json"]].concat());
    let (said, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(said.lines().count(), 1, "{command:?}: {said}{told}");
    (output.status.code(), serde_json::from_str(&said).expect("JSON"), told.into_owned())
}

/// How a job ran last, as the lake says.
fn record_of(folder: &Path, job: &Value) -> Value {
    let path = folder.join(format!("lake/jobs/runs/{}.json", job.as_str().expect("a name")));
    serde_json::from_slice(&std::fs::read(path).expect("a record")).expect("JSON")
}

/// A cron line, a systemd timer and a Kubernetes job read the status and one line. `erase` had a line of its own shape, none where it
/// failed, and no record: `status` and the watch knew of none of its runs.
#[test]
fn every_job_is_a_command_with_one_line_of_json() {
    let folder = tempfile::tempdir().expect("a folder");
    configure(folder.path(), "");
    for command in COMMANDS {
        let (status, line, told) = line_of(folder.path(), command);
        assert_eq!(status, Some(0), "{command:?}: {line}{told}");
        let is_named = line["job"].as_str().is_some_and(|name| name.starts_with(command[0]));
        assert!(is_named && line["outcome"] == "done" && line["said"].is_string(), "{line}");
        let record = record_of(folder.path(), &line["job"]);
        assert_eq!((&record["began"], &record["did"]), (&line["began"], &line["did"]));
    }
    // Nothing can be done in a lake whose log is damaged, and each says so.
    let commit = folder.path().join("lake/tables/readings/_delta_log/00000000000000000000.json");
    std::fs::write(commit, "{\"add").expect("written");
    for command in COMMANDS {
        let (status, line, told) = line_of(folder.path(), command);
        assert_eq!((status, &line["outcome"]), (Some(1), &"failed".into()), "{command:?}: {line}{told}");
        assert!(line["job"].as_str().is_some_and(|name| name.starts_with(command[0])), "{line}");
        for key in ["began", "ended", "said", "error", "not_done"] {
            assert!(line[key].is_string(), "{command:?} has no `{key}`: {line}");
        }
        assert!(line["seconds"].is_number() && line["did"].is_object(), "{line}");
    }
}

/// What the city has to mend is status 2, and what is left undone is said.
#[test]
fn a_run_that_fails_is_told_and_written_down() {
    let folder = tempfile::tempdir().expect("a folder");
    configure(folder.path(), "[register]\nsites = \"no.csv\"\n");
    let (status, line, told) = line_of(folder.path(), &["register"]);
    assert_eq!((status, &line["outcome"]), (Some(2), &Value::from("failed")));
    assert!(line["error"].as_str().is_some_and(|error| error.contains("no.csv")), "{line}");
    assert!(told.contains("not done: the register is as it was before"), "{told}");
    assert_eq!(record_of(folder.path(), &line["job"])["outcome"], "failed");
    // Of what was erased one record cannot be read.
    configure(folder.path(), "");
    std::fs::create_dir_all(folder.path().join("lake/erasures")).expect("created");
    let record = folder.path().join("lake/erasures/09090909090909090909090909090909.json");
    std::fs::write(record, "half").expect("written");
    for (command, undone) in [(&["erase", "--continue"], "are still somewhere"), (&["erase", "--again"], "still")] {
        let (status, line, told) = line_of(folder.path(), command);
        assert_eq!((status, &line["job"], &line["outcome"]), (Some(1), &"erase".into(), &"failed".into()), "{told}");
        assert!(line["not_done"].as_str().is_some_and(|text| text.contains(undone)), "{line}");
        assert!(line["erasure"].is_null() && line["error"].as_str().is_some_and(|e| e.contains("0909")), "{line}");
        let record = record_of(folder.path(), &line["job"]);
        assert_eq!((&record["outcome"], &record["began"]), (&line["outcome"], &line["began"]));
    }
}

/// A daemon tells how each job is, and a restart goes on where it was.
#[test]
fn a_daemon_that_is_killed_goes_on_with_what_is_due() {
    let folder = tempfile::tempdir().expect("a folder");
    let off = "[jobs]\nlisten = \"127.0.0.1:0\"\noff = [\"vacuum\"]\n[jobs.cron]\ncompact = \"0 0 29 2 *\"\n";
    configure(folder.path(), off);
    let jobs = ["ingest", "register", "rollup", "publish-badetemperatur", "watch"];
    let daemon = Daemon::start(folder.path());
    let address = daemon.address();
    let first = health_after(&address, &jobs);
    assert!(first["jobs"]["vacuum"].is_null(), "{first}");
    assert!(first["jobs"]["compact"]["last"].is_null(), "its time comes in a leap year: {first}");
    assert!(first["jobs"]["compact"]["next"].as_str().is_some_and(|next| next.contains("-02-28T23:00:00Z")), "{first}");
    let (status, metrics) = get(&address, "/metrics");
    assert!(status == 200 && metrics.contains("tjern_job_runs_total{job=\"rollup\",outcome=\"done\"} 1"), "{metrics}");
    assert_eq!((get(&address, "/health/ingest").0, get(&address, "/health/dance").0), (200, 404));
    let (status, versions) = get(&address, "/versions");
    let versions: Value = serde_json::from_str(&versions).expect("JSON");
    assert!(status == 200 && versions["tables"]["quality_rules"]["version"].is_i64(), "{versions}");
    assert_eq!((get(&address, "/versions?wait=31").0, get(&address, "/versions?since=0").0), (400, 400));
    drop(daemon);

    let daemon = Daemon::start(folder.path());
    let second = health_after(&daemon.address(), &jobs);
    for job in ["rollup", "publish-badetemperatur", "watch"] {
        assert_eq!(second["jobs"][job]["last"]["began"], first["jobs"][job]["last"]["began"], "{job} was repeated");
    }
}

/// A monitor that hangs, a scanner that says half a word: the daemon answers all others, and ends when it is told to, with
/// what it does at its end done. It waited for half a request for ever, and systemd killed it. That a listener without
/// bounds waits is shown in `connections/tests/half.rs`.
#[test]
fn half_a_request_keeps_no_daemon_from_ending() {
    let folder = tempfile::tempdir().expect("a folder");
    configure(folder.path(), "[jobs]\nlisten = \"127.0.0.1:0\"\n");
    let mut daemon = Daemon::start(folder.path());
    let address = daemon.address();
    health_after(&address, &["ingest", "register"]);
    let halves: Vec<TcpStream> =
        ["", "GET /health HTTP/1.1\r\nHost: tj", "POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nhalf"]
            .map(|half| {
                let mut stream = TcpStream::connect(&address).expect("somebody listens");
                stream.write_all(half.as_bytes()).expect("sent");
                stream
            })
            .into();
    // One that has asked in full, and waits for news as a server does.
    let (_, versions) = get(&address, "/versions");
    let versions: Value = serde_json::from_str(&versions).expect("JSON");
    let mut waiting = TcpStream::connect(&address).expect("somebody listens");
    let after = versions["state"].as_str().expect("a state");
    write!(waiting, "GET /versions?after={after}&wait=30 HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")
        .expect("asked");
    assert_eq!(get(&address, "/health").0, 200, "others are answered");
    assert_eq!(daemon.terminate(), Some(0), "told to end is no failure");
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).expect("it was answered, or ended");
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 200"), "{answer}");
    drop(halves);
    // The next one takes up where it was.
    let again = Daemon::start(folder.path());
    health_after(&again.address(), &["ingest"]);
}

/// A job that cannot work says what is not done, is tried again, and recovers without anybody's help.
#[test]
fn a_failure_is_told_repeated_and_over_by_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    configure(
        folder.path(),
        "[jobs]\nlisten = \"127.0.0.1:0\"\n[register]\nsites = \"sites.csv\"\nsensors = \"sensors.csv\"\n",
    );
    let daemon = Daemon::start(folder.path());
    let address = daemon.address();
    // The ingest, which waits for a register, fails as well.
    let said = daemon.after("failed: cannot read");
    assert!(said.contains("sites.csv") && said.contains("not done: the register is as it was before"), "{said}");
    assert!(said.contains("it is tried again in 5 s"), "{said}");
    std::fs::write(folder.path().join("sites.csv"), "site\ntjern\n").expect("written");
    std::fs::write(folder.path().join("sensors.csv"), "id,site,quantity,unit,kind,class\n").expect("written");
    let said = daemon.after("sites 1 new");
    assert!(said.contains("sensors 0 new"), "{said}");
    let health = health_after(&address, &["register"]);
    assert_eq!(health["jobs"]["register"]["failures"], 0);
}

/// Somebody who is told once, and answers that he has heard it.
fn told_once(hook: &TcpListener) -> Value {
    let (stream, _) = hook.accept().expect("somebody tells");
    let mut stream = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).expect("a head");
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        length = line.strip_prefix("content-length: ").map_or(length, |length| length.parse().expect("a length"));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).expect("a body");
    stream.get_mut().write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").expect("answered");
    serde_json::from_slice(&body).expect("JSON")
}

/// A full disk: the command ended before it had looked at anything, since it could not create an object, and nobody was told.
/// Here no file of the process may become longer than nothing, which is what a full disk is to it.
#[test]
fn a_lake_that_cannot_be_written_is_told_by_the_command_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let hook = TcpListener::bind("127.0.0.1:0").expect("a port");
    let watch = |disk_free: &str| {
        let address = hook.local_addr().expect("bound");
        format!("[watch]\ndisk_free = \"{disk_free}\"\n[watch.webhook]\nurl = \"http://{address}/\"\n")
    };
    configure(folder.path(), &watch("1B"));
    assert_eq!(pipeline(folder.path(), &["watch"]).status.code(), Some(0));
    configure(folder.path(), &watch("1000TiB"));
    let telling = std::thread::spawn(move || told_once(&hook));
    let script = "trap '' XFSZ; ulimit -f 0; exec \"$0\" pipeline watch --config \"$1\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_tjern")]).arg(folder.path().join("tjern.toml"));
    let output = command.output().expect("a shell");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("2 events were told from memory"), "{said}");
    let told = telling.join().expect("told");
    let kinds: Vec<_> = told["events"].as_array().expect("events").iter().map(|event| &event["kind"]).collect();
    assert_eq!(kinds, ["disk", "disk"], "the disk, and that the lake cannot be written: {told}");
    assert!(told["text"].as_str().is_some_and(|text| text.contains("cannot be written")), "{told}");
}

/// What a configuration names and there is not is told with its place, and no secret with it.
#[test]
fn a_wrong_schedule_or_a_missing_secret_starts_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("tjern.toml.url"), "the-canary\n").expect("written");
    for (text, parts) in [
        ("[jobs.cron]\ndance = \"@daily\"\n", ["tjern.toml:4:9", "there is no job `dance`"]),
        ("[jobs.cron]\ncompact = \"61 * * * *\"\n", ["tjern.toml:4:11", "`61` is no minute"]),
        ("[jobs.cron]\ncompact = \"*/61 * * * *\"\n", ["tjern.toml:4:11", "steps by 61"]),
        ("[jobs]\noff = [\"ingst\"]\n", ["tjern.toml:4:8", "the jobs are ingest"]),
        ("[watch.webhook]\nurl_file = \"no-such-file\"\n", ["no-such-file", "cannot read the secret"]),
        ("[serve]\npipeline = \"127.0.0.1:8082\"\n", ["tjern.toml:4:12", "like \"http://127.0.0.1:8082\""]),
        ("[watch.webhook]\n", ["the webhook has no address", "TJERN_WEBHOOK_URL"]),
        // Accepted, and told in the log of each round, which nobody reads who waits for a message.
        ("[watch.webhook]\nurl = \"nonsense\"\n", ["tjern.toml:4:7", "like \"https://chat.example.org/hook\""]),
        ("[watch.webhook]\nurl = \"ftp://x/\"\n", ["tjern.toml:4:7", "no address of a webhook"]),
        ("[watch.webhook]\nurl_file = \"tjern.toml.url\"\n", ["webhook's address is no address", "TJERN_WEBHOOK_URL"]),
        ("[[watch.limit]]\nsensor = \"a/b\"\n", ["tjern.toml:3:1", "a limit needs `low`, `high` or both"]),
        ("[[watch.limit]]\nsensor = \"a/b\"\nhigh = nan\n", ["tjern.toml:5:8", "NaN is no limit"]),
        ("[[watch.limit]]\nsensor = \"a/b\"\nlow = -inf\n", ["tjern.toml:5:7", "-inf is no limit"]),
        ("[[watch.limit]]\nsensor = \"a/b\"\nlow = 9\nhigh = 5\n", ["tjern.toml:3:1", "`low` 9 is over `high` 5"]),
        ("[watch.mail]\nserver = \"x\"\nfrom = \"x@y\"\nto = [\"x@y\"]\n", ["tjern.toml:4:10", "no mail server"]),
        ("[watch.mail]\nserver = \"x:25\"\nfrom = \"x\"\nto = []\n", ["tjern.toml:5:8", "no mail address"]),
    ] {
        configure(folder.path(), text);
        for job in ["run", "ingest"] {
            let output = pipeline(folder.path(), &[job]);
            let told = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{text}: {told}");
            assert!(parts.iter().all(|part| told.contains(part)), "{text}: {told}");
            assert!(!told.contains("canary"), "{told}");
        }
        assert!(!folder.path().join("lake").exists(), "something was started");
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound");
    configure(folder.path(), &format!("[jobs]\nlisten = \"{address}\"\n"));
    let output = pipeline(folder.path(), &["run"]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("is somebody else listening there?"), "{told}");
}

/// What a folder has in it, by name, but for the room in which the store of a folder stages what it puts (`.staged`).
fn listed(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .map(|found| found.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    names.retain(|name| name != ".staged");
    names.sort();
    names
}

/// A restore was killed: `verify` found all as the logs say, `status` and a query answered from half a lake, and those who
/// read a line of JSON got none.
#[test]
fn half_a_restore_is_refused_by_all_who_look() {
    let folder = tempfile::tempdir().expect("a folder");
    configure(folder.path(), "");
    assert_eq!(pipeline(folder.path(), &["ingest"]).status.code(), Some(0));
    std::fs::write(folder.path().join("lake/jobs/restore.json"), "{\"backup\":\"2026-11-22\"}").expect("written");
    let looks = [
        &["verify"][..],
        &["status"],
        &["holes", "ls"],
        &["configurations", "ls"],
        &["vacuum", "--dry-run"],
        &["ingest"],
    ];
    for arguments in looks {
        let output = pipeline(folder.path(), arguments);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{arguments:?}: {told}");
        assert!(
            told.contains("a restore of backup 2026-11-22 into this lake is not finished"),
            "{arguments:?}: {told}"
        );
    }
    let mut query = Command::new(env!("CARGO_BIN_EXE_tjern"));
    query.args(["query", "SELECT count(*) FROM readings", "--config"]).arg(folder.path().join("tjern.toml"));
    let output = query.output().expect("the binary starts");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{told}");
    for job in ["compact", "ingest", "publish"] {
        let output = pipeline(folder.path(), &[job, "--json"]);
        let line: Value = serde_json::from_slice(&output.stdout).expect("one line of JSON");
        assert_eq!((output.status.code(), &line["job"], &line["outcome"]), (Some(1), &job.into(), &"failed".into()));
        assert!(line["error"].as_str().is_some_and(|error| error.contains("not finished")), "{line}");
        assert!(line["not_done"].is_string() && line["ended"].is_string(), "{line}");
    }
}

/// Who only looked needed the right to write, and got tables that nobody had asked for.
#[test]
fn who_only_looks_writes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    configure(folder.path(), "[retention]\nreadings = \"365d\"\n");
    std::fs::create_dir_all(folder.path().join("lake/landing")).expect("created");
    std::fs::write(folder.path().join("july.csv"), "time,sensor,value\n2026-07-01T00:00:00Z,tarn/level,1\n")
        .expect("written");
    let july = folder.path().join("july.csv");
    let july = july.to_str().expect("text");
    let period = ["--from", "2026-06-01", "--to", "2026-07-01", "--sensor", "tarn/level", "--dry-run"];
    let looks = [
        &["holes", "ls"][..],
        &["configurations", "ls"],
        &["quarantine", "ls"],
        &["vacuum", "--dry-run"],
        &["retention", "--dry-run"],
        &["checkpoint", "--dry-run"],
        &["replay", "--dry-run"],
        &["import", july, "--source", "import:old", "--dry-run"],
        &[&["recompute", "--scale", "2"][..], &period].concat(),
        &[&["erase", "--reason", "asked for", "--allow-unknown"][..], &period].concat(),
    ];
    for arguments in looks {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tjern"));
        command.arg("pipeline").args(arguments).arg("--config").arg(folder.path().join("tjern.toml"));
        // A dry run writes nobody's name down, and asks for none.
        let output = command.env_remove("USER").env_remove("LOGNAME").output().expect("the binary starts");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        // Nothing is there to be computed again.
        let wanted = i32::from(arguments[0] == "recompute");
        assert_eq!(output.status.code(), Some(wanted), "{arguments:?}: {told}");
        assert_eq!(listed(&folder.path().join("lake")), ["landing"], "{arguments:?}");
    }
}

fn log_length(log: &Path) -> usize {
    listed(log).len()
}

/// A program that asks what would go was refused (status 2), or read lines that are for people.
#[test]
fn a_dry_run_is_one_line_of_json_too() {
    let folder = tempfile::tempdir().expect("a folder");
    configure(folder.path(), "[retention]\nreadings = \"1d\"\n[vacuum]\nretention = \"1h\"\n");
    let now = jiff::Timestamp::from_microsecond(Clock::system().now_us()).expect("in range");
    for (name, line) in
        [("july", "2026-07-01T00:00:00Z,tarn/level,1".to_owned()), ("now", format!("{now},tarn/rain,1"))]
    {
        let path = folder.path().join(format!("{name}.csv"));
        std::fs::write(&path, format!("time,sensor,value\n{line}\n")).expect("written");
        let (path, source) = (path.to_str().expect("text"), format!("import:{name}"));
        assert_eq!(pipeline(folder.path(), &["import", path, "--source", &source]).status.code(), Some(0));
    }
    let lake = folder.path().join("lake");
    let dry = |arguments: &[&str]| {
        let output = pipeline(folder.path(), &[arguments, &["--dry-run", "--json"]].concat());
        let (said, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!((output.status.code(), said.lines().count()), (Some(0), 1), "{arguments:?}: {said}{told}");
        serde_json::from_str::<Value>(&said).expect("JSON")
    };
    let line = dry(&["retention"]);
    let file = &line["would_remove"][0];
    assert_eq!((&file["rows"], &file["first"]), (&1.into(), &"2026-07-01T00:00:00Z".into()), "{line}");
    assert!(lake.join(file["key"].as_str().expect("a key")).is_file(), "{line}");
    let line = dry(&["erase", "--reason", "x", "--sensor", "tarn/level", "--from", "2026-06-01", "--to", "2026-08-01"]);
    assert_eq!(
        (&line["would_remove"][0]["what"], &line["would_remove"][0]["rows"]),
        (&"file of readings".into(), &1.into())
    );
    // A file that nobody names and everybody wrote long ago.
    let stray = lake.join("tables/readings/stray.parquet");
    let long_ago = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    std::fs::File::create(&stray).and_then(|file| file.set_modified(long_ago)).expect("dated");
    let line = dry(&["vacuum"]);
    let tables = line["would_remove"].as_array().expect("tables");
    let readings = tables.iter().find(|table| table["table"] == "readings").expect("named");
    assert_eq!(readings["files"], serde_json::json!(["tables/readings/stray.parquet"]), "{line}");
    assert_eq!((&readings["log_objects"], &readings["bytes"]), (&serde_json::json!([]), &0.into()), "{line}");
    assert!(stray.is_file(), "a dry run removes nothing");
    // Commits enough for a checkpoint: each says one more number of a source that nobody is.
    let log = lake.join("tables/readings/_delta_log");
    for version in log_length(&log)..25 {
        let text = format!("{{\"commitInfo\":{{}}}}\n{{\"txn\":{{\"appId\":\"x\",\"version\":{version}}}}}\n");
        std::fs::write(log.join(format!("{version:020}.json")), text).expect("written");
    }
    let line = dry(&["checkpoint"]);
    let wanted = serde_json::json!([{ "table": "readings", "version": 24, "former": null }]);
    assert_eq!(line["would_write"], wanted, "{line}");
    assert_eq!(log_length(&log), 25, "a dry run writes nothing");
}
