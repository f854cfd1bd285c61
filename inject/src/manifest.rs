//! The sidecar in a manifest, for those who want everything that runs to stand in Git.
//!
//! Documents that need no change are given back byte for byte; comments of those that do are lost.

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use serde_json::{Value, json};

use crate::container::QUIESCE_PATH;
use crate::fields::hook;
use crate::{Injection, Workload};

/// Why a text cannot be rewritten.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError<E> {
    /// It is no YAML.
    #[error("document {document} is not valid YAML: {source}")]
    Yaml {
        /// Counted from 1.
        document: usize,
        source: serde_yaml::Error,
    },
    /// The caller could not decide.
    #[error(transparent)]
    Object(E),
}

/// Shows `change` every object of a YAML text, also those in a List, and gives back the text with what it changed. `change`
/// says whether it did.
///
/// # Errors
/// [`ManifestError`]: the text is no YAML, or `change` failed.
pub fn rewrite<E>(
    text: &str,
    mut change: impl FnMut(&mut Value) -> Result<bool, E>,
) -> Result<String, ManifestError<E>> {
    let mut written = String::new();
    for (at, document) in documents(text).into_iter().enumerate() {
        let yaml = |source| ManifestError::Yaml { document: at + 1, source };
        let mut value: Value = serde_yaml::from_str(document.body).map_err(yaml)?;
        written.push_str(document.marker);
        if all(&mut value, &mut change).map_err(ManifestError::Object)? {
            if !document.marker.is_empty() && !document.marker.ends_with('\n') {
                written.push('\n');
            }
            written.push_str(&serde_yaml::to_string(&value).map_err(yaml)?);
        } else {
            written.push_str(document.body);
        }
    }
    Ok(written)
}

fn all<E>(value: &mut Value, change: &mut impl FnMut(&mut Value) -> Result<bool, E>) -> Result<bool, E> {
    let is_list = value["kind"].as_str().is_some_and(|kind| kind == "List");
    let Some(items) = value.get_mut("items").and_then(Value::as_array_mut).filter(|_| is_list) else {
        return if value.is_object() { change(value) } else { Ok(false) };
    };
    let mut is_changed = false;
    for item in items {
        is_changed |= all(item, change)?;
    }
    Ok(is_changed)
}

/// A document, and the line before it that begins it.
struct Document<'a> {
    marker: &'a str,
    body: &'a str,
}

fn documents(text: &str) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    let (mut marker, mut body) = (0..0, 0..0);
    for line in text.split_inclusive('\n') {
        let start = body.end;
        body.end = start + line.len();
        let rest = line.strip_prefix("---");
        // What follows on the marker's line belongs to the document.
        if rest.is_some_and(|rest| rest.trim().is_empty() || rest.trim_start().starts_with('#')) {
            documents.push(Document { marker: &text[marker.clone()], body: &text[body.start..start] });
            marker = start..body.end;
            body = body.end..body.end;
        }
    }
    documents.push(Document { marker: &text[marker], body: &text[body] });
    documents
}

/// A Deployment or StatefulSet as planning needs it; none of another kind.
///
/// # Errors
/// It is one, but not of the form that Kubernetes takes.
pub fn workload(value: &Value) -> Result<Option<Workload>, serde_json::Error> {
    let is = |kind: &str| value["apiVersion"] == "apps/v1" && value["kind"] == kind;
    if is("Deployment") {
        let object: Deployment = serde_json::from_value(value.clone())?;
        return Ok(Some(Workload::from(&object)));
    }
    if is("StatefulSet") {
        let object: StatefulSet = serde_json::from_value(value.clone())?;
        return Ok(Some(Workload::from(&object)));
    }
    Ok(None)
}

/// Puts a sidecar into a workload that has none.
pub fn put_in(value: &mut Value, injection: &Injection) {
    let pod = &mut value["spec"]["template"]["spec"];
    let mut init = vec![json!(injection.container)];
    if let Some(Value::Array(others)) = pod.get_mut("initContainers") {
        init.append(others);
    }
    pod["initContainers"] = Value::Array(init);
    for container in pod["containers"].as_array_mut().into_iter().flatten() {
        let name = container["name"].as_str().unwrap_or_default();
        let Some((_, port)) = injection.hooks.iter().find(|(hooked, _)| hooked == name) else { continue };
        let mut hook = json!(hook(*port));
        let pre_stop = hook["preStop"].take();
        container["lifecycle"]["preStop"] = pre_stop;
    }
}

/// Takes everything of Capstan's out of a workload; whether there was anything.
pub fn take_out(value: &mut Value) -> bool {
    let template = &mut value["spec"]["template"];
    let mut is_changed = false;
    if let Some(annotations) = template["metadata"].get_mut("annotations").and_then(Value::as_object_mut) {
        is_changed |= annotations.shift_remove(crate::identity::ANNOTATION).is_some();
        if annotations.is_empty() && is_changed {
            remove(&mut template["metadata"], "annotations");
        }
    }
    let pod = &mut template["spec"];
    if let Some(init) = pod.get_mut("initContainers").and_then(Value::as_array_mut) {
        let before = init.len();
        init.retain(|container| !is_sidecar(container));
        is_changed |= init.len() < before;
        if init.is_empty() && before > 0 {
            remove(pod, "initContainers");
        }
    }
    for container in pod["containers"].as_array_mut().into_iter().flatten() {
        is_changed |= unhook(container);
    }
    is_changed
}

