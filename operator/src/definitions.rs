//! Whether the CustomResourceDefinitions of the cluster have every field that this operator knows.
//!
//! An API server drops fields that its definitions lack, so an operator that is newer than them would write statuses that vanish,
//! and read specs without what their users wrote.

use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Client};
use serde_json::Value;
use tracing::{error, info, warn};

use crate::api::{ApiError, bounded};
use crate::health::Ready;

/// How often they are looked at, until they are as they should be.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Fields that are named; the rest is counted.
const NAMED_MAX: usize = 8;

/// Returns when the definitions have every field. Until then `ready` and the log say what is missing.
pub(crate) async fn until_current(client: &Client, ready: &Ready) {
    let mut said = String::new();
    loop {
        match look(client).await {
            Ok(()) => return info!("the definitions have every field"),
            Err(Problem::Unreadable(text)) => {
                return warn!("whether the definitions are new enough is not known: {text}");
            }
            Err(Problem::Lacking(text)) => {
                ready.waits_for(&text);
                if text != said {
                    error!("{text}");
                }
                said = text;
            }
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Why nothing is known of the definitions, or what they lack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Problem {
    /// The account may not read them.
    Unreadable(String),
    Lacking(String),
}

/// Looks at all definitions once.
pub(crate) async fn look(client: &Client) -> Result<(), Problem> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let mut problems = Vec::new();
    for ours in capstan_crds::definitions() {
        let name = ours["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        match bounded(api.get_opt(&name)).await {
            Ok(Some(found)) => {
                let found = serde_json::to_value(found).unwrap_or_default();
                problems.extend(lacks(&ours, &found).map(|what| {
                    format!("the CustomResourceDefinition {name} {what}: upgrade the chart capstan-crds")
                }));
            }
            Ok(None) => problems.push(format!(
                "the CustomResourceDefinition {name} is missing: install the chart capstan-crds"
            )),
            Err(ApiError::Refused(text)) => return Err(Problem::Unreadable(text)),
            Err(error) => return Err(Problem::Lacking(error.to_string())),
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(Problem::Lacking(problems.join("; "))) }
}

/// What a definition lacks of ours: a version, or fields. It may have more. Pure.
fn lacks(ours: &Value, found: &Value) -> Option<String> {
    for version in ours["spec"]["versions"].as_array().into_iter().flatten() {
        let versions = found["spec"]["versions"].as_array();
        let same = versions.into_iter().flatten().find(|one| one["name"] == version["name"]);
        let Some(same) = same.filter(|one| one["served"] == true) else {
            return Some(format!("does not serve {}", version["name"].as_str().unwrap_or_default()));
        };
        let mut missing = Vec::new();
        let schema = |version: &Value| version["schema"]["openAPIV3Schema"].clone();
        walk(&schema(version), &schema(same), "", &mut missing);
        if !missing.is_empty() {
            let more = missing.len().saturating_sub(NAMED_MAX);
            missing.truncate(NAMED_MAX);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            return Some(format!("lacks {}{more}", missing.join(", ")));
        }
    }
    None
}

/// Adds the fields that a schema lacks, without those below them.
fn walk(ours: &Value, found: &Value, path: &str, missing: &mut Vec<String>) {
    if found["x-kubernetes-preserve-unknown-fields"] == true {
        return;
    }
    for (name, field) in ours["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        match found["properties"].get(name) {
            Some(same) => walk(field, same, &path, missing),
            None => missing.push(path),
        }
    }
    for (inner, mark) in [("items", "[]"), ("additionalProperties", ".*")] {
        if ours[inner].is_object() {
            walk(&ours[inner], &found[inner], &format!("{path}{mark}"), missing);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn consumers() -> Value {
        capstan_crds::definitions()[1].clone()
    }

    fn schema(definition: &mut Value) -> &mut Value {
        &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    }

    #[test]
    fn what_we_were_compiled_with_is_enough_and_so_is_more() {
        for ours in capstan_crds::definitions() {
            assert_eq!(lacks(&ours, &ours), None);
        }
        let mut newer = consumers();
        schema(&mut newer)["properties"]["spec"]["properties"]["novel"] =
            serde_json::json!({"type": "string"});
        let older = newer["spec"]["versions"][0].clone();
        newer["spec"]["versions"]
            .as_array_mut()
            .unwrap()
            .insert(0, serde_json::json!({"name": "v1", "served": true}));
        assert_eq!(lacks(&consumers(), &newer), None, "{older}");
    }

    #[test]
    fn a_field_that_is_missing_is_named_with_its_path() {
        let mut old = consumers();
        let spec = &mut schema(&mut old)["properties"]["spec"]["properties"];
        spec["sidecar"]["properties"].as_object_mut().unwrap().remove("gatewayPort").unwrap();
        spec.as_object_mut().unwrap().remove("maxRetries").unwrap();
        let status = &mut schema(&mut old)["properties"]["status"]["properties"]["conditions"]["items"];
        status["properties"].as_object_mut().unwrap().remove("reason").unwrap();
        let text = lacks(&consumers(), &old).unwrap();
        let named: Vec<&str> = text.strip_prefix("lacks ").unwrap().split(", ").collect();
        assert_eq!(named.len(), 3, "{text}");
        for path in ["spec.maxRetries", "spec.sidecar.gatewayPort", "status.conditions[].reason"] {
            assert!(named.contains(&path), "{text}");
        }
    }

    #[test]
    fn many_fields_are_counted() {
        let mut old = consumers();
        schema(&mut old)["properties"]["spec"]["properties"] = serde_json::json!({});
        let text = lacks(&consumers(), &old).unwrap();
        assert!(text.contains(" more") && text.matches(", ").count() == NAMED_MAX - 1, "{text}");
    }

    #[test]
    fn a_version_that_is_not_served_is_named() {
        let mut old = consumers();
        old["spec"]["versions"][0]["served"] = false.into();
        assert_eq!(lacks(&consumers(), &old).as_deref(), Some("does not serve v1alpha1"));
        old["spec"]["versions"][0]["name"] = "v1alpha0".into();
        assert_eq!(lacks(&consumers(), &old).as_deref(), Some("does not serve v1alpha1"));
    }
}
