//! What a person can do about an error of a store, as far as its text tells.
//!
//! The kinds of causes are gone where an error was gone over ([`super::discreet`]): what is left is what they say, which is
//! what a person would read, too. The words are those of rustls, of hyper and of the C library's resolver.

use object_store::Error;

/// Words in an error, and what to do where it has one of them.
const KNOWN: [(&[&str], &str); 8] = [
    (
        &["certificate expired", "certificate not valid yet", "CertExpired", "CertNotValidYet"],
        "is this machine's clock right (`date -u`)? If it is, the store's certificate has to be renewed by whoever runs it",
    ),
    (
        &["not valid for name", "NotValidForName"],
        "the store's certificate is another host's: is the address right, and is it asked by its name?",
    ),
    (
        &["UnknownIssuer", "BadSignature", "CaUsedAsEndEntity"],
        "nobody whom this machine trusts has signed the store's certificate: name the file with its authority's certificate in SSL_CERT_FILE",
    ),
    (&["invalid peer certificate"], "the store's certificate is refused: whoever runs it has to look at it"),
    (
        &["corrupt message", "InvalidContentType"],
        "the store does not speak TLS there: is the port right? Without TLS it is http:// and AWS_ALLOW_HTTP=true (AZURE_…, GOOGLE_…)",
    ),
    (
        &["URL scheme is not allowed"],
        "the address is http://, and nothing is sent without TLS unless AWS_ALLOW_HTTP=true (AZURE_…, GOOGLE_…) says so",
    ),
    (&["Connection refused"], "nobody listens there: does the store run, and are its address and its port right?"),
    (
        &["failed to lookup address", "Name or service not known", "dns error"],
        "the name of the store is not known: is the network up, does DNS answer, and is the address right?",
    ),
];

/// Whether a store refused who asked (401 or 403).
#[must_use]
pub fn is_refusal(error: &Error) -> bool {
    use Error::{PermissionDenied, Unauthenticated};
    matches!(error, PermissionDenied { .. } | Unauthenticated { .. }) || matches!(status(error), Some(401 | 403))
}

/// What a person can do about an error of a store, where that is known.
#[must_use]
pub fn hint(error: &Error) -> Option<&'static str> {
    if let Some(hint) = hint_of_disk(error) {
        return Some(hint);
    }
    if is_refusal(error) {
        return Some(
            "the store refuses these credentials: are they those of this lake, and may they list, read and write there?",
        );
    }
    let is_missing = matches!(error, Error::NotFound { .. }) || status(error) == Some(404);
    if is_missing {
        return Some("does the bucket exist, and is the lake's URL right?");
    }
    let text = error.to_string();
    KNOWN.iter().find(|(words, _)| words.iter().any(|word| text.contains(word))).map(|(_, hint)| *hint)
}

/// What a person can do about a folder that cannot be written.
fn hint_of_disk(error: &Error) -> Option<&'static str> {
    use std::io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(one) = cause {
        match one.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
            Some(StorageFull | QuotaExceeded) => return Some("the disk is full: make room"),
            Some(ReadOnlyFilesystem) => return Some("the disk may only be read: is it mounted so, or damaged?"),
            Some(PermissionDenied) => return Some("who runs this has no right to the lake's folder"),
            _ => cause = one.source(),
        }
    }
    None
}

/// The HTTP status in an error that has one: those of listings have no kind, and say it in words only.
fn status(error: &Error) -> Option<u16> {
    let text = error.to_string();
    let (_, after) = text.split_once("status code: ")?;
    after.get(..3)?.parse().ok()
}
