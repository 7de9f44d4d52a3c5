//! The few words of SMTP that a sender needs (RFC 5321), with STARTTLS (RFC 3207) and AUTH PLAIN (RFC 4954,
//! RFC 4616).
//!
//! A password never goes over a line without TLS. A reply is at most [`REPLY_MAX`] bytes, and each word of
//! ours has [`PATIENCE`]. A receiver that the server refuses, for good (5yz) or for now (4yz), keeps the others from nothing: they get
//! the mail, and who sends is told of that one.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::{Address, MailSettings, Tls};

/// How long a server may take for a reply (RFC 5321, section 4.5.3.2, allows more; the next run tries again).
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The most bytes of a reply.
pub const REPLY_MAX: usize = 16 << 10;

/// Why a mail was not sent. No password is in it.
#[derive(Debug, thiserror::Error)]
pub enum SmtpError {
    /// The server cannot be reached, or the line broke.
    #[error("the mail server `{server}` cannot be reached: {source}")]
    Line {
        /// Which server.
        server: String,
        /// Why.
        source: io::Error,
    },
    /// It did not reply in time.
    #[error("the mail server does not reply")]
    Silent,
    /// It refused.
    #[error("the mail server refused `{word}`: {reply}")]
    Refused {
        /// Our word.
        word: &'static str,
        /// Its reply.
        reply: String,
    },
    /// It does not offer what the configuration asks for.
    #[error("the mail server does not offer {0}; hint: [watch.mail] `tls` says what is asked for")]
    Missing(&'static str),
    /// A password would go over an open line.
    #[error("a password is not sent without TLS; hint: take `user` out of [watch.mail], or set `tls`")]
    OpenLine,
    /// A user without a password.
    #[error(
        "there is no password for the mail server; hint: name `password_file` in [watch.mail], or set TJERN_MAIL_PASSWORD"
    )]
    NoPassword,
}

/// A receiver that the server refused; the others have the mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Whom.
    pub to: Address,
    /// The server's reply.
    pub reply: String,
    /// Whether it will never be another one.
    pub is_for_good: bool,
}

trait Line: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Line for T {}

/// A conversation with a server.
struct Conversation {
    line: Box<dyn Line>,
    server: String,
    read: Vec<u8>,
}

/// Sends a message (see [`super::message`]) to these. Returns those whom the server refused; where these are all, it went to nobody.
///
/// # Errors
/// [`SmtpError`]; then it was sent to nobody, unless only the reply to the message itself was lost.
pub async fn send(settings: &MailSettings, to: &[&Address], message: &str) -> Result<Vec<Refusal>, SmtpError> {
    let section = &settings.section;
    let password = match (&section.user, &settings.password) {
        (Some(_), _) if section.tls == Tls::None => return Err(SmtpError::OpenLine),
        (Some(_), None) => return Err(SmtpError::NoPassword),
        (user, password) => user.as_ref().zip(password.as_ref()),
    };
    let mut talk = Conversation::open(&section.server, section.tls).await?;
    let mut offers = talk.hello().await?;
    if section.tls == Tls::StartTls {
        if !offers.iter().any(|offer| offer == "STARTTLS") {
            return Err(SmtpError::Missing("STARTTLS"));
        }
        talk.say("STARTTLS", "STARTTLS", &[220]).await?;
        talk = talk.secured().await?;
        offers = talk.hello().await?;
    }
    if let Some((user, password)) = password {
        if !offers.iter().any(|offer| offer.starts_with("AUTH") && offer.split(' ').any(|word| word == "PLAIN")) {
            return Err(SmtpError::Missing("AUTH PLAIN"));
        }
        let token = BASE64_STANDARD.encode(format!("\0{user}\0{}", password.reveal()));
        let said = talk.say("AUTH PLAIN", &format!("AUTH PLAIN {token}"), &[235]).await;
        said.map_err(|error| without(error, &[&token, password.reveal()]))?;
    }
    talk.say("MAIL FROM", &format!("MAIL FROM:<{}>", section.from), &[250]).await?;
    let refusals = talk.receivers(to).await?;
    if refusals.len() == to.len() {
        let _ = talk.say("QUIT", "QUIT", &[221]).await;
        return Ok(refusals);
    }
    talk.say("DATA", "DATA", &[354]).await?;
    // A message of ours has no line that begins with a dot, see `message`; nobody relies on it.
    let stuffed = message.replace("\r\n.", "\r\n..");
    talk.say("the message", &format!("{}\r\n.", stuffed.trim_end_matches("\r\n")), &[250]).await?;
    // It was taken: what becomes of the line is of no interest.
    let _ = talk.say("QUIT", "QUIT", &[221]).await;
    Ok(refusals)
}

