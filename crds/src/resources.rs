//! Requests and limits of a container.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Quantity;

/// What a container asks for and may use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// What the scheduler reserves, by resource name such as `cpu`, `memory`. At most 16.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub requests: BTreeMap<String, Quantity>,
    /// What the container may use at most, by resource name such as `cpu`, `memory`. At most 16.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub limits: BTreeMap<String, Quantity>,
}

impl Resources {
    pub(crate) fn literal(
        requests: &[(&'static str, &'static str)],
        limits: &[(&'static str, &'static str)],
    ) -> Self {
        let map = |pairs: &[(&'static str, &'static str)]| {
            let entry = |(name, amount): &(&'static str, &'static str)| {
                ((*name).to_owned(), Quantity::literal(amount))
            };
            pairs.iter().map(entry).collect()
        };
        Self { requests: map(requests), limits: map(limits) }
    }
}
