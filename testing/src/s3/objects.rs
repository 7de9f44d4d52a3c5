//! The objects of the bucket, and the uploads under way.

use std::collections::BTreeMap;
use std::ops::Range;

use axum::body::Bytes;
use axum::http::{HeaderMap, Method};
use object_store::path::Path;
use tjern_readings::clock::Clock;

use super::answer::{Reply, elements, escaped, refused};
use super::{BUCKET, Request};

/// A part that is not the last has at least so many bytes.
const PART_BYTES_LEAST: usize = 5 << 20;

/// Where a copy's original stands, in S3's words and in Google's.
pub(super) const COPY_SOURCES: [&str; 2] = ["x-amz-copy-source", "x-goog-copy-source"];

/// Google counts the versions of an object; 0 is none.
const GENERATION: &str = "x-goog-generation";
const GENERATION_MATCH: &str = "x-goog-if-generation-match";

/// An object as it stands there.
#[derive(Debug, Clone)]
pub(super) struct Object {
    pub(super) bytes: Bytes,
    pub(super) e_tag: String,
    modified_us: i64,
}

/// Everything that is stored.
#[derive(Debug, Default)]
pub(super) struct Objects {
    pub(super) stored: BTreeMap<String, Object>,
    /// Parts by their upload and number.
    uploads: BTreeMap<String, BTreeMap<u32, Object>>,
    /// How many keys a page of a listing has at most.
    pub(super) page: usize,
    counted: u64,
}

impl Object {
    /// Its number among all that were put.
    fn generation(&self) -> String {
        let digits = self.e_tag.trim_matches('"').trim_start_matches('0');
        u64::from_str_radix(digits, 16).unwrap_or_default().to_string()
    }

