//! Mail against a server that speaks SMTP on a real line, polite, broken and hostile.

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::super::MailSection;
use super::super::message::message;
use super::*;
use crate::watch::secret::Secret;

/// How a server misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Polite,
    /// It answers a word of the sender with an error.
    Refuses(&'static str),
    /// It answers so for this receiver.
    Answers(&'static str, &'static str),
    /// It repeats what it was told.
    Repeats,
    /// It never ends its greeting.
    Endless,
    /// It hangs up after a word.
    HangsUp(&'static str),
}

/// A server on a free port; each mail comes out of the channel, and each word before it.
async fn server(manner: Manner) -> (String, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let (said, heard) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // The other end may go at any word.
            let _ = converse(stream, manner, &said).await;
        }
    });
    (address, heard)
}

async fn converse(stream: TcpStream, manner: Manner, said: &mpsc::UnboundedSender<String>) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut lines = BufReader::new(reader).lines();
    if manner == Manner::Endless {
        loop {
            writer.write_all(b"220-more to come\r\n").await?;
        }
    }
    writer.write_all(b"220 mail.example.org ready\r\n").await?;
    while let Some(line) = lines.next_line().await? {
        let word = line.split([' ', ':']).next().unwrap_or_default().to_owned();
        let _ = said.send(line.clone());
        let reply = match (manner, word.as_str()) {
            (Manner::Refuses(refused), _) if refused == word => "550 no\r\n".to_owned(),
            (Manner::Answers(receiver, reply), "RCPT") if line.contains(receiver) => format!("{reply}\r\n"),
            (Manner::HangsUp(last), _) if last == word => return Ok(()),
            (Manner::Repeats, "MAIL") => format!("550 I do not like {line}\r\n"),
            (_, "EHLO") => "250-mail.example.org\r\n250-AUTH LOGIN PLAIN\r\n250 8BITMIME\r\n".to_owned(),
            (_, "DATA") => "354 go on\r\n".to_owned(),
            (_, "QUIT") => "221 bye\r\n".to_owned(),
            _ => "250 ok\r\n".to_owned(),
        };
        writer.write_all(reply.as_bytes()).await?;
        if word == "DATA" && reply.starts_with('3') {
            while let Some(line) = lines.next_line().await?.filter(|line| line != ".") {
                let _ = said.send(line);
            }
            writer.write_all(b"250 taken\r\n").await?;
        }
    }
    Ok(())
}

fn settings(server: &str, more: &str) -> MailSettings {
    let text = format!(
        "server = \"{server}\"\nfrom = \"tjern@example.org\"\nto = [\"a@example.org\", \"b@example.org\"]\n{more}"
    );
    let section: MailSection = toml::from_str(&text).expect("valid");
    MailSettings { section, password: None }
}

async fn try_with(manner: Manner) -> (Result<Vec<Refusal>, SmtpError>, Vec<String>) {
    let (server, mut heard) = server(manner).await;
    let settings = settings(&server, "tls = \"none\"\n");
    let to: Vec<_> = settings.section.to.iter().collect();
    let sent = send(&settings, &to, &message(&settings.section, "Emne", "Sjøen er kald\n", "abc", 0)).await;
    let mut words = Vec::new();
    while let Ok(word) = heard.try_recv() {
        words.push(word);
    }
    (sent, words)
}

#[tokio::test]
async fn a_mail_goes_to_all_in_the_words_of_the_protocol() {
    let (sent, words) = try_with(Manner::Polite).await;
    assert_eq!(sent.expect("sent"), []);
    assert_eq!(
        words[..5],
        [
            "EHLO [127.0.0.1]",
            "MAIL FROM:<tjern@example.org>",
            "RCPT TO:<a@example.org>",
            "RCPT TO:<b@example.org>",
            "DATA"
        ]
    );
    assert!(words.contains(&BASE64_STANDARD.encode("Sjøen er kald\r\n")), "{words:?}");
    assert_eq!(words.last().map(String::as_str), Some("QUIT"));
}

