//! Mails to several receivers, of whom the mail server refuses one for a while: over a real line.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use jiff::tz::TimeZone;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::testing::NOW_US;
use crate::watch::WatchSection;
use crate::watch::alert::{Condition, Kind};

const HOUR_US: i64 = 3_600 * 1_000_000;
const ALL: [&str; 3] = ["a@example.org", "b@example.org", "c@example.org"];

/// Who got a mail, and its Message-ID.
type Mail = (Vec<String>, String);

/// A mail server: what it answers for a receiver (or for `DATA`), and who got which mails, by their Message-ID.
#[derive(Debug, Clone, Default)]
struct Server {
    answers: Arc<Mutex<BTreeMap<String, String>>>,
    mails: Arc<Mutex<Vec<Mail>>>,
}

impl Server {
    async fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let server = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // The other end may go at any word.
                let _ = server.converse(stream).await;
            }
        });
        address
    }

    /// From now on this receiver is answered so.
    fn answer(&self, receiver: &str, reply: &str) {
        self.answers.lock().expect("whole").insert(receiver.to_owned(), reply.to_owned());
    }

    fn reply(&self, to: &str) -> String {
        self.answers.lock().expect("whole").get(to).cloned().unwrap_or_else(|| "250 ok".to_owned())
    }

    async fn converse(&self, stream: TcpStream) -> std::io::Result<()> {
        let (reader, mut writer) = stream.into_split();
        let mut lines = BufReader::new(reader).lines();
        let mut to: Vec<String> = Vec::new();
        writer.write_all(b"220 ready\r\n").await?;
        while let Some(line) = lines.next_line().await? {
            let mut reply = "250 ok".to_owned();
            if let Some(receiver) = line.strip_prefix("RCPT TO:<") {
                let receiver = receiver.trim_end_matches('>').to_owned();
                reply = self.reply(&receiver);
                to.extend(reply.starts_with("250").then_some(receiver));
            } else if line == "DATA" {
                // A server that refuses all where it minds one of several.
                let minds = self.answers.lock().expect("whole").contains_key("DATA") && to.len() > 1;
                reply = if minds { self.reply("DATA") } else { "354 go on".to_owned() };
            }
            writer.write_all(format!("{reply}\r\n").as_bytes()).await?;
            if line == "DATA" && reply.starts_with('3') {
                let mut id = String::new();
                while let Some(line) = lines.next_line().await?.filter(|line| line != ".") {
                    id = line.strip_prefix("Message-ID: ").map_or(id, str::to_owned);
                }
                self.mails.lock().expect("whole").push((std::mem::take(&mut to), id));
                writer.write_all(b"250 taken\r\n").await?;
            }
        }
        Ok(())
    }

    /// How many mails each receiver has got.
    fn counts(&self) -> [usize; 3] {
        let mails = self.mails.lock().expect("whole");
        ALL.map(|to| mails.iter().filter(|(receivers, _)| receivers.iter().any(|one| one == to)).count())
    }

    /// Whether somebody has got one mail twice.
    fn told_twice(&self) -> bool {
        let mails = self.mails.lock().expect("whole");
        let mut seen: Vec<_> = mails.iter().flat_map(|(to, id)| to.iter().map(move |to| (to, id))).collect();
        let all = seen.len();
        seen.sort();
        seen.dedup();
        seen.len() < all
    }
}

fn settings(server: &str, more: &str) -> WatchSettings {
    let text =
        format!("[mail]\nserver = \"{server}\"\ntls = \"none\"\nfrom = \"tjern@example.org\"\nto = {ALL:?}\n{more}");
    let section: WatchSection = toml::from_str(&text).expect("valid");
    let lake = "memory:///".parse().expect("a lake");
    section.settings(std::path::Path::new("."), &lake, &TimeZone::UTC).expect("no secrets")
}

/// The watch of a city as the days pass.
struct City {
    server: Server,
    settings: WatchSettings,
    state: State,
    now_us: i64,
}

impl City {
    async fn new() -> Self {
        let server = Server::default();
        let settings = settings(&server.start().await, "");
        Self { server, settings, state: State::new(NOW_US), now_us: NOW_US }
    }

    /// Something is wrong that was not.
    fn happens(&mut self, subject: &str) {
        let ways = ways(&self.settings);
        let ways: Vec<&str> = ways.iter().map(String::as_str).collect();
        let condition = Condition { kind: Kind::Limit, subject: subject.to_owned(), text: format!("{subject} is hot") };
        let mut all: Vec<Condition> = self
            .state
            .alerts
            .values()
            .map(|alert| Condition { kind: alert.kind, subject: alert.subject.clone(), text: alert.text.clone() })
            .collect();
        all.push(condition);
        self.state.update(&all, &ways, self.now_us);
    }

    async fn round(&mut self) -> Result<usize, WatchError> {
        self.now_us += HOUR_US;
        tell(&self.settings, None, &mut self.state, self.now_us).await
    }

    fn waits(&self, to: &str) -> (usize, u64) {
        let to: Address = to.parse().expect("an address");
        self.state.queues.get(&to.way()).map_or((0, 0), |queue| (queue.events.len(), queue.dropped))
    }
}