impl Conversation {
    async fn open(server: &str, tls: Tls) -> Result<Self, SmtpError> {
        let failed = |source| SmtpError::Line { server: server.to_owned(), source };
        let stream = within(TcpStream::connect(server)).await?.map_err(failed)?;
        let mut talk = Self { line: Box::new(stream), server: server.to_owned(), read: Vec::new() };
        if tls == Tls::Tls {
            talk = talk.secured().await?;
        }
        talk.expect("the connection", &[220]).await?;
        Ok(talk)
    }

    /// What the server offers, in capitals.
    async fn hello(&mut self) -> Result<Vec<String>, SmtpError> {
        // An address literal: a name that resolves is not always to be had (RFC 5321, section 4.1.4).
        let reply = self.say("EHLO", "EHLO [127.0.0.1]", &[250]).await?;
        Ok(reply.lines().skip(1).map(|line| line.get(4..).unwrap_or_default().trim().to_ascii_uppercase()).collect())
    }

    /// Names the receivers; returns those that are refused.
    async fn receivers(&mut self, receivers: &[&Address]) -> Result<Vec<Refusal>, SmtpError> {
        let mut refusals = Vec::new();
        for to in receivers {
            // 251: it is forwarded, which is as good (RFC 5321, section 4.2.3).
            match self.say("RCPT TO", &format!("RCPT TO:<{to}>"), &[250, 251]).await {
                Ok(_) => {}
                // It ends the conversation with this word (RFC 5321, section 3.8).
                Err(SmtpError::Refused { word, reply }) if reply.starts_with("421") => {
                    return Err(SmtpError::Refused { word, reply });
                }
                Err(SmtpError::Refused { reply, .. }) => {
                    let is_for_good = is_for_good(&reply);
                    refusals.push(Refusal { to: (*to).clone(), reply, is_for_good });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(refusals)
    }

    /// The same conversation over TLS. What was read before is forgotten: it came over an open line.
    async fn secured(self) -> Result<Self, SmtpError> {
        let Self { line, server, .. } = self;
        let failed = |source: io::Error| SmtpError::Line { server: server.clone(), source };
        let host = server.rsplit_once(':').map_or(server.as_str(), |(host, _)| host);
        let host = host.trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host).map_err(|error| failed(io::Error::other(error)))?;
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let secured = within(TlsConnector::from(Arc::new(config)).connect(name, line)).await?.map_err(failed)?;
        Ok(Self { line: Box::new(secured), server, read: Vec::new() })
    }

    /// Says a word, and hears a reply that it wants. `name` is the word without its secrets.
    async fn say(&mut self, name: &'static str, word: &str, wanted: &[u16]) -> Result<String, SmtpError> {
        let bytes = format!("{word}\r\n");
        let written = async {
            self.line.write_all(bytes.as_bytes()).await?;
            self.line.flush().await
        };
        let written = within(written).await?;
        written.map_err(|source| self.failed(source))?;
        self.expect(name, wanted).await
    }

    async fn expect(&mut self, word: &'static str, wanted: &[u16]) -> Result<String, SmtpError> {
        let reply = within(self.reply()).await?.map_err(|source| self.failed(source))?;
        if wanted.iter().any(|code| reply.get(..3) == Some(code.to_string().as_str())) {
            return Ok(reply);
        }
        Err(SmtpError::Refused { word, reply: reply.trim_end().replace(['\r', '\n'], " ") })
    }

    /// One reply, all its lines: the last has a blank behind the code.
    async fn reply(&mut self) -> io::Result<String> {
        let mut reply = String::new();
        loop {
            while let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                reply.push_str(&String::from_utf8_lossy(&line));
                if line.get(3) != Some(&b'-') {
                    return Ok(reply);
                }
            }
            if reply.len() + self.read.len() > REPLY_MAX {
                return Err(io::Error::other("a reply without an end"));
            }
            let mut part = [0; 1_024];
            match self.line.read(&mut part).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => self.read.extend_from_slice(&part[..length]),
            }
        }
    }

    fn failed(&self, source: io::Error) -> SmtpError {
        SmtpError::Line { server: self.server.clone(), source }
    }
}

/// Whether a receiver is refused for good. Old servers say 552 where there are too many, which is for now (RFC 5321, section
/// 4.5.3.1.10); where a box is full they say that it is the box (5.2, RFC 3463, section 3.3), and whoever has left does not empty it.
fn is_for_good(reply: &str) -> bool {
    reply.starts_with('5') && (!reply.starts_with("552") || reply.starts_with("552 5.2."))
}

/// A server may repeat what it was told.
fn without(error: SmtpError, secrets: &[&str]) -> SmtpError {
    match error {
        SmtpError::Refused { word, reply } => {
            let reply = secrets.iter().fold(reply, |reply, secret| reply.replace(secret, "***"));
            SmtpError::Refused { word, reply }
        }
        other => other,
    }
}

async fn within<T>(what: impl Future<Output = T>) -> Result<T, SmtpError> {
    timeout(PATIENCE, what).await.map_err(|_| SmtpError::Silent)
}

#[cfg(test)]
mod tests;
