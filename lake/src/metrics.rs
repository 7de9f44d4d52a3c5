//! What is asked of a lake's store, for Prometheus, as OpenMetrics: a cloud bills each request.
//!
//! Counted is what this process asked for through this lake, by kind, since it opened it.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::NoLabelSet;
use prometheus_client::metrics::MetricType;
use tjern_readings::store::Store;

use crate::Lake;

/// The requests of a lake's store; register it once with a process's metrics.
#[derive(Debug)]
pub struct StoreMetrics(Store);

impl StoreMetrics {
    /// Of this lake and its clones.
    #[must_use]
    pub fn new(lake: &Lake) -> Self {
        Self(lake.store().clone())
    }
}

impl Collector for StoreMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Requests to the lake's store, by kind; pages of listings count one by one, deletes are not billed";
        // `_total` is added to the name.
        let mut family = encoder.encode_descriptor("tjern_store_requests", help, None, MetricType::Counter)?;
        let counts = self.0.requests();
        let kinds = [("put", counts.puts), ("get", counts.gets), ("list", counts.lists), ("delete", counts.deletes)];
        for (kind, count) in kinds {
            family.encode_family(&[("kind", kind)])?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        Ok(())
    }
}
