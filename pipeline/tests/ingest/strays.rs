//! What lies in the landing zone under a key that is no batch's is told: an integrator whose bridge forgot the padding of
//! numbers lost every reading, and nothing in the whole system said a word.

use object_store::path::Path;
use tjern_pipeline::compact::CompactSettings;
use tjern_pipeline::ingest::ingest;
use tjern_pipeline::status::status;

use crate::support::{EPOCH, Place, SETTINGS};

#[tokio::test]
async fn a_bridge_that_forgot_the_padding_is_told_of() {
    let place = Place::new();
    let key = place.land("landfall-01", 1, 6).await;
    let bytes = place.store.inner();
    let bytes =
        object_store::ObjectStoreExt::get(bytes.as_ref(), &key).await.expect("there").bytes().await.expect("read");
    for wrong in [
        format!("landing/bridge/{EPOCH}/1-3.arrow"),
        format!("landing/bridge/{EPOCH}/4-6.arrow"),
        format!("landing/Bad Source/{EPOCH}/00000000000000000001-00000000000000000006.arrow"),
        format!("landing/bridge/{EPOCH}/.staged/00000000000000000007-00000000000000000009.arrow"),
    ] {
        place.put(&Path::from(wrong.as_str()), bytes.to_vec()).await;
    }
    let outcome = ingest(&place.lake(), &SETTINGS).await.expect("ingested");
    assert_eq!((outcome.rows, outcome.quarantined), (6, 0), "what is right is taken, and nothing is touched");
    let landed = status(&place.lake(), &CompactSettings::default()).await.expect("looked").landed;
    let told: Vec<_> = landed.strays.iter().map(|stray| (stray.source.as_str(), stray.objects)).collect();
    assert_eq!(told, [("Bad Source", 1), ("bridge", 2)]);
    assert!(landed.strays[1].first.ends_with("/1-3.arrow"), "{:?}", landed.strays);
    let shown = serde_json::to_value(&landed).expect("JSON");
    assert_eq!(shown["strays"][1]["objects"], 2);
    // A lake in which all is right says nothing of it.
    let place = Place::new();
    place.land("landfall-01", 1, 6).await;
    let landed = status(&place.lake(), &CompactSettings::default()).await.expect("looked").landed;
    assert!(serde_json::to_value(&landed).expect("JSON").get("strays").is_none());
}
