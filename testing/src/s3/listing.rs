//! Listings of the bucket, version 2, in pages.

use std::collections::HashMap;
use std::ops::Bound;

use super::answer::{Reply, escaped};
use super::objects::Objects;

/// One line of a listing.
enum Entry {
    Object(String),
    Folder(String),
}

impl Entry {
    fn text(&self) -> &str {
        match self {
            Self::Object(text) | Self::Folder(text) => text,
        }
    }
}

pub(super) fn list(objects: &Objects, query: &HashMap<String, String>) -> Reply {
    let asked = |name: &str| query.get(name).map_or("", String::as_str);
    let (prefix, delimiter) = (asked("prefix"), asked("delimiter"));
    // A page goes on after the last entry of the one before, whether that was an object or a folder.
    let after = [asked("start-after"), asked("continuation-token")].into_iter().max().unwrap_or_default();
    let page = asked("max-keys").parse().unwrap_or(objects.page).min(objects.page);
    let mut entries: Vec<Entry> = Vec::new();
    let mut is_truncated = false;
    let from = if after < prefix { Bound::Included(prefix) } else { Bound::Excluded(after) };
    for (key, _) in objects.stored.range::<str, _>((from, Bound::Unbounded)) {
        let Some(rest) = key.strip_prefix(prefix) else { break };
        let folder = if delimiter.is_empty() { None } else { rest.find(delimiter) };
        let folder = folder.map(|end| &key[..prefix.len() + end + delimiter.len()]);
        let is_known = |folder: &str| folder == after || entries.last().is_some_and(|last| last.text() == folder);
        if folder.is_some_and(is_known) {
            continue;
        }
        if entries.len() == page {
            is_truncated = true;
            break;
        }
        entries.push(folder.map_or_else(|| Entry::Object(key.clone()), |folder| Entry::Folder(folder.to_owned())));
    }
    let token = entries.last().filter(|_| is_truncated).map_or_else(String::new, |last| {
        format!("<NextContinuationToken>{}</NextContinuationToken>", escaped(last.text()))
    });
    let shown: String = entries.iter().map(|entry| shown(objects, entry)).collect();
    Reply::xml(
        200,
        &format!("<ListBucketResult><IsTruncated>{is_truncated}</IsTruncated>{token}{shown}</ListBucketResult>"),
    )
}

fn shown(objects: &Objects, entry: &Entry) -> String {
    let text = escaped(entry.text());
    match (entry, objects.stored.get(entry.text())) {
        (Entry::Object(_), Some(object)) => format!(
            "<Contents><Key>{text}</Key><LastModified>{}</LastModified><ETag>{}</ETag><Size>{}</Size></Contents>",
            object.modified("%Y-%m-%dT%H:%M:%S%.3fZ"),
            escaped(&object.e_tag),
            object.bytes.len()
        ),
        _ => format!("<CommonPrefixes><Prefix>{text}</Prefix></CommonPrefixes>"),
    }
}