/// A full box of one: the others heard nothing for as long as it was full, or, had they been told, heard it with each round.
#[tokio::test]
async fn one_who_is_refused_for_now_keeps_the_others_from_nothing_and_makes_nothing_come_twice() {
    let mut city = City::new().await;
    city.server.answer("b@example.org", "452 4.2.2 mailbox full");
    city.happens("x");
    let error = city.round().await.expect_err("one is not told").to_string();
    assert!(error.contains("refused `b@example.org`: 452 4.2.2 mailbox full") && error.contains("1 events"), "{error}");
    assert_eq!(city.server.counts(), [1, 0, 1]);
    for _ in 0..3 {
        city.round().await.expect_err("it is full still");
    }
    city.happens("y");
    city.round().await.expect_err("it is full still");
    assert_eq!(city.server.counts(), [2, 0, 2], "what is new goes to the others at once");
    city.server.answer("b@example.org", "250 ok");
    assert_eq!(city.round().await.expect("all are told"), 2);
    assert_eq!(city.server.counts(), [2, 1, 2], "both in one mail");
    assert!(!city.server.told_twice());
    assert_eq!(city.round().await.expect("nothing waits"), 0);
    assert_eq!(city.server.mails.lock().expect("whole").len(), 3);
}

/// The canary: a watch that has one queue for all, and keeps it where one is refused.
#[tokio::test]
async fn a_watch_that_keeps_no_book_of_its_receivers_is_caught() {
    let mut city = City::new().await;
    city.server.answer("b@example.org", "452 4.2.2 mailbox full");
    city.happens("x");
    for _ in 0..2 {
        let before = city.state.queues.clone();
        city.round().await.expect_err("one is not told");
        city.state.queues = before;
    }
    assert!(city.server.told_twice(), "{:?}", city.server);
}

/// A box that nobody empties is not tried for ever, and what was let go is said.
#[tokio::test]
async fn who_is_refused_for_days_is_let_go_and_told_how_much_it_was() {
    let mut city = City::new().await;
    city.server.answer("c@example.org", "450 4.2.1 try later");
    city.happens("x");
    city.round().await.expect_err("one is not told");
    city.now_us += PATIENCE_US - 3 * HOUR_US;
    city.round().await.expect_err("it is tried still");
    assert_eq!(city.waits("c@example.org"), (1, 0));
    city.now_us += HOUR_US;
    city.happens("y");
    city.round().await.expect_err("what is new is tried");
    assert_eq!(city.waits("c@example.org"), (1, 1), "the old one went");
    assert_eq!(city.server.counts(), [2, 2, 0]);
    city.server.answer("c@example.org", "250 ok");
    city.round().await.expect("told");
    assert_eq!((city.waits("c@example.org"), city.server.counts()), ((0, 0), [2, 2, 1]));
}

/// One who left, and a server that minds one of several at the end only.
#[tokio::test]
async fn who_left_is_let_go_once_others_know_and_a_mail_that_is_refused_as_a_whole_goes_to_each_alone() {
    let mut city = City::new().await;
    for to in ["a@example.org", "b@example.org"] {
        city.server.answer(to, "550 5.1.1 no such user");
    }
    city.server.answer("c@example.org", "450 4.2.1 try later");
    city.happens("x");
    city.round().await.expect_err("nobody is told");
    assert_eq!(ALL.map(|to| city.waits(to).0), [1, 1, 1], "nobody knows it: it is kept");
    city.server.answer("c@example.org", "250 ok");
    assert_eq!(city.round().await.expect("one is told, and the others left"), 1);
    assert_eq!((city.server.counts(), ALL.map(|to| city.waits(to).0)), ([0, 0, 1], [0, 0, 0]));
    for to in ["a@example.org", "b@example.org"] {
        city.server.answer(to, "250 ok");
    }
    city.server.answer("DATA", "451 4.7.1 not to all of these");
    city.happens("y");
    city.round().await.expect("each alone");
    assert_eq!(city.server.counts(), [1, 1, 2]);
    assert!(!city.server.told_twice());
}

/// An earlier version kept one queue for all: nothing of it is lost, and nothing of it told that was.
#[tokio::test]
async fn what_waited_for_all_waits_for_each() {
    let mut city = City::new().await;
    city.happens("x");
    let queue = city.state.queues.values().next().expect("a queue").clone();
    city.state.queues = BTreeMap::from([(MAIL.to_owned(), queue)]);
    let ways = ways(&city.settings);
    let ways: Vec<&str> = ways.iter().map(String::as_str).collect();
    city.state.share(MAIL, &ways);
    city.happens("y");
    assert_eq!(ALL.map(|to| city.waits(to).0), [2, 2, 2]);
    assert_eq!(city.round().await.expect("told"), 2);
    assert_eq!(city.server.counts(), [1, 1, 1]);
}

#[tokio::test]
async fn a_mail_tells_in_local_time_what_began() {
    let event = Event {
        id: "limit:tjern/ph:x:begun".to_owned(),
        change: Change::Begun,
        kind: Kind::Limit,
        subject: "tjern/ph".to_owned(),
        text: "tjern/ph is 9, over its limit of 8".to_owned(),
        since: Moment(NOW_US),
        until: None,
    };
    let settings =
        WatchSettings { timezone: TimeZone::get("Europe/Oslo").expect("known"), ..settings("127.0.0.1:25", "") };
    let text = text(std::slice::from_ref(&event), 0, &settings);
    assert!(text.starts_with("BEGUN 2026-07-01 08:00 CEST  tjern/ph is 9, over its limit of 8\n"), "{text}");
    assert!(text.contains("no safety alarm and no medical device"));
    assert_eq!(subject(std::slice::from_ref(&event)), "Tjern: limit: tjern/ph");
    assert_eq!(subject(&[event.clone(), event]), "Tjern: 2 begun, 0 over");
}