fn is_sidecar(container: &Value) -> bool {
    container["name"] == capstan_crds::label::SIDECAR && container["restartPolicy"] == "Always"
}

fn unhook(container: &mut Value) -> bool {
    if container.pointer("/lifecycle/preStop/httpGet/path") != Some(&json!(QUIESCE_PATH)) {
        return false;
    }
    remove(&mut container["lifecycle"], "preStop");
    if container["lifecycle"].as_object().is_some_and(serde_json::Map::is_empty) {
        remove(container, "lifecycle");
    }
    true
}

fn remove(value: &mut Value, name: &str) {
    if let Some(map) = value.as_object_mut() {
        map.shift_remove(name);
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::testing::{claimants, images, reference};
    use crate::{Action, plan};

    const TEXT: &str = "# The shop.\napiVersion: v1\nkind: ConfigMap   # stays\nmetadata: {name: a}\n--- # second\napiVersion: apps/v1\nkind: Deployment\n\
        metadata: {name: web, namespace: shop}\nspec:\n  selector: {matchLabels: {app: web}}\n  template:\n    metadata: {labels: {app: web}}\n    spec:\n\
        \x20     containers:\n      - {name: app, image: a}\n      - {name: own, image: a, lifecycle: {preStop: {exec: {command: [a]}}}}\n---\n# the end\n";

    fn injected(text: &str, more: &str) -> String {
        rewrite(text, |value| {
            let Some(workload) = workload(value).unwrap() else { return Ok::<_, Infallible>(false) };
            let plan =
                plan("shop", &reference(), Some(&workload), &claimants(&[("one", "a", more)]), &images());
            let Action::Inject(injection) = plan.action else { panic!("{:?}", plan.target) };
            put_in(value, &injection);
            Ok(true)
        })
        .unwrap()
    }

    fn uninjected(text: &str) -> String {
        rewrite(text, |value| Ok::<_, Infallible>(take_out(value))).unwrap()
    }

    #[test]
    fn what_needs_no_change_stays_as_it_is() {
        assert_eq!(rewrite(TEXT, |_| Ok::<_, Infallible>(false)).unwrap(), TEXT);
        assert_eq!(uninjected(TEXT), TEXT);
        for text in ["", "---\n", "a: 1", "---\na: 1\n---\n---\nb: 2"] {
            assert_eq!(rewrite(text, |_| Ok::<_, Infallible>(false)).unwrap(), text);
        }
    }

    #[test]
    fn a_sidecar_goes_in_and_out() {
        let with = injected(TEXT, "sidecar: {appPreStop: Inject}");
        assert!(with.starts_with("# The shop.\n") && with.contains("kind: ConfigMap   # stays\n"), "{with}");
        assert!(with.contains("--- # second\n") && with.ends_with("---\n# the end\n"), "{with}");
        let mut seen = Vec::new();
        let _ = rewrite(&with, |value| {
            seen.push(value.clone());
            Ok::<_, Infallible>(false)
        });
        let pod = &seen[1]["spec"]["template"]["spec"];
        assert_eq!(pod["initContainers"][0]["name"], "capstan");
        assert_eq!(pod["containers"][0]["lifecycle"]["preStop"]["httpGet"]["port"], 9798);
        assert_eq!(pod["containers"][1]["lifecycle"], json!({"preStop": {"exec": {"command": ["a"]}}}));
        let parsed = |text: &str| serde_yaml::from_str::<Value>(documents(text)[1].body).unwrap();
        assert_eq!(parsed(&uninjected(&with)), parsed(TEXT));
    }

    #[test]
    fn an_operator_takes_it_for_what_it_is() {
        let with = injected(TEXT, "");
        let value: Value = serde_yaml::from_str(documents(&with)[1].body).unwrap();
        let found = workload(&value).unwrap().unwrap();
        let plan = plan("shop", &reference(), Some(&found), &claimants(&[("one", "a", "")]), &images());
        assert_eq!((plan.action, plan.target.holds, plan.is_manual), (Action::Leave, true, true));
    }

    #[test]
    fn lists_are_looked_into() {
        let text =
            "kind: List\napiVersion: v1\nitems:\n- {kind: A, apiVersion: v1}\n- {kind: B, apiVersion: v1}\n";
        let mut kinds = Vec::new();
        let changed = rewrite(text, |value| {
            kinds.push(value["kind"].clone());
            value["x"] = json!(1);
            Ok::<_, Infallible>(true)
        });
        assert_eq!(kinds, ["A", "B"]);
        assert_eq!(changed.unwrap().matches("x: 1").count(), 2);
    }
}
