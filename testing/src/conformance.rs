//! What Tjern needs of a store, asked of every one of them in the same words.
//!
//! Each rule panics with the store's name where it does not hold. A rule is here because something stands on
//! it: create-only puts carry Delta's log and the landing zone, the order of listings carries the log's
//! readers, the time of an object carries the patience for holes and the grace of what landed. What stores
//! may do as they like is not asked but told: [`Habits`].
//!
//! The store is left as it was found, but for what the rules name; it should be empty under its prefix.

mod listings;
mod objects;
mod parts;

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use tjern_readings::store::Store;

/// How many objects make a listing of more than one page where pages have a thousand.
pub const MANY: usize = 1_050;

/// What a store does one way or another, and Tjern does not mind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Habits {
    /// Removing what is not there is an error.
    pub misses_what_it_deletes: bool,
    /// A put can be made to replace one known version only. Nothing of Tjern needs it.
    pub replaces_known_versions: bool,
}

/// Holds a store against every rule. `many` is the number of objects of the long listing.
///
/// # Panics
/// With the store's name and the rule, where one does not hold.
pub async fn conforms(name: &str, store: &Store, many: usize) -> Habits {
    objects::are_created_once(name, store).await;
    objects::are_read_as_they_were_written(name, store).await;
    objects::are_read_in_ranges(name, store).await;
    objects::have_the_time_of_their_put(name, store).await;
    objects::are_copied(name, store).await;
    objects::keep_our_names(name, store).await;
    listings::begin_after_an_offset_and_are_in_order(name, store).await;
    listings::show_folders(name, store).await;
    listings::have_more_than_a_page(name, store, many).await;
    parts::appear_at_once_and_whole(name, store).await;
    parts::leave_nothing_when_given_up(name, store).await;
    objects::are_removed(name, store).await
}

/// Objects of a store that come and go with a rule.
struct Bench<'a> {
    name: &'a str,
    objects: std::sync::Arc<dyn ObjectStore>,
    folder: &'static str,
}

impl<'a> Bench<'a> {
    fn new(name: &'a str, store: &Store, folder: &'static str) -> Self {
        Self { name, objects: store.objects(), folder }
    }

    fn key(&self, tail: &str) -> Path {
        Path::from(format!("{}/{tail}", self.folder))
    }

    async fn put(&self, tail: &str, text: &'static str) {
        let put = self.objects.put(&self.key(tail), PutPayload::from_static(text.as_bytes())).await;
        assert!(put.is_ok(), "{}: cannot put `{tail}`: {put:?}", self.name);
    }

    async fn text(&self, key: &Path) -> String {
        let found = self.objects.get(key).await.unwrap_or_else(|error| panic!("{}: `{key}`: {error}", self.name));
        let bytes = found.bytes().await.unwrap_or_else(|error| panic!("{}: `{key}`: {error}", self.name));
        String::from_utf8(bytes.to_vec()).expect("text")
    }

    async fn keys(&self, prefix: &Path) -> Vec<String> {
        use futures::TryStreamExt;
        let listed = self.objects.list(Some(prefix)).map_ok(|meta| meta.location.to_string());
        listed.try_collect().await.unwrap_or_else(|error| panic!("{}: list `{prefix}`: {error}", self.name))
    }

    async fn clear(&self) {
        for key in self.keys(&Path::from(self.folder)).await {
            let key = Path::parse(key).expect("a key that was listed");
            self.objects.delete(&key).await.unwrap_or_else(|error| panic!("{}: `{key}`: {error}", self.name));
        }
    }
}