/// Somebody left the city, and the mail server knew her address no longer: nobody was told of anything from then on.
#[tokio::test]
async fn a_receiver_that_is_gone_keeps_the_others_from_nothing() {
    let is_subject = |word: &String| word.starts_with("Subject");
    let (sent, words) = try_with(Manner::Answers("b@example.org", "550 5.1.1 no such user")).await;
    let refusals = sent.expect("sent to the other one");
    let told: Vec<_> = refusals.iter().map(|refusal| (refusal.to.as_str(), refusal.reply.as_str())).collect();
    assert_eq!(told, [("b@example.org", "550 5.1.1 no such user")]);
    assert!(words.iter().any(is_subject), "{words:?}");
    // Forwarded is taken.
    let (sent, words) = try_with(Manner::Answers("b@example.org", "251 will forward to <c@example.org>")).await;
    assert_eq!(sent.expect("sent"), []);
    assert!(words.iter().any(is_subject), "{words:?}");
    // Who is refused for now is named, so that nobody need be told twice.
    for reply in ["450 4.2.1 try later", "552 too many recipients"] {
        let (sent, words) = try_with(Manner::Answers("b@example.org", reply)).await;
        let refusals = sent.expect("sent to the other one");
        assert!(refusals.len() == 1 && !refusals[0].is_for_good && refusals[0].reply == reply, "{refusals:?}");
        assert!(words.iter().any(is_subject), "{words:?}");
    }
    // The server ends the conversation: that is about nobody.
    let (sent, words) = try_with(Manner::Answers("b@example.org", "421 closing")).await;
    assert!(sent.expect_err("it ends").to_string().contains("421 closing"));
    assert!(!words.iter().any(is_subject), "{words:?}");
}

#[tokio::test]
async fn a_mail_that_all_receivers_are_refused_for_is_not_told() {
    let (sent, words) = try_with(Manner::Refuses("RCPT")).await;
    assert_eq!(sent.expect("nobody is told").len(), 2);
    assert!(!words.iter().any(|word| word.starts_with("Subject") || word == "DATA"), "{words:?}");
    for word in ["MAIL", "DATA"] {
        let (sent, words) = try_with(Manner::Refuses(word)).await;
        let error = sent.expect_err(word).to_string();
        assert!(error.contains("550 no") && error.contains(word), "{error}");
        assert!(!words.iter().any(|word| word.starts_with("Subject")), "{words:?}");
    }
}

#[tokio::test]
async fn a_line_that_breaks_is_an_error_and_not_a_mail() {
    for word in ["EHLO", "RCPT", "DATA"] {
        assert!(matches!(try_with(Manner::HangsUp(word)).await.0, Err(SmtpError::Line { .. })), "{word}");
    }
    // After the message was taken it was taken.
    try_with(Manner::HangsUp("QUIT")).await.0.expect("sent");
    let (sent, _) = try_with(Manner::Endless).await;
    assert!(sent.expect_err("endless").to_string().contains("a reply without an end"));
}

#[tokio::test]
async fn a_password_never_goes_over_an_open_line_and_is_in_no_error() {
    let (server, mut heard) = server(Manner::Polite).await;
    let with_password = |more: &str| {
        let password = Secret::find("TJERN_TEST_NO_SUCH_VARIABLE", None).expect("none");
        assert_eq!(password, None);
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("password");
        std::fs::write(&path, "the-canary").expect("written");
        let password = Secret::find("TJERN_TEST_NO_SUCH_VARIABLE", Some(&path)).expect("read");
        MailSettings { password, ..settings(&server, more) }
    };
    let open = with_password("tls = \"none\"\nuser = \"tjern\"\n");
    assert!(matches!(send(&open, &[&open.section.to[0]], "x").await, Err(SmtpError::OpenLine)));
    // A server that offers no TLS, or somebody who takes the offer out on the way.
    let stripped = with_password("user = \"tjern\"\n");
    let error = send(&stripped, &[&stripped.section.to[0]], "x").await.expect_err("no TLS");
    assert!(error.to_string().contains("STARTTLS"), "{error}");
    assert!(!format!("{stripped:?}{error:?}").contains("canary"));
    while let Ok(word) = heard.try_recv() {
        assert!(word.starts_with("EHLO"), "{word}");
    }
    let token = BASE64_STANDARD.encode("\0tjern\0the-canary");
    let refused = SmtpError::Refused { word: "AUTH PLAIN", reply: format!("535 {token} the-canary") };
    assert_eq!(
        without(refused, &[&token, "the-canary"]).to_string(),
        "the mail server refused `AUTH PLAIN`: 535 *** ***"
    );
}

#[tokio::test]
async fn a_reply_is_shown_in_one_line() {
    let error = try_with(Manner::Repeats).await.0.expect_err("refused").to_string();
    assert_eq!(error, "the mail server refused `MAIL FROM`: 550 I do not like MAIL FROM:<tjern@example.org>");
}