    pub(super) fn modified(&self, format: &str) -> String {
        jiff::Timestamp::from_microsecond(self.modified_us).unwrap_or_default().strftime(format).to_string()
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn no_such_key() -> Reply {
    refused(404, "NoSuchKey", "the specified key does not exist")
}

fn no_such_upload() -> Reply {
    refused(404, "NoSuchUpload", "the specified upload does not exist")
}

impl Objects {
    pub(super) fn new(page: usize) -> Self {
        Self { page, ..Self::default() }
    }

    fn object(&mut self, bytes: Bytes) -> Object {
        self.counted += 1;
        let e_tag = format!("\"{:032x}\"", self.counted);
        Object { bytes, e_tag, modified_us: Clock::system().now_us() }
    }

    pub(super) fn put(&mut self, request: &Request, minds_conditions: bool) -> Reply {
        let there = self.stored.get(&request.key);
        let precondition = || refused(412, "PreconditionFailed", "a condition of the request does not hold");
        if minds_conditions {
            let creates = header(&request.headers, "if-none-match") == Some("*");
            let generation = header(&request.headers, GENERATION_MATCH);
            if (creates || generation == Some("0")) && there.is_some() {
                return precondition();
            }
            let is_other = |wanted: &str| there.is_none_or(|there| there.generation() != wanted);
            if generation.is_some_and(|wanted| wanted != "0" && is_other(wanted)) {
                return precondition();
            }
            match (header(&request.headers, "if-match"), there) {
                (Some(_), None) => return no_such_key(),
                (Some(wanted), Some(there)) if wanted != there.e_tag => return precondition(),
                _ => {}
            }
        }
        let object = self.object(request.body.clone());
        let reply = Reply::empty(200).with("etag", object.e_tag.clone()).with(GENERATION, object.generation());
        self.stored.insert(request.key.clone(), object);
        reply
    }

    pub(super) fn copy(&mut self, request: &Request) -> Reply {
        let named = COPY_SOURCES.iter().find_map(|name| header(&request.headers, name));
        let from = named.and_then(|from| Path::from_url_path(from).ok());
        let from = from.as_ref().and_then(|from| from.as_ref().strip_prefix(BUCKET)?.strip_prefix('/'));
        let Some(bytes) = from.and_then(|from| self.stored.get(from)).map(|object| object.bytes.clone()) else {
            return no_such_key();
        };
        let object = self.object(bytes);
        let xml = format!("<CopyObjectResult><ETag>{}</ETag></CopyObjectResult>", escaped(&object.e_tag));
        self.stored.insert(request.key.clone(), object);
        Reply::xml(200, &xml)
    }

    pub(super) fn read(&self, request: &Request) -> Reply {
        let Some(object) = self.stored.get(&request.key) else { return no_such_key() };
        let size = object.bytes.len() as u64;
        let mut reply = match header(&request.headers, "range") {
            None => Reply { body: object.bytes.clone(), ..Reply::empty(200) },
            Some(range) => {
                let Some(Range { start, end }) = range_of(range, size) else {
                    return refused(416, "InvalidRange", "the range is not satisfiable");
                };
                let body = object.bytes.slice(start as usize..end as usize);
                let shown = format!("bytes {start}-{}/{size}", end - 1);
                Reply { body, ..Reply::empty(206).with("content-range", shown) }
            }
        };
        reply = reply.with("etag", object.e_tag.clone()).with(GENERATION, object.generation());
        reply = reply.with("last-modified", object.modified("%a, %d %b %Y %H:%M:%S GMT"));
        if request.method == Method::HEAD {
            reply = reply.with("content-length", size.to_string());
            reply.body = Bytes::new();
        }
        reply
    }

    pub(super) fn delete(&mut self, request: &Request) -> Reply {
        self.stored.remove(&request.key);
        Reply::empty(204)
    }

    pub(super) fn delete_many(&mut self, request: &Request) -> Reply {
        let mut deleted = String::new();
        for key in elements(&String::from_utf8_lossy(&request.body), "Key") {
            self.stored.remove(&key);
            deleted.push_str(&format!("<Deleted><Key>{}</Key></Deleted>", escaped(&key)));
        }
        Reply::xml(200, &format!("<DeleteResult>{deleted}</DeleteResult>"))
    }

    pub(super) fn begin_parts(&mut self, request: &Request) -> Reply {
        self.counted += 1;
        let id = format!("upload-{}", self.counted);
        self.uploads.insert(id.clone(), BTreeMap::new());
        let key = escaped(&request.key);
        Reply::xml(
            200,
            &format!(
                "<InitiateMultipartUploadResult><Bucket>{BUCKET}</Bucket><Key>{key}</Key><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
            ),
        )
    }

    pub(super) fn put_part(&mut self, request: &Request) -> Reply {
        let object = self.object(request.body.clone());
        let Some(number) = request.query.get("partNumber").and_then(|number| number.parse().ok()) else {
            return refused(400, "InvalidArgument", "a part has a number");
        };
        let Some(parts) = request.query.get("uploadId").and_then(|id| self.uploads.get_mut(id)) else {
            return no_such_upload();
        };
        let e_tag = object.e_tag.clone();
        parts.insert(number, object);
        Reply::empty(200).with("etag", e_tag)
    }

    pub(super) fn complete_parts(&mut self, request: &Request) -> Reply {
        let id = request.query.get("uploadId").map_or("", String::as_str);
        let Some(parts) = self.uploads.get(id) else { return no_such_upload() };
        let xml = String::from_utf8_lossy(&request.body);
        let (numbers, e_tags) = (elements(&xml, "PartNumber"), elements(&xml, "ETag"));
        let mut chosen = Vec::new();
        for (number, e_tag) in numbers.iter().zip(&e_tags) {
            match number.parse().ok().and_then(|number: u32| parts.get(&number)) {
                Some(part) if part.e_tag == *e_tag => chosen.push(part.bytes.clone()),
                _ => return refused(400, "InvalidPart", "a part could not be found"),
            }
        }
        let (last, others) = match chosen.split_last() {
            Some((last, others)) if numbers.len() == e_tags.len() => (last, others),
            _ => return refused(400, "MalformedXML", "an upload is made of parts"),
        };
        if others.iter().any(|part| part.len() < PART_BYTES_LEAST) {
            return refused(400, "EntityTooSmall", "a part that is not the last is too small");
        }
        let whole: Vec<u8> = others.iter().chain([last]).flatten().copied().collect();
        let object = self.object(whole.into());
        let (e_tag, key) = (escaped(&object.e_tag), escaped(&request.key));
        self.stored.insert(request.key.clone(), object);
        self.uploads.remove(id);
        Reply::xml(
            200,
            &format!(
                "<CompleteMultipartUploadResult><Bucket>{BUCKET}</Bucket><Key>{key}</Key><ETag>{e_tag}</ETag></CompleteMultipartUploadResult>"
            ),
        )
    }

    pub(super) fn abort_parts(&mut self, request: &Request) -> Reply {
        let id = request.query.get("uploadId").map_or("", String::as_str);
        if self.uploads.remove(id).is_some() { Reply::empty(204) } else { no_such_upload() }
    }
}

/// `bytes=1-2`, `bytes=1-` and `bytes=-2`, as far as they lie within the object.
fn range_of(text: &str, size: u64) -> Option<Range<u64>> {
    let (from, to) = text.strip_prefix("bytes=")?.split_once('-')?;
    let range = match (from, to) {
        ("", last) => size.saturating_sub(last.parse().ok()?)..size,
        (from, "") => from.parse().ok()?..size,
        (from, to) => from.parse().ok()?..to.parse::<u64>().ok()?.saturating_add(1).min(size),
    };
    (range.start < range.end).then_some(range)
}
